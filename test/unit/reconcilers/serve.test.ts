import { describe, expect, it, test } from 'vitest';
import type { SiteRow, VMImage } from '../../../src/api/types.ts';
import type { Look } from '../../../src/clouds/cloud.ts';
import { finish } from '../../../src/reconcilers/vmimage/leave.ts';
import { judgeLook } from '../../../src/reconcilers/vmimage/losses.ts';
import { registrationHashOf } from '../../../src/reconcilers/vmimage/operations.ts';
import { serve } from '../../../src/reconcilers/vmimage/serve.ts';
import { registrationOf } from '../../../src/reconcilers/vmimage/targets.ts';
import { servingRow, vmimage, wantedAs } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
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
    judgeLook(work, { kind: 'Check', look: { gone: [], changed: [], ...found }, census: undefined, asked: false });
    expect(work.row.reason).toBe(reason);
    await serve(work, wantedAs(work.row));
    expect(work.row.reason).toBe(reason);
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
