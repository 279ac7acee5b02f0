import { readdirSync, readFileSync, rmSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
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
  });
});
