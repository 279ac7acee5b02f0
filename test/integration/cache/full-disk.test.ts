import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { Cache } from '../../../src/cache/cache.ts';
import { openCache } from '../../../src/cache/index.ts';

const MIB = 2 ** 20;
const quiet = { info() {}, warn() {}, error() {} };

/** Mounts a small file system, or says why it cannot. */
const MOUNTS: Record<string, (at: string) => void> = {
  tmpfs: (at) => void execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', at], { stdio: 'pipe' }),
  'ext4 on a loop device': (at) => {
    const image = `${at}.img`;
    writeFileSync(image, '');
    truncateSync(image, 64 * MIB);
    execFileSync('mkfs.ext4', ['-q', '-F', image], { stdio: 'pipe' });
    execFileSync('mount', ['-o', 'loop', image, at], { stdio: 'pipe' });
  },
};

function unmountable(kind: string): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root to mount a small file system';
  const at = mkdtempSync(join(tmpdir(), 'cache-mount-'));
  try {
    MOUNTS[kind]?.(at);
    execFileSync('umount', [at]);
    return undefined;
  } catch (error) {
    return `cannot mount ${kind}: ${(error as Error).message.split('\n')[0]}`;
  } finally {
    rmSync(at, { recursive: true, force: true });
    rmSync(`${at}.img`, { force: true });
  }
}

function mounted(kind: string): string {
  const at = mkdtempSync(join(tmpdir(), 'cache-mount-'));
  MOUNTS[kind]?.(at);
  onTestFinished(() => {
    execFileSync('umount', [at]);
    rmSync(at, { recursive: true, force: true });
    rmSync(`${at}.img`, { force: true });
  });
  return join(at, 'cache');
}

function bytesOf(name: string, mib: number): Buffer {
  return Buffer.alloc(mib * MIB, `${name}.`);
}

async function admit(cache: Cache, name: string, mib: number): Promise<string> {
  const bytes = bytesOf(name, mib);
  const path = cache.scratch('.raw');
  writeFileSync(path, bytes);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  await cache.admit(path, sha256, { digests: {}, size: bytes.length, fetchedAt: '' }, 'public');
  return sha256;
}

/** Writes until the very last byte of the volume is gone. */
function fill(path: string): void {
  const file = openSync(path, 'w');
  try {
    for (let size = MIB; size >= 1; size = Math.floor(size / 2)) {
      const chunk = Buffer.alloc(size, 'x');
      try {
        for (;;) if (writeSync(file, chunk) === 0) break;
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC');
      }
    }
  } finally {
    closeSync(file);
  }
}

for (const kind of Object.keys(MOUNTS)) {
  const reason = unmountable(kind);
  describe.skipIf(reason !== undefined)(`a small volume (${kind})${reason === undefined ? '' : `: ${reason}`}`, () => {
    async function open(directory: string, reserveFreeBytes = 0) {
      const cache = await openCache({ directory, now: Date.now, log: quiet, quotaBytes: 2 ** 30, reserveFreeBytes });
      onTestFinished(() => cache.close());
      return cache;
    }

    it('is not promised beyond what it has, and blobs make room on it', async () => {
      const directory = mounted(kind);
      const cache = await open(directory, 2 * MIB);
      const free = statfsSync(directory).bavail * statfsSync(directory).bsize;
      await expect(cache.reserve(free, 'job')).rejects.toMatchObject({ reason: 'DiskFull' });
      const sha256 = await admit(cache, 'a', 5);
      cache.pin(sha256, 'holder');
      await expect(cache.reserve(free - 4 * MIB, 'job')).rejects.toMatchObject({ reason: 'CacheFull' });
      cache.unpinAll('holder');
      const held = await cache.reserve(free - 4 * MIB, 'job');
      expect(await cache.get(sha256)).toBeUndefined();
      // What was promised can be written, to the last byte.
      const path = cache.scratch('.raw');
      held.cover(path);
      writeFileSync(path, Buffer.alloc(held.bytes, 'y'));
      held.release();
    });

    it('that is full to the last byte fails by name, loses no blob, and works again when there is room', async () => {
      const directory = mounted(kind);
      let cache = await open(directory);
      const kept = await admit(cache, 'kept', 2);
      const path = cache.scratch('.raw');
      const bytes = bytesOf('late', 1);
      writeFileSync(path, bytes);
      const late = createHash('sha256').update(bytes).digest('hex');
      const filler = join(directory, 'filler');
      fill(filler);

      const outcomes = new Set<string>();
      const attempt = async (work: () => unknown): Promise<void> => {
        try {
          await work();
          outcomes.add('done');
        } catch (error) {
          expect(error).toBeInstanceOf(Failure);
          outcomes.add((error as Failure).reason);
        }
      };
      // The index's log has a little room left in its last block; it is used up first.
      for (let number = 0; number < 400; number += 1) {
        await attempt(() => cache.newPartial(`key ${number}`.padEnd(400, '.'), 'http://o/x', {}));
        if (outcomes.has('DiskFull')) break;
      }
      expect(outcomes).toContain('DiskFull');
      expect([...outcomes].filter((outcome) => outcome !== 'done')).toEqual(['DiskFull']);
      await attempt(() => cache.admit(path, late, { digests: {}, size: bytes.length, fetchedAt: '' }, 'public'));
      cache.recordWatermark('key 0'.padEnd(400, '.'), 1, 1);
      expect(await cache.find({ sha256: kept }, 'public')).toBeDefined();
      expect([...outcomes].filter((outcome) => outcome !== 'done')).toEqual(['DiskFull']);
      // An eviction needs room in the index, and gets it: the file goes first.
      await cache.drop(kept);
      expect(cache.stats().blobs).toBe((await cache.get(late)) === undefined ? 0 : 1);

      rmSync(filler);
      await admit(cache, 'kept', 2);
      if ((await cache.get(late)) === undefined) {
        await cache.admit(path, late, { digests: {}, size: bytes.length, fetchedAt: '' }, 'public');
      }
      await cache.close();
      cache = await open(directory);
      for (const sha256 of [kept, late]) expect(await cache.find({ sha256 }, 'public')).toBeDefined();
      // ext4 keeps the map of a scattered file in a block of its own.
      expect(cache.stats()).toMatchObject({ blobs: 2 });
      expect(cache.stats().bytes - 3 * MIB).toBeLessThan(MIB / 8);
      expect(readdirSync(join(directory, 'scratch'))).toEqual([]);
    });

    it('that is full from the beginning is told by name', async () => {
      const directory = mounted(kind);
      fill(join(directory, '..', 'filler'));
      await expect(openCache({ directory, now: Date.now, log: quiet })).rejects.toMatchObject({ reason: 'DiskFull' });
      rmSync(join(directory, '..', 'filler'));
      await open(directory);
    });
  });
}
