import { join, resolve } from 'node:path';
import { Failure } from '../../api/failure.ts';
import {
  type Change,
  type ConfigMap,
  type Draft,
  type EventNote,
  type Kind,
  type ObjectKey,
  type Resource,
  type Secret,
  type Store,
} from '../store.ts';
import * as change from './change.ts';
import { Disk } from './disk.ts';
import { checkDraft, withNamespace } from './draft.ts';
import { EventRecorder } from './events.ts';
import { GarbageCollector } from './garbage.ts';
import { Inbox, type StateAnswer, type StateRequest } from './inbox.ts';
import { API_VERSION, idOf, isStoredKind, nameOf, type Validate } from './kinds.ts';
import { type Lock, takeLock } from './lock.ts';
import { Loop } from './loop.ts';
import { LooseObjects } from './loose.ts';
import type { ManifestObject, Problem } from './manifest.ts';
import { Merger } from './merge.ts';
import { ProblemBoard } from './problems.ts';
import type { ObjectRecord } from './records.ts';
import { Scanner } from './scan.ts';
import type { Log, Now, Timers } from './seams.ts';
import { timestamp } from './seams.ts';
import { keepInstance, makeFolders, prepareState, VersionCounter } from './state.ts';
import { ObjectTable, type Outcome } from './table.ts';
import { FolderHints } from './watcher.ts';

/** Also how far apart two looks at an absent object are, at the least. */
const SCAN_EVERY_MS = 5_000;
const INBOX_EVERY_MS = 1_000;

export interface DirectoryStoreOptions {
  /** Folder of manifests; without one, the store has only what was applied to it. */
  manifests?: string;
  /** Secrets and ConfigMaps that are in no manifest: they are kept in memory alone. Those of the manifests go before. */
  credentials?: readonly ManifestObject[];
  /** Folder for all that controllers write; made when it is not there. */
  state: string;
  /** It is held for as long as one command takes; who waits for its work may go on with it then. */
  passing?: boolean;
  validate: Validate;
  /** Milliseconds since 1970. */
  now: Now;
  timers: Timers;
  log: Log;
  /** Name of this installation; kept in the state, where one is made when none is given. */
  instance?: string;
  /** For tests that break it. */
  disk?: Disk;
}

export interface DirectoryStore extends Store {
  readonly instance: string;
  /** What is wrong with the manifests now. */
  problems(): readonly Problem[];
  /** Lets objects go whose deletion is held because too many were gone at once. Returns their ids. */
  confirmDeletions(): Promise<string[]>;
  /** Reads what has changed in the manifests; resolves when it is in the store. */
  scan(): Promise<void>;
  /** Carries out what other processes have asked for so far. */
  serveRequests(): Promise<void>;
  /** Ends all work, waits for what is being written, and gives the state directory free. */
  close(): Promise<void>;
}

/**
 * Takes the state directory for this process.
 * @throws Failure ClaimedByOther when another process has it; Rejected when it is another instance's; NotSupported when a newer
 * imageproxy wrote it.
 */
export async function openDirectoryStore(options: DirectoryStoreOptions): Promise<DirectoryStore> {
  const { state, passing = false, now, log, disk = new Disk() } = options;
  await makeFolders(state);
  const lock = await takeLock(state, passing, disk, now);
  try {
    await prepareState(state, disk);
    const instance = await keepInstance(state, options.instance, disk, now, log);
    return new DirectoryStoreImpl({ ...options, disk }, instance, lock);
  } catch (error) {
    lock.release();
    throw error;
  }
}

class DirectoryStoreImpl implements DirectoryStore {
  readonly instance: string;
  readonly #options: DirectoryStoreOptions & { disk: Disk };
  readonly #lock: Lock;
  readonly #versions: VersionCounter;
  readonly #table: ObjectTable;
  readonly #loose: LooseObjects;
  readonly #events: EventRecorder;
  readonly #board: ProblemBoard;
  readonly #inbox: Inbox;
  readonly #scanner: Scanner | undefined;
  readonly #merger: Merger | undefined;
  readonly #scans: Loop;
  readonly #requests: Loop;
  readonly #manifestHints: FolderHints;
  readonly #inboxHints: FolderHints;
  readonly #garbage: GarbageCollector;
  #closing: Promise<void> | undefined;

  constructor(options: DirectoryStoreOptions & { disk: Disk }, instance: string, lock: Lock) {
    const { state, disk, now, log, timers, validate } = options;
    this.instance = instance;
    this.#options = options;
    this.#lock = lock;
    this.#versions = new VersionCounter(state, disk);
    this.#table = new ObjectTable({
      state,
      disk,
      versions: this.#versions,
      log,
      beforeRemoval: (record) => this.#removal(record),
    });
    this.#garbage = new GarbageCollector(this.#table, (object) =>
      this.delete(object.kind as Kind, object.metadata, object.metadata.uid),
    );
    this.#loose = new LooseObjects(instance, timestamp(now()), options.credentials);
    this.#board = new ProblemBoard(state, disk, log);
    this.#events = new EventRecorder({
      state,
      disk,
      now,
      log,
      exists: ({ kind, metadata }) => this.#table.get(kind as Kind, metadata)?.object.metadata.uid === metadata.uid,
    });
    this.#inbox = new Inbox({ state, disk, now, log, handle: (request) => this.#handle(request) });
    if (options.manifests !== undefined) {
      const root = resolve(options.manifests);
      this.#scanner = new Scanner(root, validate, now);
      this.#merger = new Merger({ root, state, disk, table: this.#table, validate, now, log });
    }
    const failed = (what: string) => (error: unknown) => log.error({ err: error }, what);
    this.#scans = new Loop({
      work: () => this.#scanOnce(),
      everyMs: SCAN_EVERY_MS,
      timers,
      onError: failed('the manifests could not be taken over; they are read again soon'),
    });
    this.#requests = new Loop({
      work: () => this.#inbox.process(),
      everyMs: INBOX_EVERY_MS,
      timers,
      onError: failed('the requests of other processes could not be read'),
    });
    this.#manifestHints = new FolderHints(timers, () => this.#scans.soon());
    this.#inboxHints = new FolderHints(timers, () => this.#requests.soon());
  }

  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { log } = this.#options;
    const close = (): void => {
      this.close().catch((error: unknown) => log.error({ err: error }, 'the store did not end cleanly'));
    };
    signal.addEventListener('abort', close, { once: true });
    await this.#versions.open(await this.#table.load());
    await this.#merger?.open();
    await this.#inbox.recover();
    await this.scan();
    this.#table.startTelling();
    for (const kind of ['Secret', 'ConfigMap'] as const) {
      for (const object of this.#loose.list(kind)) this.#table.tell({ type: 'Applied', object });
    }
    this.#inboxHints.set([join(this.#options.state, 'inbox')]);
    await this.serveRequests();
  }

  get<T extends Resource>(kind: Kind, key: ObjectKey): T | undefined {
    const object = isStoredKind(kind) ? this.#table.get(kind, key)?.object : this.#loose.get(kind, key);
    return object as T | undefined;
  }

  list<T extends Resource>(kind: Kind, namespace?: string): readonly T[] {
    const all: readonly Resource[] = isStoredKind(kind) ? this.#table.list(kind) : this.#loose.list(kind);
    const wanted = namespace === undefined ? all : all.filter(({ metadata }) => metadata.namespace === namespace);
    return wanted as readonly T[];
  }

  subscribe<T extends Resource>(kind: Kind, listener: (change: Change<T>) => void): () => void {
    const end = this.#table.subscribe(kind, listener as (change: Change) => void);
    if (this.#table.isTelling)
      for (const object of this.#loose.list(kind)) listener({ type: 'Applied', object } as unknown as Change<T>);
    return end;
  }

  async secret(key: Required<ObjectKey>): Promise<Secret | undefined> {
    return this.#loose.use('Secret', key) as Secret | undefined;
  }

  async configMap(key: Required<ObjectKey>): Promise<ConfigMap | undefined> {
    return this.#loose.use('ConfigMap', key) as ConfigMap | undefined;
  }

  applyStatus<T extends Resource>(object: T, status: object): Promise<T | undefined> {
    return this.#onObject(object, (record) =>
      change.withStatus(record, change.checkedStatus(record.object, status, this.#options.validate)),
    );
  }

  addFinalizer<T extends Resource>(object: T, finalizer: string): Promise<T | undefined> {
    return this.#onObject(object, (record) => change.withFinalizer(record, finalizer));
  }

  removeFinalizer<T extends Resource>(object: T, finalizer: string): Promise<T | undefined> {
    return this.#onObject(object, (record) => change.withoutFinalizer(record, finalizer));
  }

  create<T extends Resource>(draft: Draft): Promise<T> {
    return this.#write<T>(draft, (record) => {
      if (record === undefined) return;
      const name = nameOf(draft.kind, record.object);
      throw new Failure(
        'NameInUse',
        `cannot create ${name}: there is one already, made by somebody else; it is left alone`,
      );
    });
  }

  apply<T extends Resource>(draft: Draft): Promise<T> {
    const { uid } = draft.metadata;
    return this.#write<T>(draft, (record) => {
      if (uid !== undefined) change.expectObject(record, draft.kind, draft.metadata, uid);
      if (record !== undefined) this.#refuseForManifest(record);
    });
  }

  /** `check` throws where the object, as it is, must not be written. */
  async #write<T extends Resource>(draft: Draft, check: (record: ObjectRecord | undefined) => void): Promise<T> {
    const { validate, now } = this.#options;
    const { kind, key, metadata } = checkDraft(draft);
    const record = await this.#table.change(kind, key, (record) => {
      check(record);
      const input = { ...draft, metadata, ...(record === undefined ? {} : { status: record.object.status }) };
      const verdict = validate(kind, input, record === undefined ? undefined : { ...record.object });
      if (verdict.object === undefined || verdict.errors.length > 0) {
        const faults = verdict.errors.map(({ path, message }) => `${path} ${message}`.trim()).join('; ');
        throw new Failure('InvalidSpec', `${nameOf(kind, key)} is not valid: ${faults}`);
      }
      const spec = JSON.parse(JSON.stringify(verdict.object.spec ?? {})) as unknown;
      const intent: change.Intent = { origin: 'applied', draft: { apiVersion: API_VERSION, kind, metadata, spec } };
      return change.withIntent(record, intent, now());
    });
    return record?.object as unknown as T;
  }

  async annotate(kind: Kind, key: ObjectKey, annotations: Record<string, string | null>): Promise<void> {
    await this.#table.change(kind, withNamespace(kind, key), (record) => {
      if (record === undefined) throw new Failure('NotFound', `there is no ${nameOf(kind, key)}`);
      return change.withAnnotations(record, annotations);
    });
  }

  async delete(kind: Kind, key: ObjectKey, uid?: string): Promise<void> {
    await this.#table.change(kind, withNamespace(kind, key), (record) => {
      if (record === undefined) return { type: 'Unchanged' };
      if (uid !== undefined) change.sameObject(record, uid);
      return change.withDeletion(record, this.#options.now());
    });
  }

  event(object: Resource, note: EventNote): void {
    this.#events.record(object, note);
  }

  problems(): readonly Problem[] {
    return this.#board.current;
  }

  async confirmDeletions(): Promise<string[]> {
    const confirmed = this.#merger?.confirm() ?? [];
    await this.scan();
    return confirmed;
  }

  scan(): Promise<void> {
    return this.#scans.now();
  }

  serveRequests(): Promise<void> {
    return this.#requests.now();
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#manifestHints.close();
      this.#inboxHints.close();
      try {
        await this.#requests.stop();
        await this.#scans.stop();
        await this.#table.idle();
        await this.#events.idle();
      } finally {
        this.#lock.release();
      }
    })();
    return this.#closing;
  }

  /** Returns when it wants to be called again, if that is soon. */
  async #scanOnce(): Promise<number | undefined> {
    const [scanner, merger] = [this.#scanner, this.#merger];
    if (scanner === undefined || merger === undefined) return undefined;
    const { now } = this.#options;
    const startedAt = now();
    merger.begin();
    const result = await scanner.scan();
    const { problems, due, again } = await merger.merge(result, startedAt);
    const look = { at: startedAt, isHeld: merger.isHolding };
    for (const told of this.#loose.update(result, look)) this.#table.tell(told);
    for (const record of due) await this.#letGo(record);
    await this.#board.set([...result.problems, ...problems]);
    this.#manifestHints.set(scanner.folders);
    return again ? 0 : merger.nextLookMs(now());
  }

  /** Deletes what is absent from the manifests, unless it was given to somebody else meanwhile. */
  async #letGo({ object }: ObjectRecord): Promise<void> {
    await this.#table.change(object.kind as Kind, object.metadata, (record) => {
      if (record?.object.metadata.uid !== object.metadata.uid || record.origin !== 'manifest')
        return { type: 'Unchanged' };
      return change.withDeletion(record, this.#options.now());
    });
  }

  async #onObject<T extends Resource>(object: T, decide: (record: ObjectRecord) => Outcome): Promise<T | undefined> {
    const record = await this.#table.change(object.kind as Kind, object.metadata, (record) => {
      if (record === undefined) return { type: 'Unchanged' };
      change.sameObject(record, object.metadata.uid);
      return decide(record);
    });
    return record?.object as unknown as T | undefined;
  }

  async #removal({ object }: ObjectRecord): Promise<void> {
    this.#merger?.removed(idOf(object.kind, object));
    await this.#garbage.collect(object);
  }

  async #handle(request: StateRequest): Promise<StateAnswer> {
    switch (request.type) {
      case 'apply':
        return { object: await this.apply(request.object) };
      case 'annotate':
        await this.annotate(request.kind, request.key, request.annotations);
        return {};
      case 'delete':
        await this.delete(request.kind, request.key, request.uid);
        return {};
      case 'confirm-deletions':
        return { confirmed: await this.confirmDeletions() };
      case 'missing': {
        const missing = request.objects.filter(({ kind, key }) => this.#loose.get(kind, key) === undefined);
        return { missing: missing.map(({ kind, key }) => nameOf(kind, key)) };
      }
    }
  }

  /** The manifest would undo it at the next scan. One that is gone from the manifests, or on its way out, can be changed. */
  #refuseForManifest({ object, origin, file }: ObjectRecord): void {
    const { kind, metadata } = object;
    if (origin !== 'manifest' || metadata.deletionTimestamp !== undefined) return;
    if (this.#merger?.isPresent(idOf(kind, object)) === false) return;
    throw new Failure('Rejected', `${nameOf(kind, object)} comes from ${file ?? 'a manifest'}: edit it there`);
  }
}
