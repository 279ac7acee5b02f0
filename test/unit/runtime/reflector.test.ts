import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ApiError } from '../../../src/runtime/api-error.ts';
import { type ListPage, type ListWatch, Reflector, type WatchEvent } from '../../../src/runtime/reflector.ts';
import type { Resource } from '../../../src/stores/store.ts';
import { HeldClock, settled } from '../../support/clock.ts';
import { TestLog } from '../stores/support.ts';

const object = (name: string, version: number): Resource => ({
  apiVersion: 'v1',
  kind: 'Thing',
  metadata: { name, uid: `uid-${name}`, generation: 1, resourceVersion: String(version), creationTimestamp: '' },
});

/** A server whose answers the test decides, one by one; every call is written down. */
class Script implements ListWatch {
  readonly calls: string[] = [];
  readonly queries: Record<string, string>[] = [];
  readonly #lists: (ListPage | Error)[] = [];
  #watch: { push(event: WatchEvent | Error | 'end'): void } | undefined;
  /** What the next watches throw at once. */
  readonly refusals: Error[] = [];

  answer(...pages: (ListPage | Error)[]): this {
    this.#lists.push(...pages);
    return this;
  }

  async list(query: Record<string, string>): Promise<ListPage> {
    this.calls.push(`list ${query['continue'] ?? ''}${query['limit'] === undefined ? 'whole' : ''}`.trim());
    this.queries.push(query);
    const next = this.#lists.shift();
    if (next === undefined) throw new Error('unreachable');
    if (next instanceof Error) throw next;
    return next;
  }

  async *watch(query: Record<string, string>, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    this.calls.push(`watch ${query['resourceVersion']}`);
    this.queries.push(query);
    const refusal = this.refusals.shift();
    if (refusal !== undefined) throw refusal;
    const queue: (WatchEvent | Error | 'end')[] = [];
    let wake = Promise.withResolvers<void>();
    const push = (event: WatchEvent | Error | 'end'): void => {
      queue.push(event);
      wake.resolve();
    };
    this.#watch = { push };
    const stop = (): void => push(signal.reason as Error);
    signal.addEventListener('abort', stop);
    try {
      for (;;) {
        await wake.promise;
        wake = Promise.withResolvers();
        for (const event of queue.splice(0)) {
          if (event === 'end') return;
          if (event instanceof Error) throw event;
          yield event;
        }
      }
    } finally {
      this.#watch = undefined;
      signal.removeEventListener('abort', stop);
    }
  }

  get isWatched(): boolean {
    return this.#watch !== undefined;
  }

  async send(...events: (WatchEvent | Error | 'end')[]): Promise<void> {
    for (const event of events) this.#watch?.push(event);
    await settled();
  }
}

describe('A reflector', () => {
  let clock: HeldClock;
  let log: TestLog;
  let script: Script;
  let heard: string[];
  let stop: AbortController;
  let running: Promise<void>;
  let reflector: Reflector;

  beforeEach(() => {
    clock = new HeldClock();
    log = new TestLog();
    script = new Script();
    heard = [];
    stop = new AbortController();
    running = Promise.resolve();
  });
  afterEach(async () => {
    stop.abort();
    await running;
  });

  const start = async (): Promise<void> => {
    reflector = new Reflector({
      what: 'things',
      source: script,
      target: {
        replace: (items, version) => heard.push(`all ${items.map((item) => item.metadata.name).join(',')} @${version}`),
        applied: ({ metadata }) => heard.push(`applied ${metadata.name} @${metadata.resourceVersion}`),
        deleted: ({ metadata }) => heard.push(`deleted ${metadata.name} @${metadata.resourceVersion}`),
      },
      clock,
      log,
    });
    running = reflector.run(stop.signal);
    await settled();
  };
  const after = async (ms: number): Promise<void> => {
    clock.advance(ms);
    await settled();
  };
  const page = (resourceVersion: number, ...names: string[]): ListPage => ({
    items: names.map((name, i) => object(name, i + 1)),
    resourceVersion: String(resourceVersion),
  });
  const bookmark = (version: number): WatchEvent => ({
    type: 'BOOKMARK',
    object: { kind: 'Thing', metadata: { resourceVersion: String(version) } },
  });
  const status = (code: number, reason: string, message = ''): WatchEvent => ({
    type: 'ERROR',
    object: { kind: 'Status', code, reason, message },
  });

  it('lists in pages, and is in sync with the last of them', async () => {
    script.answer({ ...page(9, 'a', 'b'), continue: 'two' }, { ...page(9, 'c'), continue: '' });
    await start();
    await reflector.synced;
    expect(heard).toEqual(['all a,b,c @9']);
    expect(script.calls).toEqual(['list', 'list two', 'watch 9']);
    expect(script.queries[1]).toEqual({ limit: '500', continue: 'two' });
  });

  it('begins anew, in one piece, when the server has forgotten the snapshot of the pages', async () => {
    script.answer({ ...page(9, 'a'), continue: 'two' }, new ApiError(410, 'Expired', 'too old'), page(12, 'a', 'b'));
    await start();
    expect(heard).toEqual(['all a,b @12']);
    expect(script.calls).toEqual(['list', 'list two', 'list whole', 'watch 12']);
  });

  it('asks for bookmarks, and for a watch that ends after four to five minutes', async () => {
    script.answer(page(1));
    await start();
    for (let i = 0; i < 20; i++) {
      await after(1500);
      await script.send('end');
    }
    const seconds = script.queries.slice(1).map((query) => Number(query['timeoutSeconds']));
    expect(Math.min(...seconds)).toBeGreaterThanOrEqual(240);
    expect(Math.max(...seconds)).toBeLessThanOrEqual(300);
    expect(new Set(seconds).size).toBeGreaterThan(3);
    expect(script.queries.at(-1)).toMatchObject({ allowWatchBookmarks: 'true' });
  });

  it('goes on from the last event or bookmark when a watch ends, at once', async () => {
    script.answer(page(1));
    await start();
    await script.send({ type: 'ADDED', object: object('a', 5) }, { type: 'DELETED', object: object('a', 6) }, 'end');
    await script.send(bookmark(40), 'end');
    expect(heard).toEqual(['all  @1', 'applied a @5', 'deleted a @6']);
    expect(script.calls).toEqual(['list', 'watch 1', 'watch 6', 'watch 40']);
  });

  it('lists again when its version has expired, by an answer or by an event, and at once', async () => {
    script.answer(page(1), page(20, 'a'), page(30, 'b'));
    await start();
    script.refusals.push(new ApiError(410, 'Expired', 'too old'));
    await script.send(bookmark(2), 'end');
    expect(script.calls).toEqual(['list', 'watch 1', 'watch 2', 'list', 'watch 20']);
    await script.send(bookmark(21), status(410, 'Expired'));
    expect(script.calls.slice(5)).toEqual(['list', 'watch 30']);
  });

  it('does not list in a storm when the server says again and again that the version has expired', async () => {
    script.answer(...Array.from({ length: 50 }, (_, i) => page(i)));
    script.refusals.push(...Array.from({ length: 50 }, () => new ApiError(410, 'Expired', 'too old')));
    await start();
    expect(script.calls.filter((call) => call === 'list').length).toBeLessThanOrEqual(2);
    await after(10_000);
    expect(script.calls.filter((call) => call === 'list').length).toBeLessThan(8);
  });

  it('lists again when the history of the server ends before its version: etcd was restored', async () => {
    script.answer(page(900, 'a'), page(300, 'b'));
    await start();
    await script.send(status(504, 'Timeout', 'Timeout: Too large resource version: 900, current: 300'));
    expect(heard).toEqual(['all a @900', 'all b @300']);
  });

  it('after any other failure it waits, longer each time, and goes on where it was, without a list', async () => {
    script.answer(page(7));
    await start();
    script.refusals.push(...Array.from({ length: 8 }, () => new Error('connect ECONNREFUSED')));
    await script.send(bookmark(8), new Error('socket hang up'));
    const pauses: number[] = [];
    for (let i = 0; i < 9; i++) {
      const due = (clock.nextAt ?? 0) - clock.now();
      pauses.push(due);
      await after(due);
    }
    expect(script.isWatched).toBe(true);
    expect(script.calls.filter((call) => call === 'watch 8')).toHaveLength(9);
    expect(script.calls.filter((call) => call === 'list')).toHaveLength(1);
    expect(pauses[0]).toBeLessThanOrEqual(800);
    for (const [i, ms] of pauses.entries()) {
      const full = Math.min(30_000, 800 * 2 ** i);
      expect(ms).toBeGreaterThanOrEqual(full / 2);
      expect(ms).toBeLessThanOrEqual(full);
    }
    expect(reflector.lastError).toMatchObject({ message: 'connect ECONNREFUSED' });
    await script.send(bookmark(9), new Error('cut'));
    // A watch that has worked begins with a short pause again.
    expect((clock.nextAt ?? 0) - clock.now()).toBeLessThanOrEqual(800);
  });

  it('waits at least as long as a Retry-After says, though never more than a minute or so', async () => {
    script.answer(
      new ApiError(429, 'TooManyRequests', 'busy', 7_000),
      new ApiError(503, '', 'down', 86_400_000),
      page(1),
    );
    await start();
    await after(6_999);
    expect(script.calls).toEqual(['list']);
    await after(801);
    expect(script.calls).toEqual(['list', 'list']);
    await after(70_000);
    expect(script.calls).toEqual(['list', 'list', 'list', 'watch 1']);
  });

  it('takes a watch that ends at once and without a word for a failure, and does not come back in a storm', async () => {
    script.answer(page(1));
    await start();
    await script.send('end');
    expect(script.calls).toEqual(['list', 'watch 1']);
    await after(800);
    expect(script.calls).toEqual(['list', 'watch 1', 'watch 1']);
  });

  it('lists again when the watch is forbidden, for the list tells what is wrong', async () => {
    script.answer(page(1), new ApiError(403, 'Forbidden', 'cannot list'), page(2));
    script.refusals.push(new ApiError(403, 'Forbidden', 'cannot watch'));
    await start();
    await after(800);
    await after(1600);
    expect(script.calls).toEqual(['list', 'watch 1', 'list', 'list', 'watch 2']);
  });

  it('passes over an event type of tomorrow, and starts anew on an event without an object', async () => {
    script.answer(page(1));
    await start();
    await script.send({ type: 'MOVED', object: object('a', 2) }, { type: 'ADDED', object: object('b', 3) });
    expect(heard).toEqual(['all  @1', 'applied b @3']);
    await script.send({ type: 'ADDED', object: 7 });
    await after(800);
    expect(script.calls.at(-1)).toBe('watch 3');
  });

  it('ends with the signal from every state: listing, watching, waiting; and says nothing afterwards', async () => {
    await start();
    // Waiting after a list that failed.
    expect(clock.pending).toBe(1);
    stop.abort();
    await running;
    expect(clock.pending).toBe(0);

    stop = new AbortController();
    script.answer(page(1));
    await start();
    expect(script.isWatched).toBe(true);
    const warned = log.messages('warn').length;
    stop.abort();
    await running;
    expect(script.isWatched).toBe(false);
    expect(log.messages('warn')).toHaveLength(warned);
  });

  it('never gives up and never misses: whatever fails in whatever order, it ends up with what the server has', async () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('change' as const), name: fc.constantFrom('a', 'b', 'c') }),
      fc.record({ do: fc.constant('delete' as const), name: fc.constantFrom('a', 'b', 'c') }),
      fc.record({ do: fc.constantFrom('cut' as const, 'expire' as const, 'end' as const, 'bookmark' as const) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const world = new World();
        const copy = new Map<string, string>();
        const held = new HeldClock();
        const end = new AbortController();
        const run = new Reflector({
          what: 'things',
          source: world,
          target: {
            replace: (items) => {
              copy.clear();
              for (const { metadata } of items) copy.set(metadata.name, metadata.resourceVersion);
            },
            applied: ({ metadata }) => copy.set(metadata.name, metadata.resourceVersion),
            deleted: ({ metadata }) => copy.delete(metadata.name),
          },
          clock: held,
          log: new TestLog(),
        }).run(end.signal);
        await settled();
        for (const each of steps) {
          if (each.do === 'change') world.change(each.name);
          else if (each.do === 'delete') world.delete(each.name);
          else world.disturb(each.do);
          await settled();
        }
        for (let i = 0; i < 5; i++) {
          held.advance(120_000);
          await settled();
        }
        expect(copy).toEqual(world.objects);
        end.abort();
        await run;
      }),
      { numRuns: 100 },
    );
  });
});

/** A server with a history, which can be forgotten. */
class World implements ListWatch {
  readonly objects = new Map<string, string>();
  #history: { version: number; event: WatchEvent }[] = [];
  #version = 1;
  #oldest = 0;
  #nudge = Promise.withResolvers<'go' | 'cut' | 'end'>();

  change(name: string): void {
    const type = this.objects.has(name) ? 'MODIFIED' : 'ADDED';
    this.objects.set(name, String(++this.#version));
    this.#record({ type, object: object(name, this.#version) });
  }

  delete(name: string): void {
    if (!this.objects.delete(name)) return;
    this.#record({ type: 'DELETED', object: object(name, ++this.#version) });
  }

  disturb(how: 'cut' | 'expire' | 'end' | 'bookmark'): void {
    if (how === 'bookmark') {
      this.#record({ type: 'BOOKMARK', object: { metadata: { resourceVersion: String(this.#version) } } });
      return;
    }
    if (how === 'expire') {
      this.#oldest = ++this.#version;
      this.#history = [];
    }
    this.#signal(how === 'end' ? 'end' : 'cut');
  }

  async list(): Promise<ListPage> {
    const items = [...this.objects].map(([name, version]) => object(name, Number(version)));
    return { items, resourceVersion: String(this.#version) };
  }

  async *watch(query: Record<string, string>, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    let seen = Number(query['resourceVersion']);
    if (seen < this.#oldest) throw new ApiError(410, 'Expired', 'too old');
    const aborted = Promise.withResolvers<'cut'>();
    signal.addEventListener('abort', () => aborted.resolve('cut'), { once: true });
    for (;;) {
      const nudge = this.#nudge.promise;
      for (const { version, event } of this.#history.filter((each) => each.version > seen)) {
        seen = version;
        yield event;
      }
      const how = await Promise.race([nudge, aborted.promise]);
      if (how === 'end') return;
      if (how === 'cut') throw new Error('cut');
    }
  }

  #record(event: WatchEvent): void {
    this.#history.push({ version: this.#version, event });
    this.#signal('go');
  }

  #signal(how: 'go' | 'cut' | 'end'): void {
    const nudged = this.#nudge;
    this.#nudge = Promise.withResolvers();
    nudged.resolve(how);
  }
}
