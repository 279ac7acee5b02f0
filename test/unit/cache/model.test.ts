import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { Failure, Reason } from '../../../src/api/failure.ts';
import type { Cache, Reservation } from '../../../src/cache/cache.ts';
import { Database } from '../../../src/cache/database.ts';
import { diskFiles } from '../../../src/cache/files.ts';
import { startCache } from '../../../src/cache/index.ts';
import { Layout } from '../../../src/cache/layout.ts';
import {
  BLOCK,
  blobFiles,
  content,
  digestOf,
  factsOf,
  HeldClock,
  largeVolume,
  recordingLog,
  TEMPORARY,
  turn,
} from './fixture.ts';

/**
 * Random sequences of everything that has to do with space, against a model that is simple enough to be believed: lists, and sums
 * made anew each time.
 */

const QUOTA = 12;
const MINUTE = 60_000;

interface ModelBlob {
  name: string;
  blocks: number;
  usedAt: number;
  persistedUse: number;
}

interface Model {
  blobs: ModelBlob[];
  pins: Map<string, Set<string>>;
  reservations: { holder: string; blocks: number; handle: Reservation }[];
  queue: { holder: string; askedAt: number }[];
  lastUse: number;
  evictions: number;
}

interface Real {
  cache: Cache;
  database: Database;
  directory: string;
  clock: HeldClock;
}

const blobBlocks = (model: Model): number => model.blobs.reduce((sum, { blocks }) => sum + blocks, 0);
const reservedBlocks = (model: Model): number => model.reservations.reduce((sum, { blocks }) => sum + blocks, 0);
const isPinned = (model: Model, name: string): boolean => [...model.pins.values()].some((names) => names.has(name));
const byUse = (model: Model): ModelBlob[] => [...model.blobs].sort((a, b) => a.usedAt - b.usedAt);

function use(model: Model, blob: ModelBlob, now: number): void {
  model.lastUse = Math.max(now, model.lastUse + 1);
  blob.usedAt = model.lastUse;
}

/** Takes the least recently used until that many blocks have gone; false, and nothing gone, when there are not enough. */
function evict(model: Model, blocks: number, kept?: ModelBlob): boolean {
  const candidates = byUse(model).filter((blob) => blob !== kept && !isPinned(model, blob.name));
  if (candidates.reduce((sum, blob) => sum + blob.blocks, 0) < blocks && kept === undefined) return false;
  let missing = blocks;
  for (const victim of candidates) {
    if (missing <= 0) break;
    missing -= victim.blocks;
    model.blobs.splice(model.blobs.indexOf(victim), 1);
    model.evictions += 1;
  }
  return true;
}

async function outcome(work: Promise<unknown>): Promise<Reason | 'granted'> {
  return work.then(
    () => 'granted' as const,
    (error: unknown) => (error as Failure).reason,
  );
}

abstract class Command implements fc.AsyncCommand<Model, Real> {
  check(): boolean {
    return true;
  }
  abstract act(model: Model, real: Real): Promise<void>;
  abstract toString: () => string;

  async run(model: Model, real: Real): Promise<void> {
    await this.act(model, real);
    await turn();
    const pinned = model.blobs.filter(({ name }) => isPinned(model, name));
    expect(real.cache.stats()).toEqual({
      bytes: blobBlocks(model) * BLOCK,
      partialBytes: 0,
      quotaBytes: QUOTA * BLOCK,
      reservedBytes: reservedBlocks(model) * BLOCK,
      pinnedBytes: pinned.reduce((sum, { blocks }) => sum + blocks, 0) * BLOCK,
      blobs: model.blobs.length,
      evictions: model.evictions,
    });
    // What the cheap sums say is what a full recount of the disk says.
    const files = blobFiles(real.directory);
    const expected = model.blobs.map(({ name, blocks }) => [nameOf(name, blocks), blocks * BLOCK] as const);
    expect(files).toEqual(new Map(expected));
  }
}

/** A blob's size is part of its name here, so that one name is always the same bytes. */
const nameOf = (name: string, blocks: number): string => digestOf(content(name, blocks));

class Reserve extends Command {
  readonly holder: string;
  readonly blocks: number;
  constructor(holder: string, blocks: number) {
    super();
    this.holder = holder;
    this.blocks = blocks;
  }
  async act(model: Model, { cache, clock }: Real): Promise<void> {
    const now = clock.now();
    model.queue = model.queue.filter(({ askedAt }) => now - askedAt < 10 * MINUTE);
    const holds = model.reservations.some(({ holder }) => holder === this.holder);
    const place = model.queue.findIndex(({ holder }) => holder === this.holder);
    const first = holds || place === 0 || (place === -1 && model.queue.length === 0);
    const missing = this.blocks + blobBlocks(model) + reservedBlocks(model) - QUOTA;
    const attempt = cache.reserve(this.blocks * BLOCK, this.holder);
    if (this.blocks > QUOTA) {
      expect(await outcome(attempt)).toBe('TooLarge');
      if (place !== -1) model.queue.splice(place, 1);
    } else if (first && evict(model, Math.max(0, missing))) {
      model.reservations.push({ holder: this.holder, blocks: this.blocks, handle: await attempt });
      if (place !== -1) model.queue.splice(place, 1);
    } else {
      expect(await outcome(attempt)).toBe('CacheFull');
      if (holds) return;
      if (place === -1) model.queue.push({ holder: this.holder, askedAt: now });
      else model.queue[place] = { holder: this.holder, askedAt: now };
    }
  }
  toString = (): string => `reserve ${this.blocks} for ${this.holder}`;
}

class Resize extends Command {
  readonly which: number;
  readonly blocks: number;
  constructor(which: number, blocks: number) {
    super();
    this.which = which;
    this.blocks = blocks;
  }
  async act(model: Model): Promise<void> {
    const target = model.reservations[this.which % Math.max(1, model.reservations.length)];
    if (target === undefined) return;
    const missing = this.blocks - target.blocks + blobBlocks(model) + reservedBlocks(model) - QUOTA;
    const evictable = model.blobs
      .filter(({ name }) => !isPinned(model, name))
      .reduce((sum, { blocks }) => sum + blocks, 0);
    const youngest = model.reservations.at(-1) === target;
    // An older one would wait for a younger one to end; the ledger's own tests follow that.
    if (missing > evictable && !youngest && this.blocks <= QUOTA) return;
    const result = await outcome(target.handle.resize(this.blocks * BLOCK));
    if (this.blocks > QUOTA) expect(result).toBe('TooLarge');
    else if (this.blocks <= target.blocks || evict(model, Math.max(0, missing))) {
      expect(result).toBe('granted');
      target.blocks = this.blocks;
    } else expect(result).toBe('CacheFull');
  }
  toString = (): string => `resize ${this.which} to ${this.blocks}`;
}

class Release extends Command {
  readonly which: number;
  constructor(which: number) {
    super();
    this.which = which;
  }
  async act(model: Model): Promise<void> {
    const [target] = model.reservations.splice(this.which % Math.max(1, model.reservations.length), 1);
    target?.handle.release();
  }
  toString = (): string => `release ${this.which}`;
}

class Admit extends Command {
  readonly name: string;
  readonly blocks: number;
  readonly inside: number | undefined;
  constructor(name: string, blocks: number, inside: number | undefined) {
    super();
    this.name = name;
    this.blocks = blocks;
    this.inside = inside;
  }
  async act(model: Model, { cache, clock }: Real): Promise<void> {
    const reservation =
      this.inside === undefined ? undefined : model.reservations[this.inside % Math.max(1, model.reservations.length)];
    // Who writes inside a reservation writes no more than it.
    if (reservation !== undefined && reservation.blocks < this.blocks) return;
    const bytes = content(this.name, this.blocks);
    const path = cache.scratch('.raw');
    reservation?.handle.cover(path);
    writeFileSync(path, bytes);
    await cache.admit(path, digestOf(bytes), factsOf(bytes), 'public');
    let blob = model.blobs.find(({ name, blocks }) => name === this.name && blocks === this.blocks);
    if (blob === undefined) {
      blob = { name: this.name, blocks: this.blocks, usedAt: 0, persistedUse: 0 };
      use(model, blob, clock.now());
      blob.persistedUse = blob.usedAt;
      model.blobs.push(blob);
      if (reservation !== undefined) reservation.blocks -= this.blocks;
    } else {
      use(model, blob, clock.now());
    }
    evict(model, Math.max(0, blobBlocks(model) + reservedBlocks(model) - QUOTA), blob);
  }
  toString = (): string =>
    `admit ${this.name}, ${this.blocks} blocks${this.inside === undefined ? '' : `, inside ${this.inside}`}`;
}

class Find extends Command {
  readonly name: string;
  readonly blocks: number;
  constructor(name: string, blocks: number) {
    super();
    this.name = name;
    this.blocks = blocks;
  }
  async act(model: Model, { cache, clock }: Real): Promise<void> {
    const known = model.blobs.find(({ name, blocks }) => name === this.name && blocks === this.blocks);
    const found = await cache.find({ sha256: nameOf(this.name, this.blocks) }, 'public');
    expect(found !== undefined).toBe(known !== undefined);
    if (known === undefined) return;
    use(model, known, clock.now());
    if (known.usedAt - known.persistedUse >= MINUTE) known.persistedUse = known.usedAt;
  }
  toString = (): string => `find ${this.name} of ${this.blocks}`;
}

class Pin extends Command {
  readonly holder: string;
  readonly name: string;
  constructor(holder: string, name: string) {
    super();
    this.holder = holder;
    this.name = name;
  }
  async act(model: Model, { cache }: Real): Promise<void> {
    // Both sizes of the name, as the model pins by name.
    for (const blocks of SIZES) cache.pin(nameOf(this.name, blocks), this.holder);
    const names = model.pins.get(this.holder) ?? new Set();
    model.pins.set(this.holder, names.add(this.name));
  }
  toString = (): string => `pin ${this.name} for ${this.holder}`;
}

class Unpin extends Command {
  readonly holder: string;
  constructor(holder: string) {
    super();
    this.holder = holder;
  }
  async act(model: Model, { cache }: Real): Promise<void> {
    cache.unpinAll(this.holder);
    model.pins.delete(this.holder);
  }
  toString = (): string => `unpin all of ${this.holder}`;
}

class GiveUp extends Command {
  readonly holder: string;
  constructor(holder: string) {
    super();
    this.holder = holder;
  }
  async act(model: Model, { cache }: Real): Promise<void> {
    cache.giveUp(this.holder);
    model.queue = model.queue.filter(({ holder }) => holder !== this.holder);
  }
  toString = (): string => `${this.holder} gives up`;
}

class Wait extends Command {
  readonly minutes: number;
  constructor(minutes: number) {
    super();
    this.minutes = minutes;
  }
  async act(_model: Model, { clock }: Real): Promise<void> {
    clock.advance(this.minutes * MINUTE);
  }
  toString = (): string => `wait ${this.minutes} min`;
}

class Restart extends Command {
  readonly crash: boolean;
  constructor(crash: boolean) {
    super();
    this.crash = crash;
  }
  async act(model: Model, real: Real): Promise<void> {
    if (this.crash) real.database.close();
    else await real.cache.close();
    Object.assign(real, await start(real.directory, real.clock));
    for (const blob of model.blobs) {
      // Uses are written down once a minute; a crash forgets the later ones.
      if (this.crash) blob.usedAt = blob.persistedUse;
      else blob.persistedUse = blob.usedAt;
    }
    model.lastUse = Math.max(0, ...model.blobs.map(({ usedAt }) => usedAt));
    model.pins.clear();
    model.reservations = [];
    model.queue = [];
    model.evictions = 0;
    // What pins kept above the quota goes now.
    evict(model, Math.max(0, blobBlocks(model) - QUOTA));
    model.evictions = real.cache.stats().evictions;
  }
  toString = (): string => (this.crash ? 'crash' : 'restart');
}

const SIZES = [1, 3] as const;

async function start(directory: string, clock: HeldClock): Promise<{ cache: Cache; database: Database }> {
  const layout = new Layout(directory);
  const database = Database.open(layout.database, diskFiles);
  const options = {
    directory,
    log: recordingLog(),
    now: clock.now,
    after: clock.after,
    statfs: largeVolume,
    quotaBytes: QUOTA * BLOCK,
  };
  return { cache: await startCache(options, layout, database, diskFiles), database };
}

describe('the cache and its model', () => {
  const folders: string[] = [];
  afterEach(() => {
    for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
  });

  it('agree after any sequence of reserve, resize, release, admit, find, pin, wait, restart and crash', async () => {
    const name = fc.constantFrom('a', 'b', 'c', 'd', 'e');
    const holder = fc.constantFrom('h1', 'h2', 'h3');
    const blocks = fc.constantFrom(...SIZES);
    const index = fc.nat(5);
    const commands = fc.commands(
      [
        fc.tuple(holder, fc.integer({ min: 0, max: QUOTA + 1 })).map(([who, size]) => new Reserve(who, size)),
        fc.tuple(index, fc.integer({ min: 0, max: QUOTA + 1 })).map(([which, size]) => new Resize(which, size)),
        index.map((which) => new Release(which)),
        fc.tuple(name, blocks).map(([what, size]) => new Admit(what, size, undefined)),
        fc.tuple(name, blocks, index).map(([what, size, inside]) => new Admit(what, size, inside)),
        fc.tuple(name, blocks).map(([what, size]) => new Find(what, size)),
        fc.tuple(holder, name).map(([who, what]) => new Pin(who, what)),
        holder.map((who) => new Unpin(who)),
        holder.map((who) => new GiveUp(who)),
        fc.integer({ min: 1, max: 11 }).map((minutes) => new Wait(minutes)),
        fc.boolean().map((crash) => new Restart(crash)),
      ],
      { maxCommands: 60, size: '+1' },
    );
    await fc.assert(
      fc.asyncProperty(commands, async (script) => {
        const directory = mkdtempSync(join(TEMPORARY, 'cache-model-'));
        folders.push(directory);
        const clock = new HeldClock();
        const real: Real = { directory, clock, ...(await start(directory, clock)) };
        try {
          await fc.asyncModelRun(() => {
            const model: Model = { blobs: [], pins: new Map(), reservations: [], queue: [], lastUse: 0, evictions: 0 };
            return { model, real };
          }, script);
        } finally {
          await real.cache.close();
        }
      }),
      { numRuns: 80 },
    );
  }, 300_000);
});
