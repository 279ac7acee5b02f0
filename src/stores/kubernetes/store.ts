import { hostname } from 'node:os';
import { Failure } from '../../api/failure.ts';
import { loadSchemas, type Schemas } from '../../api/schema.ts';
import { ApiError } from '../../runtime/api-error.ts';
import { type Clock, systemClock } from '../../runtime/clock.ts';
import { EventRecorder } from '../../runtime/events.ts';
import type { LeaseClient } from '../../runtime/lease.ts';
import { Reflector } from '../../runtime/reflector.ts';
import {
  type Change,
  type ConfigMap,
  type Draft,
  type EventNote,
  type Kind,
  keyOf,
  type ObjectKey,
  type Resource,
  type Secret,
  type StatusShare,
  type Store,
} from '../store.ts';
import { ApiClient } from './client.ts';
import { LocalCopy, slim } from './copy.ts';
import { type Credentials, loadCredentials } from './credentials.ts';
import { failureOf } from './errors.ts';
import { eventSink } from './event-sink.ts';
import { leaseClient } from './leases.ts';
import { listWatch } from './list-watch.ts';
import { preflight } from './preflight.ts';
import { fullKey, objectPath, RESOURCES, type ResourceType } from './resources.ts';
import type { Tasks } from './rights.ts';
import { Writer } from './writes.ts';

/** Structurally a pino logger. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface KubernetesStoreOptions {
  /** A kubeconfig file. Default, as kubectl has it: KUBECONFIG, ~/.kube/config, the pod's ServiceAccount. */
  kubeconfig?: string;
  context?: string;
  /** Only these are looked at (Roles are enough then); default: all. */
  namespaces?: readonly string[];
  /** Where the Secrets of ImageSites are: looked at whatever `namespaces` says. */
  controllerNamespace: string;
  /** Field manager of what this controller writes. */
  fieldOwner?: string;
  /** Field manager of status, where several controllers share the API server. Default: as the rest. */
  statusOwner?: string;
  /** Whether what controllers decide may be written now: a Lease. Default: always. */
  mayWrite?(): boolean;
  /** Name of this installation. Default: the cluster's identity, the uid of its namespace kube-system. */
  instance?: string;
  log: Log;
  clock?: Clock;
  schemas?: Schemas;
}

export interface KubernetesStore extends Store {
  readonly instance: string;
  /** URL of the API server. */
  readonly server: string;
  readonly isStarted: boolean;
  /** When the API server was last heard by the kind that has waited longest, in milliseconds since the epoch. */
  readonly lastContact: number;
  /** A Lease, for `LeaseElector`; in the controller's namespace unless another is named. */
  lease(name: string, namespace?: string): LeaseClient;
  /**
   * Looks whether the cluster has what a controller needs, so that a person is told all of it at once.
   * @throws Failure NotSupported when its CRDs are older than this program, Forbidden with the rights that are missing
   */
  preflight(tasks: Tasks): Promise<void>;
  /** Whether the API server answers on a connection made for this question alone. */
  answers(): Promise<boolean>;
  /** Ends all watches and requests, after the writes under way and the events that are still owed. */
  close(): Promise<void>;
}

const KINDS = Object.keys(RESOURCES) as Kind[];
/** Writes and events get so long at the end, as a pod has 30 s to stop in. */
const CLOSE_PATIENCE_MS = 5_000;
const ANSWER_PATIENCE_MS = 5_000;

/**
 * A store on the API server. Nothing is watched before `start`.
 * @throws Failure InvalidSpec without a usable kubeconfig; NetworkError, Unauthorized or Forbidden when the server's identity cannot
 * be read.
 */
export async function openKubernetesStore(options: KubernetesStoreOptions): Promise<KubernetesStore> {
  const { clock = systemClock } = options;
  const credentials = await credentialsOf({ ...options, clock });
  const stop = new AbortController();
  const client = new ApiClient(credentials, clock, stop.signal);
  try {
    const instance = options.instance ?? (await identityOf(client));
    return new KubernetesStoreImpl({ ...options, clock, instance }, client, credentials, stop);
  } catch (error) {
    await credentials.close();
    throw error;
  }
}

function credentialsOf({
  clock,
  kubeconfig,
  context,
}: Pick<KubernetesStoreOptions, 'kubeconfig' | 'context'> & { clock: Clock }): Promise<Credentials> {
  return loadCredentials({
    clock,
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
    ...(context === undefined ? {} : { context }),
  });
}

async function identityOf(client: ApiClient): Promise<string> {
  try {
    return (await client.request<Resource>({ method: 'GET', path: '/api/v1/namespaces/kube-system' })).metadata.uid;
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 403)
      throw failureOf(error, 'read the identity of the cluster');
    throw new Failure(
      'Forbidden',
      `cannot read the identity of the cluster: ${error.message}; grant get on that namespace, or name this installation by --instance`,
      { cause: error },
    );
  }
}

class KubernetesStoreImpl implements KubernetesStore {
  readonly instance: string;
  readonly server: string;
  readonly #options: KubernetesStoreOptions & { clock: Clock };
  readonly #client: ApiClient;
  readonly #credentials: Credentials;
  readonly #stop: AbortController;
  readonly #copies: Record<Kind, LocalCopy>;
  readonly #schemas: Schemas;
  readonly #writer: Writer;
  readonly #events: EventRecorder;
  readonly #reflectors: Reflector[] = [];
  #running: Promise<void> = Promise.resolve();
  #started = false;
  #closing: Promise<void> | undefined;

  constructor(
    options: KubernetesStoreOptions & { clock: Clock; instance: string },
    client: ApiClient,
    credentials: Credentials,
    stop: AbortController,
  ) {
    const { clock, log, fieldOwner = 'imageproxy' } = options;
    this.#options = options;
    this.instance = options.instance;
    this.#client = client;
    this.#credentials = credentials;
    this.server = credentials.server;
    this.#stop = stop;
    this.#copies = Object.fromEntries(KINDS.map((kind) => [kind, new LocalCopy(kind, log)])) as Record<Kind, LocalCopy>;
    this.#schemas = options.schemas ?? loadSchemas();
    this.#writer = new Writer({
      client,
      copies: this.#copies,
      schemas: this.#schemas,
      fieldOwner,
      ...(options.statusOwner === undefined ? {} : { statusOwner: options.statusOwner }),
      clock,
      signal: stop.signal,
      ...(options.mayWrite === undefined ? {} : { mayWrite: () => options.mayWrite?.() ?? true }),
    });
    this.#events = new EventRecorder({
      controller: 'imageproxy.dev/controller',
      instance: hostname(),
      clock,
      log,
      sink: eventSink(client, fieldOwner),
    });
  }

  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#started) throw new Error('the store was started before');
    this.#started = true;
    const ended = AbortSignal.any([signal, this.#stop.signal]);
    const refused = Promise.withResolvers<never>();
    const runs = KINDS.flatMap((kind) =>
      this.#scopes(RESOURCES[kind]).map((namespace) => {
        const reflector = this.#reflector(RESOURCES[kind], namespace);
        this.#reflectors.push(reflector);
        return reflector.run(ended, (error) => {
          // No CRD, no right to see it: a person must act, and is told at once. Later on it is only told in the log.
          if (!reflector.isSynced && isForPeople(error))
            refused.reject(failureOf(error, `list ${RESOURCES[kind].plural}`));
        });
      }),
    );
    this.#running = Promise.all(runs).then(() => undefined);
    const end = (): void => refused.reject(new Failure('Aborted', 'stopped before everything was read'));
    ended.addEventListener('abort', end, { once: true });
    try {
      await Promise.race([Promise.all(this.#reflectors.map((each) => each.synced)), refused.promise]);
    } catch (error) {
      await this.close();
      throw error;
    } finally {
      ended.removeEventListener('abort', end);
      refused.promise.catch(() => undefined);
    }
    for (const kind of KINDS) this.#copies[kind].startTelling();
  }

  get isStarted(): boolean {
    return this.#started;
  }

  get lastContact(): number {
    return this.#reflectors.reduce(
      (oldest, { lastContact }) => Math.min(oldest, lastContact),
      Number.POSITIVE_INFINITY,
    );
  }

  /** Of a Secret or ConfigMap the metadata alone. */
  get<T extends Resource>(kind: Kind, key: ObjectKey): T | undefined {
    return this.#copies[kind].get(key) as T | undefined;
  }

  list<T extends Resource>(kind: Kind, namespace?: string): readonly T[] {
    return this.#copies[kind].list(namespace) as readonly T[];
  }

  subscribe<T extends Resource>(kind: Kind, listener: (change: Change<T>) => void): () => void {
    return this.#copies[kind].subscribe(listener as (change: Change) => void);
  }

  async secret(key: Required<ObjectKey>): Promise<Secret | undefined> {
    const found = await this.#read<Secret & { data?: Record<string, string> }>('Secret', key);
    if (found === undefined) return undefined;
    const values = Object.entries(found.data ?? {}) as unknown as [string, string][];
    return { ...found, data: Object.fromEntries(values.map(([name, text]) => [name, Buffer.from(text, 'base64')])) };
  }

  async configMap(key: Required<ObjectKey>): Promise<ConfigMap | undefined> {
    const found = await this.#read<ConfigMap>('ConfigMap', key);
    return found === undefined ? undefined : { ...found, data: { ...found.data } };
  }

  applyStatus<T extends Resource>(object: T, status: object, share?: StatusShare): Promise<T | undefined> {
    return this.#writer.applyStatus(object, status, share);
  }

  addFinalizer<T extends Resource>(object: T, finalizer: string): Promise<T | undefined> {
    return this.#writer.addFinalizer(object, finalizer);
  }

  removeFinalizer<T extends Resource>(
    object: T,
    finalizer: string,
    onlyIf?: (now: T) => boolean,
  ): Promise<T | undefined> {
    return this.#writer.removeFinalizer(object, finalizer, onlyIf);
  }

  create<T extends Resource>(draft: Draft): Promise<T> {
    return this.#writer.create<T>(draft);
  }

  apply<T extends Resource>(draft: Draft): Promise<T> {
    return this.#writer.apply<T>(draft);
  }

  annotate(kind: Kind, key: ObjectKey, annotations: Record<string, string | null>): Promise<void> {
    return this.#writer.annotate(kind, key, annotations);
  }

  delete(kind: Kind, key: ObjectKey, uid?: string): Promise<void> {
    return this.#writer.delete(kind, key, uid);
  }

  event(object: Resource, note: EventNote): void {
    this.#events.record(object, note);
  }

  lease(name: string, namespace = this.#options.controllerNamespace): LeaseClient {
    return leaseClient(this.#client, namespace, name);
  }

  preflight(tasks: Tasks): Promise<void> {
    const { namespaces, controllerNamespace } = this.#options;
    const scope = { controllerNamespace, ...(namespaces === undefined ? {} : { namespaces }) };
    return preflight(this.#client, this.#schemas, scope, tasks);
  }

  async answers(): Promise<boolean> {
    const fresh = await credentialsOf(this.#options).catch(() => undefined);
    if (fresh === undefined) return false;
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(ANSWER_PATIENCE_MS)]);
    try {
      // Which everybody may read, and which needs no etcd.
      await new ApiClient(fresh, this.#options.clock, signal).request({ method: 'GET', path: '/version' });
      return true;
    } catch {
      return false;
    } finally {
      // It has answered or not: how the connection ends says nothing of that.
      await fresh
        .close()
        .catch((error: unknown) => this.#options.log.debug({ err: error }, 'a connection did not close'));
    }
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      const { log } = this.#options;
      const patience = Promise.withResolvers<void>();
      const timer = setTimeout(patience.resolve, CLOSE_PATIENCE_MS);
      try {
        await Promise.race([this.#writer.idle().then(() => this.#events.close()), patience.promise]);
      } catch (error) {
        log.error({ err: error }, 'the store did not end cleanly');
      } finally {
        clearTimeout(timer);
        this.#stop.abort();
        await this.#running;
        await this.#credentials.close();
      }
    })();
    return this.#closing;
  }

  async #read<T extends Resource>(kind: Kind, key: ObjectKey): Promise<T | undefined> {
    const type = RESOURCES[kind];
    try {
      return slim(await this.#client.request<T>({ method: 'GET', path: objectPath(type, fullKey(type, key)) }));
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return undefined;
      throw failureOf(error, `read ${kind} ${keyOf(key)}`);
    }
  }

  /** The namespaces in which a kind is watched; undefined stands for all of them at once. */
  #scopes(type: ResourceType): readonly (string | undefined)[] {
    const { namespaces, controllerNamespace } = this.#options;
    if (namespaces === undefined || !type.namespaced) return [undefined];
    return [...new Set(type.metadataOnly ? [...namespaces, controllerNamespace] : namespaces)];
  }

  #reflector(type: ResourceType, namespace: string | undefined): Reflector {
    const { clock, log } = this.#options;
    return new Reflector({
      what: namespace === undefined ? type.plural : `${type.plural} in ${namespace}`,
      source: listWatch(this.#client, type, namespace),
      target: this.#copies[type.kind].target(namespace),
      clock,
      log,
    });
  }
}

function isForPeople(error: unknown): boolean {
  return error instanceof ApiError && [401, 403, 404].includes(error.status);
}
