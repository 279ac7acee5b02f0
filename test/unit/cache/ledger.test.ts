import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Failure } from '../../../src/api/failure.ts';
import type { Reservation } from '../../../src/cache/cache.ts';
import { Ledger, type Supply } from '../../../src/cache/ledger.ts';
import { PLACE_KEPT_MS } from '../../../src/cache/queue.ts';
import { HeldClock, reasonOf, turn } from './fixture.ts';

const MINUTE = 60_000;

/** A volume on paper: blobs, files by path, and what others have put there. */
class PaperVolume implements Supply {
  capacity = 1_000_000;
  foreign = 0;
  blobs = 0;
  pinned = 0;
  /** Evicted files that somebody still has open. */
  heldOpen = 0;
  keepsEvictedOpen = false;
  readonly files = new Map<string, number>();
  readonly partials = new Map<string, string>();

  freeBytes(): number {
    const written = this.files.values().reduce((sum, bytes) => sum + bytes, 0);
    return this.capacity - this.foreign - this.blobs - this.heldOpen - written;
  }
  allocatedBytes(path: string): number {
    return this.files.get(path) ?? 0;
  }
  partialPath(key: string): string | undefined {
    return this.partials.get(key);
  }
  blobBytes(): number {
    return this.blobs;
  }
  pinnedBytes(): number {
    return this.pinned;
  }
  looseBytes(covered: ReadonlySet<string>): number {
    let sum = 0;
    for (const [key, path] of this.partials) if (!covered.has(key)) sum += this.allocatedBytes(path);
    return sum;
  }
  async evict(bytes: number, covered: ReadonlySet<string>): Promise<void> {
    const fromBlobs = Math.min(bytes, this.blobs - this.pinned);
    this.blobs -= fromBlobs;
    if (this.keepsEvictedOpen) this.heldOpen += fromBlobs;
    let rest = bytes - fromBlobs;
    for (const [key, path] of this.partials) {
      if (rest <= 0) break;
      if (covered.has(key)) continue;
      rest -= this.allocatedBytes(path);
      this.files.delete(path);
      this.partials.delete(key);
    }
  }
}

function ledgerOf({ quota = 100, keepFree = 0 }: { quota?: number; keepFree?: number } = {}) {
  const volume = new PaperVolume();
  const clock = new HeldClock();
  const woken = { times: 0 };
  const ledger = new Ledger({
    quotaBytes: quota,
    reserveFreeBytes: keepFree,
    supply: volume,
    now: clock.now,
    after: clock.after,
    onSpace: () => {
      woken.times += 1;
    },
  });
  return { ledger, volume, clock, woken };
}

async function messageOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'granted',
    (error: unknown) => (error as Failure).message,
  );
}

describe('the ledger of space', () => {
  it('sets bytes aside until they are released, once', async () => {
    const { ledger } = ledgerOf();
    const first = await ledger.reserve(60, 'a');
    expect(ledger.reservedBytes).toBe(60);
    expect(await reasonOf(ledger.reserve(41, 'b'))).toBe('CacheFull');
    first.release();
    first.release();
    expect(ledger.reservedBytes).toBe(0);
    await ledger.reserve(100, 'b');
  });

  it('says that more than the quota never fits', async () => {
    const { ledger } = ledgerOf();
    expect(await reasonOf(ledger.reserve(101, 'a'))).toBe('TooLarge');
    const held = await ledger.reserve(100, 'a');
    expect(await reasonOf(held.resize(101))).toBe('TooLarge');
    expect(held.bytes).toBe(100);
  });

  it('refuses what is not a number of bytes', async () => {
    const { ledger } = ledgerOf();
    for (const bytes of [-1, 0.5, Number.NaN, Infinity]) {
      expect(await reasonOf(ledger.reserve(bytes, 'a'))).toBe('InternalError');
    }
  });

  it('names what was wanted, what is there and who has the rest', async () => {
    const { ledger, volume } = ledgerOf({ quota: 10 * 1024 });
    volume.blobs = 3 * 1024;
    volume.pinned = 2 * 1024;
    for (const [holder, kib] of Object.entries({ a: 1, b: 2, c: 3, d: 1 })) await ledger.reserve(kib * 1024, holder);
    const message = await messageOf(ledger.reserve(4 * 1024, 'e'));
    expect(message).toContain('4.0 KiB wanted, 1.0 KiB of 10.0 KiB can be had now');
    expect(message).toContain('3.0 KiB by c, 2.0 KiB by b, 1.0 KiB by a, and 1 more');
    expect(message).toContain('2.0 KiB are blobs in use');
    expect(message).toContain('--cache-quota');
  });

  it('keeps nothing set aside for a request or a growth whose eviction failed', async () => {
    const { ledger, volume } = ledgerOf();
    const held = await ledger.reserve(10, 'a', 'p');
    volume.blobs = 80;
    volume.evict = async () => {
      throw new Error('EIO');
    };
    await expect(ledger.reserve(50, 'b', 'q')).rejects.toThrow('EIO');
    await expect(held.resize(50)).rejects.toThrow('EIO');
    expect(ledger.reservedBytes).toBe(10);
    expect([...ledger.coveredPartials()]).toEqual(['p']);
  });

  it('evicts no more than is missing, and nothing for a request that it refuses', async () => {
    const { ledger, volume } = ledgerOf();
    volume.blobs = 80;
    volume.pinned = 50;
    expect(await reasonOf(ledger.reserve(51, 'a'))).toBe('CacheFull');
    expect(volume.blobs).toBe(80);
    await ledger.reserve(35, 'a');
    expect(volume.blobs).toBe(65);
  });

  it('keeps the bytes for state free', async () => {
    const { ledger, volume } = ledgerOf({ quota: 1000, keepFree: 20 });
    volume.capacity = 100;
    expect(await reasonOf(ledger.reserve(81, 'a'))).toBe('DiskFull');
    await ledger.reserve(80, 'a');
  });

  it('counts bytes that are written inside a reservation once', async () => {
    const { ledger, volume } = ledgerOf({ quota: 1000 });
    volume.capacity = 100;
    const held = await ledger.reserve(60, 'a');
    held.cover('/scratch/x');
    volume.files.set('/scratch/x', 50);
    // 50 are free, 10 of them are spoken for; the 50 that are written are not taken off again.
    expect(await reasonOf(ledger.reserve(41, 'b'))).toBe('CacheFull');
    await ledger.reserve(40, 'b');
  });

  it('takes what an earlier run left of a partial as part of its reservation', async () => {
    const { ledger, volume } = ledgerOf();
    volume.partials.set('k', '/partial/k');
    volume.files.set('/partial/k', 70);
    await ledger.reserve(100, 'a', 'k');
    expect(volume.files.get('/partial/k')).toBe(70);
  });

  it('lets go of partials that nobody writes when blobs are not enough', async () => {
    const { ledger, volume } = ledgerOf();
    volume.blobs = 20;
    volume.partials.set('left', '/partial/left');
    volume.files.set('/partial/left', 70);
    await ledger.reserve(100, 'a');
    expect(volume.blobs).toBe(0);
    expect(volume.partials.has('left')).toBe(false);
  });

  it('refuses a second reservation around the same partial', async () => {
    const { ledger } = ledgerOf();
    await ledger.reserve(10, 'a', 'k');
    expect(await reasonOf(ledger.reserve(10, 'b', 'k'))).toBe('InternalError');
  });

  it('moves the bytes of an admitted file from the reservation to the blobs', async () => {
    const { ledger, volume } = ledgerOf();
    const held = await ledger.reserve(60, 'a');
    held.cover('/scratch/x');
    volume.files.set('/scratch/x', 40);
    volume.files.delete('/scratch/x');
    volume.blobs += 40;
    ledger.settle('/scratch/x', undefined, 40);
    expect(held.bytes).toBe(20);
    await ledger.reserve(80, 'b');
    expect(volume.blobs).toBe(0);
  });

  it('tells a volume that is full of other things from a cache that is full', async () => {
    const { ledger, volume } = ledgerOf({ quota: 1000 });
    volume.capacity = 100;
    volume.foreign = 50;
    volume.blobs = 30;
    volume.pinned = 30;
    expect(await reasonOf(ledger.reserve(40, 'a'))).toBe('CacheFull');
    expect(await reasonOf(ledger.reserve(51, 'b'))).toBe('DiskFull');
  });

  it('gives a reservation back when evicted files stay open and the volume has nothing', async () => {
    const { ledger, volume } = ledgerOf({ quota: 1000 });
    volume.capacity = 100;
    volume.blobs = 80;
    volume.keepsEvictedOpen = true;
    expect(await reasonOf(ledger.reserve(50, 'a'))).toBe('DiskFull');
    expect(ledger.reservedBytes).toBe(0);
  });
});

describe('waiting for space', () => {
  it('serves an earlier big request before a later small one', async () => {
    const { ledger } = ledgerOf();
    const held = await ledger.reserve(60, 'a');
    expect(await reasonOf(ledger.reserve(80, 'big'))).toBe('CacheFull');
    expect(await messageOf(ledger.reserve(10, 'small'))).toContain('1 earlier request goes first');
    held.release();
    expect(await reasonOf(ledger.reserve(10, 'small'))).toBe('CacheFull');
    await ledger.reserve(80, 'big');
    await ledger.reserve(10, 'small');
  });

  it('wakes the next when the first in the queue is served', async () => {
    const { ledger, woken } = ledgerOf();
    const held = await ledger.reserve(100, 'a');
    await reasonOf(ledger.reserve(50, 'b'));
    await reasonOf(ledger.reserve(50, 'c'));
    held.release();
    const before = woken.times;
    await ledger.reserve(50, 'b');
    expect(woken.times).toBeGreaterThan(before);
    await ledger.reserve(50, 'c');
  });

  it('lets a place lapse when its holder has not asked for 10 minutes, and wakes those behind', async () => {
    const { ledger, clock, woken } = ledgerOf();
    await ledger.reserve(60, 'a');
    await reasonOf(ledger.reserve(80, 'gone'));
    clock.advance(PLACE_KEPT_MS - MINUTE);
    expect(await reasonOf(ledger.reserve(10, 'small'))).toBe('CacheFull');
    const before = woken.times;
    clock.advance(MINUTE);
    expect(woken.times).toBe(before + 1);
    await ledger.reserve(10, 'small');
  });

  it('keeps the place of who asks again', async () => {
    const { ledger, clock } = ledgerOf();
    await ledger.reserve(60, 'a');
    await reasonOf(ledger.reserve(80, 'big'));
    for (let minutes = 0; minutes < 30; minutes += 6) {
      clock.advance(6 * MINUTE);
      await reasonOf(ledger.reserve(80, 'big'));
    }
    expect(await reasonOf(ledger.reserve(10, 'small'))).toBe('CacheFull');
  });

  it('gives the place of who gives up to the next', async () => {
    const { ledger, woken } = ledgerOf();
    await ledger.reserve(60, 'a');
    await reasonOf(ledger.reserve(80, 'big'));
    ledger.giveUp('big');
    expect(woken.times).toBe(1);
    await ledger.reserve(10, 'small');
  });

  it('does not queue who holds space already: those in the queue wait for it', async () => {
    const { ledger } = ledgerOf();
    await ledger.reserve(60, 'a');
    await reasonOf(ledger.reserve(80, 'big'));
    await ledger.reserve(40, 'a');
  });

  it('keeps no place for what only the volume could give', async () => {
    const { ledger, volume } = ledgerOf({ quota: 1000 });
    volume.capacity = 100;
    expect(await reasonOf(ledger.reserve(500, 'a'))).toBe('DiskFull');
    await ledger.reserve(10, 'b');
  });
});

describe('growing reservations', () => {
  it('grow and shrink where there is room', async () => {
    const { ledger, volume, woken } = ledgerOf();
    volume.blobs = 50;
    const held = await ledger.reserve(10, 'a');
    await held.resize(70);
    expect([held.bytes, volume.blobs]).toEqual([70, 30]);
    const before = woken.times;
    await held.resize(20);
    expect(ledger.reservedBytes).toBe(20);
    expect(woken.times).toBeGreaterThan(before);
  });

  it('the youngest of two that cannot both grow yields, and the older goes on', async () => {
    const { ledger } = ledgerOf();
    const older = await ledger.reserve(50, 'older');
    const younger = await ledger.reserve(50, 'younger');
    const growth = older.resize(80);
    await turn();
    expect(older.bytes).toBe(50);
    const refused = await messageOf(younger.resize(60));
    expect(refused).toContain('the youngest of those that grow yields');
    younger.release();
    await growth;
    expect(older.bytes).toBe(80);
  });

  it('a younger one does not take what an older one waits for, nor does a newcomer', async () => {
    const { ledger } = ledgerOf();
    const older = await ledger.reserve(50, 'older');
    const younger = await ledger.reserve(30, 'younger');
    const growth = older.resize(90);
    expect(await reasonOf(younger.resize(40))).toBe('CacheFull');
    expect(await reasonOf(ledger.reserve(10, 'newcomer'))).toBe('CacheFull');
    younger.release();
    await growth;
  });

  it('one that waits becomes the youngest, and yields, when those after it have ended', async () => {
    const { ledger } = ledgerOf();
    const [a, b, c] = [await ledger.reserve(40, 'a'), await ledger.reserve(40, 'b'), await ledger.reserve(20, 'c')];
    const outcome = reasonOf(b.resize(70));
    c.release();
    expect(await outcome).toBe('CacheFull');
    await a.resize(60);
  });

  it('a released one stops waiting', async () => {
    const { ledger } = ledgerOf();
    const older = await ledger.reserve(50, 'older');
    await ledger.reserve(50, 'younger');
    const outcome = reasonOf(older.resize(60));
    older.release();
    expect(await outcome).toBe('Aborted');
    expect(await reasonOf(older.resize(1))).toBe('Aborted');
  });

  it('never wait for ever, however many grow', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ start: fc.integer({ min: 1, max: 30 }), step: fc.integer({ min: 1, max: 30 }) }), {
          minLength: 1,
          maxLength: 6,
        }),
        fc.integer({ min: 1, max: 90 }),
        async (jobs, goal) => {
          const { ledger } = ledgerOf();
          let finished = 0;
          // Each holds what it has, grows to its goal, and lets go; who is refused lets go and begins again.
          const run = async (job: { start: number; step: number }, name: string): Promise<void> => {
            for (let attempt = 0; attempt < 200; attempt += 1) {
              let held: Reservation | undefined;
              try {
                held = await ledger.reserve(job.start, name);
                while (held.bytes < goal) {
                  await held.resize(Math.min(100, held.bytes + job.step));
                  await turn();
                }
                finished += 1;
                return;
              } catch (error) {
                expect((error as Failure).reason).toBe('CacheFull');
              } finally {
                held?.release();
              }
              await turn();
            }
          };
          await Promise.all(jobs.map((job, index) => run(job, `job ${index}`)));
          expect(finished).toBe(jobs.length);
          expect(ledger.reservedBytes).toBe(0);
        },
      ),
      { numRuns: 50 },
    );
  });
});

describe('whatever is asked of the ledger', () => {
  const commands = fc.array(
    fc.oneof(
      fc.record({ do: fc.constant('reserve' as const), bytes: fc.integer({ min: 0, max: 120 }), who: fc.nat(3) }),
      fc.record({ do: fc.constant('resize' as const), bytes: fc.integer({ min: 0, max: 120 }), which: fc.nat(5) }),
      fc.record({ do: fc.constant('release' as const), which: fc.nat(5) }),
      fc.record({ do: fc.constant('write' as const), bytes: fc.integer({ min: 0, max: 40 }), which: fc.nat(5) }),
      fc.record({ do: fc.constant('admit' as const), which: fc.nat(5) }),
      fc.record({ do: fc.constant('pin' as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
    ),
    { maxLength: 40 },
  );

  it('reserved, written and kept bytes stay within the quota and the volume', async () => {
    await fc.assert(
      fc.asyncProperty(commands, fc.integer({ min: 60, max: 200 }), async (script, capacity) => {
        const { ledger, volume } = ledgerOf({ quota: 100, keepFree: 20 });
        volume.capacity = capacity;
        const held: { reservation: Reservation; path: string }[] = [];
        let files = 0;
        for (const command of script) {
          const target = 'which' in command ? held[command.which % Math.max(1, held.length)] : undefined;
          if (command.do === 'reserve') {
            const reservation = await ledger.reserve(command.bytes, `w${command.who}`).catch(() => undefined);
            files += 1;
            const path = `/scratch/${files}`;
            reservation?.cover(path);
            if (reservation !== undefined) held.push({ reservation, path });
          } else if (command.do === 'pin') {
            volume.pinned = Math.floor(volume.blobs * command.share);
            ledger.spaceChanged();
          } else if (target !== undefined) {
            const { reservation, path } = target;
            const written = volume.files.get(path) ?? 0;
            if (command.do === 'resize') {
              // A writer never asks for less than it has written; who would wait is not waited for here.
              reservation.resize(Math.max(command.bytes, written)).catch(() => undefined);
              await turn();
            } else if (command.do === 'write') {
              volume.files.set(path, Math.min(reservation.bytes, written + command.bytes));
            } else if (command.do === 'admit') {
              volume.files.delete(path);
              volume.blobs += written;
              ledger.settle(path, undefined, written);
              // What is written next is another file.
              files += 1;
              target.path = `/scratch/${files}`;
              reservation.cover(target.path);
            } else {
              volume.files.delete(path);
              reservation.release();
              held.splice(held.indexOf(target), 1);
              await turn();
            }
          }
          const reserved = held.reduce((sum, { reservation }) => sum + reservation.bytes, 0);
          const written = volume.files.values().reduce((sum, bytes) => sum + bytes, 0);
          expect(ledger.reservedBytes).toBe(reserved);
          expect(volume.blobs + reserved).toBeLessThanOrEqual(100);
          expect(volume.blobs).toBeGreaterThanOrEqual(volume.pinned);
          if (reserved > 0) expect(volume.freeBytes() - (reserved - written)).toBeGreaterThanOrEqual(20);
        }
      }),
      { numRuns: 500 },
    );
  });
});
