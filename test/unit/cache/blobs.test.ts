import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Scope } from '../../../src/cache/cache.ts';
import { admitted, BLOCK, blobFiles, content, digestOf, factsOf, opened, reasonOf, turn } from './fixture.ts';

const ALICE: Scope = { namespace: 'alice', credentials: 'c1' };
const ALICE_OTHER: Scope = { namespace: 'alice', credentials: 'c2' };
const BOB: Scope = { namespace: 'bob', credentials: 'c1' };

describe('taking a file in', () => {
  it('consumes it, names it by its sha256, and makes it read-only in folders that are nobody else’s', async () => {
    const { cache, directory } = await opened();
    const bytes = content('image', 3);
    const path = cache.scratch('.raw');
    writeFileSync(path, bytes);
    const sha256 = digestOf(bytes);
    const blob = await cache.admit(
      path,
      sha256,
      factsOf(bytes, { format: 'Raw', compression: 'None', virtualSize: 9, source: 'http://o/x' }),
      'public',
    );
    expect(existsSync(path)).toBe(false);
    expect(blob).toEqual({
      sha256,
      digests: { sha256 },
      path: `${directory}/blobs/sha256/${sha256.slice(0, 2)}/${sha256}`,
      size: 3 * BLOCK,
      format: 'Raw',
      compression: 'None',
      virtualSize: 9,
      source: 'http://o/x',
      fetchedAt: '2026-11-21T12:00:00Z',
    });
    expect(readFileSync(blob.path)).toEqual(bytes);
    expect(statSync(blob.path).mode & 0o777).toBe(0o444);
    for (const folder of ['blobs', 'blobs/sha256', `blobs/sha256/${sha256.slice(0, 2)}`, 'partial', 'scratch']) {
      expect(statSync(`${directory}/${folder}`).mode & 0o777, folder).toBe(0o700);
    }
    expect(await cache.get(sha256)).toEqual(blob);
  });

  it('is idempotent: the second file is removed, what it tells is added', async () => {
    const { cache, directory } = await opened();
    const sha256 = await admitted(cache, 'image', { facts: { format: 'Raw' } });
    await admitted(cache, 'image', { facts: { digests: { md5: 'a'.repeat(32) }, virtualSize: 7 } });
    expect([...blobFiles(directory).keys()]).toEqual([sha256]);
    expect(await cache.get(sha256)).toMatchObject({ format: 'Raw', virtualSize: 7, digests: { md5: 'a'.repeat(32) } });
    expect(cache.stats()).toMatchObject({ blobs: 1, bytes: BLOCK });
  });

  it('takes the same bytes from many at once as one blob', async () => {
    const { cache, directory } = await opened();
    const names = await Promise.all(Array.from({ length: 8 }, () => admitted(cache, 'image')));
    expect([...blobFiles(directory).keys()]).toEqual([names[0]]);
    expect(cache.stats()).toMatchObject({ blobs: 1, bytes: BLOCK });
  });

  it('refuses a file whose size or digest is not the one that was proven', async () => {
    const { cache, directory } = await opened();
    const bytes = content('image');
    const path = cache.scratch('.raw');
    writeFileSync(path, bytes);
    const sha256 = digestOf(bytes);
    const admit = (size: number, name: string, digests = {}) =>
      reasonOf(cache.admit(path, name, { digests, size, fetchedAt: '' }, 'public'));
    expect(await admit(BLOCK + 1, sha256)).toBe('InternalError');
    expect(await admit(BLOCK, '../../etc/passwd')).toBe('InternalError');
    expect(await admit(BLOCK, sha256, { sha256: 'b'.repeat(64) })).toBe('InternalError');
    expect(blobFiles(directory).size).toBe(0);
    expect(existsSync(path)).toBe(true);
  });

  it('leaves a reader of the partial its descriptor', async () => {
    const { cache } = await opened();
    const { directory } = await cache.partialDirectory('k');
    const record = await cache.newPartial('k', 'http://o/x', {});
    expect(record.path).toBe(`${directory}/${record.generation}.part`);
    const bytes = content('image');
    writeFileSync(record.path, bytes);
    const reader = openSync(record.path, 'r');
    await cache.admit(record.path, digestOf(bytes), factsOf(bytes), 'public');
    const seen = Buffer.alloc(BLOCK);
    expect(readSync(reader, seen, 0, BLOCK, 0)).toBe(BLOCK);
    closeSync(reader);
    expect(seen).toEqual(bytes);
    expect(cache.partial('k')).toBeUndefined();
  });

  it('counts what a sparse file takes, not how long it is', async () => {
    const { cache, directory } = await opened({ quotaBytes: 16 * BLOCK });
    const path = cache.scratch('.raw');
    const file = openSync(path, 'w');
    writeSync(file, content('head'), 0, BLOCK, 0);
    closeSync(file);
    truncateSync(path, 1000 * BLOCK);
    const bytes = readFileSync(path);
    const blob = await cache.admit(path, digestOf(bytes), factsOf(bytes), 'public');
    expect(blob.size).toBe(1000 * BLOCK);
    expect(cache.stats().bytes).toBe(blobFiles(directory).get(blob.sha256));
    expect(cache.stats().bytes).toBeLessThan(16 * BLOCK);
  });
});

describe('finding a blob', () => {
  it('by any strong digest, in any case, when none disagrees', async () => {
    const { cache } = await opened();
    const bytes = content('image');
    const sha512 = digestOf(bytes, 'sha512');
    const sha256 = await admitted(cache, 'image', { facts: { digests: { sha512, md5: 'a'.repeat(32) } } });
    const found = async (digests: object) => (await cache.find(digests, 'public'))?.sha256;
    expect(await found({ sha256 })).toBe(sha256);
    expect(await found({ sha256: sha256.toUpperCase() })).toBe(sha256);
    expect(await found({ sha512 })).toBe(sha256);
    expect(await found({ sha512, sha1: 'd'.repeat(40) })).toBe(sha256);
    expect(await found({ sha512: 'e'.repeat(128), sha256 })).toBeUndefined();
    expect(await found({ sha256, md5: 'b'.repeat(32) })).toBeUndefined();
    expect(await found({})).toBeUndefined();
  });

  it('by a weak digest only when the query has no strong one', async () => {
    const { cache } = await opened();
    const sha256 = await admitted(cache, 'image', {
      facts: { digests: { md5: 'a'.repeat(32), sha1: 'b'.repeat(40) } },
    });
    const found = async (digests: object) => (await cache.find(digests, 'public'))?.sha256;
    expect(await found({ md5: 'a'.repeat(32) })).toBe(sha256);
    expect(await found({ md5: 'a'.repeat(32), sha1: 'b'.repeat(40) })).toBe(sha256);
    expect(await found({ md5: 'a'.repeat(32), sha1: 'c'.repeat(40) })).toBeUndefined();
    // Its sha512 is not known, so nothing proves that these are the bytes that were promised.
    expect(await found({ md5: 'a'.repeat(32), sha512: 'f'.repeat(128) })).toBeUndefined();
  });

  it('gives neither of two blobs with one weak digest: that is a made collision', async () => {
    const { cache } = await opened();
    const digests = { md5: 'a'.repeat(32) };
    await admitted(cache, 'good', { facts: { digests } });
    const private_ = await admitted(cache, 'bad', { facts: { digests }, scope: BOB });
    expect((await cache.find(digests, 'public'))?.sha256).toBe(digestOf(content('good')));
    await cache.grant(private_, 'public');
    expect(await cache.find(digests, 'public')).toBeUndefined();
  });

  it('learns digests later, and refuses one that contradicts', async () => {
    const { cache } = await opened();
    const sha256 = await admitted(cache, 'image');
    const sha512 = 'f'.repeat(128);
    expect(await cache.find({ sha512 }, 'public')).toBeUndefined();
    await cache.annotate(sha256, { digests: { sha512 }, format: 'Qcow2' });
    expect(await cache.find({ sha512 }, 'public')).toMatchObject({ sha256, format: 'Qcow2' });
    expect(await reasonOf(cache.annotate(sha256, { digests: { sha512: '0'.repeat(128) } }))).toBe('InternalError');
    expect(await reasonOf(cache.annotate('0'.repeat(64), {}))).toBe('Conflict');
  });

  it('drops, with a warning, a blob whose file was changed, replaced or removed', async () => {
    const { cache, directory, log } = await opened();
    const change: Record<string, (path: string) => void> = {
      size: (path) => truncateSync(path, 10),
      mtime: (path) => utimesSync(path, 1, 1),
      inode: (path) => {
        const { atime, mtime } = statSync(path);
        writeFileSync(`${path}.copy`, readFileSync(path));
        renameSync(`${path}.copy`, path);
        utimesSync(path, atime, mtime);
      },
      existence: (path) => renameSync(path, `${directory}/elsewhere`),
    };
    for (const [what, spoil] of Object.entries(change)) {
      const sha256 = await admitted(cache, what);
      const blob = await cache.get(sha256);
      chmodSync(blob?.path ?? '', 0o644);
      spoil(blob?.path ?? '');
      const before = log.messages('warn').length;
      expect(await cache.find({ sha256 }, 'public'), what).toBeUndefined();
      expect(log.messages('warn').length, what).toBe(before + 1);
      expect(blobFiles(directory).has(sha256), what).toBe(false);
      expect(cache.stats()).toMatchObject({ blobs: 0, bytes: 0 });
      await admitted(cache, what);
      expect((await cache.find({ sha256 }, 'public'))?.sha256).toBe(sha256);
      await cache.drop(sha256);
    }
  });

  it('replaces a damaged blob by the one that is admitted', async () => {
    const { cache } = await opened();
    const sha256 = await admitted(cache, 'image');
    const path = (await cache.get(sha256))?.path ?? '';
    chmodSync(path, 0o644);
    writeFileSync(path, 'broken');
    await admitted(cache, 'image');
    expect(readFileSync((await cache.get(sha256))?.path ?? '')).toEqual(content('image'));
    expect(cache.stats()).toMatchObject({ blobs: 1, bytes: BLOCK });
  });
});

describe('who may use a blob', () => {
  it('everybody, when it was fetched without credentials', async () => {
    const { cache } = await opened();
    const sha256 = await admitted(cache, 'image');
    for (const scope of ['public', ALICE, BOB] as const) expect(await cache.find({ sha256 }, scope)).toBeDefined();
  });

  it('only the same namespace with the same credentials, when it was fetched with some', async () => {
    const { cache } = await opened();
    const sha256 = await admitted(cache, 'image', { scope: ALICE });
    expect(await cache.find({ sha256 }, ALICE)).toBeDefined();
    for (const scope of ['public', ALICE_OTHER, BOB] as const)
      expect(await cache.find({ sha256 }, scope)).toBeUndefined();
  });

  it('one more, when it has fetched the same bytes itself', async () => {
    const { cache } = await opened();
    const sha256 = await admitted(cache, 'image', { scope: ALICE });
    await admitted(cache, 'image', { scope: BOB });
    expect(await cache.find({ sha256 }, BOB)).toBeDefined();
    expect(await cache.find({ sha256 }, 'public')).toBeUndefined();
    await cache.grant(sha256, 'public');
    expect(await cache.find({ sha256 }, ALICE_OTHER)).toBeDefined();
  });

  it('nobody by an empty name, which would mean everybody', async () => {
    const { cache } = await opened();
    const sha256 = await admitted(cache, 'image', { scope: ALICE });
    expect(await reasonOf(cache.grant(sha256, { namespace: '', credentials: '' }))).toBe('InternalError');
    expect(await cache.find({ sha256 }, 'public')).toBeUndefined();
  });
});

describe('transforms', () => {
  async function transformed(scope: Scope) {
    const { cache, clock, directory } = await opened();
    const source = await admitted(cache, 'source', { scope });
    const bytes = content('result');
    const result = digestOf(bytes);
    const make = async (): Promise<void> => {
      const path = cache.scratch('.raw');
      writeFileSync(path, bytes);
      await cache.admitTransform(source, 'qcow2-to-raw/7', path, result, factsOf(bytes));
    };
    await make();
    return { cache, clock, directory, source, result, make };
  }

  it('are found by source and transform', async () => {
    const { cache, source, result } = await transformed('public');
    expect((await cache.findTransform(source, 'qcow2-to-raw/7'))?.sha256).toBe(result);
    expect(await cache.findTransform(source, 'qcow2-to-raw/8')).toBeUndefined();
    expect((await cache.find({ sha256: result }, BOB))?.sha256).toBe(result);
  });

  it('are for those who may use the source, also when they come later', async () => {
    const { cache, source, result } = await transformed(ALICE);
    expect(await cache.find({ sha256: result }, ALICE)).toBeDefined();
    expect(await cache.find({ sha256: result }, BOB)).toBeUndefined();
    await cache.grant(source, BOB);
    expect(await cache.find({ sha256: result }, BOB)).toBeDefined();
    expect(await cache.find({ sha256: result }, 'public')).toBeUndefined();
  });

  it('are not given while the source is away, and again when it is back', async () => {
    const { cache, source } = await transformed('public');
    await cache.drop(source);
    expect(await cache.findTransform(source, 'qcow2-to-raw/7')).toBeUndefined();
    await admitted(cache, 'source');
    expect(await cache.findTransform(source, 'qcow2-to-raw/7')).toBeDefined();
  });

  it('are refused when the source went meanwhile, for nobody knows whose they would be', async () => {
    const { cache, directory, source, result, make } = await transformed('public');
    await cache.drop(source);
    await cache.drop(result);
    expect(await reasonOf(make())).toBe('Conflict');
    expect(blobFiles(directory).size).toBe(0);
  });

  it('go with their result', async () => {
    const { cache, source, result } = await transformed('public');
    await cache.drop(result);
    expect(await cache.findTransform(source, 'qcow2-to-raw/7')).toBeUndefined();
  });
});

describe('pins and evictions', () => {
  it('evict the least recently used first, never a pinned one', async () => {
    const { cache } = await opened({ quotaBytes: 4 * BLOCK });
    const [a, b, c, d] = [
      await admitted(cache, 'a'),
      await admitted(cache, 'b'),
      await admitted(cache, 'c'),
      await admitted(cache, 'd'),
    ];
    await cache.find({ sha256: a }, 'public');
    cache.pin(b, 'holder');
    await cache.reserve(2 * BLOCK, 'job');
    const left = await Promise.all([a, b, c, d].map(async (sha256) => (await cache.get(sha256)) !== undefined));
    expect(left).toEqual([true, true, false, false]);
    expect(cache.stats().evictions).toBe(2);
  });

  it('hold a blob until its last holder has let go', async () => {
    const { cache } = await opened({ quotaBytes: 2 * BLOCK });
    const sha256 = await admitted(cache, 'a', { blocks: 2 });
    expect(cache.pin(sha256, 'one')).toBe(true);
    cache.pin(sha256, 'two');
    expect(cache.stats().pinnedBytes).toBe(2 * BLOCK);
    cache.unpinAll('one');
    expect(await reasonOf(cache.reserve(BLOCK, 'job'))).toBe('CacheFull');
    cache.unpinAll('two');
    expect(cache.stats().pinnedBytes).toBe(0);
    await cache.reserve(BLOCK, 'job');
  });

  it('hold a blob that is still to come', async () => {
    const { cache } = await opened({ quotaBytes: 2 * BLOCK });
    expect(cache.pin(digestOf(content('a')), 'holder')).toBe(false);
    await admitted(cache, 'a');
    expect(cache.stats().pinnedBytes).toBe(BLOCK);
    expect(await reasonOf(cache.reserve(2 * BLOCK, 'job'))).toBe('CacheFull');
  });

  it('tell those who wait when a release, an unpin or a drop may have made room', async () => {
    const { cache } = await opened({ quotaBytes: 4 * BLOCK });
    const [a, b] = [await admitted(cache, 'a'), await admitted(cache, 'b')];
    let woken = 0;
    const stop = cache.onSpace(() => {
      woken += 1;
    });
    const wokenBy = async (act: () => unknown): Promise<number> => {
      await turn();
      woken = 0;
      await act();
      await turn();
      return woken;
    };
    cache.pin(a, 'holder');
    const held = await cache.reserve(BLOCK, 'job');
    expect(await wokenBy(() => held.release())).toBe(1);
    expect(await wokenBy(() => cache.unpinAll('holder'))).toBe(1);
    expect(await wokenBy(() => cache.drop(b))).toBe(1);
    expect(await wokenBy(() => cache.reserve(4 * BLOCK, 'job'))).toBe(1);
    stop();
    expect(await wokenBy(() => cache.drop(a))).toBe(0);
  });

  it('come back below the quota when a file was admitted without a reservation', async () => {
    const { cache } = await opened({ quotaBytes: 2 * BLOCK });
    const [a] = [await admitted(cache, 'a'), await admitted(cache, 'b')];
    const c = await admitted(cache, 'c');
    expect(cache.stats()).toMatchObject({ bytes: 2 * BLOCK, evictions: 1 });
    expect(await cache.get(a)).toBeUndefined();
    expect(await cache.get(c)).toBeDefined();
  });

  it('survive a blob that is evicted and admitted at the same time', async () => {
    const { cache, directory } = await opened({ quotaBytes: 3 * BLOCK });
    for (let round = 0; round < 20; round += 1) {
      const sha256 = await admitted(cache, 'a');
      const [held] = await Promise.all([
        cache.reserve(3 * BLOCK, 'job').catch(() => undefined),
        admitted(cache, 'a'),
        cache.get(sha256),
      ]);
      held?.release();
      await turn();
      const blob = await cache.get(sha256);
      expect(blobFiles(directory).has(sha256)).toBe(blob !== undefined);
      expect(cache.stats().blobs).toBe(blobFiles(directory).size);
    }
  });

  it('leave alone a blob that is admitted again while it is dropped', async () => {
    const { cache, directory } = await opened();
    const sha256 = await admitted(cache, 'a');
    // The admission is first in the line for this digest, so what the drop finds is the new one.
    const admission = admitted(cache, 'a');
    await Promise.all([cache.drop(sha256), admission]);
    expect(blobFiles(directory).has(sha256)).toBe(true);
    expect(await cache.find({ sha256 }, 'public')).toBeDefined();
    expect(cache.stats()).toMatchObject({ blobs: 1, bytes: BLOCK });
  });

  it('never give a blob out by a hard link', async () => {
    const { cache, directory } = await opened();
    const sha256 = await admitted(cache, 'a');
    const blob = await cache.get(sha256);
    expect(statSync(blob?.path ?? '').nlink).toBe(1);
    // One made by somebody else does not stop the cache from working.
    linkSync(blob?.path ?? '', `${directory}/linked`);
    expect(await cache.get(sha256)).toBeDefined();
  });
});
