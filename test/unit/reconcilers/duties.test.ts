import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type { SiteRow, VMImage } from '../../../src/api/types.ts';
import { ALONE, type Duties, divided, sharedDuties } from '../../../src/reconcilers/duties.ts';
import { Claims } from '../../../src/reconcilers/imagesite/claims.ts';
import { Looks } from '../../../src/reconcilers/vmimage/looks.ts';
import { isHeldByNothing, isOthersAlone, othersHoldup, rowsInView } from '../../../src/reconcilers/vmimage/others.ts';
import { beginRound, isAskedOf, remember, tellHandled } from '../../../src/reconcilers/vmimage/round.ts';
import { holds } from '../../../src/reconcilers/vmimage/rows.ts';
import type { Facts } from '../../../src/reconcilers/vmimage/summary.ts';
import { summarize } from '../../../src/reconcilers/vmimage/summary.ts';
import { targetsOf } from '../../../src/reconcilers/vmimage/targets.ts';
import { imagesite, servingRow, T0, vmimage } from './objects.ts';
import { Workbench } from './workbench.ts';

const SITES = ['east', 'west', 'north'];

describe('one of several controllers on an API server', () => {
  let bench: Workbench;
  let summarizes: boolean;

  beforeEach(() => {
    bench = new Workbench();
    summarizes = false;
    for (const name of SITES) bench.sites.set(name, imagesite({ metadata: { name, labels: { region: name } } }));
    bench.deps.duties = dutiesOf('east');
  });
  const dutiesOf = (region: string): Duties => sharedDuties(bench.deps.store, claimsOf(region), () => summarizes);
  const claimsOf = (region: string): Claims =>
    new Claims({
      name: region,
      matches: (labels) => labels['region'] === region,
      patienceMs: 30_000,
      clock: bench.clock,
    });
  const wanted = (status?: Partial<VMImage['status']>, name = 'ubuntu') =>
    bench.add(
      vmimage(
        {
          metadata: { name, uid: `uid-${name}` },
          spec: { sites: SITES.map((site) => ({ name: site, optional: false })) },
        },
        status,
      ),
    );
  const facts = (image: VMImage, more: Partial<Facts> = {}): Facts => ({
    image,
    guid: 'guid',
    rows: [],
    required: SITES,
    optional: [],
    fetched: false,
    disposition: 'Serve',
    ...more,
  });

  it('works on its own rows alone, and leaves those of others as they are', () => {
    const rows = [servingRow('east'), servingRow('west')];
    const round = bench.round(wanted({ sites: rows }));
    expect(round.status.sites).toEqual([rows[0]]);
    expect(round.others).toEqual([rows[1]]);
  });

  it('has nothing to do with an image of which no site is its own, unless it summarizes', () => {
    const image = bench.add(vmimage({ spec: { sites: [{ name: 'west', optional: false }] } }));
    const alone = () => isOthersAlone(bench.round(image), targetsOf(image, bench.deps.store));
    expect(alone()).toBe(true);
    summarizes = true;
    expect(alone()).toBe(false);
  });

  it('names a site that has no row: nobody has looked at it', () => {
    const image = wanted({ sites: [servingRow('east'), servingRow('west')] });
    const round = bench.round(image);
    const rows = rowsInView(round, facts(image));
    expect(rows.find(({ name }) => name === 'north')).toMatchObject({
      phase: 'Pending',
      reason: 'NoControllerForSite',
    });
    const status = { ...round.status };
    summarize(facts(image, { rows }), status, T0);
    expect(status.summary?.sites).toBe('2/3');
    expect(status.conditions?.find(({ type }) => type === 'Ready')).toMatchObject({
      status: 'False',
      reason: 'NoControllerForSite',
      message: expect.stringContaining('ImageSite north'),
    });
    // What is never written is not among the rows that are.
    expect(round.status.sites.map(({ name }) => name)).toEqual(['east']);
  });

  it('does not take an image for deactivated that has a site at which nobody has looked', () => {
    const image = wanted({ sites: [servingRow('east'), servingRow('west')] });
    const rows = (disposition: Facts['disposition']) =>
      rowsInView(bench.round(image), facts(image, { disposition })).map(({ name }) => name);
    expect(rows('Deactivated')).toEqual(['east', 'west', 'north']);
    expect(rows('Deleting')).toEqual(['east', 'west']);
  });

  it('says of a site that serves an older generation that its controller has not come to the new one', () => {
    const image = { ...wanted({ sites: [servingRow('west', { observedGeneration: 1 })] }) };
    const round = bench.round({ ...image, metadata: { ...image.metadata, generation: 2 } });
    const seen = rowsInView({ ...round, generation: 2 }, facts(image)).find(({ name }) => name === 'west');
    expect(seen).toMatchObject({
      phase: 'Pending',
      imageID: expect.any(String),
      message: expect.stringContaining('2'),
    });
  });

  it('leaves a missing and an abandoned site to the one that summarizes', () => {
    bench.sites.set(
      'gone',
      imagesite({ metadata: { name: 'gone', labels: { region: 'east' } }, spec: { abandoned: true } }),
    );
    const { duties } = bench.deps;
    expect(['east', 'west', 'gone', 'missing'].map((name) => duties.serves(name))).toEqual([true, false, false, false]);
    summarizes = true;
    expect(['east', 'west', 'gone', 'missing'].map((name) => duties.serves(name))).toEqual([true, false, true, true]);
  });

  describe('asked for another look', () => {
    const EAST_AND_WEST = [servingRow('east'), servingRow('west')];
    const marks = ({ status }: VMImage) => status.sites?.map((row) => row.lastHandledReconcileAt);
    /** Another process, or the same one started anew. */
    const begin = (region: string): void => {
      bench.deps.duties = dutiesOf(region);
      bench.deps.looks = new Looks(bench.clock.now());
      summarizes = region === 'east';
    };
    /** What stands in the store after a round of the controller: its own rows, and the rest if it summarizes. */
    const look = (image: VMImage, ended: boolean): { image: VMImage; asked: boolean } => {
      const round = beginRound(image, 'now', bench.deps);
      round.unanswered = !ended;
      tellHandled(round);
      remember(round);
      const sites = [...round.status.sites, ...round.others].toSorted((a, b) => a.name.localeCompare(b.name));
      const status = { ...(summarizes ? round.status : image.status), sites };
      return { image: { ...image, status }, asked: round.asked };
    };

    it('says so in its own rows; for all it is handled when every row says it', () => {
      begin('east');
      const east = look(wanted({ sites: EAST_AND_WEST }), true);
      expect(marks(east.image)).toEqual(['now', undefined]);
      expect(east.image.status.lastHandledReconcileAt).toBeUndefined();
      begin('west');
      const west = look(east.image, true);
      expect(marks(west.image)).toEqual(['now', 'now']);
      begin('east');
      expect(look(west.image, true)).toMatchObject({
        asked: false,
        image: { status: { lastHandledReconcileAt: 'now' } },
      });
    });

    it('hears it though it was started anew in that moment, and the others are done', () => {
      const [east, west] = EAST_AND_WEST as [SiteRow, SiteRow];
      const sites = [{ ...east, lastHandledReconcileAt: 'now' }, west];
      begin('west');
      const first = look(wanted({ sites, lastHandledReconcileAt: 'before' }), false);
      expect(first.asked).toBe(true);
      expect(marks(first.image)).toEqual(['now', undefined]);
      // The look had not ended when the process did.
      begin('west');
      expect(look(first.image, true).asked).toBe(true);
    });

    it('does not end for all before the look of the one that summarizes has ended', () => {
      const [east, west] = EAST_AND_WEST as [SiteRow, SiteRow];
      begin('east');
      const image = wanted({ sites: [east, { ...west, lastHandledReconcileAt: 'now' }] });
      expect(look(image, false).image.status.lastHandledReconcileAt).toBeUndefined();
      expect(look(image, true).image.status.lastHandledReconcileAt).toBe('now');
    });

    it.each([
      ['a controller that was alone', undefined],
      ['a hub that was one controller for a while', 'before'],
    ])('takes what was handled before for no new request: by %s', (_, mark) => {
      begin('east');
      const sites = EAST_AND_WEST.map((row) => (mark === undefined ? row : { ...row, lastHandledReconcileAt: mark }));
      const standing = wanted({ sites, lastHandledReconcileAt: 'now' });
      const { asked, image } = look(standing, true);
      expect(asked).toBe(false);
      expect(bench.deps.looks.asked('default/ubuntu', 'east')).toBeUndefined();
      // Nor is that a write for each image.
      expect(image.status).toEqual(standing.status);
    });

    it('asks nothing of a row that is done with when a site comes that is not', () => {
      for (const name of ['mine', 'theirs'])
        bench.sites.set(name, imagesite({ metadata: { name, labels: { region: 'east' } } }));
      begin('east');
      const lost = { phase: 'Missing', reason: 'Lost', missingSince: '2026-01-01T00:00:00Z' };
      const sites = [
        servingRow('mine', { ...lost, lastHandledReconcileAt: 'now' }),
        servingRow('theirs', { ...lost, lastHandledReconcileAt: 'before' }),
      ];
      const round = beginRound(wanted({ sites, lastHandledReconcileAt: 'before' }), 'now', bench.deps);
      expect(round.status.sites.filter((row) => isAskedOf(round, row)).map(({ name }) => name)).toEqual(['theirs']);
      for (const row of round.status.sites) holds(round, row, 'inputs');
      expect(round.status.sites.map(({ reason }) => reason)).toEqual(['Lost', 'LossAccepted']);
      expect(['mine', 'theirs'].map((site) => bench.deps.looks.asked('default/ubuntu', site))).toEqual([
        undefined,
        'now',
      ]);
    });

    it('alone, writes nothing of it into its rows', () => {
      bench.deps.duties = ALONE;
      summarizes = true;
      const { image } = look(wanted({ sites: EAST_AND_WEST }), true);
      expect(marks(image)).toEqual([undefined, undefined]);
      expect(image.status.lastHandledReconcileAt).toBe('now');
    });
  });

  it('remembers its own failure where the top of the status is another’s', () => {
    const theirs = { class: 'Transient', reason: 'Timeout', message: 'theirs', inputsHash: 'x', attempts: 1 };
    const image = wanted({ failure: theirs });
    const first = beginRound(image, 'now', bench.deps);
    // The first look takes over what stands there.
    expect(first.status.failure).toEqual(theirs);
    first.status.failure = { ...theirs, message: 'ours' };
    remember(first);
    const second = beginRound(image, 'now', bench.deps);
    expect(second.status.failure?.message).toBe('ours');
    delete second.status.failure;
    remember(second);
    expect(beginRound(image, 'now', bench.deps).status.failure).toBeUndefined();
    // Another object of the same name is another matter.
    const other = { ...image, metadata: { ...image.metadata, uid: 'other' } };
    expect(beginRound(other, undefined, bench.deps).status.failure).toEqual(theirs);
  });

  it('holds a deletion for what others hold, and names it with its id', () => {
    const image = wanted({ sites: [servingRow('west', { imageID: 'id-west' }), { name: 'north', phase: 'Pending' }] });
    expect(isHeldByNothing(image)).toBe(false);
    expect(othersHoldup(bench.round(image))).toMatch(/controllers of west \(id-west\)\. Ways out: .*abandoned/);
    expect(isHeldByNothing(wanted({ sites: [{ name: 'north', phase: 'Pending' }] }, 'empty'))).toBe(true);
  });

  it('each row has exactly one writer, whatever the labels are and whoever summarizes', () => {
    const site = fc.record({
      name: fc.constantFrom(...SITES, 'other'),
      region: fc.constantFrom(...SITES),
      abandoned: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.uniqueArray(site, { selector: ({ name }) => name }),
        fc.constantFrom(...SITES),
        (sites, holder) => {
          bench.sites.clear();
          for (const { name, region, abandoned } of sites) {
            bench.sites.set(name, imagesite({ metadata: { name, labels: { region } }, spec: { abandoned } }));
          }
          const all = SITES.map((region) => sharedDuties(bench.deps.store, claimsOf(region), () => region === holder));
          const rows: SiteRow[] = [...SITES, 'other', 'missing'].map((name) => ({ name }));
          for (const row of rows) expect(all.filter((duties) => duties.serves(row.name))).toHaveLength(1);
          for (const duties of all) {
            const { ours, others } = divided(rows, duties);
            expect(new Set([...ours, ...others])).toEqual(new Set(rows));
          }
        },
      ),
    );
  });
});
