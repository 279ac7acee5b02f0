import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { kstatus } from '../../../src/api/conditions.ts';
import { ext4, gzipped, qcow2 } from '../../support/disks.ts';
import { condition, House, isTrue, openstackSite, vmimage } from '../../support/house.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { COMPILED, imageproxy } from '../cli/program.ts';

interface GlanceImage {
  id: string;
  name: string;
  status: string;
  visibility: string;
  os_hidden: boolean;
  os_hash_value: string;
  disk_format: string;
  min_disk: number;
  min_ram: number;
  protected: boolean;
  tags: string[];
  [property: string]: unknown;
}

describe.skipIf(!openstackAvailable())('a VMImage in a real Glance', () => {
  let openstack: OpenStack;
  let origin: Origin;
  let house: House;

  beforeAll(async () => {
    [openstack, origin] = await Promise.all([startOpenStack(), startOrigin()]);
    house = new House();
    await house.write('site.yaml', ...openstackSite('nova', await openstack.clouds('demo'), 'demo'));
    await house.start();
  });

  afterAll(async () => {
    await house?.close();
    await Promise.all([openstack?.stop(), origin?.close()]);
  });

  const glance = async (id: string | undefined) =>
    (await openstack.image('demo', 'GET', `/images/${id}`)).body as GlanceImage;
  const all = async (guid: string | undefined) => {
    const lists = await Promise.all(
      ['true', 'false'].map((hidden) =>
        openstack.image('demo', 'GET', `/images?os_hidden=${hidden}&imageproxy_guid=${guid}`),
      ),
    );
    return lists.flatMap((list) => (list.body as { images: GlanceImage[] }).images);
  };

  test('of several parts has three ids, and its disk names the kernel and the ramdisk', async () => {
    const [root, kernel, ramdisk] = [qcow2('parts'), gzipped(ext4('kernel')), gzipped(ext4('ramdisk'))];
    for (const [path, made] of [
      ['root', root],
      ['vmlinuz', kernel],
      ['initrd', ramdisk],
    ] as const)
      origin.route(`/${path}`, { body: made.bytes });
    const part = (type: string, path: string, { sha1 }: { sha1: string }) =>
      `<image><type>${type}</type><signature>${sha1}</signature><url>${origin.url}/${path}</url></image>`;
    const xml = Buffer.from(
      `<images>${part('QCOW2', 'root', root)}${part('KERNEL', 'vmlinuz', kernel)}${part('RAMDISK', 'initrd', ramdisk)}</images>`,
    );
    origin.route('/parts.xml', { body: xml });
    const metafile = { url: `${origin.url}/parts.xml`, sha1: createHash('sha1').update(xml).digest('hex') };
    const verification = { allowWeak: true };
    await house.write(
      'parts.yaml',
      vmimage('parts', { source: { metafile }, verification, sites: [{ name: 'nova' }] }),
    );
    const { status } = await house.ready('parts');
    const { imageID, kernelID, ramdiskID } = status.sites?.[0] ?? {};
    expect(await glance(imageID)).toMatchObject({
      status: 'active',
      os_hidden: false,
      disk_format: 'qcow2',
      kernel_id: kernelID,
      ramdisk_id: ramdiskID,
    });
    expect(await glance(kernelID)).toMatchObject({ status: 'active', disk_format: 'aki' });
    expect(await glance(ramdiskID)).toMatchObject({ status: 'active', disk_format: 'ari' });
    expect(await all(status.guid)).toHaveLength(3);
    await house.remove('parts.yaml', 'parts');
    expect(await all(status.guid)).toEqual([]);
  });

  test('is registered with all that its registration says, and its id stands in the status', async () => {
    const disk = qcow2('all-fields');
    origin.route('/all.qcow2', { body: disk.bytes });
    await house.write(
      'all.yaml',
      vmimage('all', {
        source: { http: { urls: [`${origin.url}/all.qcow2`] } },
        checksums: { sha256: disk.sha256 },
        registration: {
          name: 'All fields',
          visibility: 'Community',
          tags: ['blue', 'green'],
          properties: { hw_disk_bus: 'virtio', owner_says: 'hello' },
          architecture: 'x86_64',
          os: { type: 'linux', distro: 'debian', version: '12' },
          minDiskGiB: 3,
          minRamMiB: 512,
          firmware: 'Uefi',
        },
        sites: [{ name: 'nova' }],
      }),
    );
    const image = await house.ready('all');
    const row = image.status.sites?.[0];
    const there = await glance(row?.imageID);
    expect(there).toMatchObject({
      name: 'All fields',
      status: 'active',
      visibility: 'community',
      os_hidden: false,
      os_hash_value: disk.sha512,
      disk_format: 'qcow2',
      container_format: 'bare',
      min_disk: 3,
      min_ram: 512,
      architecture: 'x86_64',
      os_distro: 'debian',
      os_version: '12',
      hw_firmware_type: 'uefi',
      hw_disk_bus: 'virtio',
      owner_says: 'hello',
      imageproxy_guid: image.status.guid,
    });
    expect(there.tags.toSorted()).toEqual(['blue', 'green']);
    expect(image.status.summary).toMatchObject({ imageID: row?.imageID, sites: '1/1' });
    expect(await all(image.status.guid)).toHaveLength(1);
  });

  test('keeps the old image in service until the new one is there, then retires it', async () => {
    const [one, two] = [qcow2('one'), qcow2('two')];
    origin.route('/v1.qcow2', { body: one.bytes });
    origin.route('/v2.qcow2', { body: two.bytes });
    const spec = (version: string, sha256: string) => ({
      source: { http: { urls: [`${origin.url}/${version}.qcow2`] } },
      checksums: { sha256 },
      sites: [{ name: 'nova' }],
    });
    await house.write('replace.yaml', vmimage('replace', spec('v1', one.sha256)));
    const before = (await house.ready('replace')).status.sites?.[0]?.imageID;
    const ids = new Set<string | undefined>();
    const end = house.store.subscribe('VMImage', () => ids.add(house.row('replace', 'nova')?.imageID));
    await house.write('replace.yaml', vmimage('replace', spec('v2', two.sha256)));
    const image = await house.until(
      'replace',
      (now) =>
        now.status.observedGeneration === 2 &&
        isTrue(now, 'Ready') &&
        now.status.sites?.[0]?.previous?.[0]?.retiredAt !== undefined,
    );
    end();
    const after = image.status.sites?.[0]?.imageID;
    expect(after).not.toBe(before);
    expect([...ids]).toEqual([before, after]);
    expect(await glance(before)).toMatchObject({ status: 'deactivated', os_hidden: true });
    expect(await glance(after)).toMatchObject({ status: 'active', os_hidden: false, os_hash_value: two.sha512 });

    // Back to the first digest: the retired registration serves again, nothing is sent.
    const uploads = origin.requests.length;
    await house.write('replace.yaml', vmimage('replace', spec('v1', one.sha256)));
    const back = await house.until(
      'replace',
      (now) =>
        now.status.observedGeneration === 3 &&
        isTrue(now, 'Ready') &&
        now.status.sites?.[0]?.previous?.[0]?.retiredAt !== undefined,
    );
    expect(back.status.sites?.[0]?.imageID).toBe(before);
    expect(await glance(before)).toMatchObject({ status: 'active', os_hidden: false });
    expect(await glance(after)).toMatchObject({ status: 'deactivated', os_hidden: true });
    expect(origin.requests).toHaveLength(uploads);
  });

  test('is unpacked and converted to the first format that the site accepts', async () => {
    const raw = ext4('converted');
    const packed = gzipped(raw);
    origin.route('/disk.raw.gz', { body: packed.bytes });
    await house.write(
      'converted-site.yaml',
      ...openstackSite('qcow-only', await openstack.clouds('demo'), 'demo', { acceptedFormats: ['Qcow2'] }),
    );
    await house.write(
      'converted.yaml',
      vmimage('converted', {
        source: { http: { urls: [`${origin.url}/disk.raw.gz`] } },
        checksums: { sha512: packed.sha512 },
        contentChecksums: { sha256: raw.sha256 },
        sites: [{ name: 'qcow-only' }],
      }),
    );
    const image = await house.ready('converted');
    expect(await glance(image.status.sites?.[0]?.imageID)).toMatchObject({ status: 'active', disk_format: 'qcow2' });
  });

  test('with a wrong digest is never active, not fetched again, and says why', async () => {
    const disk = qcow2('wrong');
    origin.route('/wrong.qcow2', { body: disk.bytes });
    await house.write(
      'wrong.yaml',
      vmimage('wrong', {
        source: { http: { urls: [`${origin.url}/wrong.qcow2`] } },
        checksums: { sha256: 'ab'.repeat(32) },
        sites: [{ name: 'nova' }],
      }),
    );
    // It is told at once, also while what an upload that followed the download has left is still being removed.
    const told = await house.stalled('wrong');
    expect(condition(told, 'Ready')).toMatchObject({ status: 'False', reason: 'DigestMismatch' });
    expect(condition(told, 'Ready')?.message).toContain(disk.sha256);
    const image = await house.until('wrong', ({ status }) => status.sites?.[0]?.operation === undefined);
    expect(kstatus(image).status).toBe('Failed');
    expect(origin.requests.filter((request) => request.path === '/wrong.qcow2')).toHaveLength(1);
    await house.store.annotate('VMImage', { namespace: 'default', name: 'wrong' }, { note: 'looked at' });
    expect(await all(image.status.guid)).toEqual([]);
    expect(origin.requests.filter((request) => request.path === '/wrong.qcow2')).toHaveLength(1);
  });

  test('is registered again when it is deleted behind our back, after two looks', async () => {
    const before = house.row('all', 'nova')?.imageID;
    await openstack.image('demo', 'DELETE', `/images/${before}`);
    await house.store.annotate('VMImage', { namespace: 'default', name: 'all' }, { 'imageproxy.dev/requestedAt': '1' });
    const image = await house.until(
      'all',
      (now) => isTrue(now, 'Ready') && now.status.sites?.[0]?.imageID !== before,
      'a new id',
    );
    const row = image.status.sites?.[0];
    expect(row?.losses).toHaveLength(1);
    expect(await glance(row?.imageID)).toMatchObject({ status: 'active', name: 'All fields' });
    expect(await all(image.status.guid)).toHaveLength(1);
  });

  test('has its own properties put right, and leaves those of others alone', async () => {
    const id = house.row('all', 'nova')?.imageID;
    await openstack.image('demo', 'PATCH', `/images/${id}`, [
      { op: 'replace', path: '/hw_disk_bus', value: 'ide' },
      { op: 'add', path: '/theirs', value: 'kept' },
      { op: 'replace', path: '/name', value: 'renamed' },
    ]);
    await house.store.annotate('VMImage', { namespace: 'default', name: 'all' }, { 'imageproxy.dev/requestedAt': '2' });
    await house.until(
      'all',
      (now) =>
        isTrue(now, 'Ready') &&
        now.status.lastHandledReconcileAt === '2' &&
        now.status.sites?.[0]?.operation === undefined &&
        Date.parse(now.status.sites?.[0]?.lastCheckedTime ?? '') > 0,
    );
    await expect
      .poll(async () => await glance(id))
      .toMatchObject({ hw_disk_bus: 'virtio', theirs: 'kept', name: 'All fields' });
  });

  test("that the cloud's admin has deactivated is told as held, not available, and not undone", async () => {
    const id = house.row('all', 'nova')?.imageID;
    await openstack.image('admin', 'POST', `/images/${id}/actions/deactivate`);
    await house.store.annotate('VMImage', { namespace: 'default', name: 'all' }, { 'imageproxy.dev/requestedAt': '3' });
    const image = await house.until('all', (now) => now.status.sites?.[0]?.reason === 'HeldByCloud');
    expect(isTrue(image, 'Available')).toBe(false);
    expect(await glance(id)).toMatchObject({ status: 'deactivated' });
    // Whoever asks for another look, or waits for the image, is told so, and does not wait for a person.
    for (const command of ['reconcile', 'wait'])
      expect(await imageproxy([command, 'vmimg/all', '--state', house.state], COMPILED)).toMatchObject({
        code: 1,
        err: expect.stringMatching(
          /VMImage default\/all waits for somebody to act: nova: somebody at nova has deactivated .*; ask the cloud's operator/,
        ),
      });
    await openstack.image('admin', 'POST', `/images/${id}/actions/reactivate`);
    await house.store.annotate(
      'VMImage',
      { namespace: 'default', name: 'all' },
      { 'imageproxy.dev/requestedAt': new Date().toISOString() },
    );
    await house.ready('all');
  });

  test('with an edited registration is updated in place', async () => {
    const image = house.image('replace');
    const id = image?.status.sites?.[0]?.imageID;
    await house.write(
      'replace.yaml',
      vmimage('replace', {
        ...(image?.spec as object),
        registration: { name: 'new name', properties: { colour: 'red' } },
      }),
    );
    await house.until(
      'replace',
      (now) => now.metadata.generation === 4 && now.status.observedGeneration === 4 && isTrue(now, 'Ready'),
    );
    expect(await glance(id)).toMatchObject({ name: 'new name', colour: 'red', status: 'active' });
    expect(house.row('replace', 'nova')?.imageID).toBe(id);
  });

  test('goes out of service when it is deactivated or expires, and comes back', async () => {
    const image = house.image('replace');
    const id = image?.status.sites?.[0]?.imageID;
    await house.write('replace.yaml', vmimage('replace', { ...(image?.spec as object), state: 'Deactivated' }));
    const off = await house.until('replace', (now) => now.status.phase === 'Deactivated' && isTrue(now, 'Ready'));
    expect(isTrue(off, 'Available')).toBe(false);
    expect(await glance(id)).toMatchObject({ status: 'deactivated', os_hidden: true });
    await house.write('replace.yaml', vmimage('replace', image?.spec as never));
    await house.until('replace', (now) => now.status.phase === 'Ready' && isTrue(now, 'Available'));
    expect(await glance(id)).toMatchObject({ status: 'active', os_hidden: false });
    await house.write(
      'replace.yaml',
      vmimage('replace', { ...(image?.spec as object), expiresAt: '2020-01-01T00:00:00Z', onExpiry: 'Delete' }),
    );
    await house.until('replace', (now) => now.status.phase === 'Expired' && isTrue(now, 'Ready'));
    expect(await all(image?.status.guid)).toEqual([]);
  });

  test('that is deleted leaves nothing in the cloud', async () => {
    const guid = house.image('all')?.status.guid;
    await house.delete('all');
    await house.gone('all');
    expect(await all(guid)).toEqual([]);
  });
});
