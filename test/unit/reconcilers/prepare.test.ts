import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Blob, Cache } from '../../../src/cache/cache.ts';
import { openCache } from '../../../src/cache/index.ts';
import type { Format } from '../../../src/images/format.ts';
import type { Images, Produced } from '../../../src/images/images.ts';
import { Failure } from '../../../src/api/failure.ts';
import type { Part } from '../../../src/reconcilers/vmimage/plan.ts';
import { prepare, prepared } from '../../../src/reconcilers/vmimage/prepare.ts';
import { giveUpRoomToPrepare, isRoomToPrepare, spaceFor } from '../../../src/reconcilers/vmimage/room.ts';
import { holds, recordSiteFailure } from '../../../src/reconcilers/vmimage/rows.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { settled } from '../../support/clock.ts';
import { vmimage } from './objects.ts';
import { Workbench } from './workbench.ts';

const MIB = 2 ** 20;
const never = new AbortController().signal;
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

const disk = Buffer.alloc(MIB, 1);
const packed = randomBytes(64 * 1024);

/** Tools that write what the test says. */
const images = {
  transformId: async (what: object) => Object.keys(what).join('-'),
  recognise: () => ({ compression: 'None' }),
  inspect: async () => ({ format: 'Raw', virtualSize: disk.length }),
  decompress: async ({ to }: { to: string }) => write(to, disk),
  convert: async ({ to }: { to: string }) => write(to, Buffer.alloc(MIB, 2)),
} as unknown as Images;

async function write(to: string, bytes: Uint8Array): Promise<Produced> {
  await writeFile(to, bytes);
  return { digests: { sha256: sha256(bytes) }, size: bytes.length };
}

const job = { holder: 'job', progress: () => undefined, signal: never };

const part: Part = {
  role: 'Disk',
  field: 'spec',
  candidates: [],
  scope: 'public',
  declared: { sha256: sha256(packed) },
  content: {},
  compression: 'Auto',
  format: 'Auto',
  key: 'k',
};

describe('an image that is unpacked or converted', () => {
  let folder: string;
  let cache: Cache;
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'prepare-'));
    cache = await openCache({
      directory: folder,
      quotaBytes: 80 * MIB,
      reserveFreeBytes: 0,
      now: () => 0,
      log: createLogger({ level: 'silent' }),
    });
  });
  afterEach(async () => {
    await cache.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const publish = async (bytes: Uint8Array = packed): Promise<Blob> => {
    const path = cache.scratch('.packed');
    await write(path, bytes);
    const facts = { digests: {}, size: bytes.length, compression: 'Gzip', fetchedAt: '2026-11-21T12:00:00Z' } as const;
    return cache.admit(path, sha256(bytes), facts, 'public');
  };

  it('is not made of bytes that have rotted since they were fetched: they are dropped', async () => {
    const bench = new Workbench();
    const transfers = { digest: async () => ({ sha256: '0'.repeat(64) }) };
    Object.assign(bench.deps, { cache, images, transfers });
    const published = await publish();
    bench.clock.advance(24 * 3_600_000);
    await expect(prepare(part, published, ['Raw'], bench.deps, job)).rejects.toMatchObject({
      reason: 'Conflict',
      message: expect.stringContaining('fetched again'),
    });
    expect(await cache.get(published.sha256)).toBeUndefined();
    expect(cache.stats()).toMatchObject({ blobs: 0, reservedBytes: 0 });
  });

  describe('is compared with all that the image declares of its content', () => {
    const sha512 = (bytes: Uint8Array) => createHash('sha512').update(bytes).digest('hex');
    const wrong = { reason: 'DigestMismatch', message: expect.stringContaining('spec.contentChecksums.sha512: ') };
    const bench = new Workbench();
    const open = async (compression: 'None' | 'Gzip'): Promise<{ blob: Blob; content: Uint8Array }> => {
      const transfers = { digest: async () => ({ sha256: sha256(content), sha512: sha512(content) }) };
      Object.assign(bench.deps, { cache, images, transfers });
      const content = compression === 'Gzip' ? disk : packed;
      if (compression === 'Gzip') return { blob: await publish(), content };
      const blob = await publish();
      await cache.annotate(blob.sha256, { compression, format: 'Raw' });
      return { blob: (await cache.get(blob.sha256)) ?? blob, content };
    };

    it.each(['None', 'Gzip'] as const)('also when it lay there before (%s)', async (compression) => {
      const { blob, content } = await open(compression);
      await prepare(part, blob, ['Raw'], bench.deps, job);
      const other = { ...part, content: { sha256: sha256(content), sha512: '0'.repeat(128) } };
      expect(await prepared(other, blob, ['Raw'], bench.deps)).toBeUndefined();
      await expect(prepare(other, blob, ['Raw'], bench.deps, job)).rejects.toMatchObject(wrong);
      const known = (await cache.get(blob.sha256)) ?? blob;
      await expect(prepared(other, known, ['Raw'], bench.deps)).rejects.toMatchObject(wrong);
      // Where another namespace had the bytes from is nobody else's to read.
      const theirs = { ...known, source: 'https://private.example/project' };
      await expect(prepared(other, theirs, ['Raw'], bench.deps)).rejects.not.toMatchObject({
        message: expect.stringContaining('private.example'),
      });
      const right = { ...part, content: { sha512: sha512(content) } };
      expect(await prepared(right, known, ['Raw'], bench.deps)).toBeDefined();
    });

    it('once, by a digest that nobody had asked for', async () => {
      const { blob, content } = await open('None');
      const right = { ...part, content: { sha512: sha512(content) } };
      expect(await prepared(right, blob, ['Raw'], bench.deps)).toBeUndefined();
      await expect(prepare(right, blob, ['Raw'], bench.deps, job)).resolves.toMatchObject({
        transform: 'as-published',
      });
    });
  });

  it('is unpacked for whom it shall be, whoever had the same file before', async () => {
    const bench = new Workbench();
    Object.assign(bench.deps, { cache, images });
    const blob = await publish();
    const ramdisk: Part = { ...part, role: 'Ramdisk', compression: 'None' };
    const asPublished = { blob: { sha256: blob.sha256 }, format: 'Raw', transform: 'as-published' };
    const unpacked = { blob: { sha256: sha256(disk) }, transform: 'compression' };
    expect(await prepared(ramdisk, blob, ['Raw'], bench.deps)).toMatchObject(asPublished);
    const wanted: Part = { ...ramdisk, compression: 'Gzip' };
    await expect(prepare(wanted, blob, ['Raw'], bench.deps, job)).resolves.toMatchObject(unpacked);
    await expect(prepare(part, blob, ['Raw'], bench.deps, job)).resolves.toMatchObject({ ...unpacked, format: 'Raw' });
    expect(await prepared(ramdisk, blob, ['Raw'], bench.deps)).toMatchObject(asPublished);
    // What is declared by its content alone lies in the cache as that content.
    const content: Part = { ...ramdisk, declared: {}, content: { sha256: blob.sha256 }, compression: 'Gzip' };
    expect(await prepared(content, blob, ['Raw'], bench.deps)).toMatchObject(asPublished);
  });

  it('and waits for room after the first of both is taken up as soon as there is some, not when it is looked at next', async () => {
    const bench = new Workbench();
    Object.assign(bench.deps, { cache, images });
    const published = await publish();
    const image = bench.add(
      vmimage({}, { artifacts: [{ role: 'Disk', digest: `sha256:${published.sha256}` }], sites: [{ name: 'nova' }] }),
    );
    const round = bench.round(image);
    const row = round.status.sites[0] ?? { name: 'nova' };
    const formats: Format[] = ['Qcow2'];
    const preparing = () => prepare(part, published, formats, bench.deps, job);

    const other = await cache.reserve(40 * MIB, 'other');
    const refused = Failure.from(await preparing().catch((error: unknown) => error));
    expect(refused.reason).toBe('CacheFull');
    recordSiteFailure(round, row, refused, 'inputs');
    expect(holds(round, row, 'inputs')).toBe(true);
    other.release();
    expect(holds(round, row, 'inputs')).toBe(false);
    await expect(preparing()).resolves.toMatchObject({ format: 'Qcow2' });
  });

  it('does not take the room of the very file that it is made of for its own', async () => {
    const bench = new Workbench();
    Object.assign(bench.deps, { cache, images });
    const blob = await publish();
    const image = bench.add(vmimage({}, { artifacts: [{ role: 'Disk', digest: `sha256:${blob.sha256}` }] }));
    const round = bench.round(image);
    // The first bid is 1 MiB; half of the file is missing to it.
    const other = await cache.reserve(79 * MIB - packed.length / 2, 'other');
    await expect(prepare(part, blob, ['Raw'], bench.deps, job)).rejects.toMatchObject({ reason: 'CacheFull' });
    expect(cache.isRoomFor(spaceFor(blob.sha256))).toBe(true);
    expect(isRoomToPrepare(round)).toBe(false);
    other.release();
    expect(isRoomToPrepare(round)).toBe(true);
    giveUpRoomToPrepare(round);
    expect(isRoomToPrepare(round)).toBe(false);
  });

  it('does not take the room of its content, which is here already, for that of the conversion', async () => {
    const bench = new Workbench();
    Object.assign(bench.deps, { cache, images });
    const blob = await publish();
    const round = bench.round(
      bench.add(vmimage({}, { artifacts: [{ role: 'Disk', digest: `sha256:${blob.sha256}` }] })),
    );
    await prepare(part, blob, ['Raw'], bench.deps, job);
    bench.clock.advance(60_000);
    // The first bid is 64 MiB; half of the content is missing to it.
    const other = await cache.reserve(16 * MIB - packed.length - disk.length / 2, 'other');
    await expect(prepare(part, blob, ['Qcow2'], bench.deps, job)).rejects.toMatchObject({ reason: 'CacheFull' });
    expect(cache.isRoomFor(spaceFor(blob.sha256), [blob.sha256])).toBe(true);
    expect(isRoomToPrepare(round)).toBe(false);
    other.release();
    expect(isRoomToPrepare(round)).toBe(true);
    await expect(prepare(part, blob, ['Qcow2'], bench.deps, job)).resolves.toMatchObject({ format: 'Qcow2' });
  });

  it('does not take the room of its other part for its own', async () => {
    const bench = new Workbench();
    Object.assign(bench.deps, { cache, images });
    const [kernel, other] = [await publish(), await publish(Buffer.alloc(MIB, 3))];
    const artifacts = [
      { role: 'Disk' as const, digest: `sha256:${other.sha256}` },
      { role: 'Kernel' as const, digest: `sha256:${kernel.sha256}` },
    ];
    const round = bench.round(bench.add(vmimage({}, { artifacts })));
    // The first bid is 1 MiB; half of the disk is missing to it.
    const held = await cache.reserve(79 * MIB - packed.length - MIB / 2, 'another image');
    cache.pin(other.sha256, 'uid');
    const refused = prepare({ ...part, role: 'Kernel' }, kernel, ['Raw'], bench.deps, job);
    await expect(refused).rejects.toMatchObject({ reason: 'CacheFull' });
    cache.unpinAll('uid');
    expect(cache.isRoomFor(spaceFor(kernel.sha256), [kernel.sha256])).toBe(true);
    expect(isRoomToPrepare(round)).toBe(false);
    held.release();
    expect(isRoomToPrepare(round)).toBe(true);
  });

  it('is kept for who asked for it, and no longer where it fails', async () => {
    const bench = new Workbench();
    Object.assign(bench.deps, { cache, images });
    const blob = await publish();
    await prepare(part, blob, ['Qcow2'], bench.deps, job);
    // The file as published, what came out of it, and what that was converted to.
    expect(cache.stats()).toMatchObject({ blobs: 3, pinnedBytes: cache.stats().bytes });
    bench.clock.advance(60_000);
    expect(cache.stats()).toMatchObject({ blobs: 3, pinnedBytes: 0 });
    const convert = () => Promise.reject(new Failure('ToolFailed', 'it fails'));
    const failing = { ...images, transformId: async () => 'another', convert };
    Object.assign(bench.deps, { images: failing });
    await expect(prepare(part, blob, ['Vdi'], bench.deps, job)).rejects.toMatchObject({ reason: 'ToolFailed' });
    expect(cache.stats().pinnedBytes).toBe(0);
  });

  it('does not fill the volume with the archive that its disk is taken out of', async () => {
    const bench = new Workbench();
    const bomb = async ({ to }: { to: string }, signal: AbortSignal): Promise<Produced> => {
      await writeFile(`${to}.tar`, Buffer.alloc(90 * MIB));
      // What it takes on the disk is looked at when the time has come, and known when the disk has answered: nobody can say after how many turns.
      while (!signal.aborted) {
        bench.clock.advance(250);
        await settled();
      }
      await rm(`${to}.tar`);
      throw signal.reason;
    };
    Object.assign(bench.deps, { cache, images: { ...images, decompress: bomb } });
    const published = await publish();
    const unpacked = prepare({ ...part, member: 'filesystem' }, published, ['Raw'], bench.deps, job);
    await expect(unpacked).rejects.toMatchObject({ reason: 'TooLarge' });
    expect(cache.stats()).toMatchObject({ blobs: 1, reservedBytes: 0, pinnedBytes: 0 });
  });

  it('becomes no blob where it was written faster than anybody looked, and there is no room for it', async () => {
    const bench = new Workbench();
    const bomb = async ({ to }: { to: string }) => write(to, Buffer.alloc(90 * MIB));
    Object.assign(bench.deps, { cache, images: { ...images, decompress: bomb } });
    const published = await publish();
    await expect(prepare(part, published, ['Raw'], bench.deps, job)).rejects.toMatchObject({ reason: 'TooLarge' });
    expect(cache.stats()).toMatchObject({ blobs: 1, reservedBytes: 0, pinnedBytes: 0 });
    const other = await cache.reserve(60 * MIB, 'other');
    const grown = async ({ to }: { to: string }) => write(to, Buffer.alloc(30 * MIB));
    Object.assign(bench.deps, { cache, images: { ...images, decompress: grown } });
    await expect(prepare(part, published, ['Raw'], bench.deps, job)).rejects.toMatchObject({ reason: 'CacheFull' });
    other.release();
    await expect(prepare(part, published, ['Raw'], bench.deps, job)).resolves.toMatchObject({ format: 'Raw' });
  });

  it.each([30, 50])(
    'is made where there is room for it beside the file of %i MiB, though not for twice that',
    async (size) => {
      const bench = new Workbench();
      Object.assign(bench.deps, { cache, images });
      const published = await publish(Buffer.alloc(size * MIB));
      await expect(prepare(part, published, ['Raw'], bench.deps, job)).resolves.toMatchObject({ format: 'Raw' });
    },
  );

  it('is too large, and waits for nobody, where the file alone takes all that the cache may hold', async () => {
    const bench = new Workbench();
    Object.assign(bench.deps, { cache, images });
    const published = await publish(Buffer.alloc(80 * MIB));
    await expect(prepare(part, published, ['Raw'], bench.deps, job)).rejects.toMatchObject({ reason: 'TooLarge' });
    expect(cache.stats()).toMatchObject({ blobs: 1, reservedBytes: 0, pinnedBytes: 0 });
  });
});
