import { describe, expect, it, test } from 'vitest';
import { findCondition } from '../../../src/api/conditions.ts';
import { Failure } from '../../../src/api/failure.ts';
import type {
  PreviousRegistration,
  RegisteredArtifact,
  SiteRow,
  VMImage,
  VMImageStatus,
} from '../../../src/api/types.ts';
import type { Look } from '../../../src/clouds/cloud.ts';
import { finish } from '../../../src/reconcilers/vmimage/leave.ts';
import { judgeLook } from '../../../src/reconcilers/vmimage/losses.ts';
import { registrationHashOf } from '../../../src/reconcilers/vmimage/operations.ts';
import type { Part } from '../../../src/reconcilers/vmimage/plan.ts';
import { jobKey } from '../../../src/reconcilers/vmimage/round.ts';
import type { Wanted } from '../../../src/reconcilers/vmimage/served.ts';
import { mayStillFinish, mayStillPublish } from '../../../src/reconcilers/vmimage/release.ts';
import { lookAfter, serve } from '../../../src/reconcilers/vmimage/serve.ts';
import { settle } from '../../../src/reconcilers/vmimage/settle.ts';
import { isReady, summarize } from '../../../src/reconcilers/vmimage/summary.ts';
import { registrationOf } from '../../../src/reconcilers/vmimage/targets.ts';
import { servingRow, vmimage, wantedAs } from './objects.ts';
import { hash, ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

function served(image: VMImage): SiteRow {
  return servingRow('nova', {
    registrationHash: registrationHashOf(registrationOf(image, undefined)),
    lastCheckedTime: '2026-11-21T12:00:00Z',
  });
}

describe('what a look has found', () => {
  test.each<[string, Partial<Look>, string]>([
    ['bytes that are not ours', { tampered: 'another hash' }, 'Tampered'],
    ['fields that are only reported', { changed: ['name'] }, 'Drifted'],
    ['an image that the cloud holds', { held: 'Hidden' }, 'HeldByCloud'],
  ])('%s is still told in the rounds after it', async (_, found, reason) => {
    const bench = new Workbench();
    bench.site('nova', new ScriptedCloud(), { drift: { interval: '30m', policy: 'Report' } });
    const image = vmimage();
    bench.add(vmimage({}, { sites: [served(image)] }));
    const round = bench.round(image);
    const work = bench.work(round);
    judgeLook(work, { kind: 'Check', look: { gone: [], changed: [], ...found }, census: undefined, asked: undefined });
    expect(work.row.reason).toBe(reason);
    await serve(work, wantedAs(work.row));
    expect(work.row.reason).toBe(reason);
  });
});

describe('an image that was altered at its site', () => {
  it('is not brought up to date, and stays altered for as long as no look finds it well', async () => {
    const bench = new Workbench();
    const cloud = new ScriptedCloud();
    const site = bench.site('nova', cloud);
    const row = { ...served(vmimage()), phase: 'Failed', reason: 'Tampered', registrationHash: 'of an earlier spec' };
    let now = bench.add(vmimage({}, { sites: [row] }));
    cloud.look = () => Promise.reject(new Failure('NetworkError', 'nobody answers'));
    for (let n = 0; n < 6; n++) {
      bench.clock.advance(3_600_000);
      const round = bench.round(now);
      await serve(bench.work(round), wantedAs(row));
      now = await bench.conclude(round);
      expect(now.status.sites).toMatchObject([{ phase: 'Failed', reason: 'Tampered' }]);
    }
    expect(now.status.sites?.[0]?.attempts).toBeGreaterThan(0);
    expect(cloud.calls).toEqual([]);
    site.metadata.deletionTimestamp = '2026-11-21T12:00:00Z';
    const round = bench.round(now, 'asked');
    const work = bench.work(round);
    work.row.artifacts = [];
    await serve(work, { ...wantedAs(row), digest: `sha256:${'b'.repeat(64)}` });
    expect(round.starts).toEqual([]);
    expect(work.row).toMatchObject({ phase: 'Failed', reason: 'Tampered' });
  });

  it('stays altered while its former versions are removed', async () => {
    const bench = new Workbench();
    bench.site('nova', new ScriptedCloud());
    const row = { ...served(vmimage()), phase: 'Failed', reason: 'Tampered' };
    const round = bench.round(bench.add(vmimage({}, { sites: [row] })));
    bench.jobs.start(jobKey(round, 'nova'), round.key, { view: { kind: 'Trim' } }, () => new Promise(() => undefined));
    const work = bench.work(round);
    await serve(work, wantedAs(row));
    expect(work.row).toEqual(row);
  });
});

describe('what the last look found, while other bytes are asked for', () => {
  test.each<[string, Partial<Look>, string]>([
    ['bytes that are not ours', { tampered: 'another hash' }, 'Tampered'],
    ['an image that the cloud holds', { held: 'Hidden' }, 'HeldByCloud'],
  ])(
    '%s: it is not Available meanwhile, and when they are asked for no more, not Ready before a look',
    async (_, found, reason) => {
      const bench = new Workbench();
      const cloud = new ScriptedCloud();
      bench.site('nova', cloud);
      let look: Partial<Look> = found;
      cloud.look = async () => ({ gone: [], changed: [], ...look });
      const there = served(vmimage());
      let now = bench.add(vmimage({}, { sites: [there] }));
      const rounds = async (wanted: Wanted, count: number) => {
        for (let n = 0; n < count; n++) {
          const round = bench.round(now);
          await serve(bench.work(round), wanted);
          now = await bench.conclude(round);
          expect(isReady(now.status.sites?.[0], 1) && look === found).toBe(false);
        }
        return now.status.sites?.[0];
      };
      bench.clock.advance(3_600_000);
      expect(isReady(there, 1)).toBe(true);
      const asIs = wantedAs(there);
      const first = bench.round(now);
      const work = bench.work(first);
      judgeLook(work, {
        kind: 'Check',
        look: { gone: [], changed: [], ...found },
        census: undefined,
        asked: undefined,
      });
      now = await bench.conclude(first);
      const [part] = asIs.plan.parts;
      if (part === undefined) throw new Error('no part');
      const other: Wanted = {
        plan: { ...asIs.plan, parts: [{ ...part, declared: { sha256: 'b'.repeat(64) } }] },
        digest: `sha256:${'b'.repeat(64)}`,
        content: async () => ({ step: 'Failed', failure: new Failure('Timeout', 'no answer'), stalled: false }),
      };
      const meanwhile = await rounds(other, 2);
      expect(meanwhile).toMatchObject({ reason: 'Timeout', imageID: 'id-nova' });
      const status: VMImageStatus = { observedGeneration: -1 };
      summarize(
        {
          image: now,
          guid: 'guid',
          rows: now.status.sites ?? [],
          required: ['nova'],
          optional: [],
          fetched: false,
          disposition: 'Serve',
        },
        status,
        bench.clock.now(),
      );
      expect(findCondition(status.conditions, 'Available')).toMatchObject({ status: 'False' });
      expect(await rounds(asIs, 4)).toMatchObject({ reason });
      look = {};
      bench.clock.advance(3_600_000);
      const well = await rounds(asIs, 4);
      expect(well).toMatchObject({ phase: 'Ready' });
      expect(well).not.toHaveProperty('lookFound');
    },
  );
});

describe('checksums that are edited beside the one that names what serves', () => {
  const SHA256 = 'a'.repeat(64);
  const SHA512 = 'b'.repeat(128);
  const OTHER = { sha256: 'c'.repeat(64), sha512: 'c'.repeat(128) };

  /** What the row says in the end, where nobody may ask for the bytes. */
  async function edited(part: Pick<Partial<Part>, 'declared' | 'content'>, sent: Partial<RegisteredArtifact> = {}) {
    const bench = new Workbench();
    const cloud = new ScriptedCloud();
    bench.site('nova', cloud);
    cloud.look = async () => ({ gone: [], changed: [] });
    const row = served(vmimage());
    const artifacts = row.artifacts?.map((each) => ({ ...each, cloudDigest: `sha512:${SHA512}`, ...sent }));
    let now = bench.add(vmimage({}, { sites: [{ ...row, artifacts: artifacts ?? [] }] }));
    const asIs = wantedAs(row);
    const wanted: Wanted = {
      ...asIs,
      plan: { ...asIs.plan, parts: asIs.plan.parts.map((each) => ({ ...each, ...part })) },
    };
    for (let n = 0; n < 3; n++) {
      const round = bench.round(now);
      await serve(bench.work(round), wanted);
      now = await bench.conclude(round);
    }
    return now.status.sites?.[0];
  }

  test.each<[string, Pick<Partial<Part>, 'declared' | 'content'>]>([
    ['spec.contentChecksums.sha256', { content: { sha256: OTHER.sha256 } }],
    ['spec.contentChecksums.sha512', { content: { sha256: SHA256, sha512: OTHER.sha512 } }],
    ['spec.checksums.sha512', { declared: { sha256: SHA256, sha512: OTHER.sha512 } }],
  ])('and that it does not have are told, and what serves stays: %s', async (field, part) => {
    const row = await edited(part);
    expect(row).toMatchObject({ phase: 'Failed', reason: 'DigestMismatch', imageID: 'id-nova' });
    expect(row?.message).toContain(`${field}: what is registered at nova as id-nova has`);
  });

  it('and that it has are no news', async () => {
    const both = { sha256: SHA256, sha512: SHA512 };
    expect(await edited({ declared: both, content: both })).toMatchObject({ phase: 'Ready' });
  });

  it('are not held against what was sent otherwise than it was published', async () => {
    const sent = { sentDigest: `sha256:${'d'.repeat(64)}` };
    expect(await edited({ content: { sha256: OTHER.sha256 } }, sent)).toMatchObject({ phase: 'Ready' });
  });
});

describe('while nobody can say where the bytes would come from', () => {
  const HOUR_MS = 3_600_000;
  function begun(row: Partial<SiteRow>) {
    const bench = new Workbench();
    const cloud = new ScriptedCloud();
    bench.site('nova', cloud);
    const image = vmimage();
    return { bench, cloud, image: bench.add(vmimage({}, { sites: [{ ...served(image), ...row }] })) };
  }

  it('what a site has is looked at when that is due, and what stood stands', () => {
    const { bench, image } = begun({ phase: 'Held', reason: 'HeldByCloud', message: 'hidden' });
    bench.clock.advance(2 * HOUR_MS);
    const round = bench.round(image);
    const work = bench.work(round);
    lookAfter(work);
    expect(round.starts).toHaveLength(1);
    expect(work.row).toMatchObject({ phase: 'Held', reason: 'HeldByCloud' });
  });

  it('former versions are retired, and that it was done is taken', async () => {
    const former = { imageID: 'old', artifacts: [{ role: 'Disk', id: 'old', digest: 'sha256:00' }] };
    const { bench, cloud, image } = begun({ previous: [former] });
    cloud.add({ id: 'old' });
    let now = image;
    for (let n = 0; n < 2; n++) {
      const round = bench.round(now);
      lookAfter(bench.work(round));
      now = await bench.conclude(round);
    }
    expect(cloud.visible).toEqual([]);
    expect(now.status.sites).toMatchObject([{ phase: 'Ready', previous: [{ retiredAt: expect.any(String) }] }]);
    expect(now.status.sites?.[0]?.operation).toBeUndefined();
  });

  it('what serves an earlier generation does not pass for this one', () => {
    const { bench, image } = begun({ observedGeneration: 0 });
    bench.clock.advance(2 * HOUR_MS);
    const round = bench.round(image);
    const work = bench.work(round);
    lookAfter(work);
    expect(round.starts).toEqual([]);
    expect(work.row.observedGeneration).toBe(0);
  });
});

describe('a site that is being deleted', () => {
  function going(row: Partial<SiteRow>) {
    const bench = new Workbench();
    const cloud = new ScriptedCloud();
    bench.site('nova', cloud).metadata.deletionTimestamp = '2026-11-21T12:00:00Z';
    const image = bench.add(vmimage({}, { sites: [{ name: 'nova', ...row }] }));
    return { bench, cloud, image };
  }
  const anew: Wanted = { ...wantedAs({ name: 'nova' }), digest: `sha256:${'b'.repeat(64)}` };

  it('is let go by an upload that its limits allow no longer: what that left is removed', async () => {
    const { bench, image } = going({ operation: { kind: 'Register', id: 'd1', startedAt: '2026-11-21T12:00:00Z' } });
    const site = bench.site('nova', new ScriptedCloud(), { limits: { visibilities: ['Community'] } });
    site.metadata.deletionTimestamp = '2026-11-21T12:00:00Z';
    const round = bench.round(image);
    const work = bench.work(round);
    await serve(work, anew);
    expect(work.row.operation).toMatchObject({ kind: 'Tidy' });
    expect(round.starts).toHaveLength(1);
  });

  it('takes no upload, and its image is told why', async () => {
    const { bench, image } = going({});
    const round = bench.round(image);
    const work = bench.work(round);
    await serve(work, anew);
    expect(work.row).toMatchObject({ phase: 'Pending', reason: 'SiteNotReady' });
    expect(work.row.message).toContain('being deleted');
    expect(work.row.operation).toBeUndefined();
    expect(round.starts).toEqual([]);
  });

  it('keeps nothing Failed that failed before: it only takes nothing', async () => {
    const other = { digest: `sha256:${'c'.repeat(64)}`, artifacts: [] };
    const row = servingRow('nova', { ...other, phase: 'Failed', reason: 'Rejected' });
    const { bench, image } = going(row);
    const work = bench.work(bench.round(image));
    await serve(work, anew);
    expect(work.row).toMatchObject({ phase: 'Pending', reason: 'SiteNotReady', imageID: 'id-nova' });
  });

  it('takes no replacement; what it serves stays in service', async () => {
    const { bench, image } = going(servingRow('nova', { digest: `sha256:${'c'.repeat(64)}`, artifacts: [] }));
    const round = bench.round(image);
    const work = bench.work(round);
    await serve(work, anew);
    expect(work.row).toMatchObject({ phase: 'Ready', reason: 'SiteNotReady', imageID: 'id-nova' });
    expect(round.starts).toEqual([]);
  });

  it.each([true, false])('is not held by an upload that was begun (still running: %s)', async (running) => {
    const { bench, cloud, image } = going({
      operation: {
        kind: 'Register',
        id: 'x',
        startedAt: '2026-11-21T11:59:00Z',
        digest: anew.digest ?? '',
        attempt: 1,
      },
    });
    const key = jobKey(bench.round(image), 'nova');
    if (running) {
      bench.jobs.start(
        key,
        bench.round(image).key,
        { view: { kind: 'Register' } },
        ({ signal }) =>
          new Promise((_, reject) => {
            signal.addEventListener('abort', () => reject(new Failure('Aborted', 'cut')));
          }),
      );
    }
    let now = image;
    for (let n = 0; n < 4; n++) {
      const round = bench.round(now);
      await serve(bench.work(round), anew);
      now = await bench.conclude(round);
    }
    expect(bench.jobs.runs(key)).toBe(false);
    expect(now.status.sites).toMatchObject([{ phase: 'Pending', reason: 'SiteNotReady' }]);
    expect(now.status.sites?.[0]?.operation).toBeUndefined();
    expect(cloud.calls.filter((call) => /stage|upload|publish/.test(call))).toEqual([]);
  });

  it('lets nothing be completed or published that was on its way', async () => {
    const { bench, image } = going({});
    const work = bench.work(bench.round(image));
    const aborted = { reason: 'Aborted', message: expect.stringContaining('being deleted') };
    await expect(mayStillFinish(work)).rejects.toMatchObject(aborted);
    await expect(mayStillPublish(work)).rejects.toMatchObject(aborted);
  });
});

describe('an id that the cloud will not give', () => {
  it('is followed by others, sixteen in one try; the next try begins anew after a pause', () => {
    const bench = new Workbench();
    bench.site('nova', new ScriptedCloud());
    const operation = { kind: 'Register', id: 'x', attempt: 1, startedAt: '2026-11-21T12:00:00Z' };
    const round = bench.round(bench.add(vmimage({}, { sites: [{ name: 'nova', operation }] })));
    const work = bench.work(round);
    const tried = new Set<number | undefined>();
    for (let n = 0; n < 100 && work.row.nextAttemptTime === undefined; n++) {
      tried.add(work.row.operation?.attempt);
      settle(work, { ok: false, error: new Failure('IdTaken', 'taken') }, { kind: 'Register' });
    }
    expect(tried.size).toBe(16);
    expect(work.row).toMatchObject({ phase: 'Pending', reason: 'IdTaken', attempts: 1 });
    expect(Date.parse(work.row.nextAttemptTime ?? '')).toBeGreaterThan(round.now);
  });
});

describe('former versions', () => {
  const formerly = (id: string, more: Partial<PreviousRegistration> = {}): PreviousRegistration => ({
    imageID: id,
    artifacts: [{ role: 'Disk', id }],
    ...more,
  });

  /** An image that serves and has these former versions; `rounds` are reconciled until nothing happens any more. */
  function replaced(history: number, more: Partial<SiteRow>, ...previous: PreviousRegistration[]) {
    const bench = new Workbench();
    const cloud = new ScriptedCloud();
    bench.site('nova', cloud);
    const spec = vmimage({ spec: { history } });
    let now = bench.add(vmimage({ spec: { history } }, { sites: [{ ...served(spec), ...more, previous }] }));
    for (const { imageID } of previous) cloud.add({ id: imageID });
    cloud.look = async () => {
      cloud.calls.push('look');
      return { gone: [], changed: [] };
    };
    const rounds = async (requestedAt?: string): Promise<SiteRow> => {
      for (let n = 0; n < 8; n++) {
        const round = bench.round(now, requestedAt);
        const work = bench.work(round);
        await serve(work, wantedAs(work.row));
        now = await bench.conclude(round);
      }
      const [row] = now.status.sites ?? [];
      if (row === undefined) throw new Error('no row');
      return row;
    };
    return { bench, cloud, rounds };
  }

  it('beyond spec.history go out of service before any is removed', async () => {
    const { cloud, rounds } = replaced(1, {}, formerly('v2'), formerly('v1'));
    const row = await rounds();
    expect(cloud.calls).toEqual(['retire v2', 'retire v1', 'remove v1']);
    expect(row.previous).toMatchObject([{ imageID: 'v2', retiredAt: expect.any(String) }]);
    expect(row.operation).toBeUndefined();
  });

  it('that cannot be removed keep neither the others in service nor the image from being looked at', async () => {
    const { bench, cloud, rounds } = replaced(1, {}, formerly('v3'), formerly('v2'), formerly('v1'));
    const remove = cloud.remove.bind(cloud);
    let cloned = true;
    cloud.remove = async (parts) => {
      if (cloned && parts.some(({ id }) => id === 'v2')) throw new Failure('Conflict', 'v2 has clones');
      await remove(parts);
    };
    const stuck = await rounds();
    expect([...cloud.records.values()].map(({ id, state }) => [id, state])).toEqual([
      ['v3', 'Deactivated'],
      ['v2', 'Deactivated'],
    ]);
    expect(stuck).toMatchObject({ phase: 'Ready', reason: 'Trim', message: expect.stringContaining('v2 has clones') });
    expect(stuck.previous?.map(({ imageID }) => imageID)).toEqual(['v3', 'v2']);
    expect(stuck.attempts).toBeUndefined();
    expect(cloud.calls).not.toContain('look');
    const asked = () => bench.told.filter(({ reason }) => reason === 'Conflict').length;
    expect(asked()).toBe(1);

    await rounds('1');
    expect(cloud.calls).toContain('look');
    expect(asked()).toBe(2);

    cloned = false;
    const row = await rounds('2');
    expect(row.previous?.map(({ imageID }) => imageID)).toEqual(['v3']);
    expect(row.operation).toBeUndefined();
    expect(row.reason).toBeUndefined();
  });

  it('that cannot be removed do not hide that the look could not be made', async () => {
    const { bench, cloud, rounds } = replaced(0, {}, formerly('v1'));
    cloud.remove = () => Promise.reject(new Failure('Conflict', 'v1 has clones'));
    expect(await rounds()).toMatchObject({ reason: 'Trim' });
    cloud.look = () => Promise.reject(new Failure('Forbidden', 'HTTP 403'));
    const refused = await rounds('1');
    expect(refused).toMatchObject({ phase: 'Ready', reason: 'Forbidden', attempts: 1 });
    const { promise, resolve } = Promise.withResolvers<Look>();
    cloud.look = () => promise;
    bench.clock.advance(Date.parse(refused.nextAttemptTime ?? '') - bench.clock.now());
    expect(await rounds()).toMatchObject({ phase: 'Ready', reason: 'Forbidden', attempts: 1 });
    resolve({ gone: [], changed: [] });
    const row = await rounds();
    expect(row).toMatchObject({ phase: 'Ready', reason: 'Trim' });
    expect(row).not.toHaveProperty('attempts');
  });

  test.each(['Retire', 'Trim', 'Tidy'] as const)(
    'that are cleared up (%s) after a look that could not be made leave it told, and the look is made',
    async (kind) => {
      const { bench, cloud } = replaced(1, {});
      const owed = { reason: 'Forbidden', message: 'no', attempts: 2, inputsHash: 'inputs' };
      const row = { ...served(vmimage()), ...owed, nextAttemptTime: '2026-11-21T12:00:00Z' };
      const image = bench.add(vmimage({}, { sites: [row] }));
      bench.clock.advance(60_000);
      const round = bench.round(image);
      const work = bench.work(round);
      settle(work, { ok: true, value: { kind, ids: [], forgotten: [], active: [] } }, { kind });
      await serve(work, wantedAs(row));
      const now = await bench.conclude(round);
      expect(now.status.sites).toMatchObject([{ phase: 'Ready', ...owed }]);
      expect(cloud.calls).toEqual(['look']);
      const after = bench.round(now);
      await serve(bench.work(after), wantedAs(row));
      expect(after.status.sites).toEqual([served(vmimage())]);
    },
  );

  it.each([
    ['a kill ended', undefined],
    ['the cloud refused', 'v2 has clones'],
  ])('whose removal %s, and that stay after all, are closed again: it may have opened them', async (_, message) => {
    const retiredAt = '2026-11-21T12:00:00Z';
    const former = ['v3', 'v2', 'v1'].map((id) => formerly(id, { retiredAt }));
    const operation = { kind: 'Trim', startedAt: retiredAt, ...(message === undefined ? {} : { message }) };
    const { cloud, rounds } = replaced(2, { observedGeneration: 0, operation }, ...former);
    const row = await rounds();
    expect(cloud.calls).toEqual(['retire v3', 'retire v2', 'remove v1']);
    expect(row.previous).toMatchObject([
      { imageID: 'v3', retiredAt },
      { imageID: 'v2', retiredAt },
    ]);
    expect(row.operation).toBeUndefined();
  });
});

describe('a deletion', () => {
  it('is not held by a limit that the owner of the site has set since', () => {
    const bench = new Workbench();
    bench.site('nova', new ScriptedCloud(), { limits: { visibilities: ['Private'] } });
    const image = vmimage(
      { spec: { registration: { visibility: 'Public', protected: false, hidden: false } } },
      { sites: [servingRow('nova')] },
    );
    bench.add(image);
    const round = bench.round(image);
    expect(finish(round)).toBe(false);
    expect(round.status.sites[0]?.operation?.kind).toBe('Delete');
    expect(round.starts).toHaveLength(1);
  });
});

describe('an image that is edited', () => {
  /** Rounds an hour or two apart, as long as there is something to do in each; `there` is what the cloud has. */
  function edited(more: Partial<SiteRow> = {}) {
    const bench = new Workbench();
    const cloud = new ScriptedCloud();
    bench.site('nova', cloud);
    const row = { ...served(vmimage()), registrationHash: 'of an earlier spec', ...more };
    let now = bench.add(vmimage({}, { sites: [row] }));
    const gone = () => (cloud.records.has('id-nova') ? [] : ['id-nova']);
    cloud.look = async () => ({ gone: gone(), changed: [] });
    const wanted: Wanted = {
      ...wantedAs(row),
      content: async () => ({ step: 'Fetching', blobs: new Map(), views: new Map() }),
    };
    const round = async () => {
      const begun = bench.round(now);
      await serve(bench.work(begun), wanted);
      now = await bench.conclude(begun);
      return now.status.sites?.[0];
    };
    return { bench, cloud, round };
  }

  it('and has gone from the cloud is missing at once, and lost when a second look agrees', async () => {
    const { bench, round } = edited();
    expect((await round())?.operation?.kind).toBe('Update');
    const missing = await round();
    expect(missing).toMatchObject({ phase: 'Missing', reason: 'Missing', missingSince: expect.any(String) });
    expect(missing).not.toHaveProperty('operation');
    expect(missing).not.toHaveProperty('attempts');
    bench.clock.advance(30_000);
    expect(await round()).toMatchObject({ imageID: 'id-nova', phase: 'Missing' });
    expect(bench.jobs.runs(jobKey(bench.round(vmimage()), 'nova'))).toBe(false);
    bench.clock.advance(30_000);
    expect(await round()).toMatchObject({ imageID: 'id-nova', phase: 'Missing' });
    const lost = await round();
    expect(lost).not.toHaveProperty('imageID');
    expect(lost?.losses).toHaveLength(1);
    expect(bench.told.map(({ reason }) => reason)).toEqual(['Gone', 'Lost']);
  });

  it('while it is missing is brought up to date when it is found again', async () => {
    const missing = { phase: 'Missing', reason: 'Missing', missingSince: '2026-11-21T11:00:00Z' };
    const { cloud, round } = edited(missing);
    cloud.publish = async () => void cloud.calls.push('publish');
    cloud.add({ id: 'id-nova' });
    // The look comes before the change.
    expect(await round()).toMatchObject(missing);
    expect(cloud.calls).toEqual([]);
    expect(await round()).toMatchObject({ phase: 'Updating' });
    expect(await round()).toMatchObject({ phase: 'Ready' });
    expect(cloud.calls).toEqual(['publish']);
  });
});

/** An image whose name is another at the cloud; what `there` says is looked at and put right, or refused. */
function drifted(
  there: { look: Look; refused?: Failure; unseen?: Failure },
  row = served(vmimage()),
  policy: 'Repair' | 'Report' = 'Repair',
) {
  const bench = new Workbench();
  const cloud = new ScriptedCloud();
  bench.site('nova', cloud, { drift: { interval: '30m', policy } });
  cloud.look = async () => {
    cloud.calls.push('look');
    if (there.unseen !== undefined) throw there.unseen;
    return there.look;
  };
  cloud.publish = async () => {
    cloud.calls.push('publish');
    if (there.refused !== undefined) throw there.refused;
  };
  let now = bench.add(vmimage({}, { sites: [row] }));
  const round = async (requestedAt?: string) => {
    const begun = bench.round(now, requestedAt);
    await serve(bench.work(begun), wantedAs(served(now)));
    now = await bench.conclude(begun);
    return now.status.sites?.[0];
  };
  /** Rounds as long as each begins something. */
  const rounds = async (requestedAt?: string) => {
    for (let n = 0; n < 8; n++) await round(requestedAt);
    return round(requestedAt);
  };
  const waits = (row: SiteRow | undefined) => Date.parse(row?.nextAttemptTime ?? '') - bench.clock.now();
  return { bench, cloud, rounds, waits };
}
const changed: Look = { gone: [], changed: ['name'] };

describe('what somebody has changed at the cloud', () => {
  it.each(['ServerError', 'Forbidden'] as const)(
    'and cannot be put right at once (%s) is looked at and tried again after pauses that grow, and told until it is',
    async (reason) => {
      const there = { look: changed, refused: new Failure(reason, 'no') };
      const { bench, cloud, rounds, waits } = drifted(there);
      let pause = 0;
      for (let n = 1; n <= 6; n++) {
        bench.clock.advance(n === 1 ? 3_600_000 : pause);
        const row = await rounds();
        expect(row).toMatchObject({ phase: reason === 'Forbidden' ? 'Failed' : 'Updating', reason, attempts: n });
        expect(cloud.calls).toEqual(Array.from({ length: n }, () => ['look', 'publish']).flat());
        pause = waits(row);
      }
      expect(pause).toBeGreaterThan(60_000);
      expect(bench.told.filter((note) => note.reason === 'Drifted')).toHaveLength(1);
      Object.assign(there, { refused: undefined });
      bench.clock.advance(pause);
      const row = await rounds();
      expect(row).toMatchObject({ phase: 'Ready', registrationHash: served(vmimage()).registrationHash });
      expect(row).not.toHaveProperty('attempts');
    },
  );

  test.each<[string, Look, string]>([
    ['held by the cloud', { gone: [], changed: [], held: 'Deactivated' }, 'HeldByCloud'],
    ['altered', { gone: [], changed: [], tampered: 'another hash' }, 'Tampered'],
    ['gone', { gone: ['id-nova'], changed: [] }, 'Missing'],
  ])('and is %s while the cloud refuses to have it put right is told as that', async (_, look, reason) => {
    const there = { look: changed, refused: new Failure('Forbidden', 'no') };
    const { bench, cloud, rounds, waits } = drifted(there);
    bench.clock.advance(3_600_000);
    const row = await rounds();
    expect(row).toMatchObject({ phase: 'Failed', reason: 'Forbidden' });
    there.look = look;
    bench.clock.advance(waits(row));
    expect(await rounds()).toMatchObject({ reason, imageID: 'id-nova' });
    expect(cloud.calls.slice(0, 3)).toEqual(['look', 'publish', 'look']);
    expect(cloud.calls).not.toContain('retire id-nova');
    expect(cloud.calls.filter((call) => call === 'publish')).toHaveLength(1);
  });

  it('is looked at when somebody asks, though the cloud refuses to have it put right', async () => {
    const there = { look: changed, refused: new Failure('Forbidden', 'no') };
    const { bench, rounds } = drifted(there);
    bench.clock.advance(3_600_000);
    expect(await rounds()).toMatchObject({ reason: 'Forbidden' });
    there.look = { gone: [], changed: [], held: 'Hidden' };
    expect(await rounds('1')).toMatchObject({ phase: 'Held', reason: 'HeldByCloud' });
  });

  it('and is put right there by somebody else is Ready after the look that finds it so', async () => {
    const there = { look: changed, refused: new Failure('Forbidden', 'no') };
    const { bench, rounds, waits } = drifted(there);
    bench.clock.advance(3_600_000);
    const row = await rounds();
    Object.assign(there, { look: { gone: [], changed: [] }, refused: undefined });
    bench.clock.advance(waits(row));
    expect(await rounds()).toMatchObject({ phase: 'Ready' });
  });

  it('and can no longer be looked at is asked for after pauses that grow, and is not touched', async () => {
    const row = servingRow('nova', { phase: 'Updating', reason: 'ServerError', message: 'no' });
    const { bench, cloud, rounds, waits } = drifted({ look: changed, unseen: new Failure('Forbidden', 'no') }, row);
    for (let n = 1; n <= 5; n++) {
      const told = await rounds();
      expect(told).toMatchObject({ phase: 'Updating', reason: 'Forbidden', attempts: n });
      expect(cloud.calls).toEqual(Array.from({ length: n }, () => 'look'));
      bench.clock.advance(waits(told));
    }
  });
});

describe('an edit that the cloud refuses', () => {
  test.each(['Repair', 'Report'] as const)(
    'is tried again after a look, where drift is put right and where it is told alone (%s)',
    async (policy) => {
      const edited = { ...served(vmimage()), observedGeneration: 0, registrationHash: 'of an earlier spec' };
      const there = { look: changed, refused: new Failure('Forbidden', 'no') };
      const { bench, cloud, rounds, waits } = drifted(there, edited, policy);
      let row = await rounds();
      expect(cloud.calls).toEqual(['publish']);
      for (let n = 1; n <= 3; n++) {
        expect(row).toMatchObject({ phase: 'Failed', reason: 'Forbidden', attempts: n });
        bench.clock.advance(waits(row));
        Object.assign(there, { refused: n === 3 ? undefined : there.refused });
        row = await rounds();
      }
      expect(cloud.calls.slice(1)).toEqual(Array.from({ length: 3 }, () => ['look', 'publish']).flat());
      expect(row).toMatchObject({ phase: 'Ready', registrationHash: served(vmimage()).registrationHash });
      expect(row).not.toHaveProperty('attempts');
      expect(bench.told.filter(({ reason }) => reason === 'Drifted')).toEqual([]);
    },
  );

  it('is looked at, and told as altered where it has been altered meanwhile', async () => {
    const edited = { ...served(vmimage()), observedGeneration: 0, registrationHash: 'of an earlier spec' };
    const { bench, cloud, rounds, waits } = drifted(
      { look: { gone: [], changed: [], tampered: 'another hash' }, refused: new Failure('Forbidden', 'no') },
      edited,
    );
    bench.clock.advance(waits(await rounds()));
    expect(await rounds()).toMatchObject({ phase: 'Failed', reason: 'Tampered' });
    expect(cloud.calls.slice(0, 2)).toEqual(['publish', 'look']);
    expect(cloud.calls.filter((call) => call === 'publish')).toHaveLength(1);
  });
});

test.each<[string, Failure | undefined]>([
  ['takes', undefined],
  ['refuses', new Failure('Forbidden', 'no')],
])('an edit that the cloud %s leaves an image held that its people hold', async (_, refused) => {
  const held = {
    phase: 'Held',
    reason: 'HeldByCloud',
    message: 'held',
    observedGeneration: 0,
    registrationHash: 'old',
  };
  const there = { look: { gone: [], changed: [] } as Look, ...(refused === undefined ? {} : { refused }) };
  const { bench, cloud, rounds } = drifted(there, { ...served(vmimage()), ...held });
  there.look = { gone: [], changed: [], held: 'Hidden' };
  const publish = cloud.publish.bind(cloud);
  const { promise, resolve } = Promise.withResolvers<void>();
  cloud.publish = async (image) => {
    await promise;
    await publish(image);
  };
  expect(await rounds()).toMatchObject({ phase: 'Held', reason: 'HeldByCloud' });
  resolve();
  expect(await rounds()).toMatchObject({ phase: 'Held', reason: 'HeldByCloud' });
  expect(cloud.calls).toContain('publish');
  Object.assign(there, { look: { gone: [], changed: [] }, refused: undefined });
  bench.clock.advance(3_600_000);
  expect(await rounds()).toMatchObject({ phase: 'Ready', registrationHash: served(vmimage()).registrationHash });
});

describe('an image whose way out of service is taken back', () => {
  test.each(['Withdraw', 'Delete'])(
    'in the middle of it (%s) is Ready when it is in service again, not before',
    async (kind) => {
      const bench = new Workbench();
      const cloud = new ScriptedCloud({ digest: 'sha256' });
      bench.site('nova', cloud);
      const digest = `sha256:${hash('sha256', 'disk')}`;
      const row = served(vmimage());
      const parts = [{ role: 'Disk', id: 'id-nova', digest: row.digest ?? '', sentDigest: digest }];
      cloud.add({ id: 'id-nova', claim: 'uid-ubuntu', state: 'Deactivated', published: false });
      const operation = { kind, startedAt: '2026-11-21T12:00:00Z' };
      let now = bench.add(vmimage({}, { sites: [{ ...row, phase: 'Deactivating', artifacts: parts, operation }] }));
      for (let n = 0; n < 4; n++) {
        const round = bench.round(now);
        await serve(bench.work(round), wantedAs(row));
        now = await bench.conclude(round);
        expect(now.status.sites?.[0]?.phase === 'Ready').toBe(n > 1);
      }
      expect(cloud.visible).toEqual(['id-nova=disk']);
      expect(now.status.sites?.[0]?.retired).toBeUndefined();
      expect(now.status.sites?.[0]?.operation).toBeUndefined();
    },
  );

  test.each(['Withdraw', 'Delete'])('(%s) and that has gone in between is registered anew', async (kind) => {
    const bench = new Workbench();
    const cloud = new ScriptedCloud();
    bench.site('nova', cloud);
    const row = served(vmimage());
    const former = { imageID: 'older', retiredAt: '2026-11-21T12:00:00Z', artifacts: [{ role: 'Disk', id: 'older' }] };
    const operation = { kind, startedAt: '2026-11-21T12:00:00Z' };
    let now = bench.add(vmimage({}, { sites: [{ ...row, operation, previous: [former] }] }));
    const wanted: Wanted = {
      ...wantedAs(row),
      content: async () => ({ step: 'Fetching', blobs: new Map(), views: new Map() }),
    };
    for (let n = 0; n < 3; n++) {
      const round = bench.round(now);
      await serve(bench.work(round), wanted);
      now = await bench.conclude(round);
    }
    const [is] = now.status.sites ?? [];
    expect(is?.imageID).toBeUndefined();
    expect(is?.attempts).toBeUndefined();
    expect(is?.operation).toBeUndefined();
    expect(is?.previous).toEqual([former]);
    expect(bench.told.map(({ reason }) => reason)).toEqual(['Gone']);
  });

  it('and of which a part has gone in between keeps the others named, so that they go with it', () => {
    const bench = new Workbench();
    bench.site('nova', new ScriptedCloud());
    const row = served(vmimage());
    const id = row.imageID ?? '';
    const artifacts = [
      { role: 'Disk', id },
      { role: 'Kernel', id: 'k' },
    ];
    const operation = { kind: 'Reactivate', id, startedAt: '2026-11-21T12:00:00Z' };
    const round = bench.round(bench.add(vmimage({}, { sites: [{ ...row, retired: true, artifacts, operation }] })));
    const work = bench.work(round);
    settle(work, { ok: false, error: new Failure('Gone', 'k is not there') }, { kind: 'Reactivate' });
    expect(work.row.imageID).toBeUndefined();
    expect(work.row.previous).toEqual([{ imageID: id, artifacts }]);
  });

  it('keeps it written that this was begun, also where the cloud refuses to go on', () => {
    const bench = new Workbench();
    bench.site('nova', new ScriptedCloud());
    const operation = { kind: 'Withdraw', startedAt: '2026-11-21T12:00:00Z' };
    const round = bench.round(bench.add(vmimage({}, { sites: [{ ...served(vmimage()), operation }] })));
    const work = bench.work(round);
    settle(work, { ok: false, error: new Failure('Forbidden', 'no') }, { kind: 'Withdraw' });
    // How far it came nobody knows: that it was begun stays written.
    expect(work.row).toMatchObject({ phase: 'Failed', reason: 'Forbidden', operation: { kind: 'Withdraw' } });
  });
});
