import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { findCondition } from '../../../src/api/conditions.ts';
import type { SiteRow, VMImage, VMImageStatus } from '../../../src/api/types.ts';
import { type Facts, summarize } from '../../../src/reconcilers/vmimage/summary.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { servingRow, T0, vmimage } from './objects.ts';

const GENERATION = 3;
const image = vmimage({
  metadata: { generation: GENERATION },
  spec: { expiresAt: '2026-11-01T00:00:00Z' },
});
const ready = (name: string, more: Partial<SiteRow> = {}) =>
  servingRow(name, { observedGeneration: GENERATION, ...more });
type Download = NonNullable<Facts['download']>;
const download = (step: Download['step'], bytes = 25, totalBytes = 100): Download => ({
  step,
  bytes,
  totalBytes,
  bytesPerSecond: 5,
});

function facts(more: Partial<Facts> = {}): Facts {
  return {
    image,
    guid: 'guid',
    rows: [],
    required: ['nova'],
    optional: [],
    fetched: false,
    disposition: 'Serve',
    ...more,
  };
}

function judge(given: Partial<Facts>, before: Partial<VMImageStatus> = {}, now = T0): VMImageStatus {
  const status: VMImageStatus = structuredClone({ observedGeneration: -1, ...before });
  summarize(facts(given), status, now);
  return status;
}

/** The status of each condition, by type. */
function told(status: VMImageStatus): Record<string, string> {
  return Object.fromEntries((status.conditions ?? []).map((each) => [each.type, each.status]));
}

const object = (status: VMImageStatus, of: VMImage = image) => ({ metadata: of.metadata, status });

describe('the status of an image', () => {
  it('is Ready when every site that is not optional serves this generation', () => {
    const status = judge({
      rows: [ready('nova'), ready('east', { observedGeneration: 1 })],
      optional: ['east'],
    });
    expect(status.phase).toBe('Ready');
    expect(told(status)).toEqual({
      Ready: 'True',
      Available: 'True',
      Fetched: 'True',
      Verified: 'True',
      Registered: 'True',
    });
    expect(status.summary).toEqual({ sites: '1/2', imageID: 'id-nova +1' });
    expectKstatus(object(status));
  });

  it('is Available, not Ready, while the old image serves and the new one comes', () => {
    const status = judge({
      rows: [ready('nova', { observedGeneration: 2, phase: 'Registering', message: 'being registered' })],
      fetched: true,
    });
    expect(told(status)).toMatchObject({ Ready: 'False', Available: 'True', Reconciling: 'True' });
    expect(findCondition(status.conditions, 'Ready')).toMatchObject({
      reason: 'Registering',
      message: 'nova: being registered',
    });
    expectKstatus(object(status));
  });

  it('is Stalled, and still Available, when the new image is refused and the old one serves', () => {
    const row = ready('nova', {
      observedGeneration: 2,
      phase: 'Failed',
      reason: 'FormatNotAccepted',
      message: 'no',
    });
    const status = judge({ rows: [row] });
    expect(status.phase).toBe('Failed');
    expect(told(status)).toMatchObject({ Ready: 'False', Available: 'True', Stalled: 'True' });
    expect(findCondition(status.conditions, 'Stalled')).toMatchObject({
      reason: 'FormatNotAccepted',
      message: 'nova: no',
    });
    expectKstatus(object(status));
  });

  test.each<[string, Partial<SiteRow>]>([
    ['was deactivated by the cloud', { phase: 'Held', reason: 'HeldByCloud', message: 'no' }],
    ['is gone from the cloud', { phase: 'Missing', reason: 'Missing', message: 'no' }],
    ['is not what was registered', { phase: 'Failed', reason: 'Tampered', message: 'no' }],
    ['was taken out of service', { phase: 'Deactivating', retired: true }],
    ['was never made', { phase: 'Pending', imageID: undefined as never }],
  ])('is neither Ready nor Available when the image of a site %s', (_, more) => {
    const status = judge({ rows: [ready('nova', more)] });
    expect(told(status)).toMatchObject({ Ready: 'False', Available: 'False' });
    expectKstatus(object(status));
  });

  it('is not held up by an optional site, and names it', () => {
    const broken: SiteRow = { name: 'east', phase: 'Failed', reason: 'Unauthorized', message: 'no' };
    const status = judge({ rows: [ready('nova'), broken], optional: ['east'] });
    expect(told(status)).toMatchObject({ Ready: 'True', Available: 'True' });
    expect(findCondition(status.conditions, 'Ready')?.message).toBe('registered at nova; optional and failed: east');
    expect(status.summary?.sites).toBe('1/2');
    expectKstatus(object(status));
  });

  it('is Ready, not Stalled, when what an optional site needs cannot be fetched and the others serve', () => {
    const status = judge({
      rows: [ready('nova'), { name: 'east', phase: 'Failed', reason: 'NotFound', message: 'no' }],
      optional: ['east'],
      trouble: { stalled: true, reason: 'NotFound', message: 'no' },
    });
    expect(status.phase).toBe('Ready');
    expect(told(status)).toMatchObject({ Ready: 'True' });
    expectKstatus(object(status));
  });

  it('with optional sites alone is Ready at once, and Available with the first that serves', () => {
    const none = judge({ required: [], optional: ['a', 'b'], rows: [{ name: 'a', phase: 'Pending' }] });
    expect(told(none)).toMatchObject({ Ready: 'True', Available: 'False', Registered: 'False' });
    const one = judge({ required: [], optional: ['a', 'b'], rows: [ready('b')] });
    expect(told(one)).toMatchObject({ Ready: 'True', Available: 'True', Registered: 'True' });
    for (const status of [none, one]) expectKstatus(object(status));
  });

  it('with no site at all is Ready, not Available, and says so', () => {
    const status = judge({ required: [] });
    expect(told(status)).toMatchObject({ Ready: 'True', Available: 'False' });
    expect(findCondition(status.conditions, 'Available')?.reason).toBe('NoSites');
    expect(findCondition(status.conditions, 'Ready')?.message).toBe('no site is asked for');
    expect(status.summary).toEqual({ sites: '0/0' });
  });

  it('is Stalled when the spec cannot work, though no site waits for it', () => {
    const status = judge({ required: [], trouble: { stalled: true, reason: 'InvalidSecret', message: 'no' } });
    expect(told(status)).toMatchObject({ Ready: 'False', Stalled: 'True' });
    expectKstatus(object(status));
  });

  it('is Stalled with GuidInUse whatever its rows say: the older image serves', () => {
    const status = judge({
      rows: [ready('nova')],
      trouble: { stalled: true, reason: 'GuidInUse', message: 'older' },
    });
    expect(told(status)).toMatchObject({ Ready: 'False', Stalled: 'True' });
    expect(findCondition(status.conditions, 'Stalled')?.reason).toBe('GuidInUse');
    expectKstatus(object(status));
  });

  it('that waits for something goes on, and is not Stalled', () => {
    const status = judge({
      rows: [{ name: 'nova', phase: 'Pending', reason: 'SecretNotFound', message: 'no Secret' }],
      trouble: { stalled: false, reason: 'SecretNotFound', message: 'no Secret' },
    });
    expect(status.phase).toBe('Pending');
    expect(findCondition(status.conditions, 'Ready')).toMatchObject({
      status: 'False',
      reason: 'SecretNotFound',
      message: 'no Secret',
    });
    expect(told(status)).toMatchObject({ Reconciling: 'True' });
    expectKstatus(object(status));
  });

  test.each(['Deactivated', 'Expired'] as const)('that is %s as asked is Ready, not Available', (disposition) => {
    const status = judge({
      disposition,
      rows: [ready('nova', { phase: disposition, reason: disposition, retired: true })],
    });
    expect(status.phase).toBe(disposition);
    expect(told(status)).toMatchObject({ Ready: 'True', Available: 'False' });
    expect(findCondition(status.conditions, 'Ready')?.reason).toBe(disposition);
    expectKstatus(object(status));
    const nothingThere = judge({ disposition, rows: [{ name: 'nova', phase: disposition }] });
    expect(told(nothingThere)).toMatchObject({ Ready: 'True', Available: 'False' });
    expectKstatus(object(nothingThere));
  });

  test.each(['Deactivated', 'Expired'] as const)('is not Ready before it is %s at every site', (disposition) => {
    const status = judge({
      disposition,
      required: ['nova', 'east'],
      rows: [
        ready('nova', { phase: disposition, retired: true }),
        ready('east', { phase: 'Deactivating', message: 'being taken out of service' }),
      ],
    });
    expect(status.phase).toBe('Deactivating');
    expect(findCondition(status.conditions, 'Ready')?.message).toBe('east: being taken out of service');
    expect(told(status)).toMatchObject({ Ready: 'False', Available: 'False', Reconciling: 'True' });
    expectKstatus(object(status));
  });

  it('does not wait to be out of service for an optional site that cannot be asked, unless something of it is known to be there', () => {
    const given = (row: SiteRow): Partial<Facts> => ({
      disposition: 'Deactivated',
      optional: ['east'],
      rows: [ready('nova', { phase: 'Deactivated', retired: true }), row],
    });
    const away = { phase: 'Pending', reason: 'SiteNotReady', message: 'it is away' };
    expect(told(judge(given({ name: 'east', ...away })))).toMatchObject({ Ready: 'True' });
    expect(told(judge(given(ready('east', away))))).toMatchObject({ Ready: 'False' });
  });

  it('of an earlier generation is not expired for this one', () => {
    const row = ready('nova', { phase: 'Expired', retired: true, observedGeneration: 2 });
    expect(told(judge({ disposition: 'Expired', rows: [row] }))).toMatchObject({ Ready: 'False' });
  });

  it('is Deleting, and says what holds the deletion', () => {
    const status = judge({
      disposition: 'Deleting',
      rows: [ready('nova')],
      trouble: { stalled: false, reason: 'DeletionHeld', message: 'three ways out' },
    });
    expect(status.phase).toBe('Deleting');
    expect(findCondition(status.conditions, 'Ready')).toMatchObject({
      reason: 'DeletionHeld',
      message: 'three ways out',
    });
    expectKstatus(object(status));
  });

  describe('while it is suspended', () => {
    const before = judge({ rows: [ready('nova')] }, {}, T0 - 1000);

    it('keeps its conditions as they were', () => {
      const status = judge({ disposition: 'Suspended', rows: [ready('nova', { phase: 'Fetching' })] }, before);
      expect(status.phase).toBe('Suspended');
      expect(status.conditions).toEqual(before.conditions);
    });

    it('does not pass for served in a generation that nobody has looked at', () => {
      const changed = vmimage({ metadata: { generation: GENERATION + 1 } });
      const status = judge({ image: changed, disposition: 'Suspended', rows: [ready('nova')] }, before);
      expect(status.observedGeneration).toBe(GENERATION);
      expectKstatus(object(status, changed));
    });

    it('was never looked at if it was born so', () => {
      const status = judge({ disposition: 'Suspended' });
      expect(status.observedGeneration).toBe(-1);
      expect(status.conditions).toBeUndefined();
    });
  });
});

describe('the phase and progress of an image', () => {
  test.each<[Download['step'], string]>([
    ['Queued', 'Pending'],
    ['Fetching', 'Fetching'],
    ['Verifying', 'Verifying'],
  ])('with a download that is %s is %s', (step, phase) => {
    const status = judge({ rows: [{ name: 'nova', phase: 'Pending' }], download: download(step) });
    expect(status.phase).toBe(phase);
  });

  it('are those of the busiest site, and of the upload that is least far', () => {
    const status = judge({
      required: ['a', 'b', 'c'],
      fetched: true,
      rows: [
        { name: 'a', phase: 'Pending' },
        { name: 'b', phase: 'Registering', progress: { step: 'Upload', bytes: 9, totalBytes: 10, percent: 90 } },
        { name: 'c', phase: 'Registering', progress: { step: 'Upload', bytes: 1, totalBytes: 10, percent: 10 } },
      ],
    });
    expect(status.phase).toBe('Registering');
    expect(status.progress).toMatchObject({ percent: 10 });
    expect(status.summary).toMatchObject({ progress: '10%', sites: '0/3' });
  });

  it('count the bytes of the download, and end with 100 % when all sites serve', () => {
    const coming = judge({ rows: [{ name: 'nova', phase: 'Fetching' }], download: download('Fetching', 45, 100) });
    expect(coming.progress).toEqual({ step: 'Fetch', bytes: 45, totalBytes: 100, percent: 45, bytesPerSecond: 5 });
    expect(coming.summary?.progress).toBe('45%');
    const there = judge({ rows: [ready('nova')] }, coming);
    expect(there.progress).toBeUndefined();
    expect(there.summary).toEqual({ sites: '1/1', imageID: 'id-nova', progress: '100%' });
  });
});

// ── all of it ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const name = fc.constantFrom('a', 'b', 'c');
const phase = fc.constantFrom(
  'Pending',
  'Fetching',
  'Verifying',
  'Preparing',
  'Registering',
  'Updating',
  'Ready',
  'Held',
  'Missing',
  'Failed',
  'Deactivating',
  'Deactivated',
  'Expired',
  'Deleting',
);
const reason = fc.constantFrom(undefined, 'Busy', 'NotFound', 'SiteNotReady', 'Tampered', 'Register', 'Drifted');
const row = fc
  .record({
    phase: fc.option(phase, { nil: undefined }),
    reason,
    message: fc.option(fc.string({ maxLength: 20 }), { nil: undefined }),
    observedGeneration: fc.constantFrom(undefined, 1, 2, GENERATION),
    imageID: fc.option(fc.constantFrom('id-1', 'id-2'), { nil: undefined }),
    retired: fc.constantFrom(undefined, true),
    percent: fc.option(fc.nat(100), { nil: undefined }),
  })
  .map(
    ({ percent, ...rest }): Omit<SiteRow, 'name'> =>
      Object.fromEntries(
        Object.entries({
          ...rest,
          progress: percent === undefined ? undefined : { step: 'Upload', bytes: percent, totalBytes: 100, percent },
        }).filter(([, value]) => value !== undefined),
      ),
  );
const anyFacts = fc
  .record({
    rows: fc.uniqueArray(fc.tuple(name, row), { selector: ([each]) => each, maxLength: 3 }),
    targets: fc.uniqueArray(fc.tuple(name, fc.boolean()), { selector: ([each]) => each, maxLength: 3 }),
    trouble: fc.option(
      fc.record({
        stalled: fc.boolean(),
        reason: fc.constantFrom('GuidInUse', 'NotFound', 'SecretNotFound', 'DeletionHeld'),
        message: fc.string({ maxLength: 20 }),
      }),
      { nil: undefined },
    ),
    step: fc.option(fc.constantFrom('Queued' as const, 'Fetching' as const, 'Verifying' as const), { nil: undefined }),
    fetched: fc.boolean(),
    disposition: fc.constantFrom(
      'Serve' as const,
      'Serve' as const,
      'Serve' as const,
      'Deactivated' as const,
      'Expired' as const,
      'Deleting' as const,
    ),
  })
  .map(
    ({ rows, targets, trouble, step, fetched, disposition }): Facts =>
      facts({
        rows: rows.map(([each, rest]) => ({ name: each, ...rest })),
        required: targets.filter(([, optional]) => !optional).map(([each]) => each),
        optional: targets.filter(([, optional]) => optional).map(([each]) => each),
        fetched,
        disposition,
        ...(trouble === undefined ? {} : { trouble }),
        ...(step === undefined ? {} : { download: download(step) }),
      }),
  );

describe('whatever the rows say', () => {
  const withoutTimes = (status: VMImageStatus) => ({
    ...status,
    conditions: status.conditions
      ?.map((each) => ({ ...each, lastTransitionTime: '' }))
      .sort((a, b) => (a.type < b.type ? -1 : 1)),
  });

  it('the conditions are such that kstatus, Flux and kubectl wait understand them', () => {
    fc.assert(
      fc.property(anyFacts, fc.option(anyFacts, { nil: undefined }), (given, before) => {
        const status = judge(given, before === undefined ? {} : judge(before));
        expectKstatus(object(status));
      }),
      { numRuns: 1500 },
    );
  });

  it('phase, conditions, progress and summary follow from it alone, not from what was written before', () => {
    fc.assert(
      fc.property(anyFacts, anyFacts, (given, before) => {
        const fresh = judge(given);
        const after = judge(given, judge(before), T0 + 60_000);
        expect(withoutTimes(after)).toEqual(withoutTimes(fresh));
        // A second look at the same changes nothing at all, so nothing is written.
        expect(judge(given, after, T0 + 120_000)).toEqual(after);
      }),
      { numRuns: 700 },
    );
  });

  it('Ready means that every required site serves this generation, and what is registered counts only where it is', () => {
    fc.assert(
      fc.property(anyFacts, (given) => {
        const status = judge(given);
        const conditions = told(status);
        const serving = (each: string) =>
          given.rows.some(
            (at) =>
              at.name === each &&
              at.phase === 'Ready' &&
              at.imageID !== undefined &&
              at.observedGeneration === GENERATION,
          );
        if (given.disposition === 'Serve' && conditions['Ready'] === 'True') {
          expect(given.required.every(serving)).toBe(true);
        }
        if (given.disposition === 'Serve' && given.trouble === undefined && given.required.every(serving)) {
          expect(conditions['Ready']).toBe('True');
        }
        if (given.disposition !== 'Serve') expect(conditions['Available']).toBe('False');
        if (conditions['Available'] === 'True') {
          for (const each of given.required) {
            expect(given.rows.find((at) => at.name === each)?.imageID).toBeDefined();
          }
        }
        const all = [...given.required, ...given.optional];
        expect(status.summary?.sites).toBe(`${all.filter(serving).length}/${all.length}`);
      }),
      { numRuns: 700 },
    );
  });

  it('the rows themselves are left alone', () => {
    fc.assert(
      fc.property(anyFacts, (given) => {
        const rows = structuredClone(given.rows);
        judge(given);
        expect(given.rows).toEqual(rows);
      }),
    );
  });
});
