import { Failure } from '../../api/failure.ts';
import { type FieldNote, loadSchemas } from '../../api/schema.ts';
import { ApiError, isExpired } from '../../runtime/api-error.ts';
import { type Clock, systemClock } from '../../runtime/clock.ts';
import { type ListPage, Reflector } from '../../runtime/reflector.ts';
import type { RecordedEvent } from '../directory/events.ts';
import type { StoredResource } from '../directory/records.ts';
import { type Change, type Draft, type Kind, keyOf, type ObjectKey, type Scope } from '../store.ts';
import { ApiClient, isTlsError, PATCH } from './client.ts';
import { LocalCopy, slim } from './copy.ts';
import { type Credentials, loadCredentials } from './credentials.ts';
import { failureOf } from './errors.ts';
import { readEvents } from './event-reader.ts';
import { listWatch } from './list-watch.ts';
import { mergePatch } from './merge-patch.ts';
import { fullKey, objectPath, RESOURCES } from './resources.ts';
import { Writer } from './writes.ts';

export interface ClusterObjectsOptions {
  /** A kubeconfig file. Default, as kubectl has it: KUBECONFIG, ~/.kube/config, the pod's ServiceAccount. */
  kubeconfig?: string | undefined;
  context?: string | undefined;
  /** Ends every request and watch. */
  signal: AbortSignal;
}

/** Field manager of what people ask for at a command line, so that it is told apart from what the controllers write. */
const FIELD_OWNER = 'imageproxy-cli';
const KINDS = Object.keys(RESOURCES) as Kind[];
const PAGE_SIZE = '500';
/** One refusal may be a token that is just being renewed; so many in a row are meant. */
const REFUSALS = 3;

/** A command waits in the foreground: what it waits for keeps its process alive, which a controller's timers must not do. */
const FOREGROUND: Clock = {
  ...systemClock,
  after(ms, callback) {
    const timer = setTimeout(callback, Math.max(ms, 0));
    return () => clearTimeout(timer);
  },
};

/**
 * Objects of a cluster for one command of one person, with that person's rights: nothing is asked but what the command needs, in
 * no other namespace and by no other verb. (The controllers' store reads everything before it answers.)
 * @throws Failure InvalidSpec without a usable kubeconfig, Unauthorized when its credentials cannot be had
 */
export async function openClusterObjects({
  kubeconfig,
  context,
  signal,
}: ClusterObjectsOptions): Promise<ClusterObjects> {
  const credentials = await loadCredentials({
    clock: FOREGROUND,
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
    ...(context === undefined ? {} : { context }),
  });
  return new ClusterObjects(credentials, signal);
}

/** All of its methods throw Failures, which name what was tried and, from the API server, verb, resource and namespace. */
export class ClusterObjects {
  /** Address of the API server. */
  readonly server: string;
  /** Of the kubeconfig's context, or of the pod; `default` where it names none. */
  readonly namespace: string;
  /** Rejects when a watch will tell nothing any more: the right to it, or the kind itself, was taken away. */
  readonly refused: Promise<never>;
  /** Called, once each time, when a watch has lost the API server. It goes on by itself. */
  onTrouble: (message: string) => void = () => undefined;
  readonly #refuse: (error: unknown) => void;
  readonly #credentials: Credentials;
  readonly #client: ApiClient;
  readonly #writer: Writer;
  readonly #stop = new AbortController();

  constructor(credentials: Credentials, signal: AbortSignal) {
    this.#credentials = credentials;
    // Without a password that somebody has put into it.
    const { protocol, host, pathname } = new URL(credentials.server);
    this.server = `${protocol}//${host}${pathname.replace(/\/$/, '')}`;
    this.namespace = credentials.namespace ?? 'default';
    const { promise, reject } = Promise.withResolvers<never>();
    // Nobody may be waiting for it just then.
    promise.catch(() => undefined);
    this.refused = promise;
    this.#refuse = reject;
    const ended = AbortSignal.any([signal, this.#stop.signal]);
    this.#client = new ApiClient(credentials, FOREGROUND, ended);
    this.#writer = new Writer({
      client: this.#client,
      copies: Object.fromEntries(KINDS.map((kind) => [kind, this.#copyOf(kind)])) as Record<Kind, LocalCopy>,
      schemas: loadSchemas(),
      fieldOwner: FIELD_OWNER,
      clock: FOREGROUND,
      signal: ended,
    });
  }

  async get(kind: Kind, key: ObjectKey): Promise<StoredResource | undefined> {
    const type = RESOURCES[kind];
    const path = objectPath(type, fullKey(type, key));
    try {
      return slim(await this.#client.request<StoredResource>({ method: 'GET', path }));
    } catch (error) {
      if (error instanceof ApiError && error.status === 404 && error.reason === 'NotFound') return undefined;
      throw this.#failure(error, `read ${kind} ${keyOf(key)}`);
    }
  }

  /** In the order of their keys. */
  async list(kind: Kind, namespace?: string): Promise<StoredResource[]> {
    try {
      return await this.#pages(kind, namespace, { limit: PAGE_SIZE });
    } catch (error) {
      throw this.#failure(error, `list ${RESOURCES[kind].plural}`);
    }
  }

  /** Whether there is one in any namespace. */
  async hasAny(kind: Kind): Promise<boolean> {
    try {
      return (await this.#page(kind, undefined, { limit: '1' })).items.length > 0;
    } catch (error) {
      throw this.#failure(error, `list ${RESOURCES[kind].plural}`);
    }
  }

  /**
   * Tells what is there, then every change, until the signal fires. Resolves when all that is there was told. A connection that is
   * lost later is made again; what was missed is told then.
   */
  async watch(
    kind: Kind,
    scope: Scope,
    listener: (change: Change<StoredResource>) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const type = RESOURCES[kind];
    const namespace = type.namespaced ? scope.namespace : undefined;
    const copy = this.#copyOf(kind);
    const reflector = new Reflector({
      what: type.plural,
      source: listWatch(this.#client, type, namespace, scope.name),
      target: copy.target(namespace),
      clock: FOREGROUND,
      log: SILENT,
    });
    const { promise: failed, reject } = Promise.withResolvers<never>();
    let refusals = 0;
    let contact: number | undefined;
    const onFailure = (error: unknown): void => {
      if (!reflector.isSynced) return reject(this.#failure(error, `list ${type.plural}`));
      const failure = this.#failure(error, `watch ${type.plural}`);
      if (reflector.lastContact !== contact) {
        refusals = 0;
        this.onTrouble(`${failure.message}; it is tried again`);
      }
      contact = reflector.lastContact;
      if (isRefusal(error) && ++refusals >= REFUSALS) this.#refuse(failure);
    };
    const stop = AbortSignal.any([signal, this.#stop.signal]);
    stop.throwIfAborted();
    stop.addEventListener('abort', () => reject(new Failure('Aborted', 'stopped')), { once: true });
    void reflector.run(stop, onFailure);
    await Promise.race([reflector.synced, failed]);
    failed.catch(() => undefined);
    copy.subscribe(listener);
    copy.startTelling();
  }

  /**
   * Makes the object, or gives the one that is there the spec of the draft. Only what differs is written, and no label or annotation:
   * the object may be applied by others (Flux, Argo CD), who keep their fields.
   */
  async apply(draft: Draft): Promise<StoredResource> {
    const kind = draft.kind as Kind;
    const { name, namespace } = draft.metadata;
    const key = namespace === undefined ? { name } : { namespace, name };
    const there = await this.get(kind, key);
    if (there === undefined) return this.#told(this.#writer.apply<StoredResource>({ ...draft, metadata: key }));
    const spec = mergePatch(there.spec, draft.spec);
    return spec === undefined ? there : this.#patch(kind, key, { metadata: { uid: there.metadata.uid }, spec });
  }

  /** Replaces these fields of the spec, if the object is as it was read. @throws Failure Conflict when it is not */
  change({ kind, metadata }: StoredResource, spec: Record<string, unknown>): Promise<StoredResource> {
    const { uid, resourceVersion } = metadata;
    return this.#patch(kind as Kind, metadata, { metadata: { uid, resourceVersion }, spec });
  }

  annotate(kind: Kind, key: ObjectKey, annotations: Record<string, string | null>): Promise<void> {
    return this.#told(this.#writer.annotate(kind, key, annotations));
  }

  /** That very object, and no other one of its name. */
  delete(kind: Kind, key: ObjectKey, uid: string): Promise<void> {
    return this.#told(this.#writer.delete(kind, key, uid));
  }

  /** Oldest first. */
  async events(object: Pick<StoredResource, 'kind' | 'metadata'>): Promise<RecordedEvent[]> {
    try {
      return await readEvents(this.#client, object);
    } catch (error) {
      throw this.#failure(error, 'list events');
    }
  }

  async namespaces(): Promise<string[]> {
    try {
      const page = await this.#client.request<ListPage>({ method: 'GET', path: '/api/v1/namespaces' });
      return page.items.map(({ metadata }) => metadata.name);
    } catch (error) {
      throw this.#failure(error, 'list namespaces');
    }
  }

  /**
   * What the API server, its admission and the object as it is there would say to this one, by a dry run: the faults, none when it
   * would be taken.
   */
  async judge({ apiVersion, kind, metadata, spec }: Draft): Promise<FieldNote[]> {
    const type = RESOURCES[kind as Kind];
    try {
      await this.#client.request({
        method: 'PATCH',
        path: objectPath(type, fullKey(type, metadata)),
        query: { fieldManager: FIELD_OWNER, force: 'true', dryRun: 'All' },
        contentType: PATCH.apply,
        body: { apiVersion, kind, metadata, spec },
      });
      return [];
    } catch (error) {
      if (error instanceof ApiError && [400, 404, 422].includes(error.status) && error.reason !== '') {
        const path = error.status === 404 ? 'metadata.namespace' : '';
        return error.causes.length > 0 ? [...error.causes] : [{ path, message: error.message }];
      }
      throw this.#failure(error, `try ${kind} ${keyOf(metadata)} on the API server`);
    }
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#credentials.close();
  }

  /** The uid in it makes the server refuse another object of the same name. */
  async #patch(kind: Kind, key: ObjectKey, body: object): Promise<StoredResource> {
    try {
      const path = objectPath(RESOURCES[kind], fullKey(RESOURCES[kind], key));
      const query = { fieldManager: FIELD_OWNER };
      return slim(await this.#client.request({ method: 'PATCH', path, query, contentType: PATCH.merge, body }));
    } catch (error) {
      throw this.#failure(error, `change ${kind} ${keyOf(key)}`);
    }
  }

  async #pages(kind: Kind, namespace: string | undefined, first: Record<string, string>): Promise<StoredResource[]> {
    const found: StoredResource[] = [];
    let query = first;
    for (;;) {
      let page: ListPage;
      try {
        page = await this.#page(kind, namespace, query);
      } catch (error) {
        // The snapshot of the first page was compacted away meanwhile: all of it in one piece, then.
        if (query['continue'] === undefined || !isExpired(error)) throw error;
        return this.#pages(kind, namespace, {});
      }
      found.push(...(page.items as StoredResource[]));
      if (page.continue === undefined || page.continue === '') return found;
      query = { ...first, continue: page.continue };
    }
  }

  #page(kind: Kind, namespace: string | undefined, query: Record<string, string>): Promise<ListPage> {
    return listWatch(this.#client, RESOURCES[kind], namespace).list(query, this.#stop.signal);
  }

  #copyOf(kind: Kind): LocalCopy {
    // A listener that throws ends the command: nobody else would ever hear of it.
    return new LocalCopy(kind, { error: ({ err }: { err?: unknown }) => this.#refuse(err) });
  }

  async #told<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      throw this.#failure(error, 'ask the API server');
    }
  }

  /** People have several clusters: what cannot be reached is named. */
  #failure(error: unknown, what: string): Failure {
    const failure = failureOf(error, what);
    if (failure.reason !== 'NetworkError' && failure.reason !== 'Timeout') return failure;
    const cure = isTlsError(error)
      ? "the kubeconfig's certificates do not fit this server, or something stands between"
      : 'look at the kubeconfig and its current context, and whether the cluster runs';
    return new Failure(failure.reason, `${failure.message} at ${this.server}: ${cure}`, { cause: error });
  }
}

const SILENT = { debug: () => undefined, info: () => undefined, warn: () => undefined };

/** No waiting helps. */
function isRefusal(error: unknown): boolean {
  return error instanceof ApiError && [401, 403, 404].includes(error.status);
}
