import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ImageSite, VMImage } from '../../../src/api/types.ts';
import { type ControllerOptions, type RunningController, startControllerOn } from '../../../src/cli/controller.ts';
import {
  type KubernetesStore,
  type KubernetesStoreOptions,
  openKubernetesStore,
} from '../../../src/stores/kubernetes/index.ts';
import { objectPath, RESOURCES } from '../../../src/stores/kubernetes/resources.ts';
import type { Kind, ObjectKey, Resource } from '../../../src/stores/store.ts';
import { createLogger, type Logger } from '../../../src/telemetry/log.ts';
import { rightCounts, rule } from '../../support/accounts.ts';
import { type ApiServer, type ApiServerOptions, eventually, startApiServer } from '../../support/apiserver.ts';
import { directorySite, type Manifest } from '../../support/house.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { Program } from '../cli/program.ts';

const GiB = 2 ** 30;

/** An API server with kinds and namespaces, an origin beside it, and a directory site `shelf` on it: what most suites begin with. */
export interface Bench {
  server: ApiServer;
  origin: Origin;
  cluster: Cluster;
  close(): Promise<void>;
}

export async function openBench(options: ApiServerOptions = {}): Promise<Bench> {
  const [server, origin] = await Promise.all([startApiServer(options), startOrigin()]);
  const cluster = new Cluster(server);
  const close = async (): Promise<void> => {
    await cluster.close();
    await Promise.all([server.stop(), origin.close()]);
  };
  try {
    for (const name of ['default', 'imageproxy']) await server.namespace(name);
    await cluster.apply(directorySite('shelf', cluster.shelf));
  } catch (error) {
    await close();
    throw error;
  }
  return { server, origin, cluster, close };
}

/** `imageproxy run --kubernetes` as a pod of this name would run it, with a cache of its own below `root`. */
export function runPod(root: string, name: string, kubeconfig: string, ...more: readonly string[]): Program {
  return runPodWith({}, root, name, kubeconfig, ...more);
}

/** With variables of the environment besides. */
export function runPodWith(
  env: Readonly<Record<string, string>>,
  root: string,
  name: string,
  kubeconfig: string,
  ...more: readonly string[]
): Program {
  return new Program(
    ['run', '--kubernetes', '--kubeconfig', kubeconfig, '--log-format', 'json', '--allow-network', '127.0.0.0/8']
      .concat(['--cache', cacheOf(root, name), '--cache-quota', '1Gi'])
      .concat(more.includes('--telemetry') ? [] : ['--telemetry', 'off'])
      .concat(more),
    { ...env, POD_NAME: name, IMAGEPROXY_STATE: join(root, `${name}-state`) },
  );
}

/** A ServiceAccount that may do everything; resolves to the user that the API server takes its token for. */
export async function makeAccount(server: ApiServer, name: string): Promise<string> {
  const namespace = 'imageproxy';
  await server.apply(`/api/v1/namespaces/${namespace}/serviceaccounts/${name}`, {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name, namespace },
  });
  await server.apply(`/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/${name}`, {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
    subjects: [{ kind: 'ServiceAccount', name, namespace }],
  });
  const user = `system:serviceaccount:${namespace}:${name}`;
  await rightCounts(server, user, rule('', ['secrets'], ['list']));
  return user;
}

/** A token of it; good for as long as the Secret exists that it is bound to, where one is named. */
export async function tokenOf(server: ApiServer, account: string, boundTo?: string): Promise<string> {
  const boundObjectRef =
    boundTo === undefined ? {} : { boundObjectRef: { kind: 'Secret', apiVersion: 'v1', name: boundTo } };
  const { status } = await server.request<{ status: { token: string } }>({
    method: 'POST',
    path: `/api/v1/namespaces/imageproxy/serviceaccounts/${account}/token`,
    body: {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { expirationSeconds: 600, ...boundObjectRef },
    },
  });
  return status.token;
}

export function cacheOf(root: string, name: string): string {
  return join(root, `${name}-cache`);
}

/** The controllers, on a real API server; what a user does with kubectl goes to the server and not through the store. */
export class Cluster {
  readonly server: ApiServer;
  readonly root: string;
  /** For a directory site. */
  readonly shelf: string;
  readonly log: Logger;
  readonly lines: string[] = [];
  #running: { controller: RunningController<KubernetesStore>; stop: AbortController } | undefined;

  constructor(server: ApiServer) {
    this.server = server;
    this.root = mkdtempSync(join(tmpdir(), 'imageproxy-cluster-'));
    this.shelf = join(this.root, 'shelf');
    mkdirSync(this.shelf);
    const destination = { write: (line: string) => void this.lines.push(line) };
    this.log = createLogger({ level: 'debug', pretty: false, destination });
  }

  async start(
    more: Partial<KubernetesStoreOptions> = {},
    how: (store: KubernetesStore) => Partial<ControllerOptions> = () => ({}),
  ): Promise<this> {
    const stop = new AbortController();
    const { kubeconfig } = this.server;
    const store = await openKubernetesStore({ kubeconfig, controllerNamespace: 'imageproxy', log: this.log, ...more });
    const controller = await startControllerOn(
      store,
      {
        state: this.root,
        allowNetworks: ['127.0.0.0/8'],
        fileRoots: new Map(),
        maxParallelDownloads: 4,
        cacheQuotaBytes: GiB,
        cacheReserveFreeBytes: 0,
        lossConfirmMs: 100,
        log: this.log,
        ...how(store),
      },
      stop.signal,
    );
    this.#running = { controller, stop };
    return this;
  }

  get store(): KubernetesStore {
    if (this.#running === undefined) throw new Error('the controllers do not run');
    return this.#running.controller.store;
  }

  async stop(): Promise<void> {
    this.#running?.stop.abort();
    await this.#running?.controller.done;
    this.#running = undefined;
  }

  async close(): Promise<void> {
    await this.stop();
    if (existsSync(this.root)) rmSync(this.root, { recursive: true, force: true });
  }

  async apply(...objects: Manifest[]): Promise<void> {
    for (const { metadata, ...object } of objects) {
      const { apiVersion, namespaced } = RESOURCES[object.kind as Kind];
      const key = namespaced ? { namespace: 'default', ...metadata } : metadata;
      await this.server.apply(objectPath(RESOURCES[object.kind as Kind], key), {
        apiVersion,
        ...object,
        metadata: key,
      });
    }
  }

  async delete(kind: Kind, key: ObjectKey): Promise<void> {
    await this.server.request({ method: 'DELETE', path: objectPath(RESOURCES[kind], key) });
  }

  /** What `kubectl get -o json` would show. */
  get<T extends Resource>(kind: Kind, key: ObjectKey): Promise<T> {
    return this.server.request<T>({ method: 'GET', path: objectPath(RESOURCES[kind], key) });
  }

  image(name: string): Promise<VMImage> {
    return this.get<VMImage>('VMImage', { namespace: 'default', name });
  }

  site(name: string): Promise<ImageSite> {
    return this.get<ImageSite>('ImageSite', { name });
  }

  until(name: string, wanted: (image: VMImage) => boolean, what: string): Promise<VMImage> {
    return eventually(`${name} is ${what}`, async () => {
      const image = await this.image(name);
      if (!wanted(image)) throw new Error(JSON.stringify(image.status, undefined, 1));
      return image;
    });
  }

  /** What `kubectl wait --for=condition=Ready` waits for; and nothing else that reads kstatus is told otherwise. */
  async ready(name: string): Promise<VMImage> {
    const isReady = ({ metadata, status }: VMImage) =>
      status.observedGeneration === metadata.generation &&
      status.conditions?.some(({ type, status: value }) => type === 'Ready' && value === 'True') === true;
    const image = await this.until(name, isReady, 'Ready');
    expectKstatus(image);
    return image;
  }

  async gone(kind: Kind, key: ObjectKey): Promise<void> {
    await eventually(`${kind} ${key.name} is gone`, async () => {
      const there = await this.get(kind, key).catch((error: unknown) => {
        if ((error as { status?: number }).status === 404) return undefined;
        throw error;
      });
      if (there !== undefined) throw new Error(JSON.stringify(there, undefined, 1));
    });
  }
}
