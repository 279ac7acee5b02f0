import type { ApiKind } from '../api/crds.ts';
import { Failure } from '../api/failure.ts';
import type { Draft, ObjectKey, Scope } from '../stores/store.ts';
import { type LooseName, requestState, type StateAnswer, type StateRequest } from '../stores/directory/inbox.ts';
import { type Holder, holderOf } from '../stores/directory/lock.ts';
import type { ManifestObject } from '../stores/directory/manifest.ts';
import { readState } from '../stores/directory/reader.ts';
import type { StoredResource } from '../stores/directory/records.ts';
import type { LogLevel } from '../telemetry/log.ts';
import type { RunningController } from './controller.ts';
import { CommandError, EXIT } from './exit.ts';
import { type Listener, type Watchable, watchStore, within, keyIn } from './watching.ts';

/** Objects with controllers at work on them, to be changed. */
export interface Session extends Watchable {
  /** Who has the controllers, for messages: `process 4711`; undefined when it is this process. */
  readonly elsewhere: string | undefined;
  get(kind: ApiKind, key: ObjectKey): Promise<StoredResource | undefined>;
  apply(object: Draft): Promise<StoredResource>;
  /** Replaces these fields of the spec; the others stay. @throws Failure Conflict when a cluster has a newer one than was read */
  change(object: StoredResource, spec: Record<string, unknown>): Promise<StoredResource>;
  annotate(kind: ApiKind, key: ObjectKey, annotations: Record<string, string | null>): Promise<void>;
  delete(kind: ApiKind, key: ObjectKey, uid: string): Promise<void>;
  /** Rejects when the controllers end before the command does. */
  readonly ended: Promise<never>;
  /** Own controllers stop at a safe point. */
  close(): Promise<void>;
}

/** What controllers of our own are given, where the command must run them itself. */
export interface ActingOptions {
  allowNetworks?: readonly string[];
  logLevel?: LogLevel;
  /** Secrets and ConfigMaps that are in no manifest of theirs. They stay in memory. */
  credentials?: readonly ManifestObject[];
}

export interface SessionOptions extends ActingOptions {
  state: string;
  /** A folder with Secrets. */
  manifests?: string | undefined;
  signal: AbortSignal;
}

/** The holder scans for requests every second, and may be at fsync. */
const ANSWER_MS = 30_000;
/** A command before this one lets go of its state first, and of the cache when its jobs have ended: a cut download is made durable. */
const CACHE_PATIENCE_MS = 60_000;
const HOLDER_LOOK_MS = 2_000;

/**
 * A state directory with controllers at work on it: those of the process that holds it already, or else our own for as long as
 * the command takes.
 */
export async function openSession(options: SessionOptions): Promise<Session> {
  const { state } = options;
  for (let attempt = 1; ; attempt++) {
    const holder = await holderOf(state);
    if (holder !== undefined) {
      await demandCredentials(holder, options);
      return new RemoteSession(options, holder);
    }
    try {
      return await openLocal(options);
    } catch (error) {
      // Another process took the state between the look and ours.
      if (!(error instanceof Failure) || error.reason !== 'ClaimedByOther' || attempt === 3) throw error;
    }
  }
}

/** @throws CommandError where the holder lacks what this command has in memory: it is handed over to nobody */
async function demandCredentials(holder: Holder, { state, credentials = [], signal }: SessionOptions): Promise<void> {
  if (credentials.length === 0) return;
  const objects = credentials.map(({ kind, key }) => ({ kind, key }) as LooseName);
  const answer = await requestState(state, { type: 'missing', objects }, { timeoutMs: ANSWER_MS, signal });
  const missing = [...new Set(answer?.missing)];
  if (missing.length === 0) return;
  throw new CommandError(
    EXIT.failed,
    `${titleOf(holder)} does the work on ${state} and has no ${missing.join(' and no ')}: put it into the manifests of that process, or run the command again when that has ended`,
  );
}

function titleOf({ pid }: Holder): string {
  return `process ${pid}`;
}

/**
 * Asks whoever holds the state, and looks at the state itself. Where the holder was a command, which ends when its own work is done, this
 * one goes on by itself; another process (`run`) that ends was ended by somebody, who may be about to start it again.
 */
class RemoteSession implements Session {
  readonly ended: Promise<never>;
  readonly #options: SessionOptions;
  readonly #end: (error: unknown) => void;
  readonly #timer: NodeJS.Timeout;
  #holder: Holder;
  #next: Promise<Session> | undefined;
  /** What {@link #next} has come to. */
  #now: Session | undefined;
  #closed = false;

  constructor(options: SessionOptions, holder: Holder) {
    this.#options = options;
    this.#holder = holder;
    const { promise, reject } = Promise.withResolvers<never>();
    // Nobody may be waiting for it just then.
    promise.catch(() => undefined);
    this.ended = promise;
    this.#end = reject;
    this.#timer = setInterval(() => void this.#look().catch(reject), HOLDER_LOOK_MS);
    this.#timer.unref();
  }

  get elsewhere(): string | undefined {
    return this.#now === undefined ? titleOf(this.#holder) : this.#now.elsewhere;
  }

  get(kind: ApiKind, key: ObjectKey): Promise<StoredResource | undefined> {
    return readState(this.#options.state).get(kind, key);
  }

  watch(kind: ApiKind, scope: Scope, listener: Listener, signal: AbortSignal): Promise<void> {
    return readState(this.#options.state).watch(kind, within(scope, listener), signal, keyIn(kind, scope));
  }

  async apply(object: Draft): Promise<StoredResource> {
    const answer = await this.#ask({ type: 'apply', object });
    return answer === undefined ? (await this.#goOn()).apply(object) : (answer.object as StoredResource);
  }

  change(object: StoredResource, spec: Record<string, unknown>): Promise<StoredResource> {
    return this.apply(changedDraft(object, spec));
  }

  async annotate(kind: ApiKind, key: ObjectKey, annotations: Record<string, string | null>): Promise<void> {
    const answer = await this.#ask({ type: 'annotate', kind, key, annotations });
    if (answer === undefined) await (await this.#goOn()).annotate(kind, key, annotations);
  }

  async delete(kind: ApiKind, key: ObjectKey, uid: string): Promise<void> {
    const answer = await this.#ask({ type: 'delete', kind, key, uid });
    if (answer === undefined) await (await this.#goOn()).delete(kind, key, uid);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    const next = await this.#next?.catch(() => undefined);
    await next?.close();
  }

  /** Undefined where nobody is there to be asked any more. */
  async #ask(request: StateRequest): Promise<StateAnswer | undefined> {
    if (this.#next !== undefined) return undefined;
    const { state, signal } = this.#options;
    return requestState(state, request, { timeoutMs: ANSWER_MS, signal });
  }

  async #look(): Promise<void> {
    const holder = await holderOf(this.#options.state);
    if (holder === undefined) await this.#goOn();
    else this.#holder = holder;
  }

  #goOn(): Promise<Session> {
    this.#next ??= this.#succeed();
    return this.#next;
  }

  async #succeed(): Promise<Session> {
    clearInterval(this.#timer);
    const { state, signal } = this.#options;
    signal.throwIfAborted();
    if (this.#closed || this.#holder.passing !== true) {
      throw new CommandError(
        EXIT.failed,
        `${titleOf(this.#holder)}, which worked on ${state}, has ended; nothing is lost: run the command again`,
      );
    }
    this.#now = await openSession(this.#options);
    this.#now.ended.catch(this.#end);
    return this.#now;
  }
}

/** As it was applied, but for these fields. */
function changedDraft({ apiVersion, kind, metadata, ...rest }: StoredResource, spec: Record<string, unknown>): Draft {
  const { name, namespace, labels, annotations } = metadata;
  return {
    apiVersion,
    kind,
    metadata: {
      name,
      ...(namespace === undefined ? {} : { namespace }),
      ...(labels === undefined ? {} : { labels }),
      ...(annotations === undefined ? {} : { annotations }),
    },
    spec: { ...(rest.spec as Record<string, unknown>), ...spec },
  };
}

async function openLocal(options: SessionOptions): Promise<Session> {
  const { state, manifests, credentials = [], allowNetworks = [], logLevel = 'silent', signal } = options;
  const [{ startController }, { createLogger }] = await Promise.all([
    import('./controller.ts'),
    import('../telemetry/log.ts'),
  ]);
  const stop = new AbortController();
  const controller = await startController(
    {
      state,
      passing: true,
      cachePatienceMs: CACHE_PATIENCE_MS,
      ...(manifests === undefined ? {} : { manifests }),
      credentials,
      allowNetworks,
      fileRoots: new Map(),
      maxParallelDownloads: 4,
      log: createLogger({ level: logLevel }),
    },
    AbortSignal.any([stop.signal, signal]),
  );
  return new LocalSession(controller, stop);
}

class LocalSession implements Session {
  readonly elsewhere = undefined;
  readonly ended: Promise<never>;
  readonly #controller: RunningController;
  readonly #stop: AbortController;

  constructor(controller: RunningController, stop: AbortController) {
    this.#controller = controller;
    this.#stop = stop;
    this.ended = controller.done.then(() => {
      throw new CommandError(
        EXIT.failed,
        'the controllers have stopped before the work was done: run the command again',
      );
    });
    this.ended.catch(() => undefined);
  }

  async get(kind: ApiKind, key: ObjectKey): Promise<StoredResource | undefined> {
    return this.#controller.store.get<StoredResource>(kind, key);
  }

  watch(kind: ApiKind, scope: Scope, listener: Listener, signal: AbortSignal): Promise<void> {
    return watchStore(this.#controller.store).watch(kind, scope, listener, signal);
  }

  apply(object: Draft): Promise<StoredResource> {
    return this.#controller.store.apply<StoredResource>(object);
  }

  change(object: StoredResource, spec: Record<string, unknown>): Promise<StoredResource> {
    return this.apply(changedDraft(object, spec));
  }

  annotate(kind: ApiKind, key: ObjectKey, annotations: Record<string, string | null>): Promise<void> {
    return this.#controller.store.annotate(kind, key, annotations);
  }

  delete(kind: ApiKind, key: ObjectKey, uid: string): Promise<void> {
    return this.#controller.store.delete(kind, key, uid);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#controller.done;
  }
}
