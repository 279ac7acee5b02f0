import { createHash } from 'node:crypto';
import { describe, expect, it, vi } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { settled } from '../../support/clock.ts';
import { spaceStep } from '../../../src/reconcilers/vmimage/growing.ts';
import type { Part } from '../../../src/reconcilers/vmimage/plan.ts';
import { DownloadBench, partFrom } from './downloading.ts';
import { sha256 } from './scripted-origins.ts';

const MIB = 2 ** 20;
const body = Buffer.from('a disk');
const declared = { sha256: sha256(body) };
const [ONE, TWO] = ['https://one.example/disk', 'https://two.example/disk'];

describe('bytes that are here by fewer digests than are declared now', () => {
  const sha512 = createHash('sha512').update(body).digest('hex');
  async function here() {
    const bench = await DownloadBench.open();
    bench.origins.serve(ONE, { etag: '"1"', body });
    await bench.download(partFrom([ONE], declared)).blob;
    bench.origins.asked.length = 0;
    return bench;
  }

  it('are compared with the others, and taken', async () => {
    const bench = await here();
    const blob = await bench.download(partFrom([ONE], { ...declared, sha512 })).blob;
    expect(blob.digests).toMatchObject({ ...declared, sha512 });
    expect(bench.origins.asked).toEqual([]);
  });

  it('are no proof of one that is wrong: what is declared is fetched, and refused', async () => {
    const bench = await here();
    const { blob } = bench.download(partFrom([ONE], { ...declared, sha512: '0'.repeat(128) }));
    await expect(blob).rejects.toMatchObject({ reason: 'DigestMismatch' });
    expect(bench.origins.asked).toEqual([ONE]);
  });

  it('are dropped and fetched where they have rotted', async () => {
    const bench = await here();
    const cached = await bench.cache.find(declared, 'public');
    bench.origins.rot = true;
    const { blob } = bench.download(partFrom([ONE], { ...declared, sha512 }));
    expect(await blob).toMatchObject({ sha256: cached?.sha256 });
    expect(bench.origins.asked).toEqual([ONE]);
  });
});

describe('a download of bytes that another brings from elsewhere', () => {
  async function rivals() {
    const bench = await DownloadBench.open();
    bench.origins.serve(ONE, { etag: '"1"', body, announced: 16 * MIB, held: true });
    bench.origins.serve(TWO, { etag: '"2"', body });
    const first = bench.download(partFrom([ONE], declared));
    const stream = await bench.origins.stream(ONE);
    let bytes = 0;
    const come = (more: number) => {
      bench.clock.advance(250);
      stream.progress((bytes += more));
    };
    const waiting = async () => {
      const second = bench.download(partFrom([TWO], declared));
      while (second.view.note?.includes('for another image') !== true) await settled();
      return second;
    };
    return { bench, first, stream, come, waiting };
  }

  it('waits while that one makes 1 MiB/s, and takes what it has brought', async () => {
    const { bench, first, stream, come, waiting } = await rivals();
    come(MIB);
    const second = await waiting();
    for (let n = 0; n < 100; n++) {
      come(MIB / 4);
      await settled();
    }
    expect(bench.origins.asked).toEqual([ONE]);
    stream.end();
    expect((await second.blob).sha256).toBe((await first.blob).sha256);
    expect(bench.origins.asked).toEqual([ONE]);
  });

  it('goes its own way when that one becomes slower, and its bytes end the slow one', async () => {
    const { first, come, waiting } = await rivals();
    come(MIB);
    const second = await waiting();
    for (let n = 0; n < 100; n++) {
      come(MIB / 8);
      await settled();
    }
    expect(await second.blob).toMatchObject({ source: TWO });
    expect(await first.blob).toMatchObject({ source: TWO });
  });

  it('goes its own way when nothing comes there any more, however fast it came before', async () => {
    const { bench, first, come, waiting } = await rivals();
    for (let n = 0; n < 20; n++) come(100 * MIB);
    const second = await waiting();
    expect(bench.origins.asked).toEqual([ONE]);
    for (let n = 0; n < 3; n++) {
      bench.clock.advance(3000);
      await settled();
    }
    expect(await second.blob).toMatchObject({ source: TWO });
    expect(await first.blob).toMatchObject({ source: TWO });
  });
});

describe('what a download shows', () => {
  it('has no speed of the mirror before', async () => {
    const bench = await DownloadBench.open();
    const there = { etag: '"1"', body: Buffer.from('other'), announced: 16 * MIB, held: true };
    bench.origins.serve(ONE, there);
    bench.origins.serve(TWO, { ...there, body });
    const { view, blob } = bench.download(partFrom([ONE, TWO], declared));
    const wrong = await bench.origins.stream(ONE);
    bench.clock.advance(250);
    wrong.progress(100 * MIB);
    expect(view.bytesPerSecond).toBe(400 * MIB);
    wrong.end();
    const right = await bench.origins.stream(TWO);
    expect(view).toMatchObject({ bytes: 0, bytesPerSecond: 0, source: TWO });
    right.end();
    await blob;
  });

  it('wakes who decides at the first known speed, and later at leisure', async () => {
    const bench = await DownloadBench.open();
    bench.origins.serve(ONE, { etag: '"1"', body, announced: 16 * MIB, held: true });
    const { blob, changes } = bench.download(partFrom([ONE], declared));
    const stream = await bench.origins.stream(ONE);
    // The head is looked at in between, and wakes by itself.
    const woken = (bytes: number, ms: number) => {
      bench.clock.advance(ms);
      changes.length = 0;
      stream.progress(bytes);
      return changes;
    };
    expect(woken(100, 20)).toEqual(['Soon']);
    expect(woken(200, 5)).toEqual(['Now']);
    expect(woken(300, 250)).toEqual(['Soon']);
    expect(woken(400, 4000)).toEqual(['Now']);
    stream.end();
    await blob;
  });
});

describe('a mirror whose bytes were wrong', () => {
  const wrong = Buffer.from('other bytes');

  it('is asked again while another fails for a time, and its bytes are fetched only when they are others', async () => {
    const bench = await DownloadBench.open();
    const part = partFrom([ONE, TWO], declared);
    bench.origins.serve(ONE, new Failure('ServerError', 'down'));
    bench.origins.serve(TWO, { etag: '"wrong"', body: wrong });
    for (let n = 0; n < 3; n++)
      await expect(bench.download(part).blob).rejects.toMatchObject({ reason: 'ServerError' });
    expect(bench.origins.fetched).toEqual([TWO]);
    bench.origins.serve(TWO, { etag: '"right"', body });
    expect(await bench.download(part).blob).toMatchObject({ source: TWO });
    expect(bench.origins.fetched).toEqual([TWO, TWO]);
  });

  it('is fetched once more when somebody asks for that', async () => {
    const bench = await DownloadBench.open();
    const part = partFrom([ONE], declared);
    bench.origins.serve(ONE, { etag: '"wrong"', body: wrong });
    for (let n = 0; n < 2; n++)
      await expect(bench.download(part).blob).rejects.toMatchObject({ reason: 'DigestMismatch' });
    expect(bench.origins.fetched).toEqual([ONE]);
    bench.deps.downloads.forgive(part);
    await expect(bench.download(part).blob).rejects.toMatchObject({ reason: 'DigestMismatch' });
    expect(bench.origins.fetched).toEqual([ONE, ONE]);
  });
});

describe('a download that was cut', () => {
  async function cutting(bytes: { one: number; two: number }) {
    const bench = await DownloadBench.open();
    bench.origins.serve(ONE, { etag: '"1"', body, cutAfter: bytes.one });
    bench.origins.serve(TWO, { etag: '"2"', body, cutAfter: bytes.two });
    return { bench, part: partFrom([ONE, TWO], declared) };
  }

  it('goes on where most recently bytes came from, and is complete although every mirror cuts it', async () => {
    const { bench, part } = await cutting({ one: 2, two: 2 });
    for (let n = 0; n < 2; n++) await expect(bench.download(part).blob).rejects.toMatchObject({ reason: 'Truncated' });
    expect(await bench.download(part).blob).toMatchObject({ source: TWO });
    expect(bench.origins.fetched).toEqual([ONE, TWO, TWO, TWO]);
    expect(bench.origins.offsets).toEqual([0, 0, 2, 4]);
  });

  it('is fetched elsewhere where hardly anything more comes from the mirror that began', async () => {
    const { bench, part } = await cutting({ one: body.length, two: 2 });
    bench.origins.serve(ONE, new Failure('ServerError', 'down'));
    await expect(bench.download(part).blob).rejects.toMatchObject({ reason: 'ServerError' });
    bench.origins.serve(TWO, { etag: '"2"', body, announced: 64, cutAfter: 2 });
    bench.origins.serve(ONE, { etag: '"1"', body });
    expect(await bench.download(part).blob).toMatchObject({ source: ONE });
    expect(bench.origins.fetched).toEqual([TWO, TWO, ONE]);
  });

  it('begins anew at once when what had come was evicted before it could go on', async () => {
    const bench = await DownloadBench.open();
    const part = partFrom([ONE], declared);
    bench.origins.serve(ONE, { etag: '"1"', body, cutAfter: 4 });
    await expect(bench.download(part).blob).rejects.toMatchObject({ reason: 'Truncated' });
    bench.origins.serve(ONE, { etag: '"1"', body });
    const reserve = bench.cache.reserve.bind(bench.cache);
    vi.spyOn(bench.cache, 'reserve').mockImplementationOnce(async (...wanted) => {
      (await reserve(2 ** 30, 'another')).release();
      return reserve(...wanted);
    });
    await expect(bench.download(part).blob).resolves.toMatchObject({ source: ONE });
    expect(bench.origins.offsets).toEqual([0, 0]);
    expect(bench.cache.stats().reservedBytes).toBe(0);
  });
});

describe('a download that waits for room', () => {
  it('leaves none set aside when it is stopped while room is made for it', async () => {
    const bench = await DownloadBench.open();
    const part = partFrom([ONE], declared);
    bench.origins.serve(ONE, { etag: '"1"', body });
    const [making, made] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const reserve = bench.cache.reserve.bind(bench.cache);
    vi.spyOn(bench.cache, 'reserve').mockImplementationOnce(async (...wanted) => {
      const reservation = await reserve(...wanted);
      making.resolve();
      await made.promise;
      return reservation;
    });
    const { blob, stop } = bench.download(part);
    await making.promise;
    stop.abort();
    await expect(blob).rejects.toThrow();
    made.resolve();
    await settled();
    expect(bench.cache.stats().reservedBytes).toBe(0);
    await expect(bench.download(part).blob).resolves.toMatchObject({ source: ONE });
  });

  it('keeps its place as long as somebody wants it, and no longer', async () => {
    const bench = await DownloadBench.open();
    const part = partFrom([ONE], declared);
    bench.origins.serve(ONE, { etag: '"1"', body });
    const other = await bench.cache.reserve(2 ** 30, 'other');
    await expect(bench.download(part).blob).rejects.toMatchObject({ reason: 'CacheFull' });
    other.release();
    expect(bench.cache.isRoomFor(part.key)).toBe(true);
    bench.deps.downloads.ask('another', [part]);
    bench.deps.downloads.leave('test');
    expect(bench.cache.isRoomFor(part.key)).toBe(true);
    bench.deps.downloads.leave('another');
    expect(bench.cache.isRoomFor(part.key)).toBe(false);
  });

  it('asks for its next step once, however much comes before others give it', async () => {
    const quota = 16 * MIB;
    const bench = await DownloadBench.open(quota);
    bench.origins.serve(ONE, { etag: '"1"', body, announced: 0, held: true });
    const { blob } = bench.download(partFrom([ONE], declared));
    const stream = await bench.origins.stream(ONE);
    const step = spaceStep(quota);
    const younger = await bench.cache.reserve(quota - step, 'younger');
    for (let bytes = step; bytes < step + 4; bytes++) {
      stream.progress(bytes);
      await settled();
    }
    younger.release();
    await settled();
    const after = await bench.cache.reserve(quota - 2 * step, 'after');
    await expect(bench.cache.reserve(1, 'none is left')).rejects.toMatchObject({ reason: 'CacheFull' });
    after.release();
    for (let bytes = 2 * step; bytes < 2 * step + 4; bytes++) {
      stream.progress(bytes);
      await settled();
    }
    await expect(bench.cache.reserve(quota - 3 * step + 1, 'beside')).rejects.toMatchObject({ reason: 'CacheFull' });
    stream.end();
    await expect(blob).resolves.toMatchObject({ source: ONE });
  });
});

it('What a file is compressed with is what its bytes say, whatever it was fetched for', async () => {
  const bench = await DownloadBench.open();
  const inspect = async (_: string, { role }: { role: string }) => {
    if (role === 'Disk') throw new Failure('FormatMismatch', 'still compressed');
    return { format: 'Raw', virtualSize: 1 };
  };
  Object.assign(bench.deps, { images: { recognise: () => ({ compression: 'Gzip', judgedByHead: false }), inspect } });
  bench.restart();
  bench.origins.serve(ONE, { etag: '"1"', body });
  const disk = partFrom([ONE], declared);
  const ramdisk: Part = { ...disk, role: 'Ramdisk', compression: 'None', key: 'ramdisk' };
  expect(await bench.download(ramdisk).blob).toMatchObject({ compression: 'Gzip' });
  expect(await bench.download(disk).blob).toMatchObject({ compression: 'Gzip' });
  const plain: Part = { ...disk, compression: 'None', key: 'plain' };
  await expect(bench.download(plain).blob).rejects.toMatchObject({ reason: 'FormatMismatch' });
});
