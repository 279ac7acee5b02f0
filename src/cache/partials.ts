import { statSync } from 'node:fs';
import { basename } from 'node:path';
import { Failure } from '../api/failure.ts';
import type { PartialRecord, Validators } from './cache.ts';
import type { Database, Row } from './database.ts';
import { type FileOps, isMissing } from './files.ts';
import { type Layout, partialName } from './layout.ts';
import type { KeyedLock } from './locks.ts';
import type { CacheLog } from './log.ts';

/** A partial that got no byte for this long belongs to a fetch that nobody wants any more. */
export const PARTIAL_KEPT_MS = 7 * 24 * 3600 * 1000;

interface Dependencies {
  db: Database;
  files: FileOps;
  layout: Layout;
  locks: KeyedLock;
  log: CacheLog;
  now(): number;
}

/** A partial that no reservation covers: an eviction may take it. */
export interface LoosePartial {
  key: string;
  path: string;
  allocated: number;
}

/**
 * The journal of unfinished fetches. A generation is one inode with one set of validators: below its watermark the bytes are on
 * the disk. Numbers of generations go up over all keys and restarts, so that nobody who still holds a descriptor of an old one
 * can take a new one for it.
 */
export class Partials {
  readonly #deps: Dependencies;
  #nextGeneration: number;
  #beingUnlinked = 0;

  constructor(deps: Dependencies) {
    this.#deps = deps;
    const row = deps.db.get(`select value from counters where name = 'generation'`);
    this.#nextGeneration = Number(row?.['value'] ?? 1);
  }

  get(key: string): PartialRecord | undefined {
    const row = this.#deps.db.get('select * from partials where key = ?', key);
    return row === undefined ? undefined : this.#record(row);
  }

  async directory(key: string): Promise<{ directory: string; nextGeneration: number }> {
    const directory = this.#deps.layout.partialFolder(key);
    await this.#deps.files.makeFolder(directory);
    return { directory, nextGeneration: this.#nextGeneration };
  }

  async start(key: string, source: string, validators: Validators, chosen?: number): Promise<PartialRecord> {
    const { db, files, layout, locks, now } = this.#deps;
    const generation = chosen ?? this.#nextGeneration;
    this.#nextGeneration = Math.max(this.#nextGeneration, generation + 1);
    return locks.run(layout.partialFolder(key), async () => {
      const older = this.get(key);
      if (older !== undefined && older.generation >= generation) {
        throw new Failure(
          'InternalError',
          `generation ${generation} of a partial was asked for after ${older.generation}`,
        );
      }
      const folder = layout.partialFolder(key);
      await files.makeFolder(folder);
      db.transaction(() => {
        db.run(
          `insert or replace into partials (key, generation, source, validators, watermark, used_at)
            values (?, ?, ?, ?, 0, ?)`,
          key,
          generation,
          source,
          JSON.stringify(validators),
          now(),
        );
        db.run(`insert or replace into counters (name, value) values ('generation', ?)`, this.#nextGeneration);
      });
      // Who still reads the older one keeps its descriptor, and with it the inode.
      for (const name of await files.names(folder)) {
        if (name !== partialName(generation)) await files.remove(`${folder}/${name}`);
      }
      return { key, generation, path: layout.partial(key, generation), source, validators, watermark: 0 };
    });
  }

  /**
   * Late words of an older generation, and steps back, are ignored. A journal that cannot be written (full disk) costs bytes that are
   * fetched twice after a restart, not the fetch.
   */
  advance(key: string, generation: number, watermark: number): void {
    const { db, log, now } = this.#deps;
    try {
      db.transaction(() =>
        db.run(
          'update partials set watermark = ?, used_at = ? where key = ? and generation = ? and watermark < ?',
          watermark,
          now(),
          key,
          generation,
          watermark,
        ),
      );
    } catch (error) {
      log.warn(
        { err: error },
        'the progress of a partial could not be journalled; a restart would go on from further back',
      );
    }
  }

  /** The row goes first: a file without a row is removed at the next start, a row without a file too. */
  async drop(key: string): Promise<void> {
    const { db, files, layout, locks } = this.#deps;
    await locks.run(layout.partialFolder(key), async () => {
      db.transaction(() => db.run('delete from partials where key = ?', key));
      await files.remove(layout.partialFolder(key));
    });
  }

  /** Takes the row out; the caller has made the file a blob, or removes it. Inside a transaction. */
  forget(key: string): void {
    this.#deps.db.run('delete from partials where key = ?', key);
  }

  /** The key of the partial that this file is the current generation of. */
  keyOf(path: string): string | undefined {
    // Few rows, and asked once an admission: no index by folder is kept.
    const row = this.#deps.db.all('select * from partials').find((candidate) => this.#record(candidate).path === path);
    return row === undefined ? undefined : String(row['key']);
  }

  /** Those that no reservation covers, the longest unused first. Synchronous, so that a decision about space is one step. */
  loose(covered: ReadonlySet<string>): LoosePartial[] {
    return this.#deps.db
      .all('select * from partials order by used_at')
      .map((row) => this.#record(row))
      .filter((record) => !covered.has(record.key))
      .map(({ key, path }) => ({ key, path, allocated: allocatedBytes(path) }));
  }

  /** Those of the loose ones that got no byte for {@link PARTIAL_KEPT_MS}. */
  stale(covered: ReadonlySet<string>): LoosePartial[] {
    const stale = new Set(
      this.#deps.db
        .all('select key from partials where used_at < ?', this.#deps.now() - PARTIAL_KEPT_MS)
        .map((row) => String(row['key'])),
    );
    return this.loose(covered).filter(({ key }) => stale.has(key));
  }

  /**
   * Their rows are gone when this returns, so that two decisions about space never count on the same one; resolves when the files
   * are gone. Folders stay: a new fetch may be about to write there.
   */
  async discard(partials: readonly LoosePartial[]): Promise<void> {
    const { db, files, layout, locks } = this.#deps;
    if (partials.length === 0) return;
    db.transaction(() => {
      for (const { key } of partials) this.forget(key);
    });
    const bytes = partials.reduce((sum, { allocated }) => sum + allocated, 0);
    this.#beingUnlinked += bytes;
    try {
      await Promise.all(
        partials.map(({ key, path }) => locks.run(layout.partialFolder(key), () => files.remove(path))),
      );
    } finally {
      this.#beingUnlinked -= bytes;
    }
  }

  /** Bytes of discarded partials whose files are still to be unlinked. */
  get beingUnlinked(): number {
    return this.#beingUnlinked;
  }

  /** At start: drops what is shorter than its watermark or missing, and files that no row names. */
  async repair(): Promise<void> {
    const { db, files, layout, log } = this.#deps;
    const kept = new Map<string, string>();
    for (const row of db.all('select * from partials')) {
      const record = this.#record(row);
      const state = await files.state(record.path);
      if (state !== undefined && state.size >= record.watermark) {
        kept.set(basename(layout.partialFolder(record.key)), partialName(record.generation));
        continue;
      }
      if (state !== undefined) {
        log.warn(
          { source: record.source, size: state.size, watermark: record.watermark },
          'a partial is shorter than its journal says; it is fetched again from zero',
        );
      }
      db.transaction(() => this.forget(record.key));
    }
    for (const folder of await files.names(layout.partials)) {
      const name = kept.get(folder);
      const path = `${layout.partials}/${folder}`;
      if (name === undefined) {
        await files.remove(path);
        continue;
      }
      for (const other of await files.names(path)) if (other !== name) await files.remove(`${path}/${other}`);
    }
  }

  #record(row: Row): PartialRecord {
    const [key, generation] = [String(row['key']), Number(row['generation'])];
    return {
      key,
      generation,
      path: this.#deps.layout.partial(key, generation),
      source: String(row['source']),
      validators: JSON.parse(String(row['validators'])) as Validators,
      watermark: Number(row['watermark']),
    };
  }
}

/** What a file takes on the disk now; 0 when it is not there. One stat, as short as a read of the index beside it. */
export function allocatedBytes(path: string): number {
  try {
    return (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512;
  } catch (error) {
    if (isMissing(error)) return 0;
    throw Failure.from(error);
  }
}
