import { type FSWatcher, watch } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../../api/failure.ts';
import { type Change, type Kind, keyOf, type ObjectKey } from '../store.ts';
import { inParallel } from './concurrency.ts';
import { decodeEvents, type RecordedEvent } from './events.ts';
import { deepFreeze } from './freeze.ts';
import { type Holder, holderOf } from './lock.ts';
import type { Problem } from './manifest.ts';
import { readProblems } from './problems.ts';
import { decodeRecord, type ObjectRecord, recordFile, type StoredResource, withProgress } from './records.ts';
import { codeOf, type Timers } from './seams.ts';
import { readInstance, readJson, readText } from './state.ts';

const FILES_AT_ONCE = 32;
/** Changes are seen through the file system's notices; this finds those that it lost. */
const POLL_MS = 2_000;
const GATHER_MS = 10;

export interface StateReader {
  /** Without those whose record is damaged. */
  list(kind: Kind, namespace?: string): Promise<StoredResource[]>;
  /** @throws Failure InternalError when its record is damaged: it is not gone */
  get(kind: Kind, key: ObjectKey): Promise<StoredResource | undefined>;
  /** The manifest file that an object was last read from; undefined when it was made by a request, or is not there. */
  manifestOf(kind: Kind, key: ObjectKey): Promise<string | undefined>;
  /** Oldest first. */
  events(kind: Kind, key: ObjectKey): Promise<RecordedEvent[]>;
  problems(): Promise<Problem[]>;
  instance(): Promise<string | undefined>;
  /** The process that is running on this state; undefined when there is none. */
  holder(): Promise<Holder | undefined>;
  /**
   * Tells each object of the kind once, then every change until the signal fires. Resolves after the first complete read. With a
   * key only that object's record is read: who hears nothing of it knows that it is not there.
   * @throws Failure InternalError when the record of that one object is damaged
   */
  watch(
    kind: Kind,
    listener: (change: Change<StoredResource>) => void,
    signal: AbortSignal,
    key?: ObjectKey,
  ): Promise<void>;
}

/** Looks at a state directory beside the process that writes it. Takes no lock and changes nothing. */
export function readState(state: string, timers: Timers = globalThis): StateReader {
  const read = (file: string): Promise<ObjectRecord | undefined> => readRecord(state, file);
  return {
    async list(kind, namespace) {
      const found: StoredResource[] = [];
      await inParallel(await recordFiles(state, kind), FILES_AT_ONCE, async (file) => {
        const object = (await read(file).catch(unlessDamaged))?.object;
        if (object !== undefined && (namespace === undefined || object.metadata.namespace === namespace))
          found.push(object);
      });
      return found.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
    },
    get: async (kind, key) => (await read(recordFile(kind, key)))?.object,
    async manifestOf(kind, key) {
      const record = await read(recordFile(kind, key));
      return record?.origin === 'manifest' ? record.file : undefined;
    },
    async events(kind, key) {
      const file = recordFile(kind, key);
      const uid = (await read(file))?.object.metadata.uid;
      if (uid === undefined) return [];
      const events = decodeEvents(await readJson(join(state, 'events', file)), uid);
      return events.toSorted((a, b) => (a.lastSeen < b.lastSeen ? -1 : Number(a.lastSeen > b.lastSeen)));
    },
    problems: () => readProblems(state),
    instance: () => readInstance(state),
    holder: () => holderOf(state),
    async watch(kind, listener, signal, key) {
      const watcher = new StateWatcher(state, kind, key, listener, timers);
      signal.addEventListener('abort', () => watcher.close(), { once: true });
      await watcher.look();
      if (signal.aborted) watcher.close();
      else watcher.open();
    },
  };
}

async function recordFiles(state: string, kind: Kind): Promise<string[]> {
  const names = await readdir(join(state, 'objects')).catch((error: unknown) => {
    // No process has worked on it yet. A folder that cannot be read is not empty.
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  });
  return names.filter((name) => name.startsWith(`${kind}_`) && name.endsWith('.json'));
}

/** What is there and cannot be understood. The writer sets it aside at its next start. */
class DamagedRecord extends Failure {
  constructor(path: string, cause: unknown) {
    super(
      'InternalError',
      `${path} is damaged: start the controller anew; it sets the file aside, and makes the object again from its manifest`,
      { cause },
    );
  }
}

/** @throws DamagedRecord */
async function readRecord(state: string, file: string): Promise<ObjectRecord | undefined> {
  const path = join(state, 'objects', file);
  const text = await readText(path);
  if (text === undefined) return undefined;
  let record: ObjectRecord;
  try {
    record = decodeRecord(text, file);
  } catch (error) {
    throw new DamagedRecord(path, error);
  }
  const progress = await readFile(join(state, 'progress', file), 'utf8').catch(() => undefined);
  return deepFreeze({ ...record, object: withProgress(record.object, progress) });
}

/** One among many is passed over: the others must be seen all the same. */
function unlessDamaged(error: unknown): undefined {
  if (!(error instanceof DamagedRecord)) throw error;
}

class StateWatcher {
  readonly #state: string;
  readonly #kind: Kind;
  /** The record of the one object that is asked for; undefined: all of the kind. */
  readonly #only: string | undefined;
  readonly #listener: (change: Change<StoredResource>) => void;
  readonly #timers: Timers;
  readonly #known = new Map<string, { fingerprint: string; object: StoredResource }>();
  #watchers: FSWatcher[] = [];
  #poll: unknown;
  #gather: unknown;
  #hints = new Set<string>();
  #looking = Promise.resolve();
  #closed = false;

  constructor(
    state: string,
    kind: Kind,
    key: ObjectKey | undefined,
    listener: (change: Change<StoredResource>) => void,
    timers: Timers,
  ) {
    this.#state = state;
    this.#kind = kind;
    this.#only = key === undefined ? undefined : recordFile(kind, key);
    this.#listener = listener;
    this.#timers = timers;
  }

  open(): void {
    for (const folder of ['objects', 'progress']) {
      try {
        const watcher = watch(join(this.#state, folder), (_, name) => this.#hint(name));
        watcher.on('error', () => watcher.close());
        this.#watchers.push(watcher);
      } catch {
        // Out of inotify watches: polling alone, then.
      }
    }
    this.#schedule();
  }

  close(): void {
    this.#closed = true;
    for (const watcher of this.#watchers) watcher.close();
    this.#timers.clearTimeout(this.#poll);
    this.#timers.clearTimeout(this.#gather);
  }

  /** Looks at all files, or at the named ones. */
  look(names?: Iterable<string>): Promise<void> {
    this.#looking = this.#looking
      .catch(() => undefined)
      .then(async () => {
        const files = new Set(names ?? (this.#only === undefined ? await this.#allFiles() : [this.#only]));
        await inParallel(files, FILES_AT_ONCE, (file) => this.#lookAt(file));
      });
    return this.#looking;
  }

  async #allFiles(): Promise<string[]> {
    return [...(await recordFiles(this.#state, this.#kind)), ...this.#known.keys()];
  }

  #schedule(): void {
    if (this.#closed) return;
    this.#poll = this.#timers.setTimeout(() => {
      const again = (): void => this.#schedule();
      this.look().then(again, again);
    }, POLL_MS);
  }

  #hint(name: string | null): void {
    if (name === null || !(this.#only === undefined ? name.startsWith(`${this.#kind}_`) : name === this.#only)) return;
    this.#hints.add(name);
    this.#gather ??= this.#timers.setTimeout(() => {
      const names = this.#hints;
      this.#hints = new Set();
      this.#gather = undefined;
      this.look(names).catch(() => undefined);
    }, GATHER_MS);
  }

  async #lookAt(file: string): Promise<void> {
    const known = this.#known.get(file);
    const fingerprint =
      (await fingerprintOf(join(this.#state, 'objects', file))) +
      (await fingerprintOf(join(this.#state, 'progress', file)));
    if (known?.fingerprint === fingerprint) return;
    const record = await this.#read(file);
    if (this.#closed || record === 'Damaged') return;
    const object = record?.object;
    if (object === undefined) {
      if (known === undefined) return;
      this.#known.delete(file);
      this.#listener({ type: 'Deleted', object: known.object, previous: known.object });
      return;
    }
    this.#known.set(file, { fingerprint, object });
    if (
      known?.object.metadata.resourceVersion === object.metadata.resourceVersion &&
      known.object.metadata.uid === object.metadata.uid
    )
      return;
    this.#listener(
      known === undefined ? { type: 'Applied', object } : { type: 'Applied', object, previous: known.object },
    );
  }

  /** What is damaged is not gone: what was known of it goes on being told. The one object that is asked for must be known. */
  async #read(file: string): Promise<ObjectRecord | 'Damaged' | undefined> {
    try {
      return await readRecord(this.#state, file);
    } catch (error) {
      if (!(error instanceof DamagedRecord) || this.#only !== undefined) throw error;
      return 'Damaged';
    }
  }
}

async function fingerprintOf(path: string): Promise<string> {
  const facts = await stat(path, { bigint: true }).catch(() => undefined);
  return facts === undefined ? '-' : `${facts.ino}:${facts.size}:${facts.mtimeNs};`;
}
