import { describe, expect, it, test } from 'vitest';
import type { ImageSite, SiteRow, VMImage } from '../../../src/api/types.ts';
import type { Look } from '../../../src/clouds/cloud.ts';
import { Failure } from '../../../src/api/failure.ts';
import { finish } from '../../../src/reconcilers/vmimage/leave.ts';
import { judgeLook } from '../../../src/reconcilers/vmimage/losses.ts';
import { holds } from '../../../src/reconcilers/vmimage/rows.ts';
import { registrationHashOf } from '../../../src/reconcilers/vmimage/operations.ts';
import { serve } from '../../../src/reconcilers/vmimage/serve.ts';
import type { Wanted } from '../../../src/reconcilers/vmimage/served.ts';
import { registrationOf } from '../../../src/reconcilers/vmimage/targets.ts';
import { servingRow, vmimage, wantedAs } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

const CONFIRM_MS = 60_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const clean: Look = { gone: [], changed: [] };

interface Scene {
  row?: Partial<SiteRow>;
  look?: Partial<Look>;
  /** Ids that the cloud holds; absent: it was not asked. */
  census?: readonly string[];
  /** Ids in service at the site beside `id-nova`. */
  others?: readonly string[];
  site?: Partial<ImageSite['spec']>;
  annotations?: Record<string, string>;
  requestedAt?: string;
}

/** One look at the cloud, judged. */
function judge(scene: Scene) {
  const bench = new Workbench();
  const site = bench.site('nova', new ScriptedCloud(), scene.site ?? {});
  if (scene.annotations !== undefined) site.metadata.annotations = scene.annotations;
  const image = bench.add(vmimage({}, { sites: [servingRow('nova', scene.row)] }));
  for (const [index, id] of (scene.others ?? []).entries()) {
    const other: VMImage = vmimage(
      { metadata: { name: `other-${index}`, uid: `uid-${index}` } },
      { sites: [servingRow('nova', { imageID: id })] },
    );
    bench.add(other);
  }
  // The same ids at another site say nothing about this one.
  bench.add(vmimage({ metadata: { name: 'elsewhere', uid: 'elsewhere' } }, { sites: [servingRow('east')] }));
  const round = bench.round(image, scene.requestedAt);
  const work = bench.work(round);
  const census = scene.census === undefined ? undefined : new Set(scene.census);
  const goesOn = judgeLook(work, {
    kind: 'Check',
    look: { ...clean, ...scene.look },
    census,
    asked: scene.requestedAt,
  });
  const { row } = work;
  return { goesOn, row, round, now: bench.clock.now(), notes: round.notes.map((note) => note.reason) };
}

const iso = (ms: number) => new Date(ms).toISOString().replace('.000Z', 'Z');
const NOW = new Workbench().clock.now();
const MISSING: Partial<SiteRow> = { phase: 'Missing', missingSince: iso(NOW - CONFIRM_MS) };

describe('an image that is as it should be', () => {
  it('is Ready, and its row stays as it was', () => {
    const { goesOn, row, round } = judge({});
    expect(goesOn).toBe(true);
    expect(row).toEqual(servingRow('nova'));
    expect(round.deps.looks.at('default/ubuntu', 'nova')).toBe(NOW);
  });

  it('has the date of a look that somebody asked for in its row', () => {
    expect(judge({ requestedAt: 'now' }).row).toMatchObject({ phase: 'Ready', lastCheckedTime: iso(NOW) });
  });

  it('is missed no more when it is found again', () => {
    const { goesOn, row } = judge({ row: MISSING });
    expect(goesOn).toBe(true);
    expect(row.missingSince).toBeUndefined();
  });

  test.each(['Held', 'Tampered', 'Drifted'])('is no longer %s when that is over', (state) => {
    const row = state === 'Held' ? { phase: 'Held', reason: 'HeldByCloud' } : { phase: 'Failed', reason: state };
    const judged = judge({ row: { ...row, message: 'no' } });
    expect(judged.row).toMatchObject({ phase: 'Ready' });
    expect(judged.row.reason).toBeUndefined();
  });
});

describe('an image that is not found', () => {
  it('is not lost at the first look: a second one decides, after a pause', () => {
    const { row, round } = judge({ look: { gone: ['id-nova'] } });
    expect(row).toMatchObject({ phase: 'Missing', reason: 'Missing', imageID: 'id-nova', missingSince: iso(NOW) });
    expect(round.lookAgainAt).toBe(NOW + CONFIRM_MS);
  });

  it('is not lost while the cloud was not asked for all that it has', () => {
    const { row } = judge({ row: MISSING, look: { gone: ['id-nova'] } });
    expect(row).toMatchObject({ phase: 'Missing', imageID: 'id-nova', missingSince: MISSING.missingSince });
  });

  it('is not lost when the list of all images names it: one of the two answers is wrong', () => {
    const { goesOn, row } = judge({ row: MISSING, look: { gone: ['id-nova'] }, census: ['id-nova'] });
    expect(goesOn).toBe(true);
    expect(row).toMatchObject({ imageID: 'id-nova' });
    expect(row.missingSince).toBeUndefined();
  });

  it('is registered again when two looks and the list of all images agree, and the loss is told and counted', () => {
    const { goesOn, row, notes } = judge({
      row: MISSING,
      look: { gone: ['id-nova'] },
      census: ['id-1'],
      others: ['id-1'],
    });
    expect(goesOn).toBe(true);
    expect(row.imageID).toBeUndefined();
    expect(row.artifacts).toBeUndefined();
    expect(row.missingSince).toBeUndefined();
    expect(row.losses).toEqual([iso(NOW)]);
    expect(notes).toEqual(['Lost']);
  });

  const artifacts = ['Kernel', 'Ramdisk', 'Disk'].map((role) => ({ role, id: role === 'Disk' ? 'id-nova' : role }));

  it.each([
    [['Kernel'], [{ imageID: 'id-nova', artifacts: [artifacts[1], artifacts[2]] }]],
    [['Kernel', 'id-nova'], [{ imageID: 'Ramdisk', artifacts: [artifacts[1]] }]],
    [['Kernel', 'Ramdisk', 'id-nova'], []],
  ])('in parts (%j) has the others named on, in the last place: nobody else would remove them', (gone, left) => {
    const previous = [{ imageID: 'old', artifacts: [], retiredAt: iso(NOW) }];
    const { row } = judge({ row: { ...MISSING, artifacts, previous }, look: { gone }, census: [] });
    expect(row.imageID).toBeUndefined();
    expect(row.artifacts).toBeUndefined();
    expect(row.previous).toEqual([...previous, ...left]);
  });

  it('in parts, whose bytes do not come again, is removed as a whole when it is deleted', async () => {
    const bench = new Workbench();
    const cloud = new ScriptedCloud();
    bench.site('nova', cloud);
    cloud.add({ id: 'id-nova' });
    cloud.look = async () => ({ gone: ['Kernel'], changed: [] });
    const image = vmimage({ spec: { source: { metafile: { url: 'https://origin.example.org/image.xml' } } } });
    const registrationHash = registrationHashOf(registrationOf(image, undefined));
    const row = servingRow('nova', { artifacts, registrationHash });
    const failure = new Failure('NotFound', '404');
    const wanted: Wanted = { ...wantedAs(row), content: async () => ({ step: 'Failed', failure, stalled: true }) };
    let now = bench.add({ ...image, status: { ...image.status, sites: [row] } });
    for (let n = 0; n < 5; n++) {
      bench.clock.advance(HOUR_MS);
      const round = bench.round(now);
      await serve(bench.work(round), wanted);
      now = await bench.conclude(round);
    }
    expect(now.status.sites).toMatchObject([{ reason: 'NotFound' }]);
    expect(now.status.sites?.[0]?.imageID).toBeUndefined();
    now = bench.add({ ...now, metadata: { ...now.metadata, deletionTimestamp: iso(NOW) } });
    for (let n = 0; n < 3; n++) {
      const round = bench.round(now);
      finish(round);
      now = await bench.conclude(round);
    }
    expect(now.status.sites).toEqual([]);
    expect(cloud.visible).toEqual([]);
  });

  it('is registered again where it was the only one of the site', () => {
    expect(judge({ row: MISSING, look: { gone: ['id-nova'] }, census: [] }).row.imageID).toBeUndefined();
  });
});

describe('the loss of many at once', () => {
  const lost = (gone: number, of: number, more: Scene = {}) => {
    const others = Array.from({ length: of - 1 }, (_, index) => `id-${index}`);
    return judge({ row: MISSING, look: { gone: ['id-nova'] }, others, census: others.slice(gone - 1), ...more });
  };

  test.each<[number, number, string]>([
    [1, 1, 'lost'],
    [1, 2, 'lost'],
    [2, 2, 'MassLoss'],
    [3, 3, 'MassLoss'],
    [3, 4, 'lost'],
    [3, 60, 'lost'],
    [4, 60, 'MassLoss'],
    [4, 79, 'MassLoss'],
    [4, 80, 'lost'],
    [5, 100, 'lost'],
    [6, 100, 'MassLoss'],
    [100, 100, 'MassLoss'],
  ])('%i of %i gone is %s', (gone, of, verdict) => {
    const { goesOn, row, notes } = lost(gone, of);
    if (verdict === 'lost') {
      expect(row.imageID).toBeUndefined();
      expect(notes).toEqual(['Lost']);
      return;
    }
    expect(goesOn).toBe(false);
    expect(row).toMatchObject({ phase: 'Missing', reason: 'MassLoss', imageID: 'id-nova' });
    expect(row.message).toContain(`${gone} of ${of} images are gone from nova`);
    expect(row.message).toContain(`imageproxy.dev/confirm-loss: "${iso(NOW)}"`);
    expect(notes).toEqual([]);
  });

  it('is taken for what it is once a person has looked after it was noticed', () => {
    const confirm = (at: number) => ({ annotations: { 'imageproxy.dev/confirm-loss': iso(at) } });
    expect(lost(9, 10, confirm(NOW)).row.imageID).toBeUndefined();
    // The word on an earlier loss is none on this one.
    expect(lost(9, 10, confirm(NOW - DAY_MS)).row).toMatchObject({ reason: 'MassLoss' });
    expect(lost(9, 10, { annotations: { 'imageproxy.dev/confirm-loss': 'yes' } }).row.reason).toBe('MassLoss');
  });

  it('that a clock has dated that was a year ahead is taken for what it is once a person has looked', () => {
    const ahead = { ...MISSING, missingSince: iso(NOW + 365 * DAY_MS) };
    const first = lost(9, 10, { row: ahead });
    expect(first.row).toMatchObject({ reason: 'MassLoss', missingSince: iso(NOW) });
    const word = /confirm-loss: "([^"]+)"/.exec(first.row.message ?? '')?.[1] ?? '';
    const annotations = { 'imageproxy.dev/confirm-loss': word };
    expect(lost(9, 10, { row: first.row, annotations }).row.imageID).toBeUndefined();
  });

  it('is looked at again, in case the cloud comes back', () => {
    expect(lost(9, 10).round.lookAgainAt).toBeGreaterThan(NOW);
  });
});

describe('an image that somebody removes again and again', () => {
  const gone: Scene = { look: { gone: ['id-nova'] }, census: ['id-1'], others: ['id-1'] };
  const losses = (...hoursAgo: number[]) => hoursAgo.map((hours) => iso(NOW - hours * 3_600_000));

  it('is made three times in a day, then not before the first of them is a day ago', () => {
    const third = judge({ ...gone, row: { ...MISSING, losses: losses(23, 2) } });
    expect(third.row.imageID).toBeUndefined();
    expect(third.row.losses).toHaveLength(3);
    const fourth = judge({ ...gone, row: { ...MISSING, losses: losses(23, 2, 1) } });
    expect(fourth.goesOn).toBe(false);
    expect(fourth.row).toMatchObject({ phase: 'Missing', reason: 'LossLimit', imageID: 'id-nova' });
    expect(fourth.row.message).toContain('for the 4th time in a day');
    expect(fourth.round.lookAgainAt).toBe(NOW + 3_600_000);
  });

  it('has the losses of other days forgotten', () => {
    const { row } = judge({ ...gone, row: { ...MISSING, losses: losses(30, 25, 24.5, 1) } });
    expect(row.imageID).toBeUndefined();
    expect(row.losses).toHaveLength(2);
  });

  it('has losses forgotten that a clock has dated that was ahead', () => {
    const { row } = judge({ ...gone, row: { ...MISSING, losses: losses(-48, -47, -46) } });
    expect(row.imageID).toBeUndefined();
    expect(row.losses).toEqual(losses(0));
  });

  it('is made again when a person asks for it who has read that it was not', () => {
    const bench = new Workbench();
    bench.site('nova', new ScriptedCloud());
    const row = servingRow('nova', { ...MISSING, reason: 'LossLimit', losses: losses(3, 2, 1) });
    const round = bench.round(bench.add(vmimage({}, { sites: [row] })), 'now');
    const work = bench.work(round);
    expect(holds(round, work.row, 'inputs')).toBe(false);
    expect(work.row.losses).toBeUndefined();
  });

  it('is not made again because somebody asked before it was lost', () => {
    const bench = new Workbench();
    bench.site('nova', new ScriptedCloud());
    const round = bench.round(
      bench.add(vmimage({}, { sites: [servingRow('nova', { losses: losses(3, 2, 1) })] })),
      'now',
    );
    const work = bench.work(round);
    holds(round, work.row, 'inputs');
    expect(work.row.losses).toHaveLength(3);
  });
});

describe('what the people of the cloud did', () => {
  test.each([
    ['Deactivated', 'deactivated'],
    ['Hidden', 'hidden'],
  ] as const)('is not undone: %s', (held, word) => {
    const { goesOn, row, round } = judge({ look: { held } });
    expect(goesOn).toBe(true);
    expect(row).toMatchObject({ phase: 'Held', reason: 'HeldByCloud', imageID: 'id-nova' });
    expect(row.message).toBe(`somebody at nova has ${word} id-nova; ask the cloud's operator, who alone can undo it`);
    expect(round.starts).toEqual([]);
  });

  it('to our properties is put right', () => {
    const look = { changed: ['name', 'properties.os_type'] };
    const { goesOn, row, round, notes } = judge({ row: { registrationHash: 'as it was' }, look });
    expect(goesOn).toBe(false);
    expect(row.operation).toMatchObject({ kind: 'Update' });
    expect(round.starts).toHaveLength(1);
    expect(notes).toEqual(['Drifted']);
  });

  it('to our properties is told alone, where the site says so', () => {
    const { goesOn, row, round } = judge({
      look: { changed: ['name'] },
      site: { drift: { interval: '30m', policy: 'Report' } },
    });
    expect(goesOn).toBe(true);
    expect(row).toMatchObject({ phase: 'Ready', reason: 'Drifted' });
    expect(row.message).toContain('name');
    expect(round.starts).toEqual([]);
  });

  it('to its bytes is an alarm: it is neither repaired nor replaced, and looked at again', () => {
    const { goesOn, row, round } = judge({ look: { tampered: 'its sha512 is 00, ours ff', changed: ['name'] } });
    expect(goesOn).toBe(false);
    expect(row).toMatchObject({ phase: 'Failed', reason: 'Tampered', imageID: 'id-nova' });
    expect(row.message).toContain('id-nova at nova is not what was registered: its sha512 is 00, ours ff');
    expect(round.starts).toEqual([]);
    expect(round.lookAgainAt).toBeGreaterThan(NOW);
  });
});
