import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ImageSubscription, VMImage } from '../../../../src/api/types.ts';
import type { KeptList } from '../../../../src/catalogs/kept.ts';
import type { ReadOutcome, ReadTask } from '../../../../src/catalogs/reading.ts';
import { imagesubscriptionController } from '../../../../src/controllers/imagesubscription.ts';
import type { Controller } from '../../../../src/controllers/controller.ts';
import type { Deps } from '../../../../src/reconcilers/deps.ts';
import { ALONE } from '../../../../src/reconcilers/duties.ts';
import { FINALIZER } from '../../../../src/reconcilers/imagesubscription/leave.ts';
import { KeptLists } from '../../../../src/reconcilers/imagesubscription/lists.ts';
import { Jobs } from '../../../../src/runtime/jobs.ts';
import type { Change } from '../../../../src/stores/store.ts';
import { createLogger } from '../../../../src/telemetry/log.ts';
import { createMetrics } from '../../../../src/telemetry/metrics.ts';
import { HeldClock, settled } from '../../../support/clock.ts';
import { list, subscription } from './entries.ts';

const COUNT = 1000;
/** Tenants, each with as many of them. */
const NAMESPACES = 20;
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** What stays when the program ends: the objects, and the lists that were accepted. */
let objects: Map<string, ImageSubscription>;
let heads: Map<string, KeptList>;
let clock: HeldClock;
/** Uids whose lists were read, in that order, and how many of them at the same time at most. */
let readings: string[];
let atOnce: number;
/** Until then no origin answers. */
let answered: Promise<void>;
let stop: () => Promise<void>;

beforeEach(() => {
  clock = new HeldClock();
  heads = new Map();
  objects = new Map(
    Array.from({ length: COUNT }, (_, i) => {
      const namespace = `tenant-${i % NAMESPACES}`;
      const metadata = { name: `sub-${i}`, namespace, uid: `uid-${i}`, finalizers: [FINALIZER] };
      const url = `https://lists.example.org/${i}`;
      return [
        `${namespace}/${metadata.name}`,
        { ...subscription({ url, interval: '1h' }, metadata), status: { observedGeneration: -1 } },
      ];
    }),
  );
  answered = Promise.resolve();
});
afterEach(() => stop());

/** The controller, as a start of the program makes it. */
function start(): void {
  readings = [];
  atOnce = 0;
  let running = 0;
  let tell: (change: Change<ImageSubscription>) => void = () => undefined;
  const lists = new KeptLists('/nowhere');
  for (const [uid, kept] of heads) lists.set(uid, kept);
  const jobs: Jobs = new Jobs((asker) => controller.wake(asker.slice('ImageSubscription/'.length), 'Now'));
  const end = new AbortController();
  const deps = {
    store: {
      get: (_: string, key: { namespace: string; name: string }) => objects.get(`${key.namespace}/${key.name}`),
      list: (kind: string, namespace: string) =>
        kind === 'ImageSubscription'
          ? [...objects.values()].filter(({ metadata }) => metadata.namespace === namespace)
          : ([] as VMImage[]),
      subscribe: (kind: string, listener: (change: Change) => void) => {
        if (kind !== 'ImageSubscription') return;
        tell = listener;
        for (const object of objects.values()) listener({ type: 'Applied', object });
      },
      applyStatus: async (previous: ImageSubscription, status: ImageSubscription['status']) => {
        const object = { ...previous, status };
        objects.set(`${object.metadata.namespace}/${object.metadata.name}`, object);
        tell({ type: 'Applied', object, previous });
        return object;
      },
      event: () => undefined,
    },
    catalogs: {
      read: async ({ source, inputs = '' }: ReadTask): Promise<ReadOutcome> => {
        const uid = `uid-${source.url.split('/').at(-1)}`;
        readings.push(uid);
        atOnce = Math.max(atOnce, ++running);
        await answered;
        running--;
        const about = { list: list(), warnings: [], documents: [], acceptedAt: '2026-01-01T00:00:00Z' };
        const kept: KeptList = { format: 1, revision: 'r', url: source.url, inputs, ...about };
        heads.set(uid, kept);
        return { kind: 'Accepted', kept, fresh: true };
      },
    },
    lists: Object.assign(lists, { entries: async () => ({ entries: [], skipped: [] }) }),
    jobs,
    clock,
    log: createLogger({ level: 'silent' }),
    metrics: createMetrics({ version: 'test' }),
    authority: { goodForMs: () => true },
    duties: ALONE,
    settings: { instance: 'test', network: { allow: [] }, timeouts: {} },
  } as unknown as Deps;
  const controller: Controller = imagesubscriptionController(deps);
  const done = controller.run(2, end.signal);
  stop = async () => {
    end.abort();
    await Promise.all([done, jobs.close()]);
  };
}

const until = async (wanted: (each: ImageSubscription) => boolean) => {
  for (const key of objects.keys()) {
    for (let each = objects.get(key); each !== undefined && !wanted(each); each = objects.get(key)) await settled();
  }
};
/** All have asked for a reading. */
const untilSeen = () => until(({ status }) => status.observedGeneration === 1);
const untilRead = () => until(({ status }) => status.lastCheckedTime !== undefined);

const nextLooks = () => Array.from(objects.values(), ({ status }) => Date.parse(status.nextAttemptTime ?? ''));

describe('a thousand subscriptions', { timeout: 120_000 }, () => {
  test('that are made at the same moment are read a few at a time, each once', async () => {
    const origin = Promise.withResolvers<void>();
    answered = origin.promise;
    start();
    await untilSeen();
    expect(readings).toHaveLength(4);
    origin.resolve();
    await untilRead();
    expect(new Set(readings).size).toBe(COUNT);
    expect(readings).toHaveLength(COUNT);
    expect(atOnce).toBe(4);
  });

  test('are looked at again each at its own time, however they began', async () => {
    start();
    await untilRead();
    const minutes = Map.groupBy(nextLooks(), (at) => Math.floor((at - clock.now()) / MINUTE));
    expect(Math.min(...minutes.keys())).toBeGreaterThanOrEqual(54);
    expect(Math.max(...minutes.keys())).toBeLessThanOrEqual(66);
    for (const together of minutes.values()) expect(together.length).toBeLessThan(COUNT / 5);
    await quietFor(54 * MINUTE);
    expect(readings).toHaveLength(COUNT);
    await quietFor(13 * MINUTE);
    expect(new Set(readings.slice(COUNT)).size).toBe(COUNT);
  });

  test('that came due while the program was down are read over a minute, and those that did not, at their time', async () => {
    start();
    await untilRead();
    await stop();
    start();
    await settled();
    expect(readings).toEqual([]);
    await stop();
    clock.advance(2 * HOUR);
    start();
    const perSecond: number[] = [];
    for (let second = 0; second <= 60; second++) {
      const before = readings.length;
      await quietFor(SECOND);
      perSecond.push(readings.length - before);
    }
    expect(new Set(readings).size).toBe(COUNT);
    expect(Math.max(...perSecond)).toBeLessThan(COUNT / 10);
  });

  /** Lets time pass, and all that is due in it be done. */
  async function quietFor(ms: number): Promise<void> {
    const end = clock.now() + ms;
    for (let at = clock.now(); at < end; at = clock.now()) {
      clock.advance(Math.min(end - at, 10 * SECOND));
      await idle();
    }
  }

  async function idle(): Promise<void> {
    for (let before = -1; before !== readings.length; await settled()) {
      before = readings.length;
      await settled();
    }
  }
});
