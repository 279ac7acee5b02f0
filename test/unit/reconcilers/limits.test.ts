import { describe, expect, it, test } from 'vitest';
import type { ImageSite, SiteRow, VMImage } from '../../../src/api/types.ts';
import type { Look } from '../../../src/clouds/cloud.ts';
import { registrationHashOf } from '../../../src/reconcilers/vmimage/operations.ts';
import { serve } from '../../../src/reconcilers/vmimage/serve.ts';
import { registrationOf } from '../../../src/reconcilers/vmimage/targets.ts';
import { servingRow, vmimage, wantedAs } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

type Limits = NonNullable<ImageSite['spec']['limits']>;
type RegistrationSpec = NonNullable<VMImage['spec']['registration']>;

const hashOf = (image: VMImage) => registrationHashOf(registrationOf(image, undefined));
const LOOKED = '2026-11-21T12:00:00Z';

const RETIRED: Partial<SiteRow> = { retired: true, phase: 'Deactivated', reason: 'Deactivated' };
const BEGUN: Partial<SiteRow> = { operation: { kind: 'Withdraw', startedAt: LOOKED }, phase: 'Deactivating' };

/** An image that was registered as was allowed, and whose spec asks for more now. */
function edited(asked: Partial<RegistrationSpec>, limits: Limits, state: Partial<SiteRow>, look: Partial<Look>) {
  const bench = new Workbench();
  const cloud = new ScriptedCloud();
  bench.site('nova', cloud, { limits });
  cloud.look = async () => {
    cloud.calls.push('look');
    return { gone: [], changed: [], ...look };
  };
  cloud.reactivate = async () => void cloud.calls.push('reactivate');
  cloud.publish = async () => void cloud.calls.push('publish');
  const row = servingRow('nova', { lastCheckedTime: LOOKED, ...state });
  const registration: RegistrationSpec = { visibility: 'Private', protected: false, hidden: false, ...asked };
  let now = bench.add(vmimage({ metadata: { generation: 2 }, spec: { registration } }, { sites: [row] }));
  const rounds = async (count: number) => {
    for (let n = 0; n < count; n++) {
      const round = bench.round(now);
      await serve(bench.work(round), wantedAs(row));
      now = await bench.conclude(round);
    }
    return now.status.sites?.[0];
  };
  return { bench, cloud, rounds };
}

const published = ({ calls }: ScriptedCloud) => calls.filter((call) => /publish|reactivate/.test(call));

describe.each<[string, Partial<RegistrationSpec>, Limits]>([
  ['visibility', { visibility: 'Public' }, { visibilities: ['Private'] }],
  ['members', { visibility: 'Shared', members: ['p2'] }, { members: ['p1'] }],
  ['properties', { properties: { trait: 'x' } }, { propertyKeys: ['hw_*'] }],
])('%s that the owner of the site does not allow', (field, asked, limits) => {
  test.each<[string, Partial<SiteRow>, Partial<Look>]>([
    ['an edit of what serves', { registrationHash: 'of an earlier spec' }, {}],
    ['a return from Deactivated', { ...RETIRED, registrationHash: 'of an earlier spec' }, {}],
    ['a way out of service that is taken back', { ...BEGUN, registrationHash: 'of an earlier spec' }, {}],
    ['the repair of an edit that had failed', {}, { changed: [field] }],
    ['the repair of what no look finds changed', {}, {}],
  ])('do not come to the cloud by %s', async (_, state, look) => {
    const { cloud, rounds } = edited(asked, limits, state, look);
    const row = await rounds(4);
    expect(published(cloud)).toEqual([]);
    expect(row).toMatchObject({ phase: 'Failed', reason: 'LimitExceeded', imageID: 'id-nova' });
    expect(row?.message).toContain(`spec.registration.${field}`);
  });
});

describe('an image whose limits were tightened', () => {
  it('is not put right as they forbid, goes on being looked at after pauses, and is put right once that is allowed', async () => {
    const visibility = 'Public';
    const registrationHash = hashOf(
      vmimage({ spec: { registration: { visibility, protected: false, hidden: false } } }),
    );
    const { bench, cloud, rounds } = edited(
      { visibility },
      { visibilities: ['Private'] },
      { registrationHash },
      {
        changed: ['visibility'],
      },
    );
    for (let n = 1; n <= 4; n++) {
      bench.clock.advance(3_600_000);
      expect(await rounds(4)).toMatchObject({ phase: 'Failed', reason: 'LimitExceeded', attempts: n });
      expect(cloud.calls).toEqual(Array.from({ length: n }, () => 'look'));
    }
    bench.site('nova', cloud);
    cloud.look = async () => ({ gone: [], changed: [] });
    bench.clock.advance(3_600_000);
    expect(await rounds(4)).toMatchObject({ phase: 'Ready', registrationHash });
  });
});

describe('limits that are tightened after a step was decided', () => {
  const limits: Limits = { visibilities: ['Private'] };

  test.each<[string, Partial<SiteRow>]>([
    ['an edit of what serves', { registrationHash: 'of an earlier spec' }],
    ['a return from Deactivated', RETIRED],
  ])('keep %s from the cloud', async (_, state) => {
    const { bench, cloud, rounds } = edited({ visibility: 'Public' }, {}, state, {});
    const start = bench.jobs.start.bind(bench.jobs);
    bench.jobs.start = (...args) => {
      bench.site('nova', cloud, { limits });
      start(...args);
    };
    const row = await rounds(4);
    expect(published(cloud)).toEqual([]);
    expect(row).toMatchObject({ phase: 'Failed', reason: 'LimitExceeded', imageID: 'id-nova' });
  });

  test('while a former registration comes back keep it from being published as it was decided', async () => {
    const { bench, cloud, rounds } = edited({ visibility: 'Public' }, {}, RETIRED, {});
    cloud.reactivate = async () => {
      cloud.calls.push('reactivate');
      bench.site('nova', cloud, { limits });
    };
    expect(await rounds(4)).toMatchObject({ phase: 'Failed', reason: 'LimitExceeded', retired: true });
    expect(published(cloud)).toEqual(['reactivate']);
  });

  test('as a namespace that is admitted no longer', async () => {
    const { bench, cloud, rounds } = edited({ visibility: 'Public' }, {}, RETIRED, {});
    const start = bench.jobs.start.bind(bench.jobs);
    bench.jobs.start = (...args) => {
      bench.site('nova', cloud, { allowedNamespaces: ['other'] });
      start(...args);
    };
    await rounds(1);
    expect(published(cloud)).toEqual([]);
  });

  test.each<[string, Partial<SiteRow>]>([
    ['an edit', { registrationHash: 'of an earlier spec' }],
    ['a return from Deactivated', RETIRED],
  ])('that allow it are not in the way of %s at a site that is being deleted', async (_, state) => {
    const { bench, cloud, rounds } = edited({ visibility: 'Public' }, {}, state, {});
    const site = bench.site('nova', cloud);
    site.metadata.deletionTimestamp = LOOKED;
    expect(await rounds(4)).toMatchObject({ phase: 'Ready' });
    expect(published(cloud)).toContain('publish');
  });
});
