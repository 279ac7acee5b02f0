import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Failure } from '../../../src/api/failure.ts';
import type { ImageSite } from '../../../src/api/types.ts';
import { type KubernetesStore, openKubernetesStore } from '../../../src/stores/kubernetes/index.ts';
import { objectPath, RESOURCES } from '../../../src/stores/kubernetes/resources.ts';
import type { Resource } from '../../../src/stores/store.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually, startApiServer } from '../../support/apiserver.ts';
import { type ApiFaultProxy, startApiFaultProxy } from '../../support/kubernetes/fault-proxy.ts';
import { TestLog } from '../../unit/stores/support.ts';

const SITES = '/imagesites';

/** A cluster that is not ours (TEST_KUBECONFIG) must not be stopped. */
describe.skipIf((process.env['TEST_KUBECONFIG'] ?? '') !== '')('when the API server, or the way to it, fails', () => {
  let server: ApiServer;
  let proxy: ApiFaultProxy;
  let kubeconfig: string;
  let store: KubernetesStore;
  let log: TestLog;
  const open: KubernetesStore[] = [];
  /** `Applied a 1`: name and description, in the order in which a subscriber heard of them. */
  let heard: string[];

  beforeAll(async () => {
    server = await startApiServer();
    await server.namespace('default');
    await server.namespace('imageproxy');
  }, API_SERVER_PATIENCE_MS);
  afterAll(() => server?.stop());

  beforeEach(async () => {
    proxy = await startApiFaultProxy(server);
    kubeconfig = await server.writeConfig('through-proxy', { server: proxy.url });
    log = new TestLog();
    heard = [];
    store = await make();
  });
  afterEach(async () => {
    for (const each of open.splice(0)) await each.close();
    await proxy.stop();
    await server.request({ method: 'DELETE', path: '/apis/imageproxy.dev/v1beta1/imagesites' });
  });

  const make = async (config = kubeconfig): Promise<KubernetesStore> => {
    const made = await openKubernetesStore({ kubeconfig: config, controllerNamespace: 'imageproxy', log });
    open.push(made);
    await made.start(new AbortController().signal);
    made.subscribe<ImageSite>('ImageSite', ({ type, object: { metadata, spec } }) => {
      heard.push(`${type} ${metadata.name} ${spec.maxParallelUploads}`);
    });
    return made;
  };
  /** What a user does, straight at the server. */
  const put = (name: string, maxParallelUploads: number): Promise<Resource> =>
    server.apply<Resource>(objectPath(RESOURCES.ImageSite, { name }), {
      apiVersion: 'imageproxy.dev/v1beta1',
      kind: 'ImageSite',
      metadata: { name },
      spec: { directory: { path: `/srv/${name}` }, maxParallelUploads },
    });
  const remove = (name: string) =>
    server.request({ method: 'DELETE', path: objectPath(RESOURCES.ImageSite, { name }) });
  const hears = (line: string) =>
    eventually(`a subscriber hears "${line}"`, async () => {
      if (!heard.includes(line)) throw new Error(heard.join(', '));
    });
  const requests = (pattern: RegExp) => proxy.seen.filter((line) => pattern.test(line));
  const lists = () => requests(/imagesites\?limit/).length;

  test('a watch that is cut goes on where it was: nothing is missed, nothing is told twice, nothing is listed again', async () => {
    await put('a', 1);
    await hears('Applied a 1');
    for (let round = 2; round < 6; round++) {
      expect(proxy.cutWatches()).toBeGreaterThan(0);
      await put('a', round);
      await put(`b${round}`, round);
      await hears(`Applied b${round} ${round}`);
    }
    await remove('a');
    await hears('Deleted a 5');
    expect(heard.filter((line) => line.includes(' a '))).toEqual([
      'Applied a 1',
      'Applied a 2',
      'Applied a 3',
      'Applied a 4',
      'Applied a 5',
      'Deleted a 5',
    ]);
    expect(lists()).toBe(1);
  });

  test('an expired version is answered by a new list, from which also deletions are known', async () => {
    await put('a', 1);
    await put('gone', 1);
    await hears('Applied gone 1');
    const expired = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version' };
    proxy.fault({ path: /imagesites\?.*watch=true/, status: 410, body: expired });
    proxy.cutWatches();
    await remove('gone');
    await put('a', 2);
    await put('new', 1);
    await hears('Applied new 1');
    await hears('Deleted gone 1');
    expect(lists()).toBe(2);
    expect([...heard].toSorted()).toEqual([
      'Applied a 1',
      'Applied a 2',
      'Applied gone 1',
      'Applied new 1',
      'Deleted gone 1',
    ]);
  });

  test('an ERROR event that says 410 is the same', async () => {
    await put('a', 1);
    await hears('Applied a 1');
    proxy.inject({ type: 'ERROR', object: { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' } });
    await eventually('it was listed again', async () => expect(lists()).toBe(2));
    await put('a', 2);
    await hears('Applied a 2');
    expect(heard).toEqual(['Applied a 1', 'Applied a 2']);
  });

  test('a watch that brings no JSON is made anew', async () => {
    await eventually('watches are open', async () => expect(proxy.openWatches).toBeGreaterThan(4));
    proxy.inject('not an event' as unknown as object);
    await put('a', 1);
    await hears('Applied a 1');
    expect(heard).toEqual(['Applied a 1']);
  });

  test('a 429 with Retry-After is waited for, by a watch and by a write', async () => {
    const busy = { kind: 'Status', code: 429, reason: 'TooManyRequests', message: 'too many requests' };
    const object = await put('a', 1);
    await hears('Applied a 1');
    proxy.fault({ path: /imagesites\?.*watch=true/, status: 429, headers: { 'retry-after': '1' }, body: busy });
    proxy.fault({ path: /imagesites\/a\/status/, status: 429, headers: { 'retry-after': '1' }, body: busy });
    const cut = performance.now();
    proxy.cutWatches();
    const written = await store.applyStatus(object, { observedGeneration: 1 });
    expect(performance.now() - cut).toBeGreaterThanOrEqual(1000);
    expect(written).toMatchObject({ status: { observedGeneration: 1 } });
    expect(requests(/PATCH .*\/status/)).toHaveLength(2);
    await put('a', 2);
    await hears('Applied a 2');
    expect(log.messages('warn').some((line) => line.includes('too many requests'))).toBe(true);
  });

  test('a refused watch is tried again and again, and heals by itself', async () => {
    proxy.fault({ path: /imagesites\?.*watch=true/, status: 500, times: 2, body: { kind: 'Status', code: 500 } });
    proxy.cutWatches();
    await put('a', 1);
    await hears('Applied a 1');
    expect(lists()).toBe(1);
  });

  test('an API server that is killed and comes back is found again, and what happened to objects since is told once', async () => {
    await put('a', 1);
    await put('b', 1);
    await hears('Applied b 1');
    await server.killServer();
    const lost = (await store
      .applyStatus(store.get('ImageSite', { name: 'a' }) as Resource, { observedGeneration: 1 })
      .then(
        () => undefined,
        (error: unknown) => error,
      )) as Failure | undefined;
    expect(lost).toMatchObject({ name: 'Failure', failureClass: 'Transient' });
    // What is known is still there to be read.
    expect(store.list('ImageSite')).toHaveLength(2);
    await server.startServer();
    await put('a', 2);
    await remove('b');
    await hears('Applied a 2');
    await hears('Deleted b 1');
    expect(heard.filter((line) => line.startsWith('Applied a'))).toEqual(['Applied a 1', 'Applied a 2']);
    expect(heard.filter((line) => line.startsWith('Deleted'))).toEqual(['Deleted b 1']);
  });

  test('a token that ran out is read again from its file', async () => {
    const file = join(server.kubeconfig, '..', 'token');
    await writeFile(file, server.token);
    const config = await server.writeConfig('token-file', { tokenFile: file, server: proxy.url });
    const other = await make(config);
    proxy.fault({ path: /imagesites\/a/, status: 401, body: { kind: 'Status', code: 401, reason: 'Unauthorized' } });
    const object = await put('a', 1);
    expect(await other.applyStatus(object, { observedGeneration: 1 })).toBeDefined();
    // One that stays wrong is told, with the cure.
    await writeFile(file, 'wrong');
    proxy.fault({ path: /imagesites\/a/, status: 401, body: { kind: 'Status', code: 401, reason: 'Unauthorized' } });
    await expect(other.applyStatus(object, { observedGeneration: 0 })).rejects.toMatchObject({
      reason: 'Unauthorized',
      message: expect.stringContaining('log in again'),
    });
  });

  test('what the copy knows from an answer is not undone by a watch that is behind', async () => {
    await put('a', 1);
    await hears('Applied a 1');
    proxy.freezeWatches();
    const object = store.get<Resource>('ImageSite', { name: 'a' }) as Resource;
    await store.addFinalizer(object, 'imageproxy.dev/site-in-use');
    await store.applyStatus(object, { observedGeneration: 1 });
    expect(store.get('ImageSite', { name: 'a' })).toMatchObject({ status: { observedGeneration: 1 } });
    await store.delete('ImageSite', { name: 'a' });
    await store.removeFinalizer(object, 'imageproxy.dev/site-in-use');
    expect(store.get('ImageSite', { name: 'a' })).toBeUndefined();
    // The watch comes back, and tells of its whole life since.
    proxy.cutWatches();
    await put('z', 1);
    await hears('Applied z 1');
    expect(store.get('ImageSite', { name: 'a' })).toBeUndefined();
    expect(heard.filter((line) => line.startsWith('Deleted a'))).toHaveLength(1);
    expect(heard.indexOf('Deleted a 1')).toBeGreaterThan(heard.lastIndexOf('Applied a 1'));
  });

  test('says at the start which right is missing, or which kind', async () => {
    const forbidden = {
      kind: 'Status',
      code: 403,
      reason: 'Forbidden',
      message: 'vmimages.imageproxy.dev is forbidden: User "x" cannot list resource "vmimages"',
    };
    proxy.fault({ path: /vmimages/, status: 403, times: 5, body: forbidden });
    await expect(make()).rejects.toMatchObject({
      reason: 'Forbidden',
      message: expect.stringMatching(/cannot list resource "vmimages".*Role/),
    });
    const bare = await startApiFaultProxy(server);
    try {
      bare.fault({ path: new RegExp(SITES), status: 404, times: 5 });
      const config = await server.writeConfig('no-crd', { server: bare.url });
      await expect(make(config)).rejects.toMatchObject({
        reason: 'NotFound',
        message: expect.stringContaining('kubectl apply --server-side -f crds/'),
      });
    } finally {
      await bare.stop();
    }
  });
});
