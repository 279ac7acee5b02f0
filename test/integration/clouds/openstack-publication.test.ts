import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Cloud, PublishImage, Registration } from '../../../src/clouds/cloud.ts';
import { openCloud } from '../../../src/clouds/index.ts';
import { startTransfers } from '../../../src/transfers/index.ts';
import type { Transfers } from '../../../src/transfers/transfers.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type FaultProxy, startFaultProxy } from '../../support/proxy.ts';
import {
  calm,
  contextOf,
  imageOf,
  makeFile,
  ownershipOf,
  partOf,
  registrationOf,
  scratch,
  type TestFile,
} from './fixture.ts';

describe.skipIf(!openstackAvailable())('publishing in a real Glance', () => {
  let openstack: OpenStack;
  let proxy: FaultProxy;
  let transfers: Transfers;
  let folder: Awaited<ReturnType<typeof scratch>>;
  let cloud: Cloud;
  let adminCloud: Cloud;
  let file: TestFile;
  let otherProject: string;
  let adminProject: string;

  async function open(account: 'demo' | 'admin'): Promise<Cloud> {
    const clouds = await openstack.clouds(account, { imageEndpoint: proxy.url });
    const secret = new Map([['clouds.yaml', new TextEncoder().encode(clouds)]]);
    return await openCloud({ openstack: {} }, contextOf(transfers, { secret }));
  }

  async function show(id: string): Promise<Record<string, unknown>> {
    return (await openstack.image('admin', 'GET', `/images/${id}`)).body as Record<string, unknown>;
  }

  async function stageDisk(client: Cloud = cloud): Promise<PublishImage> {
    const part = partOf(file);
    await client.stage(part, calm());
    return imageOf([{ part, file }]);
  }

  async function published(registration: Partial<Registration>): Promise<{ image: PublishImage; id: string }> {
    const image = { ...(await stageDisk()), registration: registrationOf(registration) };
    await cloud.publish(image, calm());
    return { image, id: image.parts[0]?.id ?? '' };
  }

  beforeAll(async () => {
    openstack = await startOpenStack({ glanceExtra: 'api_limit_max = 5' });
    proxy = await startFaultProxy(openstack.glanceUrl);
    transfers = startTransfers();
    folder = await scratch();
    file = await makeFile(folder.path, 20_000);
    cloud = await open('demo');
    adminCloud = await open('admin');
    otherProject = (await openstack.token('other')).projectId;
    adminProject = (await openstack.token('admin')).projectId;
  });

  afterEach(() => proxy.clear());

  afterAll(async () => {
    await cloud?.close();
    await adminCloud?.close();
    await transfers?.close();
    await proxy?.stop();
    await openstack?.stop();
    await folder?.remove();
  });

  test('everything that the registration says is on the image, and others see it only then', async () => {
    const image = await stageDisk();
    const id = image.parts[0]?.id ?? '';
    const registration = registrationOf({
      name: 'debian-12',
      visibility: 'Community',
      tags: ['lts', 'x'],
      properties: { hw_disk_bus: 'virtio', 'a/b~c': 'slash' },
      architecture: 'amd64',
      os: { distro: 'Debian', version: '12', type: 'Linux' },
      firmware: 'UEFI',
      minDiskGiB: 3,
      minRamMiB: 512,
      protected: true,
    });

    await cloud.publish({ ...image, registration }, calm());

    const shown = await show(id);
    expect(shown).toMatchObject({
      name: 'debian-12',
      visibility: 'community',
      os_hidden: false,
      protected: true,
      min_disk: 3,
      min_ram: 512,
      hw_disk_bus: 'virtio',
      'a/b~c': 'slash',
      architecture: 'x86_64',
      os_distro: 'debian',
      os_version: '12',
      os_type: 'linux',
      hw_firmware_type: 'uefi',
    });
    expect((shown['tags'] as string[]).sort()).toEqual(['lts', 'x']);
    expect((await cloud.get(id, calm()))?.published).toBe(true);
    expect((await openstack.image('other', 'GET', `/images/${id}`)).status).toBe(200);
  });

  test('publishing again changes nothing and sends no change', async () => {
    const { image } = await published({ tags: ['a'], properties: { p: '1' } });
    proxy.clear();

    await cloud.publish(image, calm());

    expect(proxy.seen.filter(({ method }) => method !== 'GET')).toEqual([]);
    expect(await cloud.look(image, calm())).toEqual({ gone: [], changed: [] });
  });

  test('a disk of several parts names its kernel and ramdisk, which are there before it', async () => {
    const ownership = ownershipOf(file);
    const disk = partOf(file, { ownership });
    const kernel = partOf(file, { ownership, role: 'Kernel' });
    const ramdisk = partOf(file, { ownership, role: 'Ramdisk' });
    for (const part of [kernel, ramdisk, disk]) await cloud.stage(part, calm());
    const image = imageOf([disk, kernel, ramdisk].map((part) => ({ part, file })));
    proxy.clear();

    await cloud.publish(image, calm());

    const patched = proxy.seen.filter(({ method }) => method === 'PATCH').map(({ path }) => path.split('/').at(-1));
    expect(patched).toEqual([kernel.id, ramdisk.id, disk.id]);
    expect(await show(disk.id)).toMatchObject({ kernel_id: kernel.id, ramdisk_id: ramdisk.id, disk_format: 'raw' });
    expect(await show(kernel.id)).toMatchObject({
      disk_format: 'aki',
      container_format: 'aki',
      name: 'ubuntu-24.04-kernel',
    });
    expect(await show(ramdisk.id)).toMatchObject({ disk_format: 'ari', container_format: 'ari' });
    expect((await cloud.find(ownership, calm())).map(({ role }) => role).sort()).toEqual(['Disk', 'Kernel', 'Ramdisk']);
  });

  test('what we no longer want goes, and what others added stays', async () => {
    const { image, id } = await published({ tags: ['old', 'both'], properties: { ours: '1', kept: '1' } });
    await openstack.image('admin', 'PATCH', `/images/${id}`, [
      { op: 'add', path: '/theirs', value: 'x' },
      { op: 'replace', path: '/tags', value: ['old', 'both', 'theirs'] },
    ]);

    const registration = registrationOf({ tags: ['both', 'new'], properties: { kept: '2' } });
    await cloud.publish({ ...image, registration }, calm());

    const shown = await show(id);
    expect(shown).toMatchObject({ theirs: 'x', kept: '2' });
    expect(shown).not.toHaveProperty('ours');
    expect((shown['tags'] as string[]).sort()).toEqual(['both', 'new', 'theirs']);
  });

  test('drift is told by field and put right', async () => {
    const { image, id } = await published({ properties: { p: '1', q: '1' }, minRamMiB: 64 });
    await openstack.image('admin', 'PATCH', `/images/${id}`, [
      { op: 'replace', path: '/name', value: 'renamed' },
      { op: 'replace', path: '/p', value: 'changed' },
      { op: 'remove', path: '/q' },
      { op: 'replace', path: '/min_ram', value: 1 },
      { op: 'remove', path: '/imageproxy_guid' },
      { op: 'replace', path: '/visibility', value: 'community' },
    ]);

    const look = await cloud.look(image, calm());
    expect(look).toEqual({
      gone: [],
      changed: ['minRamMiB', 'name', 'properties.imageproxy_guid', 'properties.p', 'properties.q', 'visibility'],
    });
    await cloud.publish(image, calm());

    expect(await cloud.look(image, calm())).toEqual({ gone: [], changed: [] });
    expect(await show(id)).toMatchObject({ visibility: 'private', name: 'ubuntu-24.04', p: '1' });
  });

  test('a hash in our books that the cloud does not confirm is told and never published', async () => {
    const image = await stageDisk();
    const [part] = image.parts;
    const wrong = {
      ...image,
      parts: [{ ...part, id: part?.id ?? '', role: 'Disk' as const, digests: { sha512: 'ab'.repeat(64) } }],
    };

    await expect(cloud.publish(wrong, calm())).rejects.toMatchObject({ reason: 'CloudDigestMismatch' });
    expect((await cloud.look(wrong, calm())).tampered).toContain('sha512');
    await expect(cloud.reactivate(wrong.parts, calm())).rejects.toMatchObject({ reason: 'CloudDigestMismatch' });
  });

  test("what the cloud's admin did is told and not undone", async () => {
    const { image, id } = await published({});
    await openstack.image('admin', 'PATCH', `/images/${id}`, [{ op: 'replace', path: '/os_hidden', value: true }]);
    expect(await cloud.look(image, calm())).toEqual({ gone: [], changed: [], held: 'Hidden' });
    await openstack.image('admin', 'POST', `/images/${id}/actions/deactivate`);
    expect(await cloud.look(image, calm())).toEqual({ gone: [], changed: [], held: 'Deactivated' });

    await cloud.publish({ ...image, registration: registrationOf({ name: 'new-name' }) }, calm());
    expect(await show(id)).toMatchObject({ os_hidden: true, status: 'deactivated', name: 'new-name' });

    await cloud.retire(image.parts, calm());
    await expect(cloud.reactivate(image.parts, calm())).rejects.toMatchObject({ reason: 'HeldByCloud' });
  });

  test("what the cloud's admin has hidden does not come back by our taking it out of service and putting it back", async () => {
    const { image, id } = await published({});
    await openstack.image('admin', 'PATCH', `/images/${id}`, [{ op: 'replace', path: '/os_hidden', value: true }]);

    await cloud.retire(image.parts, calm());
    await expect(cloud.reactivate(image.parts, calm())).rejects.toMatchObject({ reason: 'HeldByCloud' });
    expect(await show(id)).toMatchObject({ os_hidden: true, status: 'deactivated' });

    await openstack.image('admin', 'POST', `/images/${id}/actions/reactivate`);
    await cloud.reactivate(image.parts, calm());
    await cloud.publish(image, calm());
    expect(await show(id)).toMatchObject({ os_hidden: false, status: 'active' });
  });

  test('hidden is the registration’s to say, both ways', async () => {
    const { image, id } = await published({ hidden: true });
    expect(await show(id)).toMatchObject({ os_hidden: true });
    expect(await cloud.look(image, calm())).toEqual({ gone: [], changed: [] });

    await cloud.publish({ ...image, registration: registrationOf() }, calm());

    expect(await show(id)).toMatchObject({ os_hidden: false });
  });

  test('retire deactivates and hides, twice is once; reactivate compares the hash and leaves it unpublished', async () => {
    const { image, id } = await published({ protected: true });

    await cloud.retire(image.parts, calm());
    await cloud.retire(image.parts, calm());
    expect(await show(id)).toMatchObject({ status: 'deactivated', os_hidden: true });
    expect(await cloud.get(id, calm())).toMatchObject({ state: 'Deactivated', published: false });
    await expect(cloud.publish(image, calm())).rejects.toMatchObject({ reason: 'Conflict' });

    await cloud.reactivate(image.parts, calm());
    expect(await show(id)).toMatchObject({ status: 'active', os_hidden: true });
    expect((await cloud.get(id, calm()))?.published).toBe(false);
    await cloud.publish(image, calm());
    expect(await show(id)).toMatchObject({ status: 'active', os_hidden: false });
  });

  test('what never went out of service is not hidden for a moment by being reactivated', async () => {
    const { image, id } = await published({});
    proxy.fault({ method: 'PATCH', path: new RegExp(id), answer: { status: 503 } });
    await expect(cloud.retire(image.parts, calm())).rejects.toMatchObject({ reason: 'ServerError' });
    proxy.clear();

    await cloud.reactivate(image.parts, calm());

    expect(await show(id)).toMatchObject({ status: 'active', os_hidden: false });
    expect((await cloud.get(id, calm()))?.published).toBe(true);
    await cloud.publish(image, calm());
    expect(proxy.seen.filter(({ method }) => method !== 'GET')).toEqual([]);
  });

  test('retire and reactivate go on after a crash between their two requests', async () => {
    const { image, id } = await published({});
    proxy.fault({ method: 'POST', path: /deactivate/, answer: { status: 500 } });
    await expect(cloud.retire(image.parts, calm())).rejects.toMatchObject({ reason: 'ServerError' });
    await cloud.retire(image.parts, calm());
    expect(await show(id)).toMatchObject({ status: 'deactivated', os_hidden: true });

    proxy.fault({ method: 'POST', path: /reactivate/, dropAnswer: true });
    await expect(cloud.reactivate(image.parts, calm())).rejects.toMatchObject({ reason: 'NetworkError' });
    await cloud.reactivate(image.parts, calm());
    expect(await cloud.get(id, calm())).toMatchObject({ state: 'Active', published: false });
  });

  test('remove takes protected ones too, waits until they are gone, and may be repeated', async () => {
    const { image, id } = await published({ protected: true });

    await cloud.remove(image.parts, calm());
    await cloud.remove(image.parts, calm());

    expect(await cloud.get(id, calm())).toBeUndefined();
    expect((await cloud.look(image, calm())).gone).toEqual([id]);
    await expect(cloud.publish(image, calm())).rejects.toMatchObject({ reason: 'Gone' });
    await expect(cloud.reactivate(image.parts, calm())).rejects.toMatchObject({ reason: 'Gone' });
    await cloud.retire(image.parts, calm());
  });

  test('nothing of another project is touched, even where it may be seen', async () => {
    const { body } = await openstack.image('other', 'POST', '/images', { name: 'theirs', visibility: 'community' });
    const id = (body as { id: string }).id;

    await cloud.remove([{ id, role: 'Disk' }], calm());
    await cloud.retire([{ id, role: 'Disk' }], calm());
    // The admin's token could: its own project does not own the image either.
    await adminCloud.remove([{ id, role: 'Disk' }], calm());

    expect(await show(id)).toMatchObject({ name: 'theirs', status: 'queued', os_hidden: false });
  });

  test('members are added, those who may are accepted, and those no longer named go', async () => {
    const registration = registrationOf({ visibility: 'Shared', members: [otherProject] });
    const image = { ...(await stageDisk()), registration };
    const id = image.parts[0]?.id ?? '';

    await cloud.publish(image, calm());
    expect(await cloud.look(image, calm())).toMatchObject({
      gone: [],
      changed: [],
      notes: [expect.stringContaining(otherProject)],
    });
    expect((await openstack.image('other', 'GET', `/images/${id}`)).body).not.toHaveProperty('imageproxy_members');
    expect(JSON.stringify(await show(id))).not.toContain(otherProject);
    await openstack.image('other', 'PUT', `/images/${id}/members/${otherProject}`, { status: 'accepted' });
    await openstack.image('demo', 'POST', `/images/${id}/members`, { member: 'added-by-hand' });
    expect(await cloud.look(image, calm())).toEqual({ gone: [], changed: [] });

    const narrowed = { ...image, registration: registrationOf({ visibility: 'Shared' }) };
    expect((await cloud.look(narrowed, calm())).changed).toContain('members');
    await cloud.publish(narrowed, calm());
    const { body } = await openstack.image('demo', 'GET', `/images/${id}/members`);
    expect((body as { members: { member_id: string }[] }).members.map(({ member_id }) => member_id)).toEqual([
      'added-by-hand',
    ]);
    await cloud.publish({ ...image, registration: registrationOf() }, calm());
    expect(await show(id)).toMatchObject({ visibility: 'private' });
  });

  test('an admin’s credentials accept in the member’s name', async () => {
    const registration = registrationOf({ visibility: 'Shared', members: [otherProject] });
    const image = { ...(await stageDisk(adminCloud)), registration };

    await adminCloud.publish(image, calm());

    expect(await adminCloud.look(image, calm())).toEqual({ gone: [], changed: [] });
    expect(adminProject).not.toBe(otherProject);
  });

  test('public is refused to an ordinary account with the cure, and done for an admin', async () => {
    const registration = registrationOf({ visibility: 'Public' });
    const refused = { ...(await stageDisk()), registration };
    await expect(cloud.publish(refused, calm())).rejects.toMatchObject({
      reason: 'Forbidden',
      message: expect.stringContaining('admin role'),
    });
    expect((await cloud.get(refused.parts[0]?.id ?? '', calm()))?.published).toBe(false);

    const image = { ...(await stageDisk(adminCloud)), registration };
    await adminCloud.publish(image, calm());
    expect(await show(image.parts[0]?.id ?? '')).toMatchObject({ visibility: 'public', os_hidden: false });
  });

  test('publishing goes on where a crash left it, and the image comes out of hiding last', async () => {
    const registration = registrationOf({ visibility: 'Shared', members: [otherProject] });
    const image = { ...(await stageDisk()), registration };
    const id = image.parts[0]?.id ?? '';
    proxy.fault({ method: 'POST', path: /members/, answer: { status: 503 } });
    await expect(cloud.publish(image, calm())).rejects.toMatchObject({ reason: 'ServerError' });
    expect(await show(id)).toMatchObject({ os_hidden: true });
    expect((await cloud.get(id, calm()))?.published).toBe(false);

    await cloud.publish(image, calm());

    expect(await show(id)).toMatchObject({ os_hidden: false, visibility: 'shared' });
  });

  test('a claim changes hands within one owner and guid, and not beyond', async () => {
    const part = partOf(file);
    await cloud.stage(part, calm());
    const image = imageOf([{ part, file }]);
    const heir = { ...part.ownership, claim: 'uid-2' };
    const foreign = { ...image, ownership: { ...image.ownership, claim: 'uid-2' } };
    await expect(cloud.publish(foreign, calm())).rejects.toMatchObject({ reason: 'ClaimedByOther' });
    await expect(cloud.claim(part.id, { ...heir, owner: 'another' }, calm())).rejects.toMatchObject({
      reason: 'ClaimedByOther',
    });

    await cloud.claim(part.id, heir, calm());
    await cloud.publish(foreign, calm());

    expect(await cloud.get(part.id, calm())).toMatchObject({ claim: 'uid-2', published: true });
  });

  test('a list of many pages is read to its end', async () => {
    const ownership = ownershipOf(file);
    const properties = { imageproxy_owner: ownership.owner, imageproxy_guid: ownership.guid };
    const ids: string[] = [];
    for (let made = 0; made < 17; made++) {
      const { body } = await openstack.image('demo', 'POST', '/images', { ...properties, os_hidden: made % 2 === 0 });
      ids.push((body as { id: string }).id);
    }

    expect((await cloud.find(ownership, calm())).map(({ id }) => id).sort()).toEqual(ids.sort());
  });
});
