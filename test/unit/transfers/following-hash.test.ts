import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { on, once } from 'node:events';
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Digests } from '../../../src/api/digest.ts';
import { Failure } from '../../../src/api/failure.ts';
import { pages } from '../../../src/sources/pages.ts';
import { FollowingHash } from '../../../src/transfers/following-hash.ts';
import { Generation } from '../../../src/transfers/generation.ts';
import { Hashers } from '../../../src/transfers/hashers.ts';
import type { FromHasher, ToHasher } from '../../../src/transfers/protocol.ts';

const KIB = 1024;
const hashers = new Hashers();
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'following-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** One that never comes to do what it is told. */
class Thread {
  readonly taken: Uint8Array[] = [];
  readonly along = Promise.withResolvers<Digests>();
  /** Set when the digests were asked for again, of another thread. */
  signal: AbortSignal | undefined;
  readonly answer = Promise.withResolvers<Digests>();
  read(): void {}
  take(bytes: Uint8Array): void {
    this.taken.push(bytes);
  }
  finish(): void {}
  stop(): void {
    this.along.reject(new Failure('Aborted', 'stopped'));
  }
  again(signal: AbortSignal): Promise<Digests> {
    this.signal = signal;
    return this.answer.promise;
  }
}

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
        let block = pages(1024 * KIB);
        let offset = 0;
        let following = from === 0 ? hashers.follow(generation, ['sha512', 'md5']) : undefined;
        for (const [index, size] of sizes.entries()) {
          const bytes = block.subarray(0, size).fill(index + 1);
          expected.update(bytes);
          const written = generation.write(offset, bytes);
          offset += size;
          if (followed) generation.followedTo(upload, offset);
          // On a full machine the hash may have the block still.
          if ((await written) === 'Lent') block = pages(1024 * KIB);
          if (index + 1 === from) following = hashers.follow(generation, ['sha512', 'md5']);
        }
        following ??= hashers.follow(generation, ['sha512', 'md5']);
        following.finish(offset);
        expect((await following.digests).sha512).toBe(expected.digest('hex'));
        await generation.release();
      }),
      { numRuns: 25 },
    );
  }, 300_000); // each of the 25 may take seconds where the thread is left no time

  it('whose thread is no more takes no block that nobody would give back', async () => {
    const generation = await Generation.create(folder, 1);
    generation.followedTo({}, 0);
    const digests = Promise.reject(new Failure('InternalError', 'the hasher thread ended'));
    const thread = new Thread();
    const following = new FollowingHash(generation, digests, thread);
    await expect(following.digests).rejects.toMatchObject({ reason: 'InternalError' });
    await generation.write(0, pages(1024 * KIB));
    expect(thread.taken).toEqual([]);
    await generation.release();
  });

  describe('whose thread is left no time by others', () => {
    beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
    afterEach(() => void vi.useRealTimers());

    it('is begun again by another thread when it is waited for, a second after the last byte or the last step', async () => {
      const generation = await Generation.create(folder, 1);
      const [thread, size] = [new Thread(), 8 * KIB * KIB];
      const following = new FollowingHash(generation, thread.along.promise, thread);
      await generation.write(0, pages(size));
      vi.advanceTimersByTime(60_000);
      following.finish(size);
      vi.advanceTimersByTime(999);
      following.taken(size / 2);
      vi.advanceTimersByTime(999);
      expect(thread.signal).toBeUndefined();
      vi.advanceTimersByTime(1);
      expect(thread.signal?.aborted).toBe(false);
      thread.answer.resolve({ sha512: 'right' });
      expect(await following.digests).toEqual({ sha512: 'right' });
      await generation.release();
    });

    it('is begun again in truth, and right', async () => {
      vi.useRealTimers();
      const hashers = new Hashers();
      const started = once(process, 'worker') as Promise<[Worker]>;
      const generation = await Generation.create(folder, 1);
      const following = hashers.follow(generation, ['sha512']);
      const [thread] = await started;
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
      const post = (message: ToHasher) => thread.postMessage(message);
      // To open a pipe that nobody writes into stops the thread.
      const pipe = join(folder, 'pipe');
      execFileSync('mkfifo', [pipe]);
      post({ type: 'hash', job: 1000, path: pipe, algorithms: ['md5'], available: 0 });
      const bytes = pages(KIB).fill(7);
      await generation.write(0, bytes);
      following.finish(KIB);
      expect(await following.digests).toEqual({ sha512: createHash('sha512').update(bytes).digest('hex') });
      // It goes on once somebody might write, and shall have ended before the pipe is closed.
      const writer = openSync(pipe, constants.O_RDWR);
      post({ type: 'finish', job: 1000 });
      for await (const [said] of on(thread, 'message')) if ((said as FromHasher).type === 'digests') break;
      closeSync(writer);
      await generation.release();
    });

    it('is not begun again once it is there, and ends when nobody wants it any more', async () => {
      const generation = await Generation.create(folder, 1);
      const [prompt, starved] = [new Thread(), new Thread()];
      const first = new FollowingHash(generation, prompt.along.promise, prompt);
      first.finish(0);
      prompt.along.resolve({ sha512: 'right' });
      expect(await first.digests).toEqual({ sha512: 'right' });
      const second = new FollowingHash(generation, starved.along.promise, starved);
      second.finish(0);
      vi.advanceTimersByTime(60_000);
      expect(prompt.signal).toBeUndefined();
      second.stop();
      expect(starved.signal?.aborted).toBe(true);
      starved.answer.reject(new Failure('Aborted', 'stopped'));
      await expect(second.digests).rejects.toMatchObject({ reason: 'Aborted' });
      await generation.release();
    });
  });

  it('ends when nobody wants it any more, and gives back what it was lent', async () => {
    const generation = await Generation.create(folder, 1);
    const upload = {};
    generation.followedTo(upload, 0);
    const following = hashers.follow(generation, ['sha512']);
    const written = generation.write(0, pages(1024 * KIB));
    following.stop();
    generation.leave(upload);
    await written;
    await expect(following.digests).rejects.toMatchObject({ reason: 'Aborted' });
    await generation.release();
  });
});
