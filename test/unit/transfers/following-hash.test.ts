import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { pages } from '../../../src/sources/pages.ts';
import { FollowingHash } from '../../../src/transfers/following-hash.ts';
import { Generation } from '../../../src/transfers/generation.ts';
import { LowPriority } from '../../../src/transfers/low-priority.ts';

const KIB = 1024;
const lowPriority = new LowPriority();
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'following-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('a further digest of a file that grows', () => {
  it('is that of all of its bytes, taken from memory, from the file or both, with an upload beside it or without', async () => {
    let number = 0;
    const writes = fc.array(fc.constantFrom(1, 4 * KIB, 1024 * KIB), { minLength: 0, maxLength: 9 });
    await fc.assert(
      fc.asyncProperty(writes, fc.boolean(), fc.nat({ max: 9 }), async (sizes, followed, from) => {
        number += 1;
        const generation = await Generation.create(folder, number);
        const expected = createHash('sha512');
        const upload = {};
        if (followed) generation.followedTo(upload, 0);
        const block = pages(1024 * KIB);
        let offset = 0;
        let following = from === 0 ? lowPriority.follow(generation, ['sha512', 'md5']) : undefined;
        for (const [index, size] of sizes.entries()) {
          const bytes = block.subarray(0, size).fill(index + 1);
          expected.update(bytes);
          const written = generation.write(offset, bytes);
          offset += size;
          if (followed) generation.followedTo(upload, offset);
          await written;
          if (index + 1 === from) following = lowPriority.follow(generation, ['sha512', 'md5']);
        }
        following ??= lowPriority.follow(generation, ['sha512', 'md5']);
        following.finish(offset);
        expect((await following.digests).sha512).toBe(expected.digest('hex'));
        await generation.release();
      }),
      { numRuns: 25 },
    );
  });

  it('whose thread is no more takes no block that nobody would give back', async () => {
    const generation = await Generation.create(folder, 1);
    generation.followedTo({}, 0);
    const taken: Uint8Array[] = [];
    const digests = Promise.reject(new Failure('InternalError', 'the hasher thread ended'));
    const thread = {
      read: () => {},
      take: (bytes: Uint8Array) => void taken.push(bytes),
      finish: () => {},
      stop: () => {},
    };
    const following = new FollowingHash(generation, digests, thread);
    await expect(following.digests).rejects.toMatchObject({ reason: 'InternalError' });
    await generation.write(0, pages(1024 * KIB));
    expect(taken).toEqual([]);
    await generation.release();
  });

  it('ends when nobody wants it any more, and gives back what it was lent', async () => {
    const generation = await Generation.create(folder, 1);
    const upload = {};
    generation.followedTo(upload, 0);
    const following = lowPriority.follow(generation, ['sha512']);
    const written = generation.write(0, pages(1024 * KIB));
    following.stop();
    generation.leave(upload);
    await written;
    await expect(following.digests).rejects.toMatchObject({ reason: 'Aborted' });
    await generation.release();
  });
});
