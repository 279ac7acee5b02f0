import { isDeepStrictEqual } from 'node:util';
import { describe, expect, test } from 'vitest';
import { findCondition, isTrue, timestamp } from '../../../src/api/conditions.ts';
import { Failure } from '../../../src/api/failure.ts';
import type { ImageSite } from '../../../src/api/types.ts';
import type { Cloud, Probe } from '../../../src/clouds/cloud.ts';
import { reconcileImageSite } from '../../../src/reconcilers/imagesite/index.ts';
import type { SiteDeps } from '../../../src/reconcilers/imagesite/opened.ts';
import { settled } from '../../support/clock.ts';
import { imagesite } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

/** A cloud whose probe ends when the test says so, and that counts how often it was closed. */
class SlowCloud extends ScriptedCloud {
  closed = 0;
  readonly answer = Promise.withResolvers<Probe>();

  #signal: AbortSignal | undefined;

  override probe(signal?: AbortSignal): Promise<Probe> {
    this.#signal = signal;
    return this.answer.promise;
  }

  /** Whether nobody waits for the probe any more. */
  get cut(): boolean {
    return this.#signal?.aborted === true;
  }

  override async close(): Promise<void> {
    this.closed++;
  }

  async answers(): Promise<void> {
    this.answer.resolve({ identity: 'scripted', details: {}, endpoints: [] });
    await settled();
  }
}

class Sites {
  readonly bench = new Workbench();
  readonly opened: SlowCloud[] = [];
  /** Statuses that were written and differ from the one before. */
  readonly written: ImageSite['status'][] = [];
  /** What the site's Secret holds; undefined: there is none. */
  secret: string | undefined;
  /** Why no cloud can be opened. */
  trouble: Failure | undefined;
  readonly #deps: SiteDeps;

  constructor() {
    const { deps } = this.bench;
    Object.assign(deps.store, {
      applyStatus: async (site: ImageSite, status: ImageSite['status']) => {
        if (isDeepStrictEqual(status, site.status)) return;
        this.written.push(status);
        this.bench.sites.set(site.metadata.name, { ...site, status });
      },
      event: () => undefined,
      secret: async () =>
        this.secret === undefined ? undefined : { data: { 'clouds.yaml': Buffer.from(this.secret) } },
      removeFinalizer: async ({ metadata }: ImageSite) => void this.bench.sites.delete(metadata.name),
    });
    const openCloud = async (): Promise<Cloud> => {
      if (this.trouble !== undefined) throw this.trouble;
      const cloud = new SlowCloud();
      this.opened.push(cloud);
      return cloud;
    };
    this.#deps = { ...deps, openCloud };
  }

  /** The site as it is now, looked at once. */
  async look(site: Parameters<typeof imagesite>[0]): Promise<void> {
    const fresh = imagesite(
      { ...site, metadata: { finalizers: ['imageproxy.dev/site-in-use'], ...site?.metadata } },
      { identity: 'scripted' },
    );
    this.bench.sites.set('nova', fresh);
    await this.again();
  }

  /** @returns after how many milliseconds it asks to be looked at again */
  async again(): Promise<number | undefined> {
    const next = await reconcileImageSite({ name: 'nova' }, this.#deps);
    await settled();
    return next;
  }

  get inUse(): Cloud | undefined {
    return this.bench.connections.get('nova')?.cloud;
  }
}

describe('the connection to a site that is being probed', () => {
  test("is the site's once the probe is good", async () => {
    const sites = new Sites();
    await sites.look({});
    await sites.opened[0]?.answers();
    await sites.again();
    expect(sites.inUse).toBe(sites.opened[0]);
    expect(sites.opened[0]?.closed).toBe(0);
  });

  test.each<[string, (sites: Sites) => Promise<void>]>([
    [
      'deleted',
      async (sites) => {
        await sites.look({ metadata: { deletionTimestamp: '2026-11-21T12:00:00Z' } });
      },
    ],
    [
      'gone',
      async (sites) => {
        sites.bench.sites.delete('nova');
        await sites.again();
      },
    ],
    ['suspended', (sites) => sites.look({ spec: { suspend: true } })],
    ['abandoned', (sites) => sites.look({ spec: { abandoned: true } })],
    ['made again under its name', (sites) => sites.look({ metadata: { uid: 'another' } })],
  ])('is closed when the site is %s meanwhile, whether or not the probe has ended', async (_, goes) => {
    for (const endsFirst of [true, false]) {
      const sites = new Sites();
      await sites.look({});
      const [cloud] = sites.opened;
      if (endsFirst) await cloud?.answers();
      await goes(sites);
      if (!endsFirst) await cloud?.answers();
      expect(cloud?.closed).toBe(1);
      expect(sites.inUse).toBeUndefined();
    }
  });
});

describe('a probe that runs still', () => {
  const openstack = {
    authURL: 'https://keystone.example.org/v3',
    cloud: 'openstack',
    interface: 'Public' as const,
    secretRef: { name: 'nova' },
  };
  /** Cuts the probe, as the cloud's client does. */
  const stuck = ({ answer }: SlowCloud) => answer.reject(new Failure('NetworkError', 'no answer within 60 s'));

  test.each([true, false])(
    'says nothing of a Secret that was corrected meanwhile: that is tried at once (the probe has ended before: %s)',
    async (endsFirst) => {
      const sites = new Sites();
      sites.secret = 'wrong';
      await sites.look({ spec: { openstack } });
      const [first] = sites.opened;
      if (first === undefined) throw new Error('nothing was opened');
      const { length } = sites.written;
      if (endsFirst) {
        stuck(first);
        await settled();
      }
      sites.secret = 'right';
      await sites.again();
      if (!endsFirst) {
        expect(first.cut).toBe(true);
        stuck(first);
        await settled();
        await sites.again();
      }
      expect(sites.opened).toHaveLength(2);
      expect(sites.written).toHaveLength(length);
      await sites.opened[1]?.answers();
      await sites.again();
      expect(sites.inUse).toBe(sites.opened[1]);
      expect(sites.opened.map(({ closed }) => closed)).toEqual([1, 0]);
    },
  );

  test.each([true, false])(
    'is no answer to who asked after it had begun (the probe has ended before: %s)',
    async (endsFirst) => {
      const sites = new Sites();
      await sites.look({});
      const [first] = sites.opened;
      if (endsFirst) await first?.answers();
      const site = sites.bench.sites.get('nova');
      if (site !== undefined) site.metadata.annotations = { 'imageproxy.dev/requestedAt': 'now' };
      await sites.again();
      if (!endsFirst) {
        await first?.answers();
        await sites.again();
      }
      expect(sites.opened).toHaveLength(2);
      expect(first?.closed).toBe(1);
      expect(sites.inUse).toBeUndefined();
      expect(isTrue(sites.written.at(-1)?.conditions, 'Reconciling')).toBe(true);
      await sites.opened[1]?.answers();
      await sites.again();
      expect(sites.inUse).toBe(sites.opened[1]);
      expect(isTrue(sites.written.at(-1)?.conditions, 'Reconciling')).toBe(false);
    },
  );
});

const HOUR_MS = 3_600_000;

/** Each probe in its time, as long as that. @returns how many there were */
async function rest(sites: Sites, ms: number): Promise<number> {
  const { clock } = sites.bench;
  const end = clock.now() + ms;
  let probes = 0;
  while (clock.now() < end) {
    const pause = await sites.again();
    if (pause === undefined) probes++;
    else clock.advance(pause);
  }
  return probes;
}

describe('a site that is well', () => {
  async function well(): Promise<Sites> {
    const sites = new Sites();
    await sites.look({});
    await sites.opened[0]?.answers();
    await sites.again();
    expect(sites.written.at(-1)?.conditions?.map(({ type, status }) => `${type}=${status}`)).toEqual(['Ready=True']);
    return sites;
  }

  test('is probed every five minutes, and its status is written about every twelve hours', async () => {
    const sites = await well();
    const { length } = sites.written;
    expect(await rest(sites, 11 * HOUR_MS)).toBeGreaterThan(100);
    expect(sites.written).toHaveLength(length);
    expect(sites.written.at(-1)?.nextAttemptTime).toBeUndefined();
    await rest(sites, 2 * HOUR_MS);
    expect(sites.written).toHaveLength(length + 1);
    expect(Date.parse(sites.written.at(-1)?.lastProbeTime ?? '')).toBeGreaterThan(Date.parse('2026-11-21T23:30:00Z'));
  });

  test('is told to be in trouble by the next probe, with the date of the one after', async () => {
    const sites = await well();
    await rest(sites, HOUR_MS);
    const [cloud] = sites.opened;
    if (cloud !== undefined) cloud.probe = () => Promise.reject(new Failure('NetworkError', 'nobody answers'));
    sites.bench.clock.advance(HOUR_MS);
    const now = timestamp(sites.bench.clock.now());
    expect(await sites.again()).toBeUndefined();
    const pause = await sites.again();
    const status = sites.written.at(-1);
    expect(findCondition(status?.conditions, 'Ready')).toMatchObject({ status: 'False', reason: 'NetworkError' });
    expect(Date.parse(status?.nextAttemptTime ?? '')).toBeGreaterThan(Date.parse(now));
    expect(pause).toBeGreaterThan(0);
  });

  test('is in progress while it is probed because somebody asked, and has the date of that probe', async () => {
    const sites = await well();
    await rest(sites, HOUR_MS);
    const site = sites.bench.sites.get('nova');
    if (site !== undefined) site.metadata.annotations = { 'imageproxy.dev/requestedAt': 'now' };
    await sites.again();
    expect(sites.written.at(-1)).toMatchObject({ lastHandledReconcileAt: 'now' });
    expect(isTrue(sites.written.at(-1)?.conditions, 'Reconciling')).toBe(true);
    await sites.again();
    expect(isTrue(sites.written.at(-1)?.conditions, 'Reconciling')).toBe(false);
    expect(sites.written.at(-1)?.lastProbeTime).toBe(timestamp(sites.bench.clock.now()));
  });
});

describe('a site in trouble', () => {
  const openstack = {
    authURL: 'https://keystone.example.org/v3',
    cloud: 'openstack',
    interface: 'Public' as const,
    secretRef: { name: 'nova' },
  };

  test('whose Secret is missing says so once, however often it is looked for', async () => {
    const sites = new Sites();
    await sites.look({ spec: { openstack } });
    expect(findCondition(sites.written.at(-1)?.conditions, 'Ready')).toMatchObject({ reason: 'SecretNotFound' });
    await rest(sites, HOUR_MS);
    expect(sites.written).toHaveLength(1);
    expect(sites.written[0]).not.toHaveProperty('attempts');
    expect(sites.written[0]).not.toHaveProperty('nextAttemptTime');
  });

  test.each(['NetworkError', 'Unauthorized'] as const)(
    'that stays in it (%s) counts the failures that lengthen the pause, and is written no more after them',
    async (reason) => {
      const sites = new Sites();
      sites.trouble = new Failure(reason, 'no');
      await sites.look({});
      await rest(sites, HOUR_MS);
      // One says that it is being tried, and seven count.
      expect(sites.written.map(({ attempts }) => attempts)).toEqual([undefined, 1, 2, 3, 4, 5, 6, 7]);
      const dates = sites.written.map(({ nextAttemptTime }) => nextAttemptTime !== undefined);
      expect(dates).toEqual([false, true, true, true, true, true, true, false]);
      expect(await rest(sites, 12 * HOUR_MS)).toBeGreaterThan(100);
      expect(sites.written).toHaveLength(8);
      sites.trouble = new Failure(reason, 'something else');
      await rest(sites, HOUR_MS);
      expect(sites.written.slice(8).map(({ conditions }) => findCondition(conditions, 'Ready')?.message)).toEqual([
        'something else',
      ]);
    },
  );

  test('that is not the one it was is written no more while it stays so', async () => {
    const sites = new Sites();
    await sites.look({});
    sites.opened[0]?.answer.resolve({ identity: 'another', details: {}, endpoints: [] });
    await settled();
    await sites.again();
    expect(findCondition(sites.written.at(-1)?.conditions, 'Stalled')).toMatchObject({ reason: 'IdentityChanged' });
    const { length } = sites.written;
    sites.bench.clock.advance(5 * 60_000);
    for (const probe of [1, 2, 3]) {
      await sites.again();
      sites.opened[probe]?.answer.resolve({ identity: 'another', details: {}, endpoints: [] });
      await settled();
      sites.bench.clock.advance((await sites.again()) ?? 0);
    }
    expect(sites.opened).toHaveLength(4);
    expect(sites.written).toHaveLength(length);
  });

  test('that an image has met trouble at is probed at once, without a word until the probe has one', async () => {
    const sites = new Sites();
    sites.trouble = new Failure('NetworkError', 'no');
    await sites.look({});
    await rest(sites, HOUR_MS);
    const { length } = sites.written;
    sites.bench.connections.suspect('nova');
    expect(await sites.again()).toBeUndefined();
    expect(await sites.again()).toBeGreaterThan(0);
    expect(sites.written).toHaveLength(length);
  });
});
