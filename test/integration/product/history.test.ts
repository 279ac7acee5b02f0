import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { systemClock } from '../../../src/runtime/clock.ts';
import { type Disk, digested, ext4, gzipped, qcow2 } from '../../support/disks.ts';
import { directorySite, House, isTrue, vmimage } from '../../support/house.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

/** What becomes of registrations in time: replaced, retired, removed; expired. */
let origin: Origin;
let house: House;
/** How far the program's clock is ahead of the real one. */
let aheadMs = 0;

const versions = new Map<number, Disk>();

const specOf = (version: number, more: Record<string, unknown> = {}) => {
  const disk = versions.get(version) ?? qcow2(`version-${version}`);
  versions.set(version, disk);
  origin.route(`/v${version}.qcow2`, { body: disk.bytes, etag: `"${version}"` });
  return {
    source: { http: { urls: [`${origin.url}/v${version}.qcow2`] } },
    checksums: { sha256: disk.sha256 },
    sites: [{ name: 'shelf' }],
    ...more,
  };
};
const visible = () => readdirSync(house.shelf).filter((name) => !name.startsWith('.') && name !== 'index.json');
const retired = () => readdirSync(join(house.shelf, '.retired'));
const records = () => readdirSync(join(house.shelf, '.records'));

beforeEach(async () => {
  aheadMs = 0;
  origin = await startOrigin();
  house = new House({ clock: { ...systemClock, now: () => Date.now() + aheadMs } });
  await house.write('shelf.yaml', directorySite('shelf', house.shelf));
  await house.start();
});

afterEach(async () => {
  await house.close();
  await origin.close();
});

/** Makes this version the current one, and waits until its predecessors are where they belong. */
async function becomes(version: number, generation: number, history: number): Promise<string> {
  await house.write('h.yaml', vmimage('h', specOf(version, { history })));
  const image = await house.until(
    'h',
    ({ status }) => {
      const [row] = status.sites ?? [];
      return (
        status.observedGeneration === generation &&
        status.phase === 'Ready' &&
        row?.operation === undefined &&
        (row?.previous ?? []).length <= history &&
        row?.previous?.every((each) => each.retiredAt !== undefined) !== false
      );
    },
    `version ${version} alone in service`,
  );
  return image.status.sites?.[0]?.imageID ?? '';
}

describe('former versions', () => {
  test('are removed at once with history 0', async () => {
    await becomes(1, 1, 0);
    const id = await becomes(2, 2, 0);
    expect([visible(), retired(), records()]).toEqual([[`${id}.qcow2`], [], [`${id}.json`]]);
    expect(house.row('h', 'shelf')?.previous).toBeUndefined();
  });

  test('are kept as many as history says, the youngest; fewer when it is lowered', async () => {
    const ids: string[] = [];
    for (const version of [1, 2, 3, 4]) ids.push(await becomes(version, version, 2));
    const [, v2, v3, v4] = ids.map((id) => `${id}.qcow2`);
    expect(visible()).toEqual([v4]);
    expect(new Set(retired())).toEqual(new Set([v2, v3]));
    expect(house.row('h', 'shelf')?.previous?.map((each) => `${each.imageID}.qcow2`)).toEqual([v3, v2]);

    await becomes(4, 5, 1);
    expect(retired()).toEqual([v3]);
    const back = await becomes(3, 6, 1);
    expect(`${back}.qcow2`).toBe(v3);
    expect([visible(), retired()]).toEqual([[v3], [v4]]);
  });

  test('come back again and again with history 0, and leave nothing', async () => {
    for (let generation = 1; generation <= 6; generation++) await becomes(1 + (generation % 2), generation, 0);
    expect(visible()).toHaveLength(1);
    expect(records()).toHaveLength(1);
  });

  test('come back with the kernel that their successor has, too', async () => {
    const kernel = gzipped(ext4('kernel'));
    origin.route('/vmlinuz', { body: kernel.bytes });
    const part = (type: string, path: string, sha1: string) =>
      `<image><type>${type}</type><signature>${sha1}</signature><url>${origin.url}/${path}</url></image>`;
    const booted = async (version: number, generation: number) => {
      specOf(version);
      const { sha1 } = versions.get(version) as Disk;
      const boot = part('KERNEL', 'vmlinuz', kernel.sha1);
      const xml = Buffer.from(`<images>${part('QCOW2', `v${version}.qcow2`, sha1)}${boot}</images>`);
      origin.route(`/v${version}.xml`, { body: xml });
      const source = { metafile: { url: `${origin.url}/v${version}.xml`, sha1: digested(xml).sha1 } };
      const spec = { source, verification: { allowWeak: true }, sites: [{ name: 'shelf' }] };
      await house.write('m.yaml', vmimage('m', spec));
      const { status } = await house.until(
        'm',
        (now) =>
          now.status.observedGeneration === generation &&
          isTrue(now, 'Ready') &&
          now.status.sites?.[0]?.operation === undefined &&
          now.status.sites?.[0]?.previous?.every((each) => each.retiredAt !== undefined) !== false,
      );
      const { imageID, kernelID } = status.sites?.[0] ?? {};
      return { imageID, kernelID };
    };
    const first = await booted(1, 1);
    const second = await booted(2, 2);
    expect(second.kernelID).toBe(first.kernelID);
    expect(await booted(1, 3)).toEqual(first);
    expect(new Set(visible())).toEqual(new Set([`${first.imageID}.qcow2`, `${first.kernelID}.kernel`]));
    expect(retired()).toEqual([`${second.imageID}.qcow2`]);
    expect(readFileSync(join(house.shelf, 'index.json'), 'utf8')).toContain(`${first.kernelID}.kernel`);
  });

  test('that somebody has removed are registered anew where they are wanted again', async () => {
    const first = await becomes(1, 1, 1);
    await becomes(2, 2, 1);
    for (const folder of ['.retired', '.records'])
      for (const name of readdirSync(join(house.shelf, folder)))
        if (name.startsWith(first)) rmSync(join(house.shelf, folder, name));
    const again = await becomes(1, 3, 1);
    expect(visible()).toEqual([`${again}.qcow2`]);
    await house.write('h.yaml', vmimage('h', specOf(1, { history: 1, state: 'Deactivated' })));
    await house.until('h', ({ status }) => status.phase === 'Deactivated');
    for (const folder of ['.retired', '.records'])
      for (const name of readdirSync(join(house.shelf, folder)))
        if (name.startsWith(again)) rmSync(join(house.shelf, folder, name));
    await becomes(1, 5, 1);
    expect(visible()).toHaveLength(1);
  });

  test('that cannot be removed are out of service, are told, and are removed when they can be', async () => {
    const first = await becomes(1, 1, 1);
    await becomes(2, 2, 1);
    // A folder in its place is not removed as a file is.
    const stuck = join(house.shelf, '.staging', `${first}.qcow2`);
    mkdirSync(stuck);
    await house.write('h.yaml', vmimage('h', specOf(3, { history: 1 })));
    const told = await house.until(
      'h',
      ({ status }) => status.sites?.[0]?.message?.includes('cannot be removed') === true,
      'being told',
    );
    expect(isTrue(told, 'Ready')).toBe(true);
    expect(told.status.sites?.[0]).toMatchObject({ phase: 'Ready', reason: 'Trim' });
    expect(visible()).toEqual([`${told.status.sites?.[0]?.imageID}.qcow2`]);
    expect(told.status.sites?.[0]?.previous?.every((each) => each.retiredAt !== undefined)).toBe(true);

    rmSync(stuck, { recursive: true });
    await house.ask('h', '1');
    await house.until('h', ({ status }) => status.sites?.[0]?.previous?.length === 1);
    expect(records()).toHaveLength(2);
  });
});

describe('an image that somebody has removed at its site', () => {
  test('and that is edited before anybody has looked is found missing, and registered again', async () => {
    const id = await becomes(1, 1, 1);
    for (const folder of ['.', '.records'])
      for (const name of readdirSync(join(house.shelf, folder)))
        if (name.startsWith(id)) rmSync(join(house.shelf, folder, name));
    // It does not stay so for long: who only looks once the edit is read may be too late.
    const [missing] = await Promise.all([
      house.until('h', ({ status }) => status.sites?.[0]?.phase === 'Missing'),
      house.write('h.yaml', vmimage('h', specOf(1, { registration: { tags: ['edited'] } }))),
    ]);
    expect(isTrue(missing, 'Available')).toBe(false);
    aheadMs = 30 * 60_000;
    await house.store.annotate('VMImage', { namespace: 'default', name: 'h' }, { note: 'the clock has jumped' });
    const again = await house.until('h', (now) => now.status.sites?.[0]?.losses?.length === 1 && isTrue(now, 'Ready'));
    expect(visible()).toEqual([`${again.status.sites?.[0]?.imageID}.qcow2`]);
    expect(readFileSync(join(house.shelf, 'index.json'), 'utf8')).toContain('edited');
  });

  test('in part is made whole again with what is left of it, and nothing of it stays when it is deleted', async () => {
    const kernel = gzipped(ext4('kernel'));
    origin.route('/vmlinuz', { body: kernel.bytes });
    const boot = { source: { http: { urls: [`${origin.url}/vmlinuz`] } }, checksums: { sha256: kernel.sha256 } };
    await house.write('h.yaml', vmimage('h', specOf(1, { kernel: boot })));
    const [before] = (await house.ready('h')).status.sites ?? [];
    for (const folder of ['.', '.records'])
      for (const name of readdirSync(join(house.shelf, folder)))
        if (name.startsWith(before?.kernelID ?? '')) rmSync(join(house.shelf, folder, name));
    await house.ask('h', '1');
    const again = await house.until('h', (now) => now.status.sites?.[0]?.losses?.length === 1 && isTrue(now, 'Ready'));
    const [row] = again.status.sites ?? [];
    expect(row?.imageID).toBe(before?.imageID);
    expect(row?.previous).toBeUndefined();
    expect(new Set(visible())).toEqual(new Set([`${row?.imageID}.qcow2`, `${row?.kernelID}.kernel`]));
    await house.delete('h');
    await house.gone('h');
    expect([visible(), retired(), records()]).toEqual([[], [], []]);
  });
});

describe('an image that expires', () => {
  const inAnHour = () => new Date(Date.now() + 3_600_000).toISOString().replace(/\.\d+Z$/, 'Z');

  /** Ready, with a date that is to come; then the clock is a moment before it. */
  async function comesToItsEnd(onExpiry: string): Promise<VMImage> {
    const expiresAt = inAnHour();
    await house.write('e.yaml', vmimage('e', specOf(1, { expiresAt, onExpiry })));
    const image = await house.ready('e');
    expect(visible()).toHaveLength(1);
    aheadMs = Date.parse(expiresAt) - Date.now() - 500;
    // Nobody wakes it at its date itself; this only has it read the clock that has jumped.
    await house.store.annotate('VMImage', { namespace: 'default', name: 'e' }, { note: 'the clock has jumped' });
    return image;
  }

  test('with onExpiry Deactivate goes out of service at its date, and comes back with a later one', async () => {
    const id = (await comesToItsEnd('Deactivate')).status.sites?.[0]?.imageID;
    const expired = await house.until('e', (now) => now.status.phase === 'Expired' && isTrue(now, 'Ready'));
    expect(isTrue(expired, 'Available')).toBe(false);
    expect([visible(), retired()]).toEqual([[], [`${id}.qcow2`]]);
    aheadMs = 0;
    await house.write('e.yaml', vmimage('e', specOf(1, { expiresAt: '2999-01-01T00:00:00Z' })));
    await house.until('e', (now) => now.status.phase === 'Ready' && isTrue(now, 'Available'));
    expect(visible()).toEqual([`${id}.qcow2`]);
  });

  test('with onExpiry Delete is removed at its date', async () => {
    await comesToItsEnd('Delete');
    await house.until('e', (now) => now.status.phase === 'Expired' && isTrue(now, 'Ready'));
    expect([visible(), retired(), records()]).toEqual([[], [], []]);
  });

  test('with onExpiry Retain goes on serving after its date', async () => {
    await comesToItsEnd('Retain');
    aheadMs += 7_200_000;
    await house.ask('e', '1');
    const image = await house.until('e', (now) => now.status.lastHandledReconcileAt === '1' && isTrue(now, 'Ready'));
    expect(image.status.phase).toBe('Ready');
    expect(visible()).toHaveLength(1);
  });
});
