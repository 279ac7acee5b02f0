import { describe, expect, it, test } from 'vitest';
import type { SiteRow, VMImage } from '../../../src/api/types.ts';
import type { Look, PublishImage } from '../../../src/clouds/cloud.ts';
import { dateLooks, nextLook } from '../../../src/reconcilers/vmimage/drift.ts';
import { Looks } from '../../../src/reconcilers/vmimage/looks.ts';
import { registrationHashOf } from '../../../src/reconcilers/vmimage/operations.ts';
import { awaitedAt } from '../../../src/reconcilers/vmimage/round.ts';
import { serve } from '../../../src/reconcilers/vmimage/serve.ts';
import { dropRow } from '../../../src/reconcilers/vmimage/rows.ts';
import { registrationOf } from '../../../src/reconcilers/vmimage/targets.ts';
import { openWork } from '../../../src/reconcilers/vmimage/work.ts';
import { settled } from '../../support/clock.ts';
import { servingRow, T0, vmimage, wantedAs } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const INTERVAL_MS = 30 * MINUTE_MS;
const iso = (ms: number) => new Date(ms).toISOString().replace('.000Z', 'Z');

/** A cloud that tells how often it was looked at, and where images get lost. */
class WatchedCloud extends ScriptedCloud {
  looks = 0;
  readonly lost = new Set<string>();

  override async look({ parts }: PublishImage): Promise<Look> {
    this.looks++;
    return { gone: parts.map(({ id }) => id).filter((id) => this.lost.has(id)), changed: [] };
  }
}

/** One image in service, reconciled whenever it asks for it. */
class Rest {
  readonly bench = new Workbench();
  readonly cloud = new WatchedCloud();
  readonly image: VMImage;
  /** Statuses that differ from the one before. */
  writes = 0;

  constructor(more: Partial<SiteRow> = {}) {
    const { bench } = this;
    bench.site('nova', this.cloud);
    this.image = vmimage();
    const registrationHash = registrationHashOf(registrationOf(this.image, undefined));
    const row = servingRow('nova', { registrationHash, lastCheckedTime: iso(T0), ...more });
    bench.add(vmimage({}, { sites: [row] }));
    // Of two images one is a loss; the only one of a site would be as well.
    bench.add(
      vmimage({ metadata: { name: 'other', uid: 'other' } }, { sites: [servingRow('nova', { imageID: 'o' })] }),
    );
    this.cloud.add({ id: 'o' });
  }

  get row(): SiteRow | undefined {
    return this.bench.images.get(this.image.metadata.uid)?.status.sites?.[0];
  }

  /** @returns when it asks to be looked at again */
  async round(): Promise<number> {
    const round = this.bench.round(this.image);
    const work = this.bench.work(round);
    await serve(work, wantedAs(work.row));
    dateLooks(round);
    if (JSON.stringify(round.status.sites) !== JSON.stringify(round.image.status.sites)) this.writes++;
    const started = round.starts.length > 0;
    await this.bench.conclude(round);
    return started ? this.round() : (round.lookAgainAt ?? Number.POSITIVE_INFINITY);
  }

  /** @param done whether to stop before the end */
  async until(end: number, done: () => boolean = () => false): Promise<void> {
    const { clock } = this.bench;
    for (let next = await this.round(); next <= end && !done(); next = await this.round()) {
      clock.advance(Math.max(0, next - clock.now()));
    }
  }
}

describe('an image at rest', () => {
  test('is looked at in every interval and never written, and its loss is found and written at once', async () => {
    const rest = new Rest();
    await rest.until(T0 + 5 * HOUR_MS);
    expect(rest.cloud.looks).toBeGreaterThanOrEqual(9);
    expect(rest.cloud.looks).toBeLessThanOrEqual(10);
    expect(rest.writes).toBe(0);
    rest.cloud.lost.add('id-nova');
    await rest.until(T0 + 6 * HOUR_MS, () => rest.row?.missingSince !== undefined);
    expect(rest.row).toMatchObject({ phase: 'Missing', reason: 'Missing' });
    const since = rest.row?.missingSince;
    // With what was found, the date of the look that found it.
    expect(rest.row?.lastCheckedTime).toBe(since);
    expect(rest.writes).toBe(1);
    await rest.round();
    expect(rest.row?.missingSince).toBe(since);
    expect(rest.writes).toBe(1);
  });

  test('has the date of its last look written about every twelve hours', async () => {
    const rest = new Rest();
    await rest.until(T0 + 72 * HOUR_MS);
    expect(rest.cloud.looks).toBeGreaterThan(140);
    expect(rest.writes).toBeGreaterThanOrEqual(3);
    expect(rest.writes).toBeLessThanOrEqual(12);
    expect(Date.parse(rest.row?.lastCheckedTime ?? '')).toBeGreaterThan(T0 + 50 * HOUR_MS);
  });

  test('that has something standing is looked at each minute, and written when it is over', async () => {
    const rest = new Rest({ phase: 'Held', reason: 'HeldByCloud', message: 'no', lastCheckedTime: iso(T0) });
    rest.cloud.look = async () => {
      rest.cloud.looks++;
      return { gone: [], changed: [], held: 'Hidden' };
    };
    await rest.until(T0 + 10 * MINUTE_MS);
    // The first look says it in its own words.
    expect(rest.writes).toBe(1);
    expect(rest.cloud.looks).toBeGreaterThanOrEqual(9);
    rest.cloud.look = async () => ({ gone: [], changed: [] });
    await rest.until(T0 + 12 * MINUTE_MS);
    expect(rest.row).toMatchObject({ phase: 'Ready' });
    expect(rest.writes).toBe(2);
  });
});

describe('the next look', () => {
  const nextOf = (uid: string, lastCheckedTime: string | undefined, startedAt: number, looked?: number): number => {
    const bench = new Workbench();
    bench.deps.looks = new Looks(startedAt);
    if (looked !== undefined) bench.deps.looks.note('default/ubuntu', 'nova', looked);
    const row = servingRow('nova');
    if (lastCheckedTime === undefined) delete row.lastCheckedTime;
    else row.lastCheckedTime = lastCheckedTime;
    const round = bench.round(bench.add(vmimage({ metadata: { uid } }, { sites: [row] })));
    return nextLook(round, row, INTERVAL_MS);
  };
  const uids = Array.from({ length: 600 }, (_, index) => `uid-${index}`);

  it.each([
    ['that were looked at long ago', iso(T0 - 10 * HOUR_MS)],
    ['that were never looked at', undefined],
  ])('of images %s comes within an interval of the start, about as many each minute', (_, lastCheckedTime) => {
    const minutes = new Map<number, number>();
    for (const uid of uids) {
      const minute = Math.floor((nextOf(uid, lastCheckedTime, T0) - T0) / MINUTE_MS);
      minutes.set(minute, (minutes.get(minute) ?? 0) + 1);
    }
    expect([...minutes.keys()].toSorted((a, b) => a - b)).toEqual(Array.from({ length: 30 }, (_each, index) => index));
    expect(Math.max(...minutes.values())).toBeLessThan(45);
  });

  it('comes one interval after the last one, whether that is remembered or written', () => {
    for (const uid of uids.slice(0, 50)) {
      const first = nextOf(uid, iso(T0 - 10 * HOUR_MS), T0);
      expect(nextOf(uid, iso(T0 - 10 * HOUR_MS), T0, first + 5000)).toBe(first + INTERVAL_MS);
      expect(nextOf(uid, new Date(first + 5000).toISOString(), T0)).toBe(first + INTERVAL_MS);
      // And at the same moment after a restart.
      expect(nextOf(uid, iso(T0 - 10 * HOUR_MS), first + 1)).toBe(first + INTERVAL_MS);
    }
  });

  it('is at least half an interval after a registration', () => {
    for (const uid of uids.slice(0, 200)) {
      const wait = nextOf(uid, iso(T0), T0 - HOUR_MS) - T0;
      expect(wait).toBeGreaterThanOrEqual(INTERVAL_MS / 2);
      expect(wait).toBeLessThanOrEqual(1.5 * INTERVAL_MS);
    }
  });
});

describe('dates from a time in which the clock was a year ahead', () => {
  const AHEAD = iso(T0 + 365 * 24 * HOUR_MS);

  test.each<[string, Partial<SiteRow>]>([
    ['the last look', { lastCheckedTime: AHEAD }],
    ['the next try', { nextAttemptTime: AHEAD, inputsHash: 'inputs', reason: 'Timeout', attempts: 1 }],
  ])('keep nobody from looking: %s', async (_, row) => {
    const rest = new Rest(row);
    await rest.until(T0 + 5 * HOUR_MS);
    expect(rest.cloud.looks).toBeGreaterThanOrEqual(9);
    expect(rest.cloud.looks).toBeLessThanOrEqual(11);
    expect(rest.row?.nextAttemptTime).toBeUndefined();
    expect(Date.parse(rest.row?.lastCheckedTime ?? '')).toBeLessThanOrEqual(rest.bench.clock.now());
  });

  test('of this very process do not, either', async () => {
    const rest = new Rest();
    rest.bench.deps.looks = new Looks(Date.parse(AHEAD));
    rest.bench.deps.looks.note('default/ubuntu', 'nova', Date.parse(AHEAD));
    await rest.until(T0 + 5 * HOUR_MS);
    expect(rest.cloud.looks).toBeGreaterThanOrEqual(9);
  });
});

test('a look at a row that has gone is not remembered', () => {
  const { bench, image } = new Rest();
  const round = bench.round(image);
  const { looks } = bench.deps;
  for (const site of ['nova', 'east']) looks.note(round.key, site, T0);
  dropRow(round, bench.work(round).row);
  expect([looks.at(round.key, 'nova'), looks.at(round.key, 'east')]).toEqual([undefined, T0]);
  looks.forget(round.key);
  expect(looks.at(round.key, 'east')).toBeUndefined();
});

describe('a look that somebody asks for', () => {
  const KEY = 'default/ubuntu';

  test('is not the one that has begun already: another follows it', () => {
    const looks = new Looks(T0);
    looks.ask(KEY, 'nova', '1');
    looks.ask(KEY, 'nova', '2');
    looks.answer(KEY, 'nova', '1');
    expect(looks.asked(KEY, 'nova')).toBe('2');
    looks.answer(KEY, 'nova', '2');
    expect(looks.asked(KEY, 'nova')).toBeUndefined();
  });

  test('is asked for at the sites that have the image, once for each request', () => {
    const { bench, image } = new Rest();
    const rows = [servingRow('nova'), { name: 'east', phase: 'Pending' }];
    bench.add({ ...image, status: { ...image.status, sites: rows } });
    expect(bench.round(image, '1').asked).toBe(true);
    const { looks } = bench.deps;
    expect([looks.asked(KEY, 'nova'), looks.asked(KEY, 'east')]).toEqual(['1', undefined]);
    looks.hear(KEY, '1');
    looks.answer(KEY, 'nova', '1');
    expect(bench.round(image, '1').asked).toBe(false);
    expect(looks.asked(KEY, 'nova')).toBeUndefined();
    expect(bench.round(image, '2').asked).toBe(true);
    looks.forget(KEY);
    expect(looks.asked(KEY, 'nova')).toBeUndefined();
    expect(looks.hasHeard(KEY, '1')).toBe(false);
  });

  test('is made at once, after the one that runs, and once', async () => {
    const rest = new Rest();
    const { looks } = rest.bench.deps;
    const { promise, resolve } = Promise.withResolvers<Look>();
    const look = rest.cloud.look.bind(rest.cloud);
    rest.cloud.look = async (image) => {
      await look(image);
      return promise;
    };
    looks.ask(KEY, 'nova', '1');
    await rest.round();
    looks.ask(KEY, 'nova', '2');
    await rest.round();
    expect(rest.cloud.looks).toBe(1);
    rest.cloud.look = look;
    resolve({ gone: [], changed: [] });
    await settled();
    await rest.round();
    expect(rest.cloud.looks).toBe(2);
    expect(looks.asked(KEY, 'nova')).toBeUndefined();
  });

  test('has its answer when what came of it is written; another follows where it could not be', async () => {
    const rest = new Rest();
    const { bench, image, cloud } = rest;
    const { looks } = bench.deps;
    looks.ask(KEY, 'nova', '1');
    const serving = async () => {
      const round = bench.round(image);
      const work = bench.work(round);
      await serve(work, wantedAs(work.row));
      return round;
    };
    await bench.conclude(await serving());
    const unwritten = await serving();
    expect(awaitedAt(unwritten, 'nova')).toBeUndefined();
    expect(cloud.looks).toBe(1);
    expect(looks.asked(KEY, 'nova')).toBe('1');
    await rest.round();
    expect(cloud.looks).toBe(2);
    expect(looks.asked(KEY, 'nova')).toBeUndefined();
  });

  test('has its answer where the site is known to be away, and waits where this process has not tried it yet', () => {
    for (const isTried of [true, false]) {
      const { bench, image } = new Rest();
      const site = bench.sites.get('nova');
      if (site === undefined) throw new Error('no site');
      site.status.conditions = [];
      bench.connections.delete('nova');
      if (isTried) bench.connections.schedule('nova', 'ticket', T0);
      const round = bench.round(image, '1');
      const [row] = round.status.sites as [SiteRow];
      const target = { name: 'nova', site, optional: false, registration: registrationOf(image, undefined) };
      expect(openWork(round, target, row, { inputsHash: 'i' })).toBeUndefined();
      expect(row.reason).toBe('SiteNotReady');
      expect(awaitedAt(round, 'nova')).toBe(isTried ? undefined : '1');
    }
  });
});
