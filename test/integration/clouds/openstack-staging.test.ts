import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { Cloud } from '../../../src/clouds/cloud.ts';
import { openCloud } from '../../../src/clouds/index.ts';
import { startTransfers } from '../../../src/transfers/index.ts';
import type { Transfers } from '../../../src/transfers/transfers.ts';
import { FROM_SOURCES } from '../../support/from-sources.ts';
import { type Account, type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type FaultProxy, startFaultProxy } from '../../support/proxy.ts';
import {
  bytesOf,
  calm,
  contextOf,
  gate,
  imageOf,
  makeFile,
  ownershipOf,
  partOf,
  registrationOf,
  scratch,
} from './fixture.ts';

const KIB = 1024;

describe.skipIf(!openstackAvailable())('staging in a real Glance', () => {
  let openstack: OpenStack;
  let proxy: FaultProxy;
  let transfers: Transfers;
  let folder: Awaited<ReturnType<typeof scratch>>;
  let cloud: Cloud;

  async function open(account: Account = 'demo'): Promise<Cloud> {
    const clouds = await openstack.clouds(account, { imageEndpoint: proxy.url });
    const secret = new Map([['clouds.yaml', new TextEncoder().encode(clouds)]]);
    return await openCloud({ openstack: { cloud: account } }, contextOf(transfers, { secret }));
  }

  async function imageIds(): Promise<string[]> {
    const lists = await Promise.all(
      ['true', 'false'].map(async (hidden) => await openstack.image('demo', 'GET', `/images?os_hidden=${hidden}`)),
    );
    return lists.flatMap(({ body }) => (body as { images: { id: string }[] }).images.map(({ id }) => id));
  }

  async function status(id: string): Promise<unknown> {
    return ((await openstack.image('demo', 'GET', `/images/${id}`)).body as { status?: string }).status;
  }

  async function until(id: string, wanted: string): Promise<void> {
    while ((await status(id)) !== wanted) await pause(20);
  }

  beforeAll(async () => {
    openstack = await startOpenStack({ userQuota: '4MB' });
    proxy = await startFaultProxy(openstack.glanceUrl);
    transfers = startTransfers();
    folder = await scratch();
    cloud = await open();
  });

  afterEach(async () => {
    proxy.clear();
    for (const id of await imageIds()) await openstack.image('demo', 'DELETE', `/images/${id}`);
  });

  afterAll(async () => {
    await cloud?.close();
    await transfers?.close();
    await proxy?.stop();
    await openstack?.stop();
    await folder?.remove();
  });

  test('a staged image is active, private, hidden, and carries whose it is and what was sent', async () => {
    const file = await makeFile(folder.path, 300 * KIB);
    const part = partOf(file, { format: 'Qcow2' });
    const seen: number[] = [];

    const record = await cloud.stage({ ...part, onProgress: (bytes) => seen.push(bytes) }, calm());

    expect(record).toMatchObject({
      id: part.id,
      role: 'Disk',
      state: 'Active',
      published: false,
      format: 'Qcow2',
      size: file.size,
      sentSha256: file.digests.sha256,
      cloudDigests: { sha512: file.digests.sha512 },
      ...part.ownership,
    });
    expect((await openstack.image('demo', 'GET', `/images/${part.id}`)).body).toMatchObject({
      visibility: 'private',
      os_hidden: true,
      disk_format: 'qcow2',
      container_format: 'bare',
      imageproxy_claim: 'uid-1',
    });
    expect((await openstack.image('other', 'GET', `/images/${part.id}`)).status).toBe(404);
    const puts = proxy.seen.filter(({ method }) => method === 'PUT');
    expect(puts.map(({ headers }) => headers['content-length'])).toEqual([String(file.size)]);
    expect(puts[0]?.headers['transfer-encoding']).toBeUndefined();
  });

  test('staging what is staged sends nothing again', async () => {
    const file = await makeFile(folder.path, 100 * KIB);
    const part = partOf(file);
    const first = await cloud.stage(part, calm());
    proxy.clear();

    expect(await cloud.stage(part, calm())).toEqual(first);

    expect(proxy.seen.filter(({ method }) => method === 'PUT' || method === 'PATCH')).toEqual([]);
  });

  test('the last bytes wait for the proof, and until then the image is in saving, usable by nobody', async () => {
    const file = await makeFile(folder.path, 400 * KIB);
    const part = partOf(file);
    const proof = gate();
    const staging = cloud.stage({ ...part, bytes: bytesOf(file, { mayFinish: proof.arrive }) }, calm());

    await proof.reached;
    await until(part.id, 'saving');
    expect((await openstack.image('demo', 'GET', `/images/${part.id}/file`)).status).not.toBe(200);
    proof.open();

    expect((await staging).state).toBe('Active');
  });

  test('when the proof fails nothing becomes active and nothing is left', async () => {
    const file = await makeFile(folder.path, 400 * KIB);
    const part = partOf(file);
    const refuse = async (): Promise<void> => {
      throw new Failure('DigestMismatch', 'sha256 is not what was declared');
    };

    const staging = cloud.stage({ ...part, bytes: bytesOf(file, { mayFinish: refuse }) }, calm());

    await expect(staging).rejects.toMatchObject({ reason: 'DigestMismatch' });
    expect(await imageIds()).toEqual([]);
    await expect.poll(async () => await readdir(openstack.store)).toEqual([]);
  });

  test('an abort in the middle removes the half-made image', async () => {
    const file = await makeFile(folder.path, 400 * KIB);
    const part = partOf(file);
    const proof = gate();
    const stop = new AbortController();
    const staging = cloud.stage({ ...part, bytes: bytesOf(file, { mayFinish: proof.arrive }) }, stop.signal);
    await proof.reached;

    stop.abort();

    await expect(staging).rejects.toMatchObject({ reason: 'Aborted' });
    expect(await imageIds()).toEqual([]);
  });

  test('an image whose hash in the cloud is not ours is removed before anybody sees it', async () => {
    const file = await makeFile(folder.path, 100 * KIB);
    const wrong = bytesOf(file, { digest: async () => 'ab'.repeat(64) });
    const part = partOf(file, { bytes: wrong });

    await expect(cloud.stage(part, calm())).rejects.toMatchObject({ reason: 'CloudDigestMismatch' });

    expect(await imageIds()).toEqual([]);
    expect(proxy.seen.some(({ method }) => method === 'PATCH')).toBe(false);
  });

  test('an id that was deleted is never given again', async () => {
    const file = await makeFile(folder.path, 10 * KIB);
    const part = partOf(file);
    await cloud.stage(part, calm());
    await cloud.remove([{ id: part.id, role: 'Disk' }], calm());

    await expect(cloud.stage(part, calm())).rejects.toMatchObject({ reason: 'IdTaken' });
  });

  test("another project's image of the same id is not ours, even with our properties on it", async () => {
    const file = await makeFile(folder.path, 10 * KIB);
    const part = partOf(file);
    await openstack.image('other', 'POST', '/images', {
      id: part.id,
      name: 'look-alike',
      visibility: 'community',
      disk_format: 'raw',
      container_format: 'bare',
      imageproxy_owner: part.ownership.owner,
      imageproxy_guid: part.ownership.guid,
      imageproxy_claim: part.ownership.claim,
      imageproxy_digest: part.ownership.sourceDigest,
      imageproxy_role: 'Disk',
    });

    await expect(cloud.stage(part, calm())).rejects.toMatchObject({ reason: 'IdTaken' });

    await openstack.image('other', 'DELETE', `/images/${part.id}`);
  });

  test("another instance's image of the same id is left alone; another claim's too, and is told by name", async () => {
    const file = await makeFile(folder.path, 10 * KIB);
    const part = partOf(file);
    await cloud.stage(part, calm());

    const foreign = { ...part, ownership: { ...part.ownership, owner: 'another-instance' } };
    await expect(cloud.stage(foreign, calm())).rejects.toMatchObject({ reason: 'IdTaken' });
    const claimed = { ...part, ownership: { ...part.ownership, claim: 'uid-2' } };
    await expect(cloud.stage(claimed, calm())).rejects.toMatchObject({
      reason: 'IdTaken',
      message: expect.stringContaining('uid-1'),
    });
    // A conversion that is made again may give other bytes; what stands there may be in service.
    const other = { ...part, bytes: bytesOf(await makeFile(folder.path, 10 * KIB)) };
    await expect(cloud.stage(other, calm())).rejects.toMatchObject({ reason: 'IdTaken' });

    expect(await status(part.id)).toBe('active');
  });

  test('two clients that stage one id at once never make two images, nor a wrong one', async () => {
    const file = await makeFile(folder.path, 200 * KIB);
    const part = partOf(file);
    const rival = await open();

    const outcomes = await Promise.allSettled([cloud, rival].map(async (client) => await client.stage(part, calm())));

    for (const outcome of outcomes) {
      if (outcome.status === 'fulfilled') expect(outcome.value.sentSha256).toBe(file.digests.sha256);
      else expect(outcome.reason).toMatchObject({ failureClass: 'Transient' });
    }
    const left = await imageIds();
    expect(left.length).toBeLessThanOrEqual(1);
    expect(left.every((id) => id === part.id)).toBe(true);
    await rival.close();
  });

  test('one client does not send one id twice at once', async () => {
    const file = await makeFile(folder.path, 200 * KIB);
    const part = partOf(file);
    const proof = gate();
    const first = cloud.stage({ ...part, bytes: bytesOf(file, { mayFinish: proof.arrive }) }, calm());
    await proof.reached;

    await expect(cloud.stage(part, calm())).rejects.toMatchObject({ reason: 'Conflict' });

    proof.open();
    expect((await first).state).toBe('Active');
  });

  test('a rival that finds an upload running backs off without disturbing it', async () => {
    const file = await makeFile(folder.path, 200 * KIB);
    const part = partOf(file);
    const rival = await open();
    const [proof, late] = [gate(), gate()];
    // The rival makes its record first, and its PUT is held up on the way.
    proxy.fault({ method: 'PUT', wait: late.arrive });
    const slow = rival.stage(part, calm());
    await late.reached;
    const quick = cloud.stage({ ...part, bytes: bytesOf(file, { mayFinish: proof.arrive }) }, calm());
    await proof.reached;
    await until(part.id, 'saving');

    late.open();
    await expect(slow).rejects.toMatchObject({ reason: 'Conflict' });
    proof.open();

    expect((await quick).state).toBe('Active');
    await rival.close();
  });

  describe('goes on where a crash left it', () => {
    test('after the record was made and the answer lost', async () => {
      const file = await makeFile(folder.path, 100 * KIB);
      const part = partOf(file);
      proxy.fault({ method: 'POST', path: /images$/, dropAnswer: true });
      await expect(cloud.stage(part, calm())).rejects.toMatchObject({ reason: 'NetworkError' });

      expect((await cloud.stage(part, calm())).state).toBe('Active');
      expect(await imageIds()).toEqual([part.id]);
    });

    test('after the upload was cut: the record is empty again, and is filled', async () => {
      const file = await makeFile(folder.path, 300 * KIB);
      const part = partOf(file);
      const beforeCut = async (): Promise<void> => await until(part.id, 'saving');
      proxy.fault({ method: 'PUT', cutAfterBytes: 100 * KIB, beforeCut });
      await expect(cloud.stage(part, calm())).rejects.toMatchObject({ failureClass: 'Transient' });
      expect(await status(part.id)).toBe('queued');

      expect((await cloud.stage(part, calm())).state).toBe('Active');
    });

    test('after every byte was sent and the answer lost: nothing is sent again', async () => {
      const file = await makeFile(folder.path, 100 * KIB);
      const part = partOf(file);
      proxy.fault({ method: 'PUT', dropAnswer: true });
      await expect(cloud.stage(part, calm())).rejects.toMatchObject({ failureClass: 'Transient' });
      await until(part.id, 'active');
      expect((await cloud.get(part.id, calm()))?.sentSha256).toBeUndefined();
      proxy.clear();

      expect((await cloud.stage(part, calm())).sentSha256).toBe(file.digests.sha256);
      expect(proxy.seen.some(({ method }) => method === 'PUT')).toBe(false);
    });

    test('after the comparison and before it was noted: not published until it has been made again', async () => {
      const file = await makeFile(folder.path, 100 * KIB);
      const part = partOf(file);
      const image = imageOf([{ part, file }]);
      proxy.fault({ method: 'PATCH', answer: { status: 500 } });
      await expect(cloud.stage(part, calm())).rejects.toMatchObject({ reason: 'ServerError' });
      const unproven = { ...image, parts: [{ id: part.id, role: 'Disk' as const }] };
      await expect(cloud.publish(unproven, calm())).rejects.toMatchObject({ reason: 'Conflict' });

      await cloud.stage(part, calm());
      await cloud.publish(unproven, calm());
      expect((await cloud.get(part.id, calm()))?.published).toBe(true);
    });

    test('after SIGKILL of the client in the middle of an upload', async () => {
      const file = await makeFile(folder.path, 300 * KIB);
      const part = partOf(file);
      const script = join(folder.path, 'client.json');
      const clouds = await openstack.clouds('demo', { imageEndpoint: proxy.url });
      const { bytes, ...plain } = part;
      await writeFile(script, JSON.stringify({ clouds, part: plain, path: bytes.path, size: bytes.size }));
      const client = spawn(
        process.execPath,
        [...FROM_SOURCES, join(import.meta.dirname, 'staging-client.ts'), script],
        {
          stdio: ['ignore', 'pipe', 'inherit'],
        },
      );
      await once(client.stdout, 'data'); // it holds back the last bytes now
      await until(part.id, 'saving');
      client.kill('SIGKILL');
      await once(client, 'exit');
      await until(part.id, 'queued');

      expect((await cloud.stage(part, calm())).state).toBe('Active');
    });
  });

  test('an image that Glance left in saving when it was killed is removed, and the next id is used', async () => {
    const file = await makeFile(folder.path, 300 * KIB);
    const part = partOf(file);
    const proof = gate();
    const staging = cloud.stage({ ...part, bytes: bytesOf(file, { mayFinish: proof.arrive }) }, calm());
    await proof.reached;
    await until(part.id, 'saving');
    await openstack.killGlance();
    await expect(staging).rejects.toMatchObject({ failureClass: 'Transient' });
    await openstack.startGlance();
    expect(await status(part.id)).toBe('saving');

    await expect(cloud.stage(part, calm())).rejects.toMatchObject({ reason: 'IdTaken' });
    expect(await imageIds()).toEqual([]);
    const next = partOf(file, { ownership: { ...part.ownership, attempt: 1 } });
    expect((await cloud.stage(next, calm())).state).toBe('Active');
  });

  test('a change made while bytes are on their way is undone by Glance: why the hash is noted afterwards', async () => {
    const file = await makeFile(folder.path, 200 * KIB);
    const part = partOf(file);
    const proof = gate();
    const staging = cloud.stage({ ...part, bytes: bytesOf(file, { mayFinish: proof.arrive }) }, calm());
    await proof.reached;
    await until(part.id, 'saving');
    const patch = [{ op: 'add', path: '/set_during_upload', value: 'yes' }];
    expect((await openstack.image('demo', 'PATCH', `/images/${part.id}`, patch)).status).toBe(200);
    proof.open();
    await staging;

    expect((await openstack.image('demo', 'GET', `/images/${part.id}`)).body).not.toHaveProperty('set_during_upload');
  });

  describe('answers that mean something', () => {
    test('a full quota is waited for, and the empty record is used when there is room', async () => {
      const big = await makeFile(folder.path, 3 * KIB * KIB);
      const held = partOf(big);
      await cloud.stage(held, calm());
      const file = await makeFile(folder.path, 2 * KIB * KIB);
      const part = partOf(file);
      const full = cloud.stage(part, calm());
      await expect(full).rejects.toMatchObject({ reason: 'QuotaExceeded', message: expect.stringContaining('quota') });

      await cloud.remove([{ id: held.id, role: 'Disk' }], calm());
      expect((await cloud.stage(part, calm())).id).toBe(part.id);
    });

    test.each([
      [400, 'Rejected'],
      [403, 'Forbidden'],
      [413, 'QuotaExceeded'],
      [415, 'Rejected'],
      [429, 'TooManyRequests'],
      [500, 'ServerError'],
      [503, 'ServerError'],
    ])('%i to the upload is %s', async (code, reason) => {
      const file = await makeFile(folder.path, 100 * KIB);
      const part = partOf(file);
      const html = '<html><head><title>No</title></head><body><h1>No</h1> why it did not <br /></body></html>';
      proxy.fault({ method: 'PUT', answer: { status: code, body: html, headers: { 'retry-after': '7' } } });

      const failure = await cloud.stage(part, calm()).catch((error: unknown) => error);

      expect(failure).toMatchObject({ reason, retryAfterMs: 7000, message: expect.stringContaining('why it did not') });
      // A record that no later try could use is not left behind; one that a later try can use is not thrown away.
      const kept = ['Transient', 'Waiting'].includes((failure as Failure).failureClass);
      expect(await imageIds()).toEqual(kept ? [part.id] : []);
    });

    test('401 to the upload: a new token, and once more', async () => {
      const file = await makeFile(folder.path, 100 * KIB);
      proxy.fault({ method: 'PUT', answer: { status: 401 } });

      expect((await cloud.stage(partOf(file), calm())).state).toBe('Active');

      const tokens = proxy.seen.filter(({ method }) => method === 'PUT').map(({ headers }) => headers['x-auth-token']);
      expect(new Set(tokens).size).toBe(2);
    });

    test('Glance down: the endpoint is named', async () => {
      const file = await makeFile(folder.path, 10 * KIB);
      await openstack.killGlance();
      const clouds = await openstack.clouds('demo');
      const secret = new Map([['clouds.yaml', new TextEncoder().encode(clouds)]]);
      const direct = await openCloud({ openstack: {} }, contextOf(transfers, { secret }));

      const failure = direct.stage(partOf(file), calm());

      await expect(failure).rejects.toMatchObject({
        reason: 'NetworkError',
        message: expect.stringContaining(openstack.glanceUrl),
      });
      await direct.close();
      await openstack.startGlance();
    });

    test('a property that would set more than a property is refused before anything is asked', async () => {
      const file = await makeFile(folder.path, 10 * KIB);
      for (const name of ['owner', 'Visibility', 'imageproxy_owner', 'os_glance_x', 'img_signature', 'kernel_id']) {
        const part = partOf(file, { registration: registrationOf({ properties: { [name]: 'x' } }) });
        await expect(cloud.stage(part, calm())).rejects.toMatchObject({
          reason: 'InvalidSpec',
          message: expect.stringContaining(name),
        });
      }
      expect(proxy.seen).toEqual([]);
    });
  });

  test('find and census see hidden and public ones of our project, and no look-alikes', async () => {
    const file = await makeFile(folder.path, 10 * KIB);
    const ownership = ownershipOf(file);
    const [hidden, shown, other] = [partOf(file, { ownership }), partOf(file, { ownership }), partOf(file)];
    for (const part of [hidden, shown, other]) await cloud.stage(part, calm());
    await cloud.publish(imageOf([{ part: shown, file }], registrationOf({ visibility: 'Community' })), calm());
    const alike = { imageproxy_owner: ownership.owner, imageproxy_guid: ownership.guid, name: 'look-alike' };
    const { body } = await openstack.image('other', 'POST', '/images', { ...alike, visibility: 'community' });

    const found = await cloud.find(ownership, calm());

    expect(found.map(({ id }) => id).sort()).toEqual([hidden.id, shown.id].sort());
    expect(await cloud.census(calm())).toEqual(new Set([hidden.id, shown.id, other.id]));
    expect(await cloud.get((body as { id: string }).id, calm())).toBeUndefined();
    await openstack.image('other', 'DELETE', `/images/${(body as { id: string }).id}`);
  });
});
