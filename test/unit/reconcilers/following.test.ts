import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { recordSiteFailure } from '../../../src/reconcilers/vmimage/rows.ts';
import { sendable } from '../../../src/reconcilers/vmimage/sendable.ts';
import { settled } from '../../support/clock.ts';
import { DownloadBench, partFrom } from './downloading.ts';
import { vmimage } from './objects.ts';
import { ScriptedCloud } from './scripted-cloud.ts';
import { sha256 } from './scripted-origins.ts';

const MIB = 2 ** 20;
const SIZE = 120 * MIB;
const ORIGIN = 'https://origin.example/disk';
const body = Buffer.from('a disk');
const declared = { sha256: sha256(body) };

/** An image of 120 MiB on its way, and sites that take 10 MiB/s: 12 s for it. */
async function coming(sites: readonly string[] = ['nova']) {
  const bench = await DownloadBench.open();
  bench.origins.serve(ORIGIN, { etag: '"1"', body, announced: SIZE, held: true });
  const image = bench.add(vmimage({}, { sites: sites.map((name) => ({ name })) }));
  for (const name of sites) {
    bench.site(name, new ScriptedCloud({ mayFollow: true }));
    Object.assign(bench.connections.get(name) ?? {}, { bytesPerSecond: 10 * MIB });
  }
  const part = partFrom([ORIGIN], declared);
  const begin = async () => {
    const download = bench.download(part);
    const stream = await bench.origins.stream(ORIGIN);
    stream.progress(MIB);
    while (download.view.growing === undefined) await settled();
    return { ...download, stream };
  };
  let current = await begin();
  let bytes = MIB;
  /** So many more bytes come in a quarter of a second. */
  const come = (more: number) => {
    bench.clock.advance(250);
    current.stream.progress((bytes += more));
  };
  const upload = (site = 'nova', failure?: Failure) => {
    const work = bench.work(bench.round(image), site);
    if (failure !== undefined) recordSiteFailure(work.round, work.row, failure, work.inputsHash);
    return sendable(work, part, { step: 'Fetching', blobs: new Map(), views: new Map([['Disk', current.view]]) });
  };
  return {
    bench,
    come,
    upload,
    bytes: () => bytes,
    /** The download is cut and begins again, as another generation. */
    again: async () => {
      current.stop.abort();
      await expect(current.blob).rejects.toThrow();
      bytes = MIB;
      current = await begin();
    },
  };
}

describe('an upload that may follow its download', () => {
  it('is begun when the rest of the download takes no longer than 1.2 times the upload', async () => {
    const { come, upload, bytes } = await coming();
    // 4 MiB/s: 14.4 s before the end 57.6 MiB are still to come.
    while ((await upload()) === undefined) come(MIB);
    expect(bytes()).toBe(63 * MIB);
  });

  it('is begun at once where the origin is as fast as the site', async () => {
    const { come, upload } = await coming();
    expect(await upload()).toBeUndefined();
    come(3 * MIB);
    expect(await upload()).toMatchObject({ follows: true, bytes: { size: SIZE } });
  });

  it('is not begun on a download from which nothing comes any more', async () => {
    const { bench, come, upload } = await coming();
    come(100 * MIB);
    bench.clock.advance(10_000);
    expect(await upload()).toBeUndefined();
    come(MIB);
    come(MIB);
    expect(await upload()).toBeDefined();
  });

  it('is tried once for each generation and site', async () => {
    const { come, upload, again } = await coming(['nova', 'west']);
    come(100 * MIB);
    expect(await upload('nova')).toBeDefined();
    expect(await upload('nova')).toBeUndefined();
    expect(await upload('west')).toBeDefined();
    expect(await upload('west')).toBeUndefined();
    await again();
    come(100 * MIB);
    expect(await upload('nova')).toBeDefined();
    expect(await upload('nova')).toBeUndefined();
  });

  it('is not tried again at a site where one has failed', async () => {
    const { come, upload } = await coming();
    come(100 * MIB);
    expect(await upload('nova', new Failure('ServerError', '503'))).toBeUndefined();
  });
});
