import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { pages } from '../../../src/sources/pages.ts';
import { Generation } from '../../../src/transfers/generation.ts';
import { Window } from '../../../src/transfers/window.ts';
import { settled } from '../../support/clock.ts';

const KIB = 1024;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'window-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Resolves when the generation grows next. */
function growth(generation: Generation): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const stop = generation.onChange(resolve);
  return promise.finally(stop);
}

describe('what is written while uploads follow', () => {
  it('comes to each of them whole, from memory or from the file, whatever the sizes and their pace', async () => {
    const sizes = fc.array(fc.constantFrom(1, 100, 4 * KIB, 60 * KIB, 64 * KIB), { minLength: 1, maxLength: 12 });
    const paces = fc.array(fc.nat({ max: 4 }), { minLength: 1, maxLength: 5 });
    let number = 0;
    await fc.assert(
      fc.asyncProperty(sizes, paces, async (writes, pauses) => {
        const size = writes.reduce((sum, each) => sum + each, 0);
        const body = Buffer.from(Array.from({ length: size }, (_, at) => (at * 31 + (at >> 8)) & 255));
        number += 1;
        const generation = await Generation.create(folder, number);
        generation.totalBytes = size;
        const follow = async (pause: number): Promise<Buffer> => {
          const follower = {};
          const seen = Buffer.alloc(size);
          for (let position = 0; position < size; ) {
            generation.followedTo(follower, position);
            if (generation.watermark <= position) await growth(generation);
            const piece = generation.lend(position, size);
            for (let turn = 0; turn < pause; turn += 1) await setImmediate();
            if (piece === undefined) position += await generation.read(seen.subarray(position), 32 * KIB, position);
            else {
              seen.set(piece.bytes, position);
              position += piece.bytes.length;
              piece.giveBack();
            }
          }
          generation.leave(follower);
          return seen;
        };
        const following = pauses.map(follow);
        const write = async () => {
          const free = [pages(64 * KIB), pages(64 * KIB), pages(64 * KIB)];
          const busy = new Set<Promise<unknown>>();
          for (let offset = 0, index = 0; offset < size; index += 1) {
            while (free.length === 0) await Promise.race(busy);
            const block = free.pop();
            if (block === undefined) throw new Error('no block');
            const bytes = block.subarray(0, writes[index]);
            bytes.set(body.subarray(offset, offset + bytes.length));
            const written = generation.write(offset, bytes).then((memory) => {
              busy.delete(written);
              if (memory === 'Lent') return void free.push(pages(64 * KIB)); // a reader that a full machine held up has it still
              block.fill(255); // as the next bytes would
              free.push(block);
            });
            busy.add(written);
            offset += bytes.length;
          }
          await Promise.all(busy);
        };
        await write();
        for (const seen of await Promise.all(following)) expect(seen.equals(body)).toBe(true);
        expect(readFileSync(generation.path).equals(body)).toBe(true);
        await generation.release();
      }),
      { numRuns: 60 },
    );
  });

  it('goes on without one that stands still', async () => {
    const generation = await Generation.create(folder, 1);
    const idle = {};
    generation.followedTo(idle, 0);
    const block = pages(KIB * KIB);
    for (let at = 0; at < 8; at += 1) await generation.write(at * block.length, block);
    expect(generation.watermark).toBe(8 * block.length);
    await generation.release();
  });
});

describe('the window', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] }));
  afterEach(() => void vi.useRealTimers());

  const block = () => new Uint8Array(100);
  const ended = async (promise: Promise<unknown>): Promise<boolean> => {
    let over = false;
    void promise.then(() => (over = true));
    await settled();
    return over;
  };

  it('keeps nothing for nobody', async () => {
    const window = new Window();
    expect(await ended(window.show(0, block()))).toBe(true);
    expect(window.lend(0, 100)).toBeUndefined();
  });

  it('keeps a block until the foremost has passed it, and not for the others', async () => {
    const window = new Window();
    const [first, second] = [{}, {}];
    window.moved(first, 0);
    window.moved(second, 0);
    const shown = window.show(0, block());
    expect(await ended(shown)).toBe(false);
    window.moved(first, 99);
    expect(await ended(shown)).toBe(false);
    window.moved(first, 100);
    expect(await ended(shown)).toBe(true);
    expect(window.lend(0, 100)).toBeUndefined();
  });

  it('keeps a block that is lent, though nobody waits for it any more, until it is given back', async () => {
    const window = new Window();
    const follower = {};
    window.moved(follower, 0);
    const shown = window.show(0, block());
    const [one, two] = [window.lend(0, 100), window.lend(40, 100)];
    expect(two?.bytes.length).toBe(60);
    window.leave(follower);
    expect(await ended(shown)).toBe(false);
    one?.giveBack();
    one?.giveBack();
    expect(await ended(shown)).toBe(false);
    two?.giveBack();
    expect(await ended(shown)).toBe(true);
  });

  it('keeps blocks for half a second for one that stands still, and from then on no longer than a slow download takes', async () => {
    const window = new Window();
    const large = new Uint8Array(2 ** 20);
    window.moved({}, 0);
    const first = [window.show(0, large), window.show(large.length, large)];
    vi.advanceTimersByTime(499);
    expect(await Promise.all(first.map(ended))).toEqual([false, false]);
    vi.advanceTimersByTime(1);
    expect(await Promise.all(first.map(ended))).toEqual([true, true]);
    // 64 MiB/s: a mebibyte in a 64th of a second.
    const next = [window.show(2 * large.length, large), window.show(3 * large.length, large)];
    vi.advanceTimersByTime(14);
    expect(await Promise.all(next.map(ended))).toEqual([false, false]);
    vi.advanceTimersByTime(2);
    expect(await Promise.all(next.map(ended))).toEqual([true, false]);
    vi.advanceTimersByTime(16);
    expect(await Promise.all(next.map(ended))).toEqual([true, true]);
  });

  it('gives up a block with one who stands still, lent as it is, and counts it until it comes back', async () => {
    const window = new Window();
    window.moved({}, 0);
    const shown = window.show(0, block());
    const piece = window.lend(0, 100);
    vi.advanceTimersByTime(500);
    expect(await shown).toBe('Lent');
    for (let at = 1; at < 4; at += 1) void window.show(at * 100, block());
    expect([100, 200, 300].map((at) => window.lend(at, 100)?.bytes.length)).toEqual([100, 100, undefined]);
    piece?.giveBack();
    expect(window.lend(300, 100)?.bytes.length).toBe(100);
  });

  it('waits three seconds for one who begins far behind, and from then on no more until it has caught up', async () => {
    const window = new Window();
    const [follower, large] = [{}, new Uint8Array(2 ** 20)];
    window.moved(follower, 0);
    void window.show(10 * large.length, large);
    vi.advanceTimersByTime(2999);
    const last = window.show(11 * large.length, large);
    expect(await ended(last)).toBe(false);
    window.moved(follower, 11 * large.length);
    vi.advanceTimersByTime(1);
    expect(await ended(last)).toBe(false);
    window.moved(follower, 12 * large.length);
    expect(await ended(last)).toBe(true);
    vi.advanceTimersByTime(3000);
    expect(await ended(window.show(13 * large.length, large))).toBe(true);
    // Along again, it has three seconds anew should it stand still.
    window.moved(follower, 14 * large.length);
    expect(await ended(window.show(14 * large.length, large))).toBe(false);
    vi.advanceTimersByTime(2000);
    expect(await ended(window.show(15 * large.length, large))).toBe(false);
    vi.advanceTimersByTime(1000);
    window.moved(follower, 15 * large.length);
    expect(await ended(window.show(16 * large.length, large))).toBe(true);
  });

  it('forgives one that stood still once it has been faster for a while', async () => {
    const window = new Window();
    const [follower, large] = [{}, new Uint8Array(2 ** 20)];
    window.moved(follower, 0);
    const first = window.show(0, large);
    vi.advanceTimersByTime(500);
    await first;
    for (let at = 1; at <= 40; at += 1) {
      const shown = window.show(at * large.length, large);
      window.moved(follower, (at + 1) * large.length);
      await shown;
    }
    const last = window.show(41 * large.length, large);
    vi.advanceTimersByTime(499);
    expect(await ended(last)).toBe(false);
  });

  it('lends three blocks at most, so that the receiver is never without', () => {
    const window = new Window();
    window.moved({}, 0);
    for (let at = 0; at < 5; at += 1) void window.show(at * 100, block());
    const lent = [0, 100, 200].map((at) => window.lend(at, 100));
    expect(lent.every((piece) => piece !== undefined)).toBe(true);
    expect(window.lend(300, 100)).toBeUndefined();
    expect(window.lend(250, 100)?.bytes.length).toBe(50);
    lent[0]?.giveBack();
    expect(window.lend(300, 100)?.bytes.length).toBe(100);
  });

  it('keeps a block until the hash that goes along has taken it, too', async () => {
    const window = new Window();
    const follower = {};
    window.moved(follower, 0);
    window.hashedTo(0);
    const shown = window.show(0, block());
    window.moved(follower, 100);
    expect(await ended(shown)).toBe(false);
    window.hashedTo(100);
    expect(await ended(shown)).toBe(true);
  });

  it('waits three seconds for a hash that is behind, as for an upload, and keeps no block for it from then on until it has caught up', async () => {
    const window = new Window();
    const follower = {};
    window.moved(follower, 200);
    window.hashedTo(0);
    const first = window.show(200, block());
    window.moved(follower, 300);
    expect(await ended(first)).toBe(false);
    vi.advanceTimersByTime(3000);
    await first;
    const second = window.show(300, block());
    window.moved(follower, 400);
    window.hashedTo(200);
    expect(await ended(second)).toBe(true);
    window.hashedTo(400);
    const third = window.show(400, block());
    window.moved(follower, 500);
    expect(await ended(third)).toBe(false);
    window.hashedTo(undefined);
    expect(await ended(third)).toBe(true);
  });

  it('lends the hash a block beyond those that uploads may have: whoever waits for it would else wait for nothing', () => {
    const window = new Window();
    window.moved({}, 0);
    window.hashedTo(0);
    for (let at = 0; at < 5; at += 1) void window.show(at * 100, block());
    for (const at of [100, 200, 300]) expect(window.lend(at, 100)).toBeDefined();
    expect(window.lend(0, 100)).toBeUndefined();
    expect(window.lendToHash(0, 100)?.bytes.length).toBe(100);
    expect(window.lendToHash(400, 100)).toBeUndefined();
  });

  it('says whether the foremost reads from memory', () => {
    const window = new Window();
    expect(window.keepsUp(0)).toBe(false);
    const follower = {};
    window.moved(follower, 0);
    expect(window.keepsUp(0)).toBe(true);
    expect(window.keepsUp(500)).toBe(false);
    void window.show(0, block());
    expect(window.keepsUp(100)).toBe(true);
    window.leave(follower);
    expect(window.keepsUp(0)).toBe(false);
  });
});
