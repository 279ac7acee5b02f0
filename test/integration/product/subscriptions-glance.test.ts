import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ImageSubscription } from '../../../src/api/types.ts';
import { type Disk, qcow2 } from '../../support/disks.ts';
import {
  hepixList,
  inDays,
  type ListAuthority,
  type ListedImage,
  type ListOptions,
  type ListSigner,
  makeListAuthority,
} from '../../support/hepix.ts';
import { condition, House, isTrue, openstackSite } from '../../support/house.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

interface GlanceImage {
  name: string;
  status: string;
  os_hidden: boolean;
  os_hash_value: string;
  [property: string]: unknown;
}

/** The life of a signed list, from its first version to one that a stranger has signed, in a real Glance. */
describe.skipIf(!openstackAvailable())('a signed list and a real Glance', () => {
  let openstack: OpenStack;
  let origin: Origin;
  let house: House;
  let authority: ListAuthority;
  let alice: ListSigner;
  const listId = randomUUID();
  const [stays, changes, goes, comes, expires] = Array.from({ length: 5 }, () => randomUUID()) as [
    string,
    string,
    string,
    string,
    string,
  ];
  const disks = new Map<string, Disk>();

  beforeAll(async () => {
    [openstack, origin] = await Promise.all([startOpenStack(), startOrigin()]);
    authority = makeListAuthority();
    alice = authority.signer('alice');
    house = new House();
    await house.write('site.yaml', ...openstackSite('nova', await openstack.clouds('demo'), 'demo'));
    await house.write('list.yaml', {
      kind: 'ConfigMap',
      metadata: { name: 'ca', namespace: 'default' },
      data: { 'ca.crt': authority.ca },
    });
    await house.start();
  });

  afterAll(async () => {
    await house?.close();
    authority?.close();
    await Promise.all([openstack?.stop(), origin?.close()]);
  });

  function listed(id: string, label: string, more: Record<string, unknown> = {}): ListedImage {
    const disk = disks.get(label) ?? qcow2(label);
    disks.set(label, disk);
    origin.route(`/${label}`, { body: disk.bytes });
    const named = { 'ad:mpuri': `https://appdb.example.org/${label}`, ...more };
    return { id, title: `Image ${label}`, url: `${origin.url}/${label}`, bytes: disk.bytes, more: named };
  }

  function publish(version: string, images: readonly ListedImage[], by = alice, more: Partial<ListOptions> = {}): void {
    const json = hepixList({ id: listId, version, images, endorser: by, ...more });
    origin.route('/image.list', { body: by.sign(json) });
  }

  const nameOf = (id: string) => `egi-${id}`;
  const idOf = (id: string) => house.row(nameOf(id), 'nova')?.imageID;
  const glance = async (id: string | undefined) =>
    (await openstack.image('demo', 'GET', `/images/${id}`)).body as GlanceImage;
  const lookAgain = async (wanted: (each: ImageSubscription) => boolean) => {
    const at = randomUUID();
    const key = { namespace: 'default', name: 'egi' };
    await house.store.annotate('ImageSubscription', key, { 'imageproxy.dev/requestedAt': at });
    return house.untilSubscription('egi', (each) => each.status.lastHandledReconcileAt === at && wanted(each));
  };

  test('its images arrive, and EGI knows them by their properties', async () => {
    publish('20260101', [listed(stays, 'stays'), listed(changes, 'old'), listed(goes, 'goes')]);
    await house.write('sub.yaml', {
      kind: 'ImageSubscription',
      metadata: { name: 'egi' },
      spec: {
        url: `${origin.url}/image.list`,
        format: 'HEPiX',
        trust: {
          x509: {
            endorsers: [{ subject: alice.subject, issuer: alice.issuer }],
            caRef: { kind: 'ConfigMap', name: 'ca' },
          },
        },
        template: { spec: { sites: [{ name: 'nova' }], registration: { name: '{title}' } } },
      },
    });
    await Promise.all([stays, changes, goes].map((id) => house.ready(nameOf(id))));
    const there = await glance(idOf(stays));
    expect(there).toMatchObject({
      name: 'Image stays',
      status: 'active',
      os_hash_value: disks.get('stays')?.sha512,
      architecture: 'x86_64',
      vmcatcher_event_ad_mpuri: 'https://appdb.example.org/stays',
      vmcatcher_event_dc_identifier: stays,
      imageproxy_guid: stays,
    });
    expect(JSON.parse(String(there['APPLIANCE_ATTRIBUTES']))).toMatchObject({
      'ad:mpuri': 'https://appdb.example.org/stays',
    });
  });

  test('a new version: one replaced, one added, one gone, one past its date; ids change only after the new image is there', async () => {
    const [kept, old, gone] = [idOf(stays), idOf(changes), idOf(goes)];
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    const past = { 'dc:date:expires': inDays(-1) };
    const next = [
      listed(stays, 'stays'),
      listed(changes, 'new'),
      listed(comes, 'comes'),
      listed(expires, 'expires', past),
    ];
    origin.route('/new', { body: (disks.get('new') as Disk).bytes, holdAfter: { bytes: 1000, until: held } });
    publish('20260201', next);
    await lookAgain((each) => each.status.list?.version === '20260201');
    await house.until(nameOf(changes), (image) => image.metadata.generation === 2 && image.status.phase === 'Fetching');
    expect(idOf(changes)).toBe(old);
    expect(await glance(old)).toMatchObject({ status: 'active', os_hidden: false });
    release();
    await house.until(nameOf(changes), (image) => image.status.sites?.[0]?.previous?.[0]?.retiredAt !== undefined);
    expect(await glance(idOf(changes))).toMatchObject({ status: 'active', os_hash_value: disks.get('new')?.sha512 });
    expect(await glance(old)).toMatchObject({ status: 'deactivated', os_hidden: true });
    await house.ready(nameOf(comes));
    await house.until(nameOf(goes), (image) => image.status.phase === 'Deactivated');
    expect(await glance(gone)).toMatchObject({ status: 'deactivated', os_hidden: true });
    expect(idOf(stays)).toBe(kept);
    expect(house.image(nameOf(expires))).toBeUndefined();
  });

  test('an older, a tampered, an expired and a differently signed list change nothing but the conditions', async () => {
    await house.untilSubscription('egi', (each) => isTrue(each, 'ImagesReady'));
    const versions = () =>
      [stays, changes, goes, comes].map((id) => {
        const { metadata, spec, status } = house.image(nameOf(id)) ?? {};
        return JSON.stringify([
          metadata?.generation,
          metadata?.annotations,
          spec,
          status?.sites?.map(({ imageID }) => imageID),
        ]);
      });
    const before = versions();
    const bob = authority.signer('bob');
    const cases: Record<string, () => void> = {
      ListRollback: () => publish('20260101', []),
      ListExpired: () => publish('20260301', [], alice, { created: inDays(-60), expires: inDays(-30) }),
      EndorserNotTrusted: () => publish('20260301', [], bob),
      SignatureInvalid: () => {
        const text = alice
          .sign(hepixList({ id: listId, version: '20260301', images: [], endorser: alice }))
          .toString('latin1');
        origin.route('/image.list', { body: Buffer.from(text.replace('Test list', 'Best list'), 'latin1') });
      },
    };
    for (const [reason, serve] of Object.entries(cases)) {
      serve();
      const refused = await lookAgain((each) => condition(each, 'Ready')?.reason === reason);
      expectKstatus(refused);
      expect(refused.status.list?.version).toBe('20260201');
      expect(versions(), reason).toEqual(before);
      expect(await glance(idOf(stays))).toMatchObject({ status: 'active' });
    }
  });
});
