import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { kstatus } from '../../../src/api/conditions.ts';
import { type Disk, digested, ext4 } from '../../support/disks.ts';
import { condition, directorySite, House, isTrue, vmimage } from '../../support/house.ts';
import { type Origin, type Route, startOrigin } from '../../support/origin.ts';

/** A volume without room, and a cache that is small for what is asked of it: conditions and patience, no crash, and Ready in the end. */

const MIB = 2 ** 20;
const VOLUME_MIB = 48;

/** A raw disk whose every block is on the disk: nothing of it is a hole. */
function dense(label: string, mebibytes: number): Disk {
  const { bytes } = ext4(label, mebibytes);
  for (let at = MIB; at < bytes.length; at += 4096) bytes[at + 1] = (bytes[at + 1] ?? 0) | 1;
  return digested(bytes);
}

function mountable(): boolean {
  if (process.getuid?.() !== 0) return false;
  const at = mkdtempSync(join(tmpdir(), 'imageproxy-mount-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', at], { stdio: 'pipe' });
    execFileSync('umount', [at]);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(at, { recursive: true, force: true });
  }
}

let origin: Origin;
let house: House;

beforeAll(async () => {
  origin = await startOrigin();
});
afterAll(() => origin?.close());

const published = () => readdirSync(house.shelf).filter((name) => name.endsWith('.raw')).length;
const write = (name: string, disk: Disk, more: Record<string, unknown> = {}, route: Route = {}) => {
  origin.route(`/${name}`, { body: disk.bytes, etag: `"${disk.md5}"`, ...route });
  return house.write(
    `${name}.yaml`,
    vmimage(name, {
      source: { http: { urls: [`${origin.url}/${name}`] } },
      checksums: { sha256: disk.sha256 },
      sites: [{ name: 'shelf' }],
      ...more,
    }),
  );
};

describe.skipIf(!mountable())('a cache on a volume of its own that is full', () => {
  let mount: string;
  const ballast = () => join(mount, 'ballast');
  /** Takes all of the volume but so many MiB, as another program would. */
  const leave = (mebibytes: number) => {
    rmSync(ballast(), { force: true });
    const { bavail, bsize } = statfsSync(mount);
    writeFileSync(ballast(), Buffer.alloc(bavail * bsize - mebibytes * MIB, 1));
  };

  beforeEach(async () => {
    mount = mkdtempSync(join(tmpdir(), 'imageproxy-volume-'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${VOLUME_MIB}m`, 'tmpfs', mount]);
    mkdirSync(join(mount, 'cache'));
    house = new House({ cache: join(mount, 'cache'), cacheQuotaBytes: 40 * MIB });
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.start();
    await house.untilSite('shelf', (site) => isTrue(site, 'Ready'));
  });
  afterEach(async () => {
    await house.close();
    execFileSync('umount', [mount]);
    rmSync(mount, { recursive: true, force: true });
  });

  const waitsForRoom = async (name: string) => {
    const image = await house.until(name, (now) => condition(now, 'Ready')?.reason === 'DiskFull');
    expect(kstatus(image).status).toBe('InProgress');
    expect(condition(image, 'Ready')?.message).toMatch(/free space on (it|the volume), or give it more/);
    expect(published()).toBe(0);
  };

  test('is told before the first byte where the length is known, and the image is fetched when there is room', async () => {
    leave(4);
    await write('known', dense('known', 8));
    await waitsForRoom('known');
    rmSync(ballast());
    await house.ask('known', 'room');
    await house.ready('known');
    expect(published()).toBe(1);
  });

  test('in the middle of a download is a condition, and the image is fetched when there is room', async () => {
    const disk = dense('middle', 16);
    const gate = Promise.withResolvers<void>();
    const name = 'middle';
    origin.route(`/${name}`, (_, count) =>
      count === 1
        ? { body: disk.bytes, etag: '"m"', holdAfter: { bytes: 4 * MIB, until: gate.promise } }
        : { body: disk.bytes, etag: '"m"' },
    );
    await house.write(
      `${name}.yaml`,
      vmimage(name, {
        source: { http: { urls: [`${origin.url}/${name}`] } },
        checksums: { sha256: disk.sha256 },
        sites: [{ name: 'shelf' }],
      }),
    );
    await house.until(name, (now) => (now.status.progress?.bytes ?? 0) >= 4 * MIB);
    leave(2);
    gate.resolve();
    await waitsForRoom(name);
    rmSync(ballast());
    await house.ask(name, 'room');
    await house.ready(name);
    expect(published()).toBe(1);
  });

  test('while an image is unpacked is a condition, nothing half-made stays, and it goes on when there is room', async () => {
    const raw = dense('unpacked', 16);
    const packed = digested(gzipSync(raw.bytes));
    leave(8);
    await write('unpacked', packed);
    await waitsForRoom('unpacked');
    expect(readdirSync(join(mount, 'cache', 'scratch'))).toEqual([]);
    rmSync(ballast());
    await house.ask('unpacked', 'room');
    await house.ready('unpacked');
    expect(origin.requests.filter(({ path }) => path === '/unpacked')).toHaveLength(1);
  });
});

describe('a cache that has room for three of twenty images', () => {
  const QUOTA = 26 * MIB;

  beforeEach(async () => {
    house = new House({ cacheQuotaBytes: QUOTA });
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.start();
    await house.untilSite('shelf', (site) => isTrue(site, 'Ready'));
  });
  afterEach(() => house.close());

  test('brings all of them to Ready, one after the other, and is never over its quota', async () => {
    const base = dense('twenty', 8).bytes;
    const names = Array.from({ length: 20 }, (_, index) => `image-${index}`);
    const readings: { bytes: number; reserved: number }[] = [];
    const over = new AbortController();
    const watch = (async () => {
      while (!over.signal.aborted) {
        const { body } = await house.controller.metrics.expose();
        const read = (name: string) => Number(new RegExp(`^imageproxy_cache_${name} (\\S+)$`, 'm').exec(body)?.[1]);
        readings.push({ bytes: read('bytes'), reserved: read('reserved_bytes') });
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    await Promise.all(
      names.map((name) => {
        const bytes = Buffer.from(base);
        bytes.write(name, 2 * MIB);
        return write(name, digested(bytes));
      }),
    );
    try {
      await Promise.all(names.map((name) => house.until(name, (now) => isTrue(now, 'Ready'), 'Ready', 240_000)));
    } finally {
      over.abort();
      await watch;
    }
    expect(published()).toBe(20);
    expect(readings.length).toBeGreaterThan(20);
    expect(Math.max(...readings.map(({ reserved }) => reserved))).toBeGreaterThan(8 * MIB);
    for (const { bytes, reserved } of readings) expect(bytes + reserved).toBeLessThanOrEqual(QUOTA);
    // Refused once for want of room, and served when its turn had come: nobody is asked for more often, or fetched twice.
    for (const name of names)
      expect(origin.requests.filter(({ path }) => path === `/${name}`).length, name).toBeLessThanOrEqual(2);
  });

  test('brings images to Ready that fill it before they are unpacked: who waits for room keeps none from the others', async () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f'].map((letter) => `packed-${letter}`);
    const base = ext4('packed', 8).bytes;
    // Four fit as they are published, and room to unpack one takes that of two.
    await Promise.all(
      names.map((name) => {
        const raw = Buffer.from(base);
        randomBytes(6 * MIB).copy(raw, MIB);
        return write(name, digested(gzipSync(raw)));
      }),
    );
    await Promise.all(names.map((name) => house.until(name, (now) => isTrue(now, 'Ready'), 'Ready', 240_000)));
    expect(published()).toBe(6);
  });

  test('goes to the next who waits when the first is suspended', async () => {
    const large = ext4('large', 20);
    const gate = Promise.withResolvers<void>();
    await write('large', large, {}, { holdAfter: { bytes: MIB, until: gate.promise } });
    await house.until('large', (now) => (now.status.progress?.bytes ?? 0) > 0);
    const first = ext4('first', 20);
    await write('first', first);
    await house.until('first', (now) => condition(now, 'Ready')?.reason === 'CacheFull');
    // There would be room for it, but it is not its turn.
    await write('second', ext4('second', 4));
    await house.until('second', (now) => condition(now, 'Ready')?.reason === 'CacheFull');
    await write('first', first, { suspend: true });
    await house.ready('second');
    gate.resolve();
    await house.ready('large');
  });
});
