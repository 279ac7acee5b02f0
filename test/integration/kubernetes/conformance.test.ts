import { afterAll, beforeAll } from 'vitest';
import { type KubernetesStore, openKubernetesStore } from '../../../src/stores/kubernetes/index.ts';
import { collectionPath, objectPath, RESOURCES } from '../../../src/stores/kubernetes/resources.ts';
import type { Kind, Resource } from '../../../src/stores/store.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually, startApiServer } from '../../support/apiserver.ts';
import { storeConformance } from '../../unit/stores/conformance.ts';
import { TestLog } from '../../unit/stores/support.ts';

let server: ApiServer;
beforeAll(async () => {
  server = await startApiServer();
  for (const name of ['default', 'other', 'imageproxy']) await server.namespace(name);
}, API_SERVER_PATIENCE_MS);
afterAll(() => server?.stop());

const spec = (name: string) => ({
  source: { http: { urls: [`https://example.org/${name}.qcow2`] } },
  checksums: { sha256: '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08' },
  sites: [{ name: 'nova-east' }],
});

storeConformance('A Kubernetes API server', async () => {
  const stores: KubernetesStore[] = [];
  const open = async (): Promise<KubernetesStore> => {
    const opened = await openKubernetesStore({
      kubeconfig: server.kubeconfig,
      controllerNamespace: 'imageproxy',
      log: new TestLog(),
    });
    stores.push(opened);
    await opened.start(new AbortController().signal);
    return opened;
  };
  await removeAll();
  let store = await open();
  /** What the store must have seen before all that the user did is in it. */
  let seen: (() => boolean)[] = [];

  return {
    get store() {
      return store;
    },
    user: {
      async put({ data, ...draft }) {
        const kind = draft.kind as Kind;
        const body = { ...draft, ...(kind === 'Secret' ? { stringData: data } : data === undefined ? {} : { data }) };
        const { metadata } = await server.apply<Resource>(objectPath(RESOURCES[kind], draft.metadata), body);
        seen.push(
          () => Number(store.get(kind, metadata)?.metadata.resourceVersion) >= Number(metadata.resourceVersion),
        );
      },
      async remove(kind, key) {
        const path = objectPath(RESOURCES[kind], key);
        const { metadata } = await server.request<Resource>({ method: 'GET', path });
        await server.request({ method: 'DELETE', path });
        seen.push(() => {
          const known = store.get(kind, key);
          return known?.metadata.uid !== metadata.uid || known.metadata.deletionTimestamp !== undefined;
        });
      },
    },
    async settle() {
      await eventually('the store has seen all that the user did', async () => {
        const open = seen.filter((done) => !done()).length;
        if (open > 0) throw new Error(`${open} changes have not been seen`);
      });
      seen = [];
    },
    async restart() {
      await store.close();
      store = await open();
      return store;
    },
    async dispose() {
      for (const each of stores) await each.close();
      await removeAll();
    },
    specs: [spec('a'), { ...spec('b'), deletionPolicy: 'Retain' }],
    status: (observedGeneration, percent) => ({
      observedGeneration,
      ...(percent === undefined ? {} : { progress: { percent } }),
    }),
  };
});

/** Each test begins on an empty cluster. */
async function removeAll(): Promise<void> {
  const { items } = await server.request<{ items: Resource[] }>({
    method: 'GET',
    path: collectionPath(RESOURCES.VMImage),
  });
  for (const item of items) {
    const path = objectPath(RESOURCES.VMImage, item.metadata);
    if (item.metadata.finalizers !== undefined)
      await server.request({
        method: 'PATCH',
        path,
        contentType: 'application/merge-patch+json',
        body: { metadata: { finalizers: null } },
      });
    await server.request({ method: 'DELETE', path }).catch(() => undefined);
  }
  for (const kind of ['Secret', 'ConfigMap'] as const)
    await server.request({ method: 'DELETE', path: collectionPath(RESOURCES[kind], 'default') });
}
