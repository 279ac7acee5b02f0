import { describe, expect, it, vi } from 'vitest';
import { Output } from '../../../src/cli/output.ts';
import { type Listener, type Watchable, watchFor, within } from '../../../src/cli/watching.ts';
import type { StoredResource } from '../../../src/stores/directory/records.ts';
import type { Scope } from '../../../src/stores/store.ts';

const object = (name: string, phase: string): StoredResource => ({
  apiVersion: 'imageproxy.dev/v1beta1',
  kind: 'VMImage',
  metadata: { name, namespace: 'default', uid: 'u', generation: 1, resourceVersion: '1', creationTimestamp: '' },
  status: { phase },
});

/** Tells what it is given; the first look ends when the test says so. */
class Source implements Watchable {
  listener: Listener | undefined;
  signal: AbortSignal | undefined;
  readonly #first: StoredResource[];
  readonly looked = Promise.withResolvers<void>();

  constructor(...first: StoredResource[]) {
    this.#first = first;
  }

  async watch(_kind: string, scope: Scope, listen: Listener, signal: AbortSignal): Promise<void> {
    const listener = within(scope, listen);
    this.listener = listener;
    this.signal = signal;
    for (const each of this.#first) listener({ type: 'Applied', object: each });
    await this.looked.promise;
  }
}

const out = new Output({ write: () => undefined }, { env: {} });
const stop = new AbortController();
const context = { out, err: out, env: {}, now: Date.now, signal: stop.signal };
const options = {
  kind: 'VMImage' as const,
  key: { namespace: 'default', name: 'a' },
  timeoutMs: 60_000,
  onTimeout: () => new Error('late'),
};
const phaseOf = (each: StoredResource | undefined) => each?.status?.['phase'];

describe('watching one object', () => {
  it('ends with the first decision, and watches no longer', async () => {
    const source = new Source(object('b', 'Ready'), object('a', 'Pending'));
    source.looked.resolve();
    const seen: unknown[] = [];
    const decided = watchFor(source, context, {
      ...options,
      decide: (each) => {
        seen.push(phaseOf(each));
        return phaseOf(each) === 'Ready' ? 'done' : undefined;
      },
    });
    await source.looked.promise;
    source.listener?.({ type: 'Applied', object: object('a', 'Ready') });
    expect(await decided).toBe('done');
    expect(seen).toEqual(['Pending', 'Ready']);
    expect(source.signal?.aborted).toBe(true);
  });

  it('survives a verdict that falls while the first look goes on', async () => {
    const source = new Source(object('a', 'Failed'));
    const unhandled: unknown[] = [];
    const listen = (error: unknown): number => unhandled.push(error);
    process.on('unhandledRejection', listen);
    const decided = watchFor(source, context, {
      ...options,
      decide: () => {
        throw new Error('stalled');
      },
    });
    // Rejections that nobody handles are told after the microtasks.
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
    source.looked.resolve();
    await expect(decided).rejects.toThrow('stalled');
    process.off('unhandledRejection', listen);
    expect(unhandled).toEqual([]);
  });

  it('takes an object that is not there as undefined, once', async () => {
    const source = new Source();
    source.looked.resolve();
    expect(
      await watchFor(source, context, { ...options, decide: (each) => (each === undefined ? 'gone' : undefined) }),
    ).toBe('gone');
  });

  it('looks once where it is to take no time, however long the look takes', async () => {
    vi.useFakeTimers();
    try {
      const source = new Source();
      const now = { ...options, timeoutMs: 0 };
      const decided = watchFor(source, context, { ...now, decide: (each) => each && 'there' });
      await vi.advanceTimersByTimeAsync(1000);
      source.listener?.({ type: 'Applied', object: object('a', 'Ready') });
      source.looked.resolve();
      expect(await decided).toBe('there');
      const late = expect(watchFor(source, context, { ...now, decide: () => undefined })).rejects.toThrow('late');
      await vi.advanceTimersByTimeAsync(1);
      await late;
    } finally {
      vi.useRealTimers();
    }
  });

  it('says once that it takes long, where somebody should have been at work', async () => {
    vi.useFakeTimers();
    try {
      const source = new Source(object('a', 'Pending'));
      source.looked.resolve();
      const told: unknown[] = [];
      const ended = expect(
        watchFor(source, context, {
          ...options,
          decide: () => undefined,
          onOverdue: (each) => told.push(phaseOf(each)),
        }),
      ).rejects.toThrow('late');
      await vi.advanceTimersByTimeAsync(29_000);
      expect(told).toEqual([]);
      await vi.advanceTimersByTimeAsync(40_000);
      await ended;
      expect(told).toEqual(['Pending']);
    } finally {
      vi.useRealTimers();
    }
  });

  it('ends with the error of what it depends on, and of time that is up', async () => {
    const source = new Source();
    source.looked.resolve();
    const never = { ...options, decide: () => undefined };
    await expect(
      watchFor(source, context, { ...never, ended: Promise.reject(new Error('the holder ended')) }),
    ).rejects.toThrow('the holder ended');
    await expect(watchFor(source, context, { ...never, timeoutMs: 1 })).rejects.toThrow('late');
  });
});
