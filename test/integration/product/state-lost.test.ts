import { readdirSync, readFileSync, rmSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { registrationId } from '../../../src/reconcilers/vmimage/identity.ts';
import { qcow2 } from '../../support/disks.ts';
import { directorySite, House, openstackSite, vmimage } from '../../support/house.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

/** The state is lost (a cluster is built anew, a disk is gone), the manifests and the clouds are not: what the clouds hold is still ours. */

const INSTANCE = 'kept-across-rebuilds';

async function losesItsState(house: House): Promise<void> {
  await house.stop();
  rmSync(house.state, { recursive: true });
}

let origin: Origin;
let house: House;

const disk = qcow2('state-lost');
const spec = (more: Record<string, unknown> = {}) => ({
  source: { http: { urls: [`${origin.url}/disk.qcow2`] } },
  checksums: { sha256: disk.sha256 },
  sites: [{ name: 'shelf' }],
  ...more,
});

beforeEach(async () => {
  origin = await startOrigin();
  origin.route('/disk.qcow2', { body: disk.bytes, etag: '"1"' });
  house = new House({ instance: INSTANCE });
});

afterEach(async () => {
  await house.close();
  await origin.close();
});

describe('at a directory site', () => {
  const visible = () => readdirSync(house.shelf).filter((name) => !name.startsWith('.') && name !== 'index.json');
  const retired = () => readdirSync(join(house.shelf, '.retired'));
  const indexed = () =>
    (JSON.parse(readFileSync(join(house.shelf, 'index.json'), 'utf8')) as { images: { id: string }[] }).images.map(
      ({ id }) => id,
    );

  beforeEach(async () => {
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.start();
  });

  test('whose files were copied without their times, an image is found again by its bytes', async () => {
    await house.write('a.yaml', vmimage('a', spec()));
    const before = await house.ready('a');
    await losesItsState(house);
    const id = before.status.sites?.[0]?.imageID;
    utimesSync(join(house.shelf, `${id}.qcow2`), 1, 1);
    await house.start();
    const after = await house.ready('a');
    expect(after.metadata.uid).not.toBe(before.metadata.uid);
    expect(after.status.sites?.[0]?.imageID).toBe(id);
    expect(visible()).toHaveLength(1);
  });

  test('an image that is converted to other bytes each time is registered anew, and the one before is retired', async () => {
    await house.write('shelf.yaml', directorySite('shelf', house.shelf, { acceptedFormats: ['Vmdk'] }));
    await house.write('c.yaml', vmimage('c', spec()));
    const before = (await house.ready('c')).status.sites?.[0]?.imageID;
    await losesItsState(house);
    await house.start();
    const image = await house.until(
      'c',
      ({ status }) => status.phase === 'Ready' && status.sites?.[0]?.previous?.[0]?.retiredAt !== undefined,
      'the one before to be retired',
    );
    const [row] = image.status.sites ?? [];
    expect(row?.imageID).not.toBe(before);
    expect(row?.previous).toMatchObject([{ imageID: before }]);
    expect(indexed()).toEqual([row?.imageID]);
    expect(visible()).toEqual([`${row?.imageID}.vmdk`]);
    expect(retired()).toEqual([`${before}.vmdk`]);
    // It is ours again: it goes with the image.
    await house.remove('c.yaml', 'c');
    expect([...visible(), ...retired()]).toEqual([]);
  });
});

describe('and the manifest says meanwhile that the image is to be out of service', () => {
  const visible = () => readdirSync(house.shelf).filter((name) => !name.startsWith('.') && name !== 'index.json');
  const retired = () => readdirSync(join(house.shelf, '.retired'));

  beforeEach(async () => {
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.start();
  });

  /** What it was registered as, and what it is when the state is lost and the spec is another. */
  async function after(more: Record<string, unknown>): Promise<{ id: string | undefined; image: VMImage }> {
    await house.write('o.yaml', vmimage('o', spec()));
    const id = (await house.ready('o')).status.sites?.[0]?.imageID;
    await losesItsState(house);
    await house.write('o.yaml', vmimage('o', spec(more)));
    await house.start();
    return { id, image: await house.ready('o') };
  }
  const past = '2020-01-01T00:00:00Z';

  test.each<[string, Record<string, unknown>]>([
    ['Deactivated', { state: 'Deactivated' }],
    ['Expired', { expiresAt: past }],
  ])('%s: what serves is found and taken out of service, and it comes back with its id', async (phase, more) => {
    const { id, image } = await after(more);
    expect(image.status.phase).toBe(phase);
    expect(image.status.sites?.[0]?.message).toBe(`out of service here: ${id}`);
    expect([visible(), retired()]).toEqual([[], [`${id}.qcow2`]]);
    await house.write('o.yaml', vmimage('o', spec()));
    const back = await house.until('o', (now) => now.status.phase === 'Ready');
    expect(back.status.sites?.[0]?.imageID).toBe(id);
    expect([visible(), retired()]).toEqual([[`${id}.qcow2`], []]);
  });

  test('Deactivated, and deleted: nothing is left', async () => {
    await after({ state: 'Deactivated' });
    await house.remove('o.yaml', 'o');
    expect([...visible(), ...retired()]).toEqual([]);
  });

  test('Expired with onExpiry Delete: it is found and removed', async () => {
    const { image } = await after({ expiresAt: past, onExpiry: 'Delete' });
    expect(image.status.phase).toBe('Expired');
    expect([...visible(), ...retired()]).toEqual([]);
  });

  test('a deactivated image that inherits a guid takes what it inherits out of service', async () => {
    await house.write('a-old.yaml', vmimage('old', spec({ guid: 'the-guid' })));
    const id = (await house.ready('old')).status.sites?.[0]?.imageID;
    await house.write('young.yaml', vmimage('young', spec({ guid: 'the-guid', state: 'Deactivated' })));
    await house.stalled('young');
    await house.remove('a-old.yaml', 'old');
    const young = await house.ready('young');
    expect(young.status.phase).toBe('Deactivated');
    expect([visible(), retired()]).toEqual([[], [`${id}.qcow2`]]);
  });
});

describe.skipIf(!openstackAvailable()).each(['sha512', 'sha256'])('in a Glance that computes %s', (algorithm) => {
  let openstack: OpenStack;

  beforeAll(async () => {
    openstack = await startOpenStack({ glanceExtra: `hashing_algorithm = ${algorithm}` });
  });
  afterAll(async () => await openstack?.stop());

  const uploads = async () => {
    const lists = await Promise.all(
      ['true', 'false'].map((hidden) => openstack.image('demo', 'GET', `/images?os_hidden=${hidden}`)),
    );
    return lists.flatMap((list) => (list.body as { images: { id: string; status: string }[] }).images);
  };

  test('an image whose first ids were burnt by losses before is registered under another', async () => {
    await house.write('site.yaml', ...openstackSite('nova', await openstack.clouds('demo'), 'demo'));
    for (let attempt = 1; attempt <= 16; attempt++) {
      const id = registrationId({
        instance: INSTANCE,
        namespace: 'default',
        guid: 'burnt',
        role: 'Disk',
        digest: `sha256:${disk.sha256}`,
        transform: 'as-published',
        site: 'nova',
        attempt,
      });
      await openstack.image('demo', 'POST', '/images', { id, disk_format: 'qcow2', container_format: 'bare' });
      await openstack.image('demo', 'DELETE', `/images/${id}`);
    }
    await house.start();
    await house.write('b.yaml', vmimage('b', spec({ guid: 'burnt', sites: [{ name: 'nova' }] })));
    const image = await house.ready('b');
    expect(await uploads()).toMatchObject([{ id: image.status.sites?.[0]?.imageID, status: 'active' }]);
    expect(house.lines.join('')).toContain('will not give id');
    await house.remove('b.yaml', 'b');
  });

  test('an image is found again by that hash, replaced, and comes back from its history', async () => {
    const other = qcow2('state-lost-other');
    origin.route('/other.qcow2', { body: other.bytes, etag: '"2"' });
    await house.write('site.yaml', ...openstackSite('nova', await openstack.clouds('demo'), 'demo'));
    await house.start();
    const first = spec({ sites: [{ name: 'nova' }] });
    await house.write('g.yaml', vmimage('g', first));
    const before = await house.ready('g');
    const id = before.status.sites?.[0]?.imageID;
    expect(before.status.sites?.[0]?.artifacts?.[0]?.cloudDigest).toMatch(new RegExp(`^${algorithm}:`));
    await losesItsState(house);
    await house.start();
    const after = await house.ready('g');
    expect(after.metadata.uid).not.toBe(before.metadata.uid);
    expect(await uploads()).toMatchObject([{ id, status: 'active', os_hash_algo: algorithm }]);

    const second = { source: { http: { urls: [`${origin.url}/other.qcow2`] } }, checksums: { sha256: other.sha256 } };
    await house.write('g.yaml', vmimage('g', { ...first, ...second }));
    const isRetired = (generation: number) => (image: typeof after) =>
      image.status.observedGeneration === generation &&
      image.status.phase === 'Ready' &&
      image.status.sites?.[0]?.previous?.[0]?.retiredAt !== undefined;
    await house.until('g', isRetired(2), 'the first to be retired');
    await house.write('g.yaml', vmimage('g', first));
    const back = await house.until('g', isRetired(3), 'the second to be retired');
    expect(back.status.sites?.[0]?.imageID).toBe(id);
    expect(await uploads()).toHaveLength(2);

    // Lost once more, and deactivated meanwhile: both are found, and neither serves.
    await losesItsState(house);
    await house.write('g.yaml', vmimage('g', { ...first, state: 'Deactivated' }));
    await house.start();
    expect((await house.ready('g')).status.phase).toBe('Deactivated');
    for (const { status } of await uploads()) expect(status).toBe('deactivated');
    await house.write('g.yaml', vmimage('g', first));
    const again = await house.until('g', ({ status }) => status.phase === 'Ready');
    expect(again.status.sites?.[0]?.imageID).toBe(id);
    const now = await uploads();
    expect(now).toHaveLength(2);
    for (const image of now) expect(image.status).toBe(image.id === id ? 'active' : 'deactivated');
    await house.remove('g.yaml', 'g');
    expect(await uploads()).toEqual([]);
  });
});
