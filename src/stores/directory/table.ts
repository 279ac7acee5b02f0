import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../../api/failure.ts';
import { type Change, type Kind, keyOf, type ObjectKey, type Resource } from '../store.ts';
import { inParallel, Serial } from './concurrency.ts';
import type { Disk } from './disk.ts';
import { deepFreeze } from './freeze.ts';
import { idOf } from './kinds.ts';
import {
  decodeRecord,
  type ObjectRecord,
  type ProgressRecord,
  recordFile,
  type StoredResource,
  withProgress,
} from './records.ts';
import type { Log } from './seams.ts';
import { readText, setAside, type VersionCounter } from './state.ts';

const FILES_AT_ONCE = 32;

/** What a change makes of a record. `Progress` is only worth a rename, `Quiet` (bookkeeping) changes nothing that readers see. */
export type Outcome =
  | { type: 'Unchanged' }
  | { type: 'Write'; record: Omit<ObjectRecord, 'format'> }
  | { type: 'Quiet'; record: Omit<ObjectRecord, 'format'> }
  | { type: 'Progress'; status: Record<string, unknown> }
  | { type: 'Remove' };

type Listener = (change: Change) => void;

export interface TableOptions {
  state: string;
  disk: Disk;
  versions: VersionCounter;
  log: Log;
  /** Called before the last of an object is removed; it goes only when this resolves. */
  beforeRemoval(record: ObjectRecord): Promise<void>;
}

/**
 * The objects in memory and in `state/objects`. Each change is computed from the newest state, one at a time per object, and is on
 * the disk before anyone sees it.
 */
export class ObjectTable {
  readonly #options: TableOptions;
  readonly #records = new Map<string, ObjectRecord>();
  readonly #kinds = new Map<string, Map<string, ObjectRecord>>();
  readonly #lists = new Map<string, readonly StoredResource[]>();
  readonly #listeners = new Map<Kind, Set<Listener>>();
  readonly #serial = new Serial();
  /** Objects that have a file under `progress/`. */
  readonly #progress = new Set<string>();
  /** resourceVersion on the disk, of records that have newer progress in memory. */
  readonly #bases = new WeakMap<ObjectRecord, string>();
  /** Until the first complete read, nobody is told of anything: a spec from the last run may be long out of date. */
  #telling = false;

  constructor(options: TableOptions) {
    this.#options = options;
  }

  /** Reads the state. What is damaged is set aside, and its object is taken as new. Returns the largest resourceVersion. */
  async load(): Promise<number> {
    const { state, disk, log } = this.#options;
    const folder = join(state, 'objects');
    const files = (await readdir(folder)).filter((name) => name.endsWith('.json'));
    const progress = new Set(await readdir(join(state, 'progress')));
    let largest = 0;
    await inParallel(files, FILES_AT_ONCE, async (file) => {
      const path = join(folder, file);
      let record: ObjectRecord;
      try {
        record = decodeRecord(await readFile(path, 'utf8'), file);
      } catch (error) {
        if (error instanceof Error && 'syscall' in error) throw error;
        const aside = await setAside(path);
        log.warn({ path: aside, err: error }, 'a damaged state file has been set aside; its object is taken as new');
        return;
      }
      if (progress.delete(file)) {
        const base = record.object.metadata.resourceVersion;
        record.object = withProgress(record.object, await readText(join(state, 'progress', file)));
        this.#bases.set(record, base);
        this.#progress.add(idOf(record.object.kind, record.object));
      }
      largest = Math.max(largest, Number(record.object.metadata.resourceVersion));
      this.#keep(record);
    });
    const known = new Set([...this.#records.values()].map(({ object }) => recordFile(object.kind, object.metadata)));
    for (const file of progress) await disk.remove(join(state, 'progress', file), false);
    for (const file of await readdir(join(state, 'events'))) {
      if (!known.has(file)) await disk.remove(join(state, 'events', file), false);
    }
    return largest;
  }

  get(kind: Kind, key: ObjectKey): ObjectRecord | undefined {
    return this.#records.get(idOf(kind, key));
  }

  list(kind: Kind): readonly StoredResource[] {
    let list = this.#lists.get(kind);
    if (list === undefined) {
      list = Object.freeze([...(this.#kinds.get(kind)?.values() ?? [])].map(({ object }) => object));
      this.#lists.set(kind, list);
    }
    return list;
  }

  records(): Iterable<ObjectRecord> {
    return this.#records.values();
  }

  subscribe(kind: Kind, listener: Listener): () => void {
    const listeners = this.#listeners.get(kind) ?? new Set();
    this.#listeners.set(kind, listeners);
    listeners.add(listener);
    if (this.#telling) for (const object of this.list(kind)) this.#tell(listener, { type: 'Applied', object });
    return () => listeners.delete(listener);
  }

  get isTelling(): boolean {
    return this.#telling;
  }

  /** Tells all that is there, and from now on every change. */
  startTelling(): void {
    if (this.#telling) return;
    this.#telling = true;
    for (const [kind, listeners] of this.#listeners) {
      for (const listener of listeners) {
        for (const object of this.list(kind)) this.#tell(listener, { type: 'Applied', object });
      }
    }
  }

  /** Tells of an object that is not in this table (Secrets, ConfigMaps). */
  tell(change: Change): void {
    if (!this.#telling) return;
    for (const listener of this.#listeners.get(change.object.kind as Kind) ?? []) this.#tell(listener, change);
  }

  /**
   * Changes one object. Resolves to what it is then, or undefined when there is none.
   * @throws what `decide` throws; Failure DiskFull; then nothing has changed.
   */
  change(
    kind: Kind,
    key: ObjectKey,
    decide: (record: ObjectRecord | undefined) => Outcome,
  ): Promise<ObjectRecord | undefined> {
    const id = idOf(kind, key);
    return this.#serial.run(id, async () => {
      const before = this.#records.get(id);
      const outcome = decide(before);
      try {
        if (outcome.type === 'Unchanged') return before;
        if (outcome.type === 'Remove') return await this.#remove(id, before);
        if (outcome.type === 'Progress') return await this.#writeProgress(id, before, outcome.status);
        return await this.#write(id, before, outcome.record, outcome.type === 'Write');
      } catch (error) {
        throw Failure.from(error);
      }
    });
  }

  idle(): Promise<void> {
    return this.#serial.idle();
  }

  async #write(
    id: string,
    before: ObjectRecord | undefined,
    written: Omit<ObjectRecord, 'format'>,
    visible: boolean,
  ): Promise<ObjectRecord> {
    const { state, disk, versions } = this.#options;
    const resourceVersion = visible ? await versions.next() : written.object.metadata.resourceVersion;
    const object = { ...written.object, metadata: { ...written.object.metadata, resourceVersion } };
    const record: ObjectRecord = deepFreeze({ format: 1, ...written, object });
    const file = recordFile(object.kind, object.metadata);
    await disk.replace(join(state, 'objects', file), `${JSON.stringify(record)}\n`, true);
    this.#keep(record);
    if (this.#progress.delete(id)) await disk.remove(join(state, 'progress', file), false);
    if (visible) this.tell(applied(object, before?.object));
    return record;
  }

  async #writeProgress(
    id: string,
    before: ObjectRecord | undefined,
    status: Record<string, unknown>,
  ): Promise<ObjectRecord | undefined> {
    if (before === undefined) return undefined;
    const { state, disk, versions } = this.#options;
    const { uid } = before.object.metadata;
    const resourceVersion = await versions.next();
    const base = this.#bases.get(before) ?? before.object.metadata.resourceVersion;
    const progress: ProgressRecord = { uid, base, resourceVersion, status };
    const file = recordFile(before.object.kind, before.object.metadata);
    this.#progress.add(id);
    await disk.replace(join(state, 'progress', file), `${JSON.stringify(progress)}\n`, false);
    const object = { ...before.object, metadata: { ...before.object.metadata, resourceVersion }, status };
    const record: ObjectRecord = deepFreeze({ ...before, object });
    this.#bases.set(record, base);
    this.#keep(record);
    this.tell(applied(object, before.object));
    return record;
  }

  async #remove(id: string, before: ObjectRecord | undefined): Promise<undefined> {
    if (before === undefined) return undefined;
    const { state, disk, beforeRemoval } = this.#options;
    await beforeRemoval(before);
    const file = recordFile(before.object.kind, before.object.metadata);
    await disk.remove(join(state, 'objects', file), true);
    this.#records.delete(id);
    this.#kinds.get(before.object.kind)?.delete(keyOf(before.object));
    this.#lists.delete(before.object.kind);
    if (this.#progress.delete(id)) await disk.remove(join(state, 'progress', file), false);
    await disk.remove(join(state, 'events', file), false);
    this.tell({ type: 'Deleted', object: before.object, previous: before.object });
    return undefined;
  }

  #keep(record: ObjectRecord): void {
    const { object } = deepFreeze(record);
    this.#records.set(idOf(object.kind, object), record);
    const ofKind = this.#kinds.get(object.kind) ?? new Map<string, ObjectRecord>();
    this.#kinds.set(object.kind, ofKind);
    ofKind.set(keyOf(object), record);
    this.#lists.delete(object.kind);
  }

  /** A listener's error is its own. */
  #tell(listener: Listener, change: Change): void {
    try {
      listener(change);
    } catch (error) {
      this.#options.log.error({ err: error, object: idOf(change.object.kind, change.object) }, 'a listener failed');
    }
  }
}

function applied(object: Resource, previous: Resource | undefined): Change {
  return previous === undefined ? { type: 'Applied', object } : { type: 'Applied', object, previous };
}
