import { describe, expect, it, test } from 'vitest';
import type { SiteRow } from '../../../src/api/types.ts';
import { endHolds, howToConfirm } from '../../../src/reconcilers/vmimage/held.ts';
import { targetsOf } from '../../../src/reconcilers/vmimage/targets.ts';
import { servingRow, vmimage } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
import { Workbench } from './workbench.ts';

const SINCE = '2026-11-21T10:00:00Z';

function scene(row: Partial<SiteRow> = {}) {
  const bench = new Workbench();
  const site = bench.site('nova', new ScriptedCloud());
  const image = bench.add(vmimage({}, { sites: [servingRow('nova', { heldSince: SINCE, ...row })] }));
  /** Since when the image is held after the beginning of a round. */
  const after = (asked = image) => {
    const round = bench.round(image);
    endHolds(round, targetsOf(asked, bench.deps.store));
    return round.status.sites[0]?.heldSince;
  };
  return { bench, site, image, after };
}

describe('what is held at a site', () => {
  it('is held no more as soon as it belongs there again', () => {
    expect(scene().after()).toBeUndefined();
  });

  it('is held no more though the site cannot be reached just then: what was confirmed must not outlast it', () => {
    const { bench, after } = scene({ reason: 'ConfirmationRequired' });
    bench.connections.delete('nova');
    expect(after()).toBeUndefined();
  });

  test.each<[string, (each: ReturnType<typeof scene>) => string | undefined]>([
    ['is asked for elsewhere', ({ after }) => after(vmimage({ spec: { sites: [{ name: 'east', optional: false }] } }))],
    [
      'is not admitted',
      ({ site, after }) => {
        site.spec.allowedNamespaces = ['other'];
        return after();
      },
    ],
  ])('stays so while the image %s', (_, after) => {
    expect(after(scene())).toBe(SINCE);
  });

  it('stays so while the site is another place, and while that is not known yet after a start', () => {
    const elsewhere = scene({ reason: 'IdentityChanged', siteIdentity: 'another' });
    expect(elsewhere.after()).toBe(SINCE);
    elsewhere.bench.connections.delete('nova');
    expect(elsewhere.after()).toBe(SINCE);
  });

  it('remembers that its site was named already when it was first held, until that word is taken away', () => {
    const bench = new Workbench();
    bench.site('nova', new ScriptedCloud());
    const named = { metadata: { annotations: { 'imageproxy.dev/confirm-removal': 'nova' } } };
    const image = vmimage(named, { sites: [servingRow('nova')] });
    const round = bench.round(image);
    const [row] = round.status.sites;
    if (row === undefined) throw new Error('no row');
    howToConfirm(round, row);
    expect([row.heldSince, row.heldDespiteWord]).toEqual([expect.any(String), true]);
    const elsewhere = targetsOf(vmimage({ spec: { sites: [{ name: 'east', optional: false }] } }), bench.deps.store);
    endHolds(round, elsewhere);
    expect(row.heldDespiteWord).toBe(true);
    const later = bench.round(vmimage({}, { sites: [row] }));
    endHolds(later, elsewhere);
    expect(later.status.sites[0]).toMatchObject({ heldSince: row.heldSince });
    expect(later.status.sites[0]?.heldDespiteWord).toBeUndefined();
  });

  it('is confirmed by its site and the time since which it is held, which stays the same', () => {
    const { bench, image } = scene();
    const round = bench.round(image);
    const [row] = round.status.sites;
    const words = row === undefined ? [] : [howToConfirm(round, row), howToConfirm(round, row)];
    const expected = `annotate this VMImage with imageproxy.dev/confirm-removal: nova@${SINCE} (imageproxy confirm-removal)`;
    expect(words).toEqual([expected, expected]);
  });
});
