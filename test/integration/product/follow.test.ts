import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Disk, digested, ext4 } from '../../support/disks.ts';
import { FROM_SOURCES } from '../../support/from-sources.ts';
import { condition, House, isTrue, openstackSite, vmimage } from '../../support/house.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, type Route, startOrigin } from '../../support/origin.ts';
import { type FaultProxy, startFaultProxy } from '../../support/proxy.ts';

/**
 * An upload that follows its download while that is still running: nothing unproven is ever active, whatever happens in between.
 * The origin holds its last bytes back until the test has seen Glance call the image `saving`, so every test is of an upload that
 * really follows.
 */

const MIB = 2 ** 20;
/**
 * What the origin holds back. An upload begins when the rest of the download takes no longer than itself: a fifth of a second for these
 * disks, which so little takes on every machine. And it is less than the 64 KiB that wait for the proof in any case: an upload that
 * waits for the origin is cut after three seconds, and the test may be later than that.
 */
const HELD_BYTES = 16 * 1024;
const SCRIPT = join(import.meta.dirname, '..', '..', 'support', 'controller-process.ts');

interface Image {
  id: string;
  status: string;
  os_hidden: boolean;
  os_hash_value: string;
  disk_format: string;
}

describe.skipIf(!openstackAvailable())('an upload that follows its download', () => {
  let openstack: OpenStack;
  let origin: Origin;
  let proxy: FaultProxy;
  let house: House;
  let disk: Disk;
  let other: Disk;
  let clouds: string;
  /** What Glance has said of the records of the test's image, in order. */
  let seen: Image[][];
  let watching: { stop: boolean; done: Promise<void> };
  let guid: string;
  let round = 0;

  beforeAll(async () => {
    [openstack, origin] = await Promise.all([startOpenStack(), startOrigin()]);
    proxy = await startFaultProxy(openstack.glanceUrl);
    clouds = await openstack.clouds('demo', { imageEndpoint: proxy.url });
    [disk, other] = [ext4('follow', 16), ext4('other', 16)];
  });

  afterAll(async () => {
    await proxy?.stop();
    await Promise.all([openstack?.stop(), origin?.close()]);
  });

  beforeEach(async () => {
    round += 1;
    guid = `follow-${round}`;
    seen = [];
    proxy.clear();
    origin.requests.length = 0;
    house = new House();
    await house.write('site.yaml', ...openstackSite('nova', clouds, 'demo'));
    watching = { stop: false, done: Promise.resolve() };
    watching.done = watch(watching);
  });

  afterEach(async () => {
    watching.stop = true;
    await watching.done;
    await house.close();
  });

  const start = async () => {
    await house.start();
    await house.untilSite('nova', (site) => isTrue(site, 'Ready'));
  };
  const specOf = (digests: Pick<Disk, 'sha256'>, more: Record<string, unknown> = {}) => ({
    guid,
    source: { http: { urls: [`${origin.url}/${guid}.img`] } },
    checksums: { sha256: digests.sha256 },
    sites: [{ name: 'nova' }],
    ...more,
  });
  const write = (spec: Record<string, unknown>) => house.write('image.yaml', vmimage('image', spec));
  const records = async (): Promise<Image[]> => {
    const lists = await Promise.all(
      ['true', 'false'].map((hidden) =>
        openstack.image('demo', 'GET', `/images?os_hidden=${hidden}&imageproxy_guid=${guid}`),
      ),
    );
    // An image that is published between the two questions is told twice.
    const all = lists.flatMap((list) => (list.body as { images: Image[] }).images);
    return [...new Map(all.map((image) => [image.id, image])).values()];
  };
  async function watch(until: { stop: boolean }): Promise<void> {
    while (!until.stop) seen.push(await records());
  }
  const everActive = () => seen.flat().filter(({ status }) => status === 'active');
  const uploads = () => proxy.seen.filter(({ method, path }) => method === 'PUT' && path.endsWith('/file'));
  const fetches = () => origin.requests.filter(({ path }) => path === `/${guid}.img`);

  /** Serves all but so little that an upload may follow; the rest when `open` is called. */
  function serve(body: Uint8Array, more: Route = {}): { open(): void } {
    const gate = Promise.withResolvers<void>();
    origin.route(`/${guid}.img`, (_, count) =>
      count > 1 && more.cutAfter !== undefined
        ? { body, etag: '"1"' }
        : {
            body,
            etag: '"1"',
            bytesPerSecond: 20 * MIB,
            holdAfter: { bytes: body.length - HELD_BYTES, until: gate.promise },
            ...more,
          },
    );
    return { open: () => gate.resolve() };
  }
  /** Glance has begun to take bytes while the origin still has some. */
  const saving = () =>
    expect.poll(async () => (await records()).map(({ status }) => status), { interval: 20 }).toEqual(['saving']);

  const expectOne = async (proven: Disk) => {
    const image = await house.ready('image');
    const there = await records();
    expect(there).toMatchObject([
      { id: image.status.sites?.[0]?.imageID, status: 'active', os_hidden: false, os_hash_value: proven.sha512 },
    ]);
    for (const active of everActive()) expect(active.os_hash_value).toBe(proven.sha512);
    return image;
  };

  test('ends with the download: one fetch, one upload, active once all is proven', async () => {
    const origin = serve(disk.bytes);
    await start();
    await write(specOf(disk));
    await saving();
    expect(everActive()).toEqual([]);
    origin.open();
    await expectOne(disk);
    expect(uploads()).toHaveLength(1);
    expect(fetches()).toHaveLength(1);
  });

  test('of wrong bytes is cut before its end: never active, the record removed, Stalled, and not fetched again', async () => {
    const origin = serve(disk.bytes);
    await start();
    await write(specOf(other));
    await saving();
    origin.open();
    const image = await house.stalled('image');
    expect(condition(image, 'Ready')).toMatchObject({ reason: 'DigestMismatch' });
    await expect.poll(records).toEqual([]);
    expect(everActive()).toEqual([]);
    expect(image.status.sites?.[0]).toMatchObject({ phase: 'Failed', reason: 'DigestMismatch' });
    expect(fetches()).toHaveLength(1);
    expect(house.leftIn('partial', 'scratch')).toEqual([]);
  });

  test('is cut when the origin vanishes, and sent again when the rest has come', async () => {
    const origin = serve(disk.bytes, { cutAfter: disk.bytes.length - HELD_BYTES / 2 });
    await start();
    await write(specOf(disk));
    await saving();
    origin.open();
    await house.until('image', (now) => now.status.failure?.reason === 'Truncated');
    expect(everActive()).toEqual([]);
    await house.ask('image', '1');
    await expectOne(disk);
    expect(fetches().map(({ headers }) => headers.range)).toEqual([undefined, expect.stringMatching(/^bytes=\d+-$/)]);
  });

  test('is cut when the origin has other bytes all of a sudden, and those are never active', async () => {
    const gate = Promise.withResolvers<void>();
    origin.route(`/${guid}.img`, (_, count) =>
      count === 1
        ? {
            body: disk.bytes,
            etag: '"1"',
            bytesPerSecond: 20 * MIB,
            holdAfter: { bytes: disk.bytes.length - HELD_BYTES, until: gate.promise },
            cutAfter: disk.bytes.length - HELD_BYTES / 2,
          }
        : { body: other.bytes, etag: '"2"' },
    );
    await start();
    await write(specOf(disk));
    await saving();
    gate.resolve();
    await house.until('image', (now) => now.status.failure?.reason === 'Truncated');
    await house.ask('image', '1');
    const image = await house.stalled('image');
    expect(condition(image, 'Ready')?.reason).toBe('DigestMismatch');
    await expect.poll(records).toEqual([]);
    expect(everActive()).toEqual([]);
  });

  test('survives SIGKILL: after the restart one proven image is there, and no half-made one', async () => {
    const origin = serve(disk.bytes, { cutAfter: disk.bytes.length });
    await write(specOf(disk));
    let child: ChildProcess | undefined;
    try {
      child = spawn(process.execPath, [...FROM_SOURCES, SCRIPT, house.manifests, house.state], { stdio: 'ignore' });
      await saving();
      child.kill('SIGKILL');
      await once(child, 'exit');
    } finally {
      child?.kill('SIGKILL');
      origin.open();
    }
    expect(everActive()).toEqual([]);
    await start();
    await expectOne(disk);
    await house.until('image', (now) => now.status.sites?.[0]?.operation === undefined);
    expect(await records()).toHaveLength(1);
  });

  test('is cut when the image is suspended, and nothing of it is left; taken up again it ends well', async () => {
    const origin = serve(disk.bytes);
    await start();
    await write(specOf(disk));
    await saving();
    await write(specOf(disk, { suspend: true }));
    await house.until('image', (now) => now.status.phase === 'Suspended');
    origin.open();
    await expect.poll(records).toEqual([]);
    expect(everActive()).toEqual([]);
    await write(specOf(disk));
    await expectOne(disk);
  });

  test('is cut when the image is deleted, and nothing of it is left', async () => {
    const origin = serve(disk.bytes);
    await start();
    await write(specOf(disk));
    await saving();
    await house.remove('image.yaml', 'image');
    origin.open();
    expect(await records()).toEqual([]);
    expect(everActive()).toEqual([]);
  });

  test('is cut when the image is edited to name other bytes, which are registered in its place', async () => {
    const held = serve(disk.bytes);
    await start();
    await write(specOf(disk));
    await saving();
    origin.route('/edited.img', { body: other.bytes });
    await write({ ...specOf(other), source: { http: { urls: [`${origin.url}/edited.img`] } } });
    await expectOne(other);
    held.open();
    expect(await records()).toHaveLength(1);
  });

  test('whose record is deleted behind our back ends with one image all the same', async () => {
    const origin = serve(disk.bytes);
    await start();
    await write(specOf(disk));
    await saving();
    for (const { id } of await records()) await openstack.image('demo', 'DELETE', `/images/${id}`);
    origin.open();
    await expectOne(disk);
    expect(fetches()).toHaveLength(1);
  });

  describe('and whose head does not tell all', () => {
    let folder: string;
    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), 'imageproxy-follow-'));
      const raw = Buffer.from(disk.bytes);
      // Random content, so that a qcow2 of it is as long.
      randomBytes(8 * MIB).copy(raw, 6 * MIB);
      writeFileSync(join(folder, 'disk.raw'), raw);
      const convert = (format: string, name: string, ...more: string[]) =>
        execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', format, ...more, 'disk.raw', name], { cwd: folder });
      convert('vpc', 'fixed.vhd', '-o', 'subformat=fixed,force_size=on');
      convert('qcow2', 'disk.qcow2');
      execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'disk.raw', '-F', 'raw', 'backing.qcow2'], {
        cwd: folder,
      });
    });
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    test('is not ended where the end says that a disk that begins like a raw one is a VHD: registered as a VHD, or not at all', async () => {
      const vhd = digested(readFileSync(join(folder, 'fixed.vhd')));
      const origin = serve(vhd.bytes);
      await start();
      await write(specOf(vhd));
      await saving();
      origin.open();
      await house.until('image', (now) => isTrue(now, 'Ready') || isTrue(now, 'Stalled'));
      for (const active of [...everActive(), ...(await records())]) expect(active.disk_format).not.toBe('raw');
      expect((await records()).length).toBeLessThanOrEqual(1);
    });

    test('is cut when the complete qcow2 turns out to be damaged: never active, and nothing left', async () => {
      const bytes = readFileSync(join(folder, 'disk.qcow2'));
      // The first L2 table, far behind what recognition sees, is said to be beyond the end of the file.
      const l1 = Number(bytes.readBigUInt64BE(40));
      expect(l1).toBeGreaterThan(128 * 1024);
      bytes.writeBigUInt64BE(1n << 40n, l1);
      const damaged = digested(bytes);
      const origin = serve(damaged.bytes);
      await start();
      await write(specOf(damaged));
      await saving();
      origin.open();
      const image = await house.stalled('image');
      expect(condition(image, 'Ready')?.reason).toBe('CorruptImage');
      await expect.poll(records).toEqual([]);
      expect(everActive()).toEqual([]);
    });

    test('is not begun where the head is of a qcow2 with a backing file', async () => {
      const padded = digested(Buffer.concat([readFileSync(join(folder, 'backing.qcow2')), Buffer.alloc(15 * MIB, 7)]));
      const origin = serve(padded.bytes);
      await start();
      await write(specOf(padded));
      await house.until('image', (now) => (now.status.progress?.bytes ?? 0) >= padded.bytes.length - MIB);
      origin.open();
      const image = await house.stalled('image');
      expect(condition(image, 'Ready')?.reason).toBe('UnsafeImage');
      expect(uploads()).toEqual([]);
      expect(seen.flat()).toEqual([]);
    });
  });
});
