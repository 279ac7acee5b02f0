import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type JobHandle, Jobs, type Urgency } from '../../../src/runtime/jobs.ts';
import { settled } from '../../support/clock.ts';

/** One run of a job, ended by the test. */
interface Run {
  key: string;
  handle: JobHandle;
  view: { n: number };
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

class Bench {
  readonly woken: [string, Urgency][] = [];
  readonly jobs = new Jobs((asker, urgency) => void this.woken.push([asker, urgency]));
  /** Every run that has begun, in order. */
  readonly begun: Run[] = [];
  readonly active = new Set<Run>();
  readonly discarded: unknown[] = [];

  /** A run that stops as soon as it is asked to, or (`obeys: false`) only when the test ends it. */
  start(key: string, asker: string, options: { lane?: { name: string; limit: number }; obeys?: boolean } = {}): void {
    const { lane, obeys = true } = options;
    const discard = (value: unknown) => void this.discarded.push(value);
    this.jobs.start(
      key,
      asker,
      { ...(lane === undefined ? {} : { lane }), view: { n: 0 }, discard },
      (handle, view) => {
        const { promise, resolve, reject } = Promise.withResolvers<unknown>();
        const run = { key, handle, view, resolve, reject };
        this.begun.push(run);
        this.active.add(run);
        if (obeys) handle.signal.addEventListener('abort', () => reject(handle.signal.reason), { once: true });
        return promise.finally(() => this.active.delete(run));
      },
    );
  }

  run(key: string): Run {
    const found = [...this.active].find((each) => each.key === key);
    if (found === undefined) throw new Error(`${key} does not run`);
    return found;
  }

  async end(key: string, value: unknown = 'done'): Promise<void> {
    this.run(key).resolve(value);
    await settled();
  }

  wakes(): string[] {
    return this.woken.splice(0).map(([asker, urgency]) => `${asker} ${urgency}`);
  }

  get keys(): string[] {
    return this.begun.map((each) => each.key);
  }
}

describe('a job', () => {
  it('is one run for all who ask for its key while it runs', async () => {
    const bench = new Bench();
    for (const asker of ['a', 'b', 'c', 'a']) bench.start('k', asker);
    expect(bench.keys).toEqual(['k']);
    expect(bench.jobs.running).toBe(1);
    expect(bench.jobs.runs('k')).toBe(true);
    await bench.end('k', 42);
    expect(bench.wakes()).toEqual(['a Now', 'b Now', 'c Now']);
    expect(bench.jobs.runs('k')).toBe(false);
    expect(bench.jobs.running).toBe(0);
  });

  it('gives its outcome to each of its askers once, and to nobody else', async () => {
    const bench = new Bench();
    for (const asker of ['a', 'b']) bench.start('k', asker);
    expect(bench.jobs.take('k', 'a')).toBeUndefined();
    await bench.end('k', 42);
    expect(bench.jobs.take('k', 'a')).toEqual({ ok: true, value: 42 });
    expect(bench.jobs.take('k', 'a')).toBeUndefined();
    expect(bench.jobs.take('k', 'stranger')).toBeUndefined();
    expect(bench.jobs.take('k', 'b')).toEqual({ ok: true, value: 42 });
    expect(bench.jobs.view('k')).toBeUndefined();
  });

  it('that fails is an outcome like any other', async () => {
    const bench = new Bench();
    bench.start('k', 'a');
    const error = new Error('no');
    bench.run('k').reject(error);
    await settled();
    expect(bench.wakes()).toEqual(['a Now']);
    expect(bench.jobs.take('k', 'a')).toEqual({ ok: false, error });
  });

  it('that is aborted by its key keeps its askers, who are woken and find it so; others go on', async () => {
    const bench = new Bench();
    bench.start('site/a', 'a');
    bench.start('fetch/a', 'a');
    bench.jobs.abort((key) => key.startsWith('site/'));
    await settled();
    expect(bench.wakes()).toEqual(['a Now']);
    expect(bench.jobs.take('site/a', 'a')).toMatchObject({ ok: false, error: { name: 'AbortError' } });
    expect(bench.jobs.runs('fetch/a')).toBe(true);
    // The key is free for the next try.
    bench.start('site/a', 'a');
    expect(bench.jobs.runs('site/a')).toBe(true);
  });

  it('that throws before it returns a promise has failed', async () => {
    const bench = new Bench();
    const error = new TypeError('at once');
    bench.jobs.start('k', 'a', { view: undefined }, () => {
      throw error;
    });
    await settled();
    expect(bench.jobs.take('k', 'a')).toEqual({ ok: false, error });
  });

  it('shows its view while it runs and until its outcome is taken, and wakes its askers when there is something to see', async () => {
    const bench = new Bench();
    bench.start('k', 'a');
    bench.start('k', 'b');
    bench.run('k').view.n = 7;
    bench.run('k').handle.changed('Soon');
    expect(bench.jobs.view('k')).toEqual({ n: 7 });
    expect(bench.wakes()).toEqual(['a Soon', 'b Soon']);
    bench.jobs.leave('k', 'b');
    bench.run('k').handle.changed('Now');
    expect(bench.wakes()).toEqual(['a Now']);
    await bench.end('k');
    expect(bench.jobs.view('k')).toEqual({ n: 7 });
    bench.jobs.take('k', 'a');
    expect(bench.jobs.view('k')).toBeUndefined();
  });

  it('goes on while anybody still wants it, and is ended by the last one who leaves', async () => {
    const bench = new Bench();
    for (const asker of ['a', 'b']) bench.start('k', asker);
    const { signal } = bench.run('k').handle;
    bench.jobs.leave('k', 'a');
    bench.jobs.leave('k', 'stranger');
    bench.jobs.leave('k', 'a');
    expect(signal.aborted).toBe(false);
    bench.jobs.leave('k', 'b');
    expect(signal.aborted).toBe(true);
    await settled();
    expect(bench.jobs.running).toBe(0);
    expect(bench.jobs.take('k', 'b')).toBeUndefined();
  });

  describe('whose value holds something open', () => {
    it('gives it back when it ends after the last asker has left', async () => {
      const bench = new Bench();
      bench.start('k', 'a', { obeys: false });
      bench.jobs.leave('k', 'a');
      expect(bench.discarded).toEqual([]);
      await bench.end('k', 'connection');
      expect(bench.discarded).toEqual(['connection']);
    });

    it('gives it back once, when all askers leave without having taken it', async () => {
      const bench = new Bench();
      for (const asker of ['a', 'b']) bench.start('k', asker);
      await bench.end('k', 'connection');
      bench.jobs.leave('k', 'a');
      expect(bench.discarded).toEqual([]);
      bench.jobs.leaveAll('b');
      expect(bench.discarded).toEqual(['connection']);
    });

    it.each([
      ['the first', ['a', 'b']],
      ['the last', ['b', 'a']],
    ])('leaves it to whoever has taken it: %s', async (_, [taker = '', leaver = '']) => {
      const bench = new Bench();
      for (const asker of ['a', 'b']) bench.start('k', asker);
      await bench.end('k', 'connection');
      expect(bench.jobs.take('k', taker)).toEqual({ ok: true, value: 'connection' });
      bench.jobs.leave('k', leaver);
      expect(bench.discarded).toEqual([]);
    });

    it('has nothing to give back after a failure', async () => {
      const bench = new Bench();
      bench.start('k', 'a');
      bench.run('k').reject(new Error('no'));
      await settled();
      bench.jobs.leave('k', 'a');
      expect(bench.discarded).toEqual([]);
    });
  });

  it('that was ended wakes the one whose leaving ended it when it has stopped, however long that takes', async () => {
    const bench = new Bench();
    bench.start('k', 'a', { obeys: false });
    bench.jobs.leave('k', 'a');
    await settled();
    expect(bench.wakes()).toEqual([]);
    expect(bench.jobs.runs('k')).toBe(true);
    await bench.end('k');
    expect(bench.wakes()).toEqual(['a Now']);
    expect(bench.jobs.take('k', 'a')).toBeUndefined();
  });

  it('never overlaps the one before it: who asks while that is being ended is woken when it has stopped', async () => {
    const bench = new Bench();
    bench.start('k', 'a', { obeys: false });
    bench.jobs.leave('k', 'a');
    bench.start('k', 'b');
    bench.start('k', 'b');
    expect(bench.begun).toHaveLength(1);
    await bench.end('k', 'of the aborted run');
    expect(bench.wakes()).toEqual(['a Now', 'b Now']);
    expect(bench.jobs.take('k', 'b')).toBeUndefined();
    bench.start('k', 'b');
    expect(bench.begun).toHaveLength(2);
    expect(bench.run('k').handle.signal.aborted).toBe(false);
    await bench.end('k', 'of its own');
    expect(bench.jobs.take('k', 'b')).toEqual({ ok: true, value: 'of its own' });
  });

  it('is run afresh for a newcomer, though somebody has not taken the outcome of the last run yet', async () => {
    const bench = new Bench();
    for (const asker of ['a', 'slow']) bench.start('k', asker);
    bench.run('k').reject(new Error('the first'));
    await settled();
    expect(bench.jobs.take('k', 'a')).toMatchObject({ ok: false });
    // The second try of an asker must not end in the failure of the first.
    bench.start('k', 'a');
    bench.start('k', 'new');
    expect(bench.begun).toHaveLength(2);
    await bench.end('k', 'the second');
    expect(bench.jobs.take('k', 'a')).toEqual({ ok: true, value: 'the second' });
    expect(bench.jobs.take('k', 'new')).toEqual({ ok: true, value: 'the second' });
    expect(bench.jobs.take('k', 'slow')).toMatchObject({ ok: false });
  });

  it('is not started by one who has yet to take the outcome of the last run', async () => {
    const bench = new Bench();
    bench.start('k', 'a');
    await bench.end('k', 1);
    bench.start('k', 'a');
    expect(bench.begun).toHaveLength(1);
    expect(bench.jobs.take('k', 'a')).toEqual({ ok: true, value: 1 });
  });

  it('is left with all others of an asker, but for those that are to be kept', async () => {
    const bench = new Bench();
    for (const key of ['fetch/1', 'site/1', 'fetch/2', 'done']) bench.start(key, 'a');
    bench.start('fetch/2', 'b');
    await bench.end('done');
    const signals = ['fetch/1', 'site/1', 'fetch/2'].map((key) => bench.run(key).handle.signal);
    bench.jobs.leaveAll('a', (key) => key.startsWith('site/'));
    expect(signals.map((signal) => signal.aborted)).toEqual([true, false, false]);
    expect(bench.jobs.take('done', 'a')).toBeUndefined();
    bench.jobs.leaveAll('a');
    expect(signals.map((signal) => signal.aborted)).toEqual([true, true, false]);
  });

  it('is stopped by close, which waits for the last one and lets nothing begin afterwards', async () => {
    const bench = new Bench();
    bench.start('quick', 'a');
    bench.start('slow', 'a', { obeys: false });
    bench.start('waits', 'a', { lane: { name: 'l', limit: 1 } });
    await settled();
    bench.start('queued', 'a', { lane: { name: 'l', limit: 1 } });
    const { signal } = bench.run('slow').handle;
    let closed = false;
    const closing = bench.jobs.close().then(() => {
      closed = true;
    });
    await settled();
    expect(signal.aborted).toBe(true);
    expect(closed).toBe(false);
    bench.start('late', 'a');
    await bench.end('slow');
    await closing;
    expect(bench.jobs.running).toBe(0);
    expect(bench.keys).toEqual(['quick', 'slow', 'waits']);
  });
});

describe('a lane', () => {
  const lane = { name: 'uploads/nova', limit: 1 };

  it('lets so many side by side, the others in the order in which they came', async () => {
    const bench = new Bench();
    for (const key of ['1', '2', '3', '4']) bench.start(key, 'a', { lane: { ...lane, limit: 2 } });
    bench.start('elsewhere', 'a', { lane: { name: 'uploads/other', limit: 1 } });
    bench.start('free', 'a');
    await settled();
    expect(bench.keys.toSorted()).toEqual(['1', '2', 'elsewhere', 'free']);
    await bench.end('2');
    await bench.end('1');
    expect(bench.begun.slice(4).map((each) => each.key)).toEqual(['3', '4']);
  });

  it('is not overtaken by one who comes in the step in which a place becomes free', async () => {
    const bench = new Bench();
    bench.start('first', 'a', { lane });
    bench.start('waits', 'a', { lane });
    await settled();
    const run = bench.run('first');
    run.resolve('done');
    // Every step between the end of one and the beginning of the next is a chance to slip in.
    for (let step = 0; step < 12; step++) {
      await Promise.resolve();
      bench.start(`late ${step}`, 'a', { lane });
      expect(bench.active.size).toBeLessThanOrEqual(1);
    }
    await settled();
    expect(bench.keys).toEqual(['first', 'waits']);
    expect(bench.active.size).toBe(1);
  });

  it('forgets one who gives up while it waits, and no other loses its turn by that', async () => {
    for (const quitter of ['2', '3', '4']) {
      const bench = new Bench();
      for (const key of ['1', '2', '3', '4']) bench.start(key, key, { lane });
      await settled();
      bench.jobs.leave(quitter, quitter);
      await settled();
      expect(bench.jobs.runs(quitter)).toBe(false);
      const order = ['1', '2', '3', '4'].filter((key) => key !== quitter);
      for (const key of order) await bench.end(key);
      expect(bench.keys).toEqual(order);
      expect(bench.jobs.running).toBe(0);
    }
  });

  it('gives the place on when the one it was given to left in the same step', async () => {
    const bench = new Bench();
    for (const key of ['1', '2', '3']) bench.start(key, key, { lane });
    await settled();
    bench.run('1').resolve('done');
    for (let step = 0; step < 12 && bench.begun.length === 1; step++) await Promise.resolve();
    bench.jobs.leave('2', '2');
    await settled();
    expect(bench.active.size).toBe(1);
    expect([...bench.active][0]?.key).toBe('3');
  });

  it('takes a wider bound at once, and a narrower one as places become free', async () => {
    const bench = new Bench();
    for (const key of ['1', '2', '3']) bench.start(key, 'a', { lane });
    await settled();
    expect(bench.active.size).toBe(1);
    bench.start('4', 'a', { lane: { ...lane, limit: 3 } });
    await settled();
    expect(bench.keys).toEqual(['1', '2', '3']);
    bench.start('5', 'a', { lane });
    for (const key of ['1', '2']) await bench.end(key);
    expect(bench.active.size).toBe(1);
    await bench.end('3');
    expect(bench.keys.at(-1)).toBe('4');
  });

  it('never holds more than its bound, keeps the order of arrival and leaves nobody behind, whatever comes and goes', async () => {
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.record({ do: fc.constant('start' as const), n: fc.nat(7) }) },
      { weight: 3, arbitrary: fc.record({ do: fc.constant('end' as const), n: fc.nat(7) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('leave' as const), n: fc.nat(7) }) },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.array(fc.record({ step, pause: fc.nat(4) }), { maxLength: 40 }),
        async (limit, steps) => {
          const bench = new Bench();
          let arrived = 0;
          const tickets = new Map<string, number>();
          const begunTickets: number[] = [];
          for (const { step: each, pause } of steps) {
            const key = String(each.n);
            if (each.do === 'start') {
              bench.jobs.take(key, 'a');
              if (!bench.jobs.runs(key)) tickets.set(key, ++arrived);
              bench.start(key, 'a', { lane: { name: 'l', limit } });
            } else if (each.do === 'leave') bench.jobs.leave(key, 'a');
            else [...bench.active].find((run) => run.key === key)?.resolve('done');
            // Not always at rest: what comes in between steps is what goes wrong.
            for (let turn = 0; turn < pause; turn++) await Promise.resolve();
            expect(bench.active.size).toBeLessThanOrEqual(limit);
            for (const run of bench.begun.slice(begunTickets.length)) begunTickets.push(tickets.get(run.key) ?? 0);
          }
          expect(begunTickets).toEqual(begunTickets.toSorted((a, b) => a - b));
          await settled();
          for (let turn = 0; turn < 50 && bench.jobs.running > 0; turn++) {
            for (const run of [...bench.active]) run.resolve('done');
            await settled();
            expect(bench.active.size).toBeLessThanOrEqual(limit);
          }
          expect(bench.jobs.running).toBe(0);
        },
      ),
      { numRuns: 300 },
    );
  });
});
