import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { Failure, type Reason } from '../../../src/api/failure.ts';
import type { RegisteredArtifact, SiteRow } from '../../../src/api/types.ts';
import type { Round } from '../../../src/reconcilers/vmimage/round.ts';
import { keepWaiting } from '../../../src/reconcilers/vmimage/drift.ts';
import { knownIds, refsOf } from '../../../src/reconcilers/vmimage/named.ts';
import {
  askedAgain,
  clearImage,
  holds,
  putInService,
  recordSiteFailure,
  specChanged,
  tell,
} from '../../../src/reconcilers/vmimage/rows.ts';
import { formerOf } from '../../../src/reconcilers/vmimage/served.ts';
import { servingRow, vmimage, wantedAs } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

function scene(row: Partial<SiteRow> = {}, requestedAt?: string): { bench: Workbench; round: Round; row: SiteRow } {
  const bench = new Workbench();
  bench.site('nova', new ScriptedCloud());
  const round = bench.round(vmimage({}, { sites: [servingRow('nova', row)] }), requestedAt);
  const [first] = round.status.sites;
  if (first === undefined) throw new Error('no row');
  return { bench, round, row: first };
}

const part = (id: string, role = 'Disk'): RegisteredArtifact => ({ id, role, digest: `sha256:${id}` });

describe('what a row tells', () => {
  it('has a reason and a message only while something is in the way', () => {
    const row: SiteRow = { name: 'nova', progress: { step: 'Upload', bytes: 1 } };
    tell(row, 'Pending', 'SiteNotReady', 'no');
    expect(row).toEqual({ name: 'nova', phase: 'Pending', reason: 'SiteNotReady', message: 'no' });
    tell(row, 'Ready');
    expect(row).toEqual({ name: 'nova', phase: 'Ready' });
  });

  it('fits into what the CRD takes', () => {
    const row: SiteRow = { name: 'nova' };
    tell(row, 'Failed', 'Rejected', 'x'.repeat(10_000));
    expect(row.message).toHaveLength(4096);
  });
});

describe('a failed step at a site', () => {
  const fail = (reason: Reason, options: ConstructorParameters<typeof Failure>[2] = {}, row: Partial<SiteRow> = {}) => {
    const at = scene(row);
    recordSiteFailure(at.round, at.row, new Failure(reason, 'no', options), 'inputs');
    return at;
  };
  const pauseOf = ({ row, bench }: ReturnType<typeof fail>) =>
    Date.parse(row.nextAttemptTime ?? '') - bench.clock.now();

  test.each(['FormatNotAccepted', 'CloudDigestMismatch', 'UnsafeImage', 'Forbidden'] as const)(
    'that only a change can mend (%s) stalls, without a date',
    (reason) => {
      const { row } = fail(reason);
      expect(row).toMatchObject({ phase: 'Failed', reason, message: 'no', attempts: 1, inputsHash: 'inputs' });
      expect(row.nextAttemptTime).toBeUndefined();
    },
  );

  test.each(['Unauthorized', 'TlsFailed', 'NetworkError'] as const)(
    'that is the trouble of the site itself (%s) waits for it, and is tried again',
    (reason) => {
      const { row } = fail(reason);
      expect(row).toMatchObject({ reason, message: 'no', attempts: 1 });
      expect(row.phase).not.toBe('Failed');
      expect(row.nextAttemptTime).toBeDefined();
    },
  );

  it('that may pass is tried again, later each time', () => {
    let before = 0;
    for (const attempts of [0, 1, 2, 3]) {
      const at = fail('ServerError', {}, { attempts });
      expect(at.row).toMatchObject({ attempts: attempts + 1, phase: 'Ready' });
      const pause = pauseOf(at);
      expect(pause).toBeGreaterThanOrEqual(2_000 * 2 ** attempts);
      expect(pause).toBeGreaterThan(before / 2);
      before = pause;
    }
  });

  it('waits as long as the cloud asks for', () => {
    expect(pauseOf(fail('TooManyRequests', { retryAfterMs: 7_200_000 }))).toBe(7_200_000);
    expect(pauseOf(fail('QuotaExceeded', { retryAfterMs: 7_200_000 }))).toBe(7_200_000);
  });

  it('for want of a named thing is looked at again in some minutes, in case its coming is missed', () => {
    expect(pauseOf(fail('QuotaExceeded'))).toBe(300_000);
  });

  it('for want of a named thing is written once, however often that is looked for', async () => {
    const { bench, round: first } = scene();
    let image = first.image;
    let writes = 0;
    for (let look = 0; look < 5; look++) {
      const round = bench.round(image);
      const [row] = round.status.sites;
      if (row === undefined) throw new Error('no row');
      expect(holds(round, row, 'inputs')).toBe(false);
      recordSiteFailure(round, row, new Failure('ToolMissing', 'no'), 'inputs');
      keepWaiting(round);
      if (!isDeepStrictEqual(round.status, image.status)) writes++;
      image = await bench.conclude(round);
      expect(image.status.sites?.[0]).not.toHaveProperty('attempts');
      const held = bench.round(image);
      expect(holds(held, held.status.sites[0] as SiteRow, 'inputs')).toBe(true);
      expect(held.lookAgainAt).toBe(bench.clock.now() + 300_000);
      bench.clock.advance(300_000);
    }
    expect(writes).toBe(1);
    // Another failure is told, with a date of its own.
    const round = bench.round(image);
    const [row] = round.status.sites as [SiteRow];
    recordSiteFailure(round, row, new Failure('ServerError', 'no'), 'inputs');
    keepWaiting(round);
    const date = Date.parse(row.nextAttemptTime ?? '');
    expect(date).toBeGreaterThan(bench.clock.now());
    const held = bench.round(await bench.conclude(round));
    expect(holds(held, held.status.sites[0] as SiteRow, 'inputs')).toBe(true);
    expect(held.lookAgainAt).toBe(date);
  });

  it('leaves a row that serves in its phase, and one that does not Pending', () => {
    expect(fail('ServerError').row.phase).toBe('Ready');
    expect(fail('ServerError', {}, { imageID: undefined as never, phase: 'Registering' }).row.phase).toBe('Pending');
  });

  it('that was stopped by ourselves is no failure', () => {
    const { row } = fail('Aborted');
    expect(row.attempts).toBeUndefined();
    expect(row.reason).toBeUndefined();
  });
});

describe('a row that failed', () => {
  const failed: Partial<SiteRow> = { attempts: 3, inputsHash: 'inputs', phase: 'Failed', reason: 'Rejected' };
  const NOW = new Workbench().clock.now();
  const later = new Date(NOW + 60_000).toISOString();

  it('is held while nothing has changed, for ever or until its date', () => {
    const stalled = scene(failed);
    expect(holds(stalled.round, stalled.row, 'inputs')).toBe(true);
    expect(stalled.round.lookAgainAt).toBeUndefined();
    const waiting = scene({ ...failed, nextAttemptTime: later });
    expect(holds(waiting.round, waiting.row, 'inputs')).toBe(true);
    expect(waiting.round.lookAgainAt).toBe(NOW + 60_000);
  });

  it('is tried again at its date, and its failures still count', () => {
    const at = scene({ ...failed, nextAttemptTime: new Date(NOW).toISOString() });
    expect(holds(at.round, at.row, 'inputs')).toBe(false);
    expect(at.row.attempts).toBe(3);
  });

  it('for its size is tried again with a larger cache', () => {
    const { bench, round, row } = scene();
    recordSiteFailure(round, row, new Failure('TooLarge', 'no'), 'inputs');
    expect(holds(round, row, 'inputs')).toBe(true);
    bench.quotaBytes *= 2;
    expect(holds(round, row, 'inputs')).toBe(false);
    expect(row.inputsHash).toBeUndefined();
  });

  it('is tried again at once, afresh, when an input changed or a person asks', () => {
    for (const [hash, requestedAt] of [
      ['others', undefined],
      ['inputs', 'now'],
    ] as const) {
      const at = scene({ ...failed, nextAttemptTime: later }, requestedAt);
      expect(holds(at.round, at.row, hash)).toBe(false);
      expect(at.row.attempts).toBeUndefined();
      expect(at.row.nextAttemptTime).toBeUndefined();
    }
  });
});

describe('a row that somebody asks to have tried again', () => {
  it.each([
    ['Failed', 'DigestMismatch'],
    ['Pending', 'QuotaExceeded'],
  ])(
    'tells an old failure no more, though the try may have to wait: it is not the answer (%s, %s)',
    (phase, reason) => {
      const row = servingRow('nova', { phase, reason, message: 'no', attempts: 3, inputsHash: 'inputs' });
      askedAgain(row);
      expect(row).toMatchObject({ phase: 'Pending', imageID: 'id-nova' });
      for (const field of ['reason', 'message', 'attempts', 'inputsHash'] as const) expect(row[field]).toBeUndefined();
    },
  );

  it.each([
    ['Ready', undefined],
    ['Missing', 'MassLoss'],
    ['Held', 'HeldByCloud'],
    ['Failed', 'Tampered'],
  ])('goes on telling what is seen at the cloud: %s', (phase, reason) => {
    const row = servingRow('nova', { phase, ...(reason === undefined ? {} : { reason }) });
    askedAgain(row);
    expect(row).toMatchObject({ phase });
    expect(row.reason).toBe(reason);
  });
});

describe('a row whose spec was changed', () => {
  it('tells what failed with the one before no more', () => {
    const row = servingRow('nova', {
      phase: 'Failed',
      reason: 'NotFound',
      message: 'no',
      attempts: 3,
      inputsHash: 'i',
    });
    specChanged(row);
    expect(row).toEqual(servingRow('nova', { phase: 'Pending' }));
  });

  it.each<[string, Partial<SiteRow>]>([
    ['serves', {}],
    ['waits for its next try', { phase: 'Pending', reason: 'QuotaExceeded', nextAttemptTime: '2026-11-21T13:00:00Z' }],
    ['was altered', { phase: 'Failed', reason: 'Tampered' }],
  ])('stays as it is where it %s', (_, more) => {
    const row = servingRow('nova', more);
    specChanged(row);
    expect(row).toEqual(servingRow('nova', more));
  });
});

describe('a look that could not be made', () => {
  const standing: Partial<SiteRow>[] = [
    { phase: 'Failed', reason: 'Tampered', message: 'another hash' },
    { phase: 'Held', reason: 'HeldByCloud', message: 'hidden' },
    { phase: 'Ready', reason: 'Drifted', message: 'name' },
  ];
  const reasons = ['NetworkError', 'Forbidden'] as const;

  it.each(reasons.flatMap((reason) => standing.map((found) => [reason, found] as const)))(
    '(%s) takes nothing back of what the last one has found, and is made again after a pause: %j',
    (reason, found) => {
      const { round, row } = scene(found);
      recordSiteFailure(round, row, new Failure(reason, 'no'), 'inputs', { isLook: true });
      expect(row).toMatchObject({ ...found, attempts: 1 });
      expect(row.nextAttemptTime).toBeDefined();
      expect(holds(round, row, 'inputs')).toBe(true);
    },
  );

  it.each(reasons)('(%s) is told where that had found all well, and made again after a pause', (reason) => {
    const { round, row } = scene({});
    recordSiteFailure(round, row, new Failure(reason, 'no'), 'inputs', { isLook: true });
    expect(row).toMatchObject({ phase: 'Ready', reason });
    expect(row.nextAttemptTime).toBeDefined();
  });
});

describe('what goes into service at a site', () => {
  it('takes the place of what served, which is kept to be retired', () => {
    const { round, row } = scene();
    putInService(round, row, [part('kernel', 'Kernel'), part('disk')], 'sha256:new');
    expect(row).toMatchObject({ imageID: 'disk', kernelID: 'kernel', digest: 'sha256:new' });
    expect(row.ramdiskID).toBeUndefined();
    expect(row.previous).toMatchObject([{ imageID: 'id-nova', artifacts: [{ id: 'id-nova' }] }]);
    expect(row.previous?.[0]?.retiredAt).toBeUndefined();
  });

  it('is no former image of itself when it is found again', () => {
    const { round, row } = scene();
    putInService(round, row, [part('id-nova')], 'sha256:same');
    expect(row.previous).toBeUndefined();
  });

  it('is no longer among the retired when it comes back', () => {
    const { round, row } = scene({ previous: [{ imageID: 'old', artifacts: [part('old')] }] });
    putInService(round, row, [part('old')], 'sha256:old');
    expect(row.previous?.map((each) => each.imageID)).toEqual(['id-nova']);
  });

  it('keeps a kernel that retired disks had too out of what is trimmed with them', () => {
    const { round, row } = scene({
      artifacts: [part('id-nova'), part('k', 'Kernel')],
      kernelID: 'k',
      previous: [{ imageID: 'older', artifacts: [part('older'), part('k', 'Kernel'), part('r', 'Ramdisk')] }],
    });
    putInService(round, row, [part('k', 'Kernel'), part('new')], 'sha256:new');
    expect(row.previous?.map((each) => each.artifacts?.map(({ id }) => id))).toEqual([['id-nova'], ['older', 'r']]);
  });

  it('and shares a kernel with what it replaces leaves that as no version to go back to as it stands; a whole one is', () => {
    const { round, row } = scene();
    const sent = (id: string, role = 'Disk') => ({ ...part(id, role), sentDigest: `sha256:${id}` });
    const isFormer = (digest: string) => {
      row.previous = row.previous?.map((each) => ({ ...each, retiredAt: '2026-11-21T12:00:00Z' })) ?? [];
      // Of a metafile that was not read yet nobody knows the parts.
      return formerOf(row, { ...wantedAs(row), plan: { parts: [], inputsHash: 'i' }, digest }) !== undefined;
    };
    putInService(round, row, [sent('k', 'Kernel'), sent('d1')], 'sha256:m1');
    putInService(round, row, [sent('k', 'Kernel'), sent('d2')], 'sha256:m2');
    expect(isFormer('sha256:m1')).toBe(false);
    putInService(round, row, [sent('k3', 'Kernel'), sent('d3')], 'sha256:m3');
    expect([isFormer('sha256:m1'), isFormer('sha256:m2')]).toEqual([false, true]);
    putInService(round, row, [sent('k', 'Kernel'), sent('d1')], 'sha256:m1');
    expect([isFormer('sha256:m2'), isFormer('sha256:m3')]).toEqual([false, true]);
  });

  it('and cannot be removed from the cloud lets the oldest that are out of service fall off, not one that serves', () => {
    const { round, row } = scene();
    const retiredAt = '2026-11-21T12:00:00Z';
    for (let version = 1; version <= 20; version++) {
      putInService(round, row, [part(`v${version}`)], `sha256:v${version}`);
      row.previous = row.previous?.map((each) => (each.imageID === 'v2' ? each : { ...each, retiredAt })) ?? [];
    }
    const named = row.previous?.map((each) => each.imageID) ?? [];
    expect(named).toHaveLength(16);
    expect([named[0], named[14], named[15]]).toEqual(['v19', 'v5', 'v2']);
  });

  it('loses no id and names none twice, whatever comes and goes', () => {
    const parts = fc.record({
      disk: fc.constantFrom('d1', 'd2', 'd3', 'd4'),
      kernel: fc.option(fc.constantFrom('k1', 'k2'), { nil: undefined }),
    });
    fc.assert(
      fc.property(fc.array(parts, { minLength: 1, maxLength: 8 }), (changes) => {
        const { round, row } = scene();
        const ever = new Set(['id-nova']);
        for (const { disk, kernel } of changes) {
          const artifacts = [...(kernel === undefined ? [] : [part(kernel, 'Kernel')]), part(disk)];
          for (const { id } of artifacts) ever.add(id);
          putInService(round, row, artifacts, `sha256:${disk}`);
          expect(row.imageID).toBe(disk);
          expect(row.kernelID).toBe(kernel);
          expect(knownIds(row)).toEqual(ever);
          const all = [row.artifacts, ...(row.previous ?? []).map((each) => each.artifacts)].flatMap(
            (each) => each ?? [],
          );
          expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
        }
      }),
    );
  });

  it('leaves nothing behind in the row when it is gone, but its predecessors and its losses', () => {
    const { row } = scene({ previous: [{ imageID: 'old' }], losses: ['2026-11-21T12:00:00Z'], retired: true });
    clearImage(row);
    expect(Object.keys(row).sort()).toEqual(
      ['lastCheckedTime', 'losses', 'name', 'observedGeneration', 'phase', 'previous', 'siteIdentity'].sort(),
    );
  });
});

describe('what a cloud is told of the parts', () => {
  it('is their ids, and every digest that is known of the bytes', () => {
    const digests = { sentDigest: `sha256:${'a'.repeat(64)}`, cloudDigest: `sha512:${'b'.repeat(128)}` };
    expect(
      refsOf([
        { ...part('d'), ...digests },
        { ...part('k', 'Kernel'), cloudDigest: 'crc32:00' },
      ]),
    ).toEqual([
      { id: 'd', role: 'Disk', digests: { sha256: 'a'.repeat(64), sha512: 'b'.repeat(128) } },
      { id: 'k', role: 'Kernel', digests: {} },
    ]);
    expect(refsOf(undefined)).toEqual([]);
  });
});
