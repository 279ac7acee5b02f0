import { describe, expect, it } from 'vitest';
import type { ImageSite, SiteRow } from '../../../src/api/types.ts';
import type { Connection } from '../../../src/reconcilers/imagesite/connections.ts';
import { holds } from '../../../src/reconcilers/vmimage/rows.ts';
import { registrationOf } from '../../../src/reconcilers/vmimage/targets.ts';
import { openWork } from '../../../src/reconcilers/vmimage/work.ts';
import { servingRow, vmimage } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

/** A row and its site, of which the last probe said this; `open`: this process has probed it since it runs. */
class Scene {
  readonly bench = new Workbench();
  readonly site: ImageSite;
  readonly row: SiteRow;
  /** Whether there is no such ImageSite any more. */
  gone = false;

  constructor(row: SiteRow, { ready, open }: { ready: boolean; open: boolean }) {
    this.row = row;
    this.site = this.bench.site('nova', new ScriptedCloud());
    const [condition] = this.site.status.conditions ?? [];
    if (condition !== undefined && !ready) Object.assign(condition, { status: 'False', message: 'nobody answers' });
    if (!open) this.bench.connections.delete('nova');
  }

  get connection(): Connection {
    const open = this.bench.connections.get('nova');
    if (open === undefined) throw new Error('not open');
    return open;
  }

  look(purpose?: 'Serve' | 'Leave') {
    const image = vmimage({}, { sites: [this.row] });
    const round = this.bench.round(image);
    const row = round.status.sites[0] as SiteRow;
    const site = this.gone ? undefined : this.site;
    const target = { name: 'nova', site, optional: false, registration: registrationOf(image, undefined) };
    const work = openWork(round, target, row, { inputsHash: 'i' }, purpose);
    return { round, row, work };
  }
}

const failed = (more: Partial<SiteRow> = {}): SiteRow => ({
  name: 'nova',
  phase: 'Failed',
  reason: 'FormatNotAccepted',
  message: 'no',
  attempts: 1,
  inputsHash: 'inputs',
  ...more,
});
const waiting = failed({ phase: 'Pending', reason: 'QuotaExceeded', nextAttemptTime: '2026-11-21T13:00:00Z' });
const serving = servingRow('nova');

describe('a row whose site was well, and has not been probed since the start', () => {
  it.each([
    ['serves', serving],
    ['has failed', failed()],
    ['waits for its date', waiting],
  ])('stays as it is: %s', (_, row) => {
    const { work, row: after } = new Scene(row, { ready: true, open: false }).look();
    expect(work).toBeUndefined();
    expect(after).toEqual(row);
  });

  it('tells of no trouble that keeps what is to be removed: the first probe comes at once', () => {
    expect(new Scene(serving, { ready: true, open: false }).look('Leave')).toMatchObject({
      work: undefined,
      row: serving,
    });
    const { row, round } = new Scene(waiting, { ready: true, open: false }).look('Leave');
    expect(row).toEqual({ name: 'nova', phase: 'Pending', reason: 'QuotaExceeded', message: 'no' });
    expect(holds(round, row, 'inputs')).toBe(false);
  });

  it('tells that it keeps what is to be removed when that probe has not ended after a minute', () => {
    const scene = new Scene(serving, { ready: true, open: false });
    const { round } = scene.look('Leave');
    scene.bench.clock.advance((round.lookAgainAt ?? Infinity) - round.now);
    expect(scene.look('Leave')).toMatchObject({ work: undefined, row: { reason: 'SiteNotReady' } });
  });

  it('says so when there is nothing else to say', () => {
    const { work, row } = new Scene({ name: 'nova' }, { ready: true, open: false }).look();
    expect(work).toBeUndefined();
    expect(row).toEqual({
      name: 'nova',
      phase: 'Pending',
      reason: 'SiteNotReady',
      message: 'ImageSite nova is not ready: it has not been looked at yet',
    });
  });
});

describe('a row whose site is not there, or is another', () => {
  it.each(['SiteNotFound', 'IdentityChanged'])('says so (%s), and is tried again when that is over', (reason) => {
    const before = failed({ imageID: 'id', siteIdentity: 'nova' });
    const scene = new Scene(before, { ready: true, open: true });
    if (reason === 'SiteNotFound') scene.gone = true;
    else scene.bench.connections.set({ ...scene.connection, identity: 'another' });
    const { round, row, work } = scene.look();
    expect(work).toBeUndefined();
    expect(row).toMatchObject({ phase: 'Pending', reason });
    expect(holds(round, row, 'inputs')).toBe(false);
  });

  it('goes on telling that its image was altered', () => {
    const altered = { ...serving, phase: 'Failed', reason: 'Tampered', message: 'another hash' };
    const scene = new Scene(altered, { ready: true, open: true });
    scene.gone = true;
    expect(scene.look().row).toEqual(altered);
  });
});

describe('a row whose site is in trouble', () => {
  const trouble = { ready: false, open: false };

  it('says what the site says; what serves stays in its phase', () => {
    expect(new Scene(serving, trouble).look().row).toEqual({
      ...serving,
      reason: 'SiteNotReady',
      message: 'ImageSite nova is not ready: nobody answers',
    });
  });

  it('is tried again when that is over, and not only at its date', () => {
    const { round, row } = new Scene(waiting, trouble).look();
    expect(row).toMatchObject({ phase: 'Pending', reason: 'SiteNotReady' });
    expect(holds(round, row, 'inputs')).toBe(false);
  });

  it('goes on telling what only a change can mend: nobody would tell it again when the site is well', () => {
    const { round, row } = new Scene(failed(), trouble).look();
    expect(row).toEqual(failed());
    expect(holds(round, row, 'inputs')).toBe(true);
  });

  it('tells the site when it is to be left, whatever has failed there before: that is in the way', () => {
    expect(new Scene(failed(), trouble).look('Leave').row).toMatchObject({ reason: 'SiteNotReady' });
  });

  it('is stalled no more by what was the trouble of the site', () => {
    const { round, row } = new Scene(failed({ reason: 'Forbidden' }), trouble).look();
    expect(row).toMatchObject({ phase: 'Pending', reason: 'SiteNotReady' });
    expect(holds(round, row, 'inputs')).toBe(false);
  });

  it('only waits, though it serves an image and had failed: nothing has to be done about it', () => {
    const { row } = new Scene(failed({ reason: 'Forbidden', imageID: 'id' }), trouble).look();
    expect(row).toMatchObject({ phase: 'Pending', reason: 'SiteNotReady', imageID: 'id' });
  });

  it.each<[string, Partial<SiteRow>]>([
    ['altered', { phase: 'Failed', reason: 'Tampered', message: 'another hash' }],
    ['changed, which is only reported', { reason: 'Drifted', message: 'name' }],
    ['held', { phase: 'Held', reason: 'HeldByCloud', message: 'hidden' }],
    [
      'gone, and may be registered again',
      { phase: 'Missing', reason: 'LossAccepted', missingSince: '2026-11-21T11:00:00Z' },
    ],
  ])('goes on telling what was found there (%s), and is looked at as soon as that is over', (_, found) => {
    const retried = { attempts: 2, nextAttemptTime: '2026-11-21T13:00:00Z', inputsHash: 'inputs' };
    const { round, row } = new Scene({ ...serving, ...found, ...retried }, trouble).look();
    expect(row).toEqual({ ...serving, ...found });
    expect(holds(round, row, 'inputs')).toBe(false);
  });

  it('tells that it is in the way of leaving what was altered', () => {
    const row = { ...serving, phase: 'Failed', reason: 'Tampered' };
    expect(new Scene(row, trouble).look('Leave').row).toMatchObject({ phase: 'Pending', reason: 'SiteNotReady' });
  });
});
