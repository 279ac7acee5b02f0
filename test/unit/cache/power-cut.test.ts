import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Cache } from '../../../src/cache/cache.ts';
import { Database } from '../../../src/cache/database.ts';
import { diskFiles, type FileOps } from '../../../src/cache/files.ts';
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
  opened,
  recordingLog,
  temporaryFolder,
} from './fixture.ts';

class PowerCut extends Error {}

/**
 * A disk that stops before its Nth step and answers nothing after it. It remembers what was not yet synced, so that a power cut can
 * take that away as well.
 */
class CuttableDisk {
  readonly files: FileOps;
  #left: number;
  #renames: { from: string; to: string }[] = [];
  #unsyncedLog = true;
  readonly #root: string;

  constructor(root: string, steps: number) {
    this.#root = root;
    this.#left = steps;
    const step = (): void => {
      this.#left -= 1;
      if (this.#left < 0) throw new PowerCut();
    };
    this.files = {
      seal: async (path) => (step(), diskFiles.seal(path)),
      state: async (path) => (step(), diskFiles.state(path)),
      rename: async (from, to) => {
        step();
        await diskFiles.rename(from, to);
        this.#renames.push({ from, to });
      },
      remove: async (path) => (step(), diskFiles.remove(path)),
      makeFolder: async (path) => (step(), diskFiles.makeFolder(path)),
      syncFolder: async (path) => {
        step();
        await diskFiles.syncFolder(path);
        this.#renames = this.#renames.filter(({ to }) => dirname(to) !== path);
      },
      syncData: async (path) => {
        step();
        await diskFiles.syncData(path);
        if (existsSync(path)) cpSync(path, `${path}.synced`);
        this.#unsyncedLog = false;
      },
      names: async (path) => (step(), diskFiles.names(path)),
    };
  }

  get wasCut(): boolean {
    return this.#left < 0;
  }

  /**
   * What a machine finds when it is on again, in a new folder: the old one is still locked by this process. With `loseUnsynced`
   * renames in unsynced folders have not happened, and the index has no transaction that was not synced.
   */
  after(loseUnsynced: boolean): string {
    const found = temporaryFolder();
    if (loseUnsynced) {
      for (const { from, to } of this.#renames.toReversed()) if (existsSync(to)) renameSync(to, from);
    }
    for (const name of readdirSync(this.#root)) {
      if (name.startsWith('cache.db')) continue;
      // Moved, not copied: the inode is part of what the index trusts.
      renameSync(join(this.#root, name), join(found, name));
    }
    const log = join(this.#root, 'cache.db-wal');
    cpSync(join(this.#root, 'cache.db'), join(found, 'cache.db'));
    const survivor = loseUnsynced && !this.#unsyncedLog ? `${log}.synced` : log;
    if (existsSync(survivor)) cpSync(survivor, join(found, 'cache.db-wal'));
    return found;
  }
}

/** Everything that the cache does to the disk; returns at the cut with what had been promised until then. */
async function live(cache: Cache, promised: Set<string>): Promise<void> {
  const take = async (name: string, blocks: number): Promise<string> => {
    const { directory, nextGeneration } = await cache.partialDirectory(name);
    const reservation = await cache.reserve(blocks * BLOCK, `job ${name}`, name);
    const bytes = content(name, blocks);
    writeFileSync(`${directory}/${nextGeneration}.part`, bytes);
    const record = await cache.newPartial(name, `http://o/${name}`, {}, nextGeneration);
    cache.recordWatermark(name, record.generation, BLOCK);
    const sha256 = digestOf(bytes);
    cache.pin(sha256, 'promise');
    await cache.admit(record.path, sha256, factsOf(bytes), 'public');
    promised.add(sha256);
    reservation.release();
    return sha256;
  };
  const a = await take('a', 2);
  const b = await take('b', 1);
  // The same bytes again.
  const again = cache.scratch('.raw');
  writeFileSync(again, content('a', 2));
  await cache.admit(again, a, factsOf(content('a', 2)), 'public');
  // A result of a transform.
  const result = cache.scratch('.raw');
  writeFileSync(result, content('result'));
  await cache.admitTransform(b, 't', result, digestOf(content('result')), factsOf(content('result')));
  promised.add(digestOf(content('result')));
  await cache.annotate(a, { format: 'Raw' });
  await cache.grant(b, { namespace: 'n', credentials: 'c' });
  // An unfinished fetch, begun again from zero.
  for (const round of [1, 2]) {
    const { directory, nextGeneration } = await cache.partialDirectory('unfinished');
    writeFileSync(`${directory}/${nextGeneration}.part`, content('unfinished', round));
    const record = await cache.newPartial('unfinished', 'http://o/u', {}, nextGeneration);
    cache.recordWatermark('unfinished', record.generation, BLOCK);
  }
  // An eviction: from here on `a` and the unfinished fetch are not promised any more.
  cache.unpinAll('promise');
  cache.pin(b, 'kept');
  cache.pin(digestOf(content('result')), 'kept');
  promised.delete(a);
  (await cache.reserve(8 * BLOCK, 'large')).release();
  await cache.dropPartial('unfinished');
}

async function surviveCutAt(step: number, loseUnsynced: boolean): Promise<boolean> {
  const root = temporaryFolder();
  const clock = new HeldClock();
  const disk = new CuttableDisk(root, step);
  const layout = new Layout(root);
  const database = Database.open(layout.database, disk.files);
  const options = {
    directory: root,
    log: recordingLog(),
    now: clock.now,
    after: clock.after,
    statfs: largeVolume,
    quotaBytes: 10 * BLOCK,
  };
  const promised = new Set<string>();
  try {
    await live(await startCache(options, layout, database, disk.files), promised);
  } catch (error) {
    const cut = error instanceof PowerCut || (error as Error).cause instanceof PowerCut;
    if (!cut) throw error;
  }
  const directory = disk.after(loseUnsynced);
  database.close();

  const { cache, log } = await opened({ directory, quotaBytes: 10 * BLOCK });
  const where = `cut at step ${step}, ${loseUnsynced ? 'unsynced lost' : 'unsynced kept'}`;
  for (const sha256 of promised) expect(await cache.find({ sha256 }, 'public'), where).toBeDefined();
  const files = blobFiles(directory);
  for (const sha256 of files.keys()) {
    const blob = await cache.get(sha256);
    expect(blob, where).toBeDefined();
    expect(digestOf(readFileSync(blob?.path ?? '')), where).toBe(sha256);
  }
  expect(cache.stats().blobs, where).toBe(files.size);
  expect(cache.stats().bytes, where).toBe(files.values().reduce((sum, bytes) => sum + bytes, 0));
  const partial = cache.partial('unfinished');
  if (partial !== undefined) expect(readFileSync(partial.path).length, where).toBeGreaterThanOrEqual(partial.watermark);
  const parts = readdirSync(join(directory, 'partial'), { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.part'),
  );
  const journalled = ['a', 'b', 'unfinished'].flatMap((key) => cache.partial(key)?.path ?? []);
  expect(parts.map((name) => basename(name)).sort(), where).toEqual(journalled.map((path) => basename(path)).sort());
  expect(readdirSync(join(directory, 'scratch')), where).toEqual([]);
  expect(log.messages('error'), where).toEqual([]);
  // And life goes on.
  await live(cache, new Set());
  await cache.close();
  return disk.wasCut;
}

describe('a power cut', () => {
  it.each([false, true])(
    'between any two steps leaves what the next start puts right (unsynced writes lost: %s)',
    async (loseUnsynced) => {
      let step = 0;
      while (await surviveCutAt(step, loseUnsynced)) step += 1;
      // All of it was walked through: start, four admissions, two generations, an eviction.
      expect(step).toBeGreaterThan(40);
    },
  );

  it('that takes the tail of a partial away costs the partial, not the start', async () => {
    const { cache, directory } = await opened();
    const record = await cache.newPartial('k', 'http://o/x', {});
    writeFileSync(record.path, content('k', 2));
    cache.recordWatermark('k', record.generation, 2 * BLOCK);
    await cache.close();
    truncateSync(record.path, BLOCK);
    const { cache: again } = await opened({ directory });
    expect(again.partial('k')).toBeUndefined();
  });

  it('before the index was written for the first time leaves a folder that can be opened', async () => {
    const directory = temporaryFolder();
    writeFileSync(join(directory, 'cache.db'), '');
    mkdirSync(join(directory, 'scratch'));
    const { cache } = await opened({ directory });
    expect(cache.stats().blobs).toBe(0);
    rmSync(join(directory, 'holder.json'));
  });
});
