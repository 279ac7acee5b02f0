import { execFileSync } from 'node:child_process';
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
  chmodSync,
  mkdirSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Clock, systemClock } from '../../../src/runtime/clock.ts';
import { type Disk, qcow2 } from '../../support/disks.ts';
import { directorySite, House, openstackSite, vmimage } from '../../support/house.ts';
import { openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

const DAY_MS = 24 * 3_600_000;
const SCRUB_MS = 10 * 60_000;

/** The system's clock, that a test can set forward; what waits for the next scrub is run by the test. */
class ShiftedClock implements Clock {
  shiftMs = 0;
  readonly scrubs: (() => void)[] = [];
  readonly now = (): number => systemClock.now() + this.shiftMs;
  readonly random = systemClock.random;
  readonly after = (ms: number, callback: () => void): (() => void) => {
    if (ms !== SCRUB_MS) return systemClock.after(ms, callback);
    this.scrubs.push(callback);
    return () => {};
  };
}

describe('a blob that rots on the disk', () => {
  let origin: Origin;
  let house: House;
  let clock: ShiftedClock;
  let disk: Disk;

  beforeEach(async () => {
    origin = await startOrigin();
    clock = new ShiftedClock();
    disk = qcow2('rot');
    house = new House({ clock });
    origin.route('/disk.qcow2', { body: disk.bytes });
    await house.write('shelf.yaml', directorySite('shelf', house.shelf));
    await house.start();
    await write('shelf');
    await house.ready('image');
    expect(origin.requests).toHaveLength(1);
    const blobs = readdirSync(join(house.state, 'cache', 'blobs'), { recursive: true, withFileTypes: true });
    const blob = blobs.find((entry) => entry.isFile() && entry.name === disk.sha256);
    rot(join(blob?.parentPath ?? '', disk.sha256));
  });
  afterEach(async () => {
    await house.close();
    await origin.close();
  });

  const write = (...sites: string[]) =>
    house.write(
      'image.yaml',
      vmimage('image', {
        source: { http: { urls: [`${origin.url}/disk.qcow2`] } },
        checksums: { sha256: disk.sha256 },
        sites: sites.map((name) => ({ name })),
      }),
    );
  const addShelf = async () => {
    const path = join(house.root, 'second');
    mkdirSync(path);
    await house.write('second.yaml', directorySite('second', path));
    await write('shelf', 'second');
    await house.ready('image');
    const name = readdirSync(path).find((each) => each.endsWith('.qcow2')) ?? '';
    return readFileSync(join(path, name));
  };

  test('is found by the scrub and thrown away, and fetched again when it is needed', async () => {
    clock.shiftMs = 8 * DAY_MS;
    for (const scrub of clock.scrubs.splice(0)) scrub();
    await expect.poll(() => house.lines.some((line) => line.includes('a blob is damaged'))).toBe(true);
    expect(origin.requests).toHaveLength(1);
    expect((await addShelf()).equals(disk.bytes)).toBe(true);
    expect(origin.requests).toHaveLength(2);
  });

  test('is found when a site holds other bytes than were proven, before any scrub, and fetched again', async () => {
    expect((await addShelf()).equals(disk.bytes)).toBe(true);
    expect(origin.requests).toHaveLength(2);
    expect(house.lines.some((line) => line.includes('a blob is damaged'))).toBe(true);
  });

  test.skipIf(!openstackAvailable())('is never visible in a cloud', async () => {
    const openstack = await startOpenStack();
    try {
      await house.write('nova.yaml', ...openstackSite('nova', await openstack.clouds('demo'), 'demo'));
      await write('shelf', 'nova');
      const { imageID } = (await house.ready('image')).status.sites?.find(({ name }) => name === 'nova') ?? {};
      const { body } = await openstack.image('demo', 'GET', `/images/${imageID}`);
      expect(body).toMatchObject({ os_hidden: false, os_hash_value: disk.sha512 });
      const hidden = await openstack.image('demo', 'GET', '/images?os_hidden=true');
      expect(hidden.body).toMatchObject({ images: [] });
      expect(origin.requests).toHaveLength(2);
    } finally {
      await openstack.stop();
    }
  });
});

/** One byte changes, as no `write` of anybody would leave it: size, inode and the date to its last nanosecond stay. */
function rot(path: string): void {
  const { mode, size } = statSync(path);
  const date = `${path}.date`;
  execFileSync('touch', ['-r', path, date]);
  chmodSync(path, 0o600);
  const file = openSync(path, 'r+');
  writeSync(file, Buffer.from([255]), 0, 1, size - 1000);
  closeSync(file);
  chmodSync(path, mode);
  execFileSync('touch', ['-r', date, path]);
  rmSync(date);
}
