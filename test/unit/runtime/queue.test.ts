import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { WorkQueue } from '../../../src/runtime/queue.ts';
import { HeldClock, settled } from '../../support/clock.ts';

const YEAR_MS = 365 * 24 * 3_600_000;

/** A queue whose handlers begin and end when the test says so. */
class Bench {
  readonly held = new HeldClock();
  readonly queue: WorkQueue;
  /** Every begin, in order. */
  readonly begun: string[] = [];
  readonly errors: string[] = [];
  readonly running = new Map<string, { resolve(): void; reject(error: unknown): void }>();
  readonly #stop = new AbortController();
  ended = false;
  #done: Promise<void> = Promise.resolve();

  constructor(random: () => number = this.held.random) {
    this.queue = new WorkQueue({ now: this.held.now, after: this.held.after, random });
  }

  run(workers: number): this {
    this.#done = this.queue
      .run(
        workers,
        (key) => {
          if (this.running.has(key)) throw new Error(`${key} is handled twice at a time`);
          this.begun.push(key);
          const { promise, resolve, reject } = Promise.withResolvers<void>();
          this.running.set(key, { resolve, reject });
          return promise.finally(() => this.running.delete(key));
        },
        (key, error) => void this.errors.push(`${key}: ${(error as Error).message}`),
        this.#stop.signal,
      )
      .then(() => {
        this.ended = true;
      });
    return this;
  }

  async finish(key: string): Promise<void> {
    this.running.get(key)?.resolve();
    await settled();
  }

  async fail(key: string): Promise<void> {
    this.running.get(key)?.reject(new Error('no'));
    await settled();
  }

  async advance(ms: number): Promise<void> {
    this.held.advance(ms);
    await settled();
  }

  /** Fires the signal; does not wait for handlers. */
  close(): void {
    this.#stop.abort();
  }

  async closed(): Promise<void> {
    this.close();
    for (const { resolve } of this.running.values()) resolve();
    await this.#done;
  }
}

/** What client-go promises (util/workqueue), written down as plainly as it can be. */
class Model {
  readonly #workers: number;
  now = 0;
  readonly waiting: string[] = [];
  readonly processing = new Set<string>();
  readonly dirty = new Set<string>();
  readonly dates = new Map<string, number>();
  readonly failures = new Map<string, number>();
  readonly begun: string[] = [];

  constructor(workers: number) {
    this.#workers = workers;
  }

  add(key: string): void {
    if (this.processing.has(key)) this.dirty.add(key);
    else if (!this.waiting.includes(key)) this.waiting.push(key);
    this.#hand();
  }

  addAfter(key: string, ms: number): void {
    if (ms <= 0) return this.add(key);
    this.dates.set(key, Math.min(this.dates.get(key) ?? Number.POSITIVE_INFINITY, this.now + ms));
  }

  /** With chance held at 0 the pause is the lower bound: half of what it would be at most. */
  pauseOf(key: string): number {
    return Math.min(300_000, 500 * 2 ** (this.failures.get(key) ?? 0)) / 2;
  }

  addRateLimited(key: string): void {
    const pause = this.pauseOf(key);
    this.failures.set(key, (this.failures.get(key) ?? 0) + 1);
    this.addAfter(key, pause);
  }

  /** Whether another key has the same date: which of the two comes first is not promised. */
  ties(key: string, ms: number): boolean {
    return [...this.dates].some(([other, at]) => other !== key && at === this.now + ms);
  }

  finish(key: string, ok: boolean): void {
    if (!this.processing.has(key)) return;
    if (ok) this.failures.delete(key);
    else this.addRateLimited(key);
    this.processing.delete(key);
    if (this.dirty.delete(key)) this.waiting.push(key);
    this.#hand();
  }

  advance(ms: number): void {
    const end = this.now + ms;
    const due = [...this.dates].filter(([, at]) => at <= end).sort(([, a], [, b]) => a - b);
    for (const [key, at] of due) {
      this.dates.delete(key);
      this.now = at;
      this.add(key);
    }
    this.now = end;
  }

  #hand(): void {
    while (this.processing.size < this.#workers) {
      const key = this.waiting.shift();
      if (key === undefined) return;
      this.processing.add(key);
      this.begun.push(key);
    }
  }
}

const key = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const delay = fc.oneof(
  fc.integer({ min: -10, max: 0 }),
  fc.integer({ min: 1, max: 10_000 }),
  fc.integer({ min: 2 ** 31 - 2, max: 2 ** 33 }),
);
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('add' as const), key }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('addAfter' as const), key, ms: delay }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('addRateLimited' as const), key }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('forget' as const), key }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('finish' as const), key }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('fail' as const), key }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('advance' as const), ms: fc.nat(20_000) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('advance' as const), ms: fc.integer({ min: 2 ** 30, max: 2 ** 34 }) }),
  },
);

describe('the work queue', () => {
  it('does what client-go promises, whatever comes in whatever order', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 4 }), fc.array(step, { maxLength: 40 }), async (workers, steps) => {
        const bench = new Bench(() => 0).run(workers);
        const model = new Model(workers);
        await settled();
        for (const each of steps) {
          if (each.do === 'add') {
            bench.queue.add(each.key);
            model.add(each.key);
          } else if (each.do === 'addAfter') {
            if (model.ties(each.key, each.ms)) continue;
            bench.queue.addAfter(each.key, each.ms);
            model.addAfter(each.key, each.ms);
          } else if (each.do === 'addRateLimited') {
            if (model.ties(each.key, model.pauseOf(each.key))) continue;
            bench.queue.addRateLimited(each.key);
            model.addRateLimited(each.key);
          } else if (each.do === 'forget') {
            bench.queue.forget(each.key);
            model.failures.delete(each.key);
          } else if (each.do === 'advance') {
            model.advance(each.ms);
            await bench.advance(each.ms);
          } else {
            const ok = each.do === 'finish' || model.ties(each.key, model.pauseOf(each.key));
            model.finish(each.key, ok);
            await (ok ? bench.finish(each.key) : bench.fail(each.key));
          }
          await settled();
          expect(bench.begun).toEqual(model.begun);
          expect([...bench.running.keys()].sort()).toEqual([...model.processing].sort());
          expect(bench.queue.depth).toBe(model.waiting.length);
          expect(bench.queue.quiet).toBe(model.waiting.length + model.processing.size === 0);
        }
        // Whatever was added is handled in the end, if only everybody finishes.
        const owed = new Set([...model.waiting, ...model.dirty, ...model.dates.keys()]);
        const before = bench.begun.length;
        for (let turn = 0; turn < 100 && (!bench.queue.quiet || bench.held.pending > 0); turn++) {
          for (const each of [...bench.running.keys()]) await bench.finish(each);
          await bench.advance(2 ** 34);
        }
        expect(bench.queue.quiet).toBe(true);
        expect(bench.held.pending).toBe(0);
        const handled = new Set(bench.begun.slice(before));
        for (const each of owed) expect(handled).toContain(each);
        await bench.closed();
        expect(bench.ended).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  it('hands a key out once, however often it was added while it waited', async () => {
    const bench = new Bench();
    for (let time = 0; time < 5; time++) bench.queue.add('a');
    expect(bench.queue.depth).toBe(1);
    bench.run(3);
    await settled();
    await bench.finish('a');
    expect(bench.begun).toEqual(['a']);
    await bench.closed();
  });

  it('handles a key that is added while it is handled exactly once more, and never beside itself', async () => {
    const bench = new Bench().run(4);
    bench.queue.add('a');
    await settled();
    for (let time = 0; time < 5; time++) bench.queue.add('a');
    await settled();
    expect(bench.begun).toEqual(['a']);
    await bench.finish('a');
    expect(bench.begun).toEqual(['a', 'a']);
    await bench.finish('a');
    expect(bench.begun).toEqual(['a', 'a']);
    expect(bench.queue.quiet).toBe(true);
    await bench.closed();
  });

  it('keeps the earlier of two dates, in whichever order they come', async () => {
    for (const dates of [
      [100, 500],
      [500, 100],
    ] as const) {
      const bench = new Bench().run(1);
      for (const ms of dates) bench.queue.addAfter('a', ms);
      await bench.advance(99);
      expect(bench.begun).toEqual([]);
      await bench.advance(1);
      expect(bench.begun).toEqual(['a']);
      await bench.finish('a');
      await bench.advance(1000);
      expect(bench.begun).toEqual(['a']);
      await bench.closed();
    }
  });

  it('waits for a date that is further away than any timer can be set, and not a moment less', async () => {
    const bench = new Bench().run(1);
    bench.queue.addAfter('expiry', YEAR_MS);
    await bench.advance(YEAR_MS - 1);
    expect(bench.begun).toEqual([]);
    await bench.advance(1);
    expect(bench.begun).toEqual(['expiry']);
    await bench.closed();
  });

  it('takes a date that never comes for never', async () => {
    const bench = new Bench().run(1);
    bench.queue.addAfter('a', Number.POSITIVE_INFINITY);
    await bench.advance(10 * YEAR_MS);
    expect(bench.begun).toEqual([]);
    await bench.closed();
    expect(bench.held.pending).toBe(0);
  });

  it('refuses a delay that is not a number, which a timer would take for at once, again and again', () => {
    expect(() => new Bench().queue.addAfter('default/a', Date.parse('soon'))).toThrow(
      'the delay of default/a is not a number',
    );
  });

  it('gives a key whose handler throws back with a pause, and goes on with the others', async () => {
    const bench = new Bench(() => 0).run(1);
    for (const each of ['a', 'b']) bench.queue.add(each);
    await settled();
    await bench.fail('a');
    expect(bench.errors).toEqual(['a: no']);
    expect(bench.begun).toEqual(['a', 'b']);
    await bench.finish('b');
    await bench.advance(249);
    expect(bench.begun).toEqual(['a', 'b']);
    await bench.advance(1);
    expect(bench.begun).toEqual(['a', 'b', 'a']);
    await bench.closed();
  });

  it('goes on when a handler throws before it returns a promise', async () => {
    const held = new HeldClock();
    const queue = new WorkQueue(held);
    const stop = new AbortController();
    const begun: string[] = [];
    const errors: unknown[] = [];
    const done = queue.run(
      1,
      (each) => {
        begun.push(each);
        if (each === 'bad') throw new TypeError('at once');
        return Promise.resolve();
      },
      (_, error) => void errors.push(error),
      stop.signal,
    );
    for (const each of ['bad', 'good']) queue.add(each);
    await settled();
    expect(begun).toEqual(['bad', 'good']);
    expect(errors).toHaveLength(1);
    stop.abort();
    await done;
  });

  it('doubles the pause with each failure up to five minutes, spreads it over the upper half, and starts afresh after a success', async () => {
    const bench = new Bench().run(1);
    bench.queue.add('a');
    await settled();
    for (let failures = 1; failures <= 14; failures++) {
      await bench.fail('a');
      const full = Math.min(300_000, 500 * 2 ** (failures - 1));
      const pause = (bench.held.nextAt ?? 0) - bench.held.now();
      expect(pause).toBeGreaterThanOrEqual(full / 2);
      expect(pause).toBeLessThanOrEqual(full);
      await bench.advance(pause);
    }
    await bench.finish('a');
    bench.queue.add('a');
    await settled();
    await bench.fail('a');
    expect((bench.held.nextAt ?? 0) - bench.held.now()).toBeLessThanOrEqual(500);
    await bench.closed();
  });

  it('ends its workers and its timers when the signal fires: what runs may finish, nothing else begins', async () => {
    const bench = new Bench().run(2);
    for (const each of ['a', 'b', 'c']) bench.queue.add(each);
    bench.queue.add('a');
    bench.queue.addAfter('d', 10);
    await settled();
    bench.queue.add('a');
    bench.close();
    await settled();
    expect(bench.held.pending).toBe(0);
    expect(bench.ended).toBe(false);
    await bench.finish('a');
    await bench.finish('b');
    for (const each of ['e', 'f']) bench.queue.add(each);
    bench.queue.addAfter('g', 10);
    bench.queue.addRateLimited('h');
    await bench.advance(YEAR_MS);
    expect(bench.begun).toEqual(['a', 'b']);
    expect(bench.ended).toBe(true);
    expect(bench.queue.depth).toBe(0);
  });

  it('begins nothing that was handed to an idle worker in the step in which it was closed', async () => {
    const bench = new Bench().run(1);
    await settled();
    bench.queue.add('a');
    bench.close();
    await settled();
    expect(bench.begun).toEqual([]);
    expect(bench.ended).toBe(true);
  });

  it('does not begin at all under a signal that has fired', async () => {
    const bench = new Bench();
    bench.queue.add('a');
    bench.close();
    bench.run(3);
    await settled();
    expect(bench.begun).toEqual([]);
    expect(bench.ended).toBe(true);
  });

  it('tells its depth, how long keys have waited, and what is tried again', async () => {
    const held = new HeldClock();
    const told: string[] = [];
    const queue = new WorkQueue(held, {
      depth: (depth) => void told.push(`depth ${depth}`),
      latency: (ms) => void told.push(`waited ${ms}`),
      retried: () => void told.push('retried'),
    });
    const stop = new AbortController();
    queue.add('a');
    queue.add('b');
    held.advance(30);
    const done = queue.run(
      1,
      () => Promise.reject(new Error('no')),
      () => undefined,
      stop.signal,
    );
    await settled();
    expect(told).toEqual(['depth 1', 'depth 2', 'depth 1', 'waited 30', 'retried', 'depth 0', 'waited 30', 'retried']);
    stop.abort();
    await done;
  });
});
