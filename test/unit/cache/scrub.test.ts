import { chmodSync, closeSync, openSync, statSync, utimesSync, writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { pacedDigest, PROOF_KEPT_MS } from '../../../src/cache/scrub.ts';
import { admitted, blobFiles, content, digestOf, opened, reasonOf, temporaryFolder } from './fixture.ts';

const NEVER = new AbortController().signal;

/** Other bytes below the same size, mtime and inode: what only reading finds. */
function rot(path: string): void {
  const { atime, mtime } = statSync(path);
  chmodSync(path, 0o644);
  const file = openSync(path, 'r+');
  writeSync(file, '!', 100);
  closeSync(file);
  utimesSync(path, atime, mtime);
}

describe('the scrub', () => {
  it('looks at each blob once, the longest unproven first, and not again for 7 days', async () => {
    const { cache, clock } = await opened({ scrubBytesPerSecond: 2 ** 40 });
    const a = await admitted(cache, 'a');
    clock.advance(1000);
    const b = await admitted(cache, 'b');
    expect(await cache.scrubNext(NEVER)).toBeUndefined();
    clock.advance(PROOF_KEPT_MS);
    expect(await cache.scrubNext(NEVER)).toEqual({ sha256: a, intact: true });
    clock.advance(1000);
    expect(await cache.scrubNext(NEVER)).toEqual({ sha256: b, intact: true });
    expect(await cache.scrubNext(NEVER)).toBeUndefined();
  });

  it('drops a blob whose bytes have changed below an unchanged size and mtime, and says so', async () => {
    const { cache, clock, directory, log } = await opened({
      digest: async (path) => pacedDigest(2 ** 40)(path, ['sha256'], NEVER),
    });
    const sha256 = await admitted(cache, 'a');
    rot((await cache.get(sha256))?.path ?? '');
    clock.advance(PROOF_KEPT_MS + 1);
    expect(await cache.scrubNext(NEVER)).toEqual({ sha256, intact: false });
    expect(log.messages('error')[0]).toContain('damaged');
    expect(await cache.get(sha256)).toBeUndefined();
    expect(blobFiles(directory).size).toBe(0);
  });

  it('passes over a blob that is evicted while it is read', async () => {
    let cacheOf: Awaited<ReturnType<typeof opened>>['cache'] | undefined;
    const { cache, clock, log } = await opened({
      digest: async () => {
        await cacheOf?.drop(a);
        throw Object.assign(new Error('gone'), { code: 'ENOENT' });
      },
    });
    cacheOf = cache;
    const a = await admitted(cache, 'a');
    clock.advance(PROOF_KEPT_MS + 1);
    expect(await cache.scrubNext(NEVER)).toBeUndefined();
    expect(log.messages('error')).toEqual([]);
  });

  it('keeps a blob that could not be read to the end', async () => {
    const { cache, clock } = await opened({
      digest: async () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' })),
    });
    const sha256 = await admitted(cache, 'a');
    clock.advance(PROOF_KEPT_MS + 1);
    expect(await reasonOf(cache.scrubNext(NEVER))).toBe('InternalError');
    expect(await cache.get(sha256)).toBeDefined();
  });

  it('stops when it is told to', async () => {
    const { cache, clock } = await opened({ scrubBytesPerSecond: 1 });
    const sha256 = await admitted(cache, 'large', { blocks: 600 });
    clock.advance(PROOF_KEPT_MS + 1);
    const abort = new AbortController();
    const outcome = reasonOf(cache.scrubNext(abort.signal));
    setImmediate(() => abort.abort());
    expect(await outcome).toBe('Aborted');
    expect(await cache.get(sha256)).toBeDefined();
  });

  it('hashes what the file holds, over several reads', async () => {
    const bytes = content('paced', 700);
    const path = `${temporaryFolder()}/file`;
    const file = openSync(path, 'w');
    writeSync(file, bytes);
    closeSync(file);
    expect(await pacedDigest(2 ** 40)(path, ['sha256', 'sha512'], NEVER)).toEqual({
      sha256: digestOf(bytes),
      sha512: digestOf(bytes, 'sha512'),
    });
  });
});
