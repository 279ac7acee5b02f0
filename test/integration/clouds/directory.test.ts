import { execFile } from 'node:child_process';
import { chmod, mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { Cloud, CloudContext, PublishImage, StagePart } from '../../../src/clouds/cloud.ts';
import { openCloud } from '../../../src/clouds/index.ts';
import { whileLocked } from '../../../src/clouds/directory/lock.ts';
import { startTransfers } from '../../../src/transfers/index.ts';
import type { Transfers } from '../../../src/transfers/transfers.ts';
import {
  bytesOf,
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

const run = promisify(execFile);

describe('a directory site', () => {
  let transfers: Transfers;
  let base: Awaited<ReturnType<typeof scratch>>;
  let path: string;
  let file: TestFile;
  let cloud: Cloud;

  async function open(more: Partial<CloudContext> = {}): Promise<Cloud> {
    return await openCloud({ directory: { path } }, contextOf(more.transfers ?? transfers, more));
  }

  interface IndexFile {
    role: string;
    file: string;
    digests: { sha256?: string };
  }
  async function index(): Promise<{ id: string; name: string; files: IndexFile[] }[]> {
    return (JSON.parse(await readFile(join(path, 'index.json'), 'utf8')) as { images: [] }).images;
  }

  async function visible(): Promise<string[]> {
    return (await readdir(path)).filter((name) => !name.startsWith('.') && name !== 'index.json').sort();
  }

  async function staged(more: Partial<StagePart> = {}): Promise<{ part: StagePart; image: PublishImage }> {
    const part = partOf(file, more);
    await cloud.stage(part, calm());
    return { part, image: imageOf([{ part, file }]) };
  }

  beforeAll(() => {
    transfers = startTransfers();
  });
  afterAll(async () => await transfers.close());

  beforeEach(async () => {
    base = await scratch();
    path = join(base.path, 'site');
    await mkdir(path);
    file = await makeFile(base.path, 50_000);
    cloud = await open();
    await cloud.probe(calm());
  });
  afterEach(async () => await base.remove());

  test('a staged image is proven and seen by nobody; published it is in place and in the index', async () => {
    const { part, image } = await staged({ format: 'Qcow2', virtualSize: 1 << 30 });
    expect(await visible()).toEqual([]);
    expect(await cloud.get(part.id, calm())).toMatchObject({
      state: 'Active',
      published: false,
      sentSha256: file.digests.sha256,
      cloudDigests: { sha256: file.digests.sha256 },
    });

    const registration = registrationOf({ name: 'debian-12', tags: ['lts'], properties: { k: 'v' } });
    await cloud.publish({ ...image, registration }, calm());

    expect(await visible()).toEqual([`${part.id}.qcow2`]);
    expect((await readFile(join(path, `${part.id}.qcow2`))).equals(await readFile(file.path))).toBe(true);
    expect((await stat(join(path, `${part.id}.qcow2`))).mode & 0o777).toBe(0o444);
    expect(await index()).toEqual([
      {
        id: part.id,
        ...registration,
        ...image.ownership,
        sourceDigest: part.ownership.sourceDigest,
        registeredAt: expect.stringMatching(/^\d{4}-/),
        published: true,
        files: [
          {
            role: 'Disk',
            id: part.id,
            file: `${part.id}.qcow2`,
            format: 'Qcow2',
            size: file.size,
            virtualSize: 1 << 30,
            digests: { sha256: file.digests.sha256 },
          },
        ],
      },
    ]);
    expect(await cloud.look({ ...image, registration }, calm())).toEqual({ gone: [], changed: [] });
  });

  test('disk, kernel and ramdisk stand side by side, and the index names them together', async () => {
    const ownership = ownershipOf(file);
    const parts = (['Disk', 'Kernel', 'Ramdisk'] as const).map((role) => partOf(file, { role, ownership }));
    for (const part of parts) await cloud.stage(part, calm());

    await cloud.publish(imageOf(parts.map((part) => ({ part, file }))), calm());

    const [disk, kernel, ramdisk] = parts.map(({ id }) => id);
    expect(await visible()).toEqual([`${disk}.raw`, `${kernel}.kernel`, `${ramdisk}.ramdisk`].sort());
    const images = await index();
    expect(images.map(({ id }) => id)).toEqual([disk]);
    expect(images[0]?.files.map(({ role }) => role)).toEqual(['Disk', 'Kernel', 'Ramdisk']);
    expect(await cloud.find(ownership, calm())).toHaveLength(3);
    expect(await cloud.census(calm())).toEqual(new Set([disk, kernel, ramdisk]));
  });

  test('publishing and staging again change nothing', async () => {
    const { part, image } = await staged();
    await cloud.publish(image, calm());
    const before = await stat(join(path, 'index.json'));

    await cloud.stage(part, calm());
    await cloud.publish(image, calm());

    expect((await stat(join(path, 'index.json'))).mtimeMs).toBe(before.mtimeMs);
    expect((await cloud.get(part.id, calm()))?.published).toBe(true);
  });

  test('a hidden image is in place for who knows its id, and not in the index', async () => {
    const { part, image } = await staged();
    const registration = registrationOf({ hidden: true });
    await cloud.publish({ ...image, registration }, calm());
    expect(await index()).toEqual([]);
    expect(await visible()).toEqual([`${part.id}.raw`]);
    expect(await cloud.look({ ...image, registration }, calm())).toEqual({ gone: [], changed: [] });
  });

  test('retired out of sight, back after its bytes were read again, removed without a trace', async () => {
    const { part, image } = await staged();
    await cloud.publish(image, calm());
    await cloud.retire(image.parts, calm());
    expect([await visible(), await index()]).toEqual([[], []]);
    expect(await cloud.get(part.id, calm())).toMatchObject({ state: 'Deactivated', published: false });
    await expect(cloud.publish(image, calm())).rejects.toMatchObject({ reason: 'Conflict' });

    await cloud.reactivate(image.parts, calm());
    expect(await cloud.get(part.id, calm())).toMatchObject({ state: 'Active', published: false });
    await cloud.publish(image, calm());
    expect(await index()).toHaveLength(1);

    await cloud.remove(image.parts, calm());
    await cloud.remove(image.parts, calm());
    expect([await visible(), await index()]).toEqual([[], []]);
    for (const folder of ['.records', '.staging', '.retired']) expect(await readdir(join(path, folder))).toEqual([]);
  });

  test('a retired file that was changed is not taken back', async () => {
    const { part, image } = await staged();
    await cloud.publish(image, calm());
    await cloud.retire(image.parts, calm());
    const retired = join(path, '.retired', `${part.id}.raw`);
    await chmod(retired, 0o644);
    await writeFile(retired, Buffer.alloc(file.size));

    await expect(cloud.reactivate(image.parts, calm())).rejects.toMatchObject({ reason: 'CloudDigestMismatch' });
    expect(await index()).toEqual([]);
  });

  test('drift is told by field, and a file that was written to is told apart from one that was touched', async () => {
    const { part, image } = await staged();
    await cloud.publish(image, calm());
    const registration = registrationOf({ name: 'other', properties: { k: 'v' } });
    expect((await cloud.look({ ...image, registration }, calm())).changed).toEqual(['name', 'properties.k']);
    await writeFile(join(path, 'index.json'), '{}');
    expect((await cloud.look(image, calm())).changed).toEqual(['index.json']);
    await cloud.publish(image, calm());

    const place = join(path, `${part.id}.raw`);
    await utimes(place, 1, 1);
    expect(await cloud.look(image, calm())).toEqual({ gone: [], changed: [] });
    await chmod(place, 0o644);
    await writeFile(place, Buffer.alloc(file.size));
    expect((await cloud.look(image, calm())).tampered).toContain(part.id);
    await rm(place);
    expect((await cloud.look(image, calm())).gone).toEqual([part.id]);
    expect(await cloud.get(part.id, calm())).toBeUndefined();
  });

  test('a file that was only touched is found without a hash, and told with one when it is asked for by its id', async () => {
    const { part, image } = await staged();
    await cloud.publish(image, calm());
    const place = join(path, `${part.id}.raw`);
    await utimes(place, 1, 1);
    expect(await cloud.find(part.ownership, calm())).toMatchObject([{ id: part.id, cloudDigests: {} }]);
    expect(await cloud.get(part.id, calm())).toMatchObject({ cloudDigests: { sha256: file.digests.sha256 } });
    await chmod(place, 0o644);
    await writeFile(place, Buffer.alloc(file.size));
    const other = (await cloud.get(part.id, calm()))?.cloudDigests.sha256;
    expect(other).toMatch(/^[0-9a-f]{64}$/);
    expect(other).not.toBe(file.digests.sha256);
  });

  test('the id of an image that stands is taken for other bytes: a conversion made again may give others', async () => {
    const { part, image } = await staged();
    await cloud.publish(image, calm());
    const other = await makeFile(base.path, file.size);
    await expect(cloud.stage({ ...part, bytes: bytesOf(other) }, calm())).rejects.toMatchObject({ reason: 'IdTaken' });
    expect(await visible()).toEqual([`${part.id}.raw`]);
  });

  test('nothing is copied before the proof, and nothing is left when it fails', async () => {
    const refuse = async (): Promise<void> => {
      throw new Failure('DigestMismatch', 'no');
    };
    const part = partOf(file, { bytes: bytesOf(file, { mayFinish: refuse }) });
    await expect(cloud.stage(part, calm())).rejects.toMatchObject({ reason: 'DigestMismatch' });
    expect(await cloud.find(part.ownership, calm())).toEqual([]);
    expect(await readdir(join(path, '.staging'))).toEqual([]);
  });

  test('bytes that read back differently are removed', async () => {
    const part = partOf(file, { bytes: bytesOf(file, { digest: async () => 'ab'.repeat(32) }) });
    await expect(cloud.stage(part, calm())).rejects.toMatchObject({ reason: 'CloudDigestMismatch' });
    expect(await readdir(join(path, '.staging'))).toEqual([]);
    expect(await readdir(join(path, '.records'))).toEqual([]);
  });

  test('a full disk is told with the bytes wanted, and leaves nothing half-made', async () => {
    const full: Transfers = {
      ...transfers,
      copy: async ({ to }) => {
        await writeFile(to, 'half');
        throw Object.assign(new Error('write'), { code: 'ENOSPC' });
      },
    };
    const part = partOf(file);
    await expect((await open({ transfers: full })).stage(part, calm())).rejects.toMatchObject({
      reason: 'DiskFull',
      message: expect.stringContaining(String(file.size)),
    });
    expect(await readdir(join(path, '.staging'))).toEqual([]);
    expect(await cloud.get(part.id, calm())).toBeUndefined();
  });

  describe('goes on where a crash left it', () => {
    test('in the middle of the copy', async () => {
      const { part, image } = await staged();
      const record = join(path, '.records', `${part.id}.json`);
      const text = await readFile(record, 'utf8');
      await writeFile(record, text.replace('"phase": "staged"', '"phase": "staging"'));
      await rm(join(path, '.staging', `${part.id}.raw`));
      await writeFile(join(path, '.staging', `${part.id}.raw`), 'half');
      expect(await cloud.find(part.ownership, calm())).toMatchObject([{ state: 'Uploading', published: false }]);
      await expect(cloud.publish(image, calm())).rejects.toMatchObject({ reason: 'Conflict' });

      expect((await cloud.stage(part, calm())).cloudDigests.sha256).toBe(file.digests.sha256);
      await cloud.publish(image, calm());
      expect(await index()).toHaveLength(1);
    });

    test('between the move of the file and the note of it', async () => {
      const { part, image } = await staged();
      await rename(join(path, '.staging', `${part.id}.raw`), join(path, `${part.id}.raw`));
      expect((await cloud.get(part.id, calm()))?.published).toBe(false);
      await cloud.publish(image, calm());
      expect(await index()).toHaveLength(1);
      await rename(join(path, `${part.id}.raw`), join(path, '.retired', `${part.id}.raw`));
      expect((await cloud.look(image, calm())).changed).toEqual(['published']);
      await cloud.publish(image, calm());
      expect(await visible()).toEqual([`${part.id}.raw`]);
    });

    test('before the index was written', async () => {
      const { image } = await staged();
      await cloud.publish(image, calm());
      await rm(join(path, 'index.json'));
      await cloud.publish(image, calm());
      expect(await index()).toHaveLength(1);
    });
  });

  describe('is the same folder as before, or not ready', () => {
    test('its identity is made once and stays', async () => {
      const { identity } = await cloud.probe(calm());
      expect(identity).toMatch(/^directory [0-9a-f-]{36}$/);
      expect((await (await open()).probe(calm())).identity).toBe(identity);
    });

    test('an unmounted volume is not an empty site', async () => {
      const { part, image } = await staged();
      await cloud.publish(image, calm());
      const { identity } = await cloud.probe(calm());
      await rename(path, `${path}-unmounted`);
      await mkdir(path);

      const remembering = await open({ knownIdentity: identity });
      for (const ask of [
        async () => await cloud.get(part.id, calm()),
        async () => await cloud.find(part.ownership, calm()),
        async () => await cloud.census(calm()),
        async () => await cloud.look(image, calm()),
        async () => await cloud.probe(calm()),
        async () => await cloud.stage(part, calm()),
        async () => await remembering.probe(calm()),
      ]) {
        await expect(ask()).rejects.toMatchObject({
          reason: 'SiteNotReady',
          message: expect.stringContaining('mounted'),
        });
      }
      expect(await readdir(path)).toEqual([]);
    });

    test('another volume in its place is another site', async () => {
      const { part } = await staged();
      const { identity } = await cloud.probe(calm());
      await rename(path, `${path}-first`);
      await mkdir(path);
      const other = await (await open()).probe(calm());
      expect(other.identity).not.toBe(identity);

      await expect(cloud.get(part.id, calm())).rejects.toMatchObject({ reason: 'IdentityChanged' });
    });

    test('a folder with records and no marker is not taken for a new one', async () => {
      await staged();
      await rm(join(path, '.imageproxy-site.json'));
      await expect((await open()).probe(calm())).rejects.toMatchObject({ reason: 'SiteNotReady' });
    });

    test.each([
      ['relative/path', 'InvalidSpec'],
      ['/', 'InvalidSpec'],
      ['/nowhere/at/all', 'SiteNotReady'],
    ])('%s is %s', async (wrong, reason) => {
      const opening = openCloud({ directory: { path: wrong } }, contextOf(transfers)).then(
        async (site) => await site.probe(calm()),
      );
      await expect(opening).rejects.toMatchObject({ reason });
    });
  });

  test("another owner's id is taken, another claim's too, and a claim can be handed over", async () => {
    const { part, image } = await staged();
    const foreign = { ...part, ownership: { ...part.ownership, owner: 'another' } };
    await expect(cloud.stage(foreign, calm())).rejects.toMatchObject({ reason: 'IdTaken' });
    const heir = { ...part.ownership, claim: 'uid-2' };
    await expect(cloud.stage({ ...part, ownership: heir }, calm())).rejects.toMatchObject({
      reason: 'IdTaken',
      message: expect.stringContaining(part.ownership.claim),
    });

    await cloud.claim(part.id, heir, calm());

    await expect(cloud.publish(image, calm())).rejects.toMatchObject({ reason: 'ClaimedByOther' });
    await cloud.publish({ ...image, ownership: { ...image.ownership, claim: 'uid-2' } }, calm());
    expect((await index())[0]).toMatchObject({ claim: 'uid-2' });
  });

  test('many images published at once are all in the index, from two sites on one folder too', async () => {
    const second = await open();
    const images = await Promise.all(Array.from({ length: 12 }, async () => (await staged()).image));
    await Promise.all(images.map(async (image, n) => await (n % 2 === 0 ? cloud : second).publish(image, calm())));
    const ids = images.map(({ parts }) => parts[0]?.id);
    expect(new Set((await index()).map(({ id }) => id))).toEqual(new Set(ids));
  });

  test('the index is laid out for people, however many images it has', async () => {
    const laidOut = async (): Promise<string> => {
      const text = await readFile(join(path, 'index.json'), 'utf8');
      expect(text).toBe(`${JSON.stringify(JSON.parse(text), undefined, 2)}\n`);
      return text;
    };
    const { image } = await staged();
    await cloud.publish(image, calm());
    const one = await laidOut();
    const others = await Promise.all(Array.from({ length: 70 }, async () => (await staged()).image));
    await Promise.all(others.map((each) => cloud.publish(each, calm())));
    await laidOut();
    expect(await index()).toHaveLength(71);
    for (const each of others) await cloud.retire(each.parts, calm());
    expect(await laidOut()).toBe(one);
    await cloud.retire(image.parts, calm());
    expect(await laidOut()).toContain('"images": []');
  });

  test('one process writes at a time, and a killed one holds nothing', async () => {
    const lock = join(path, '.imageproxy-lock');
    const script = `
      import { whileLocked } from ${JSON.stringify(join(import.meta.dirname, '../../../src/clouds/directory/lock.ts'))};
      await whileLocked(process.argv[1], 0, async () => process.kill(process.pid, 'SIGKILL'));`;
    const other = async (): Promise<unknown> =>
      await run(process.execPath, ['--input-type=module', '-e', script, lock]).catch((error: unknown) => error);

    await whileLocked(lock, 0, async () => {
      expect(await other()).toMatchObject({ code: 1, stderr: expect.stringContaining('another process is writing') });
    });
    expect(await other()).toMatchObject({ signal: 'SIGKILL' });
    expect(await whileLocked(lock, 2000, async () => 'free')).toBe('free');
  });
});
