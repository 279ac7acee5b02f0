import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync, symlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runBulk } from '../../../src/images/bulk.ts';
import type { Compression } from '../../../src/images/format.ts';
import type { Images } from '../../../src/images/images.ts';
import { WAYS } from './ways.ts';
import { installed, never, refusal, toolbox, Workspace } from './workspace.ts';

const MIB = 2 ** 20;
const PROGRAMS = { Gzip: 'gzip', Xz: 'xz', Zstd: 'zstd', Bzip2: 'bzip2' } as const;
type Compressed = keyof typeof PROGRAMS;
const ALL = Object.keys(PROGRAMS) as Compressed[];

/** Names of the processes that hold a file below the folder open; one that ends meanwhile holds nothing. */
function openers(folder: string): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const open = readdirSync(`/proc/${pid}/fd`).some((fd) =>
        readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith(folder),
      );
      return open ? [readFileSync(`/proc/${pid}/comm`, 'latin1').trim()] : [];
    } catch {
      return [];
    }
  });
}

const able = installed('xz', 'zstd', 'bzip2', 'gzip', 'tar', 'mke2fs', 'prlimit', 'setpriv');

describe.skipIf(!able).each(WAYS)('decompression %s', (_where, wayIn) => {
  const work = new Workspace();
  const way = wayIn(work);
  let images: Images;
  let outputs = 0;
  const compress = (compression: Compressed, name: string, ...options: string[]) =>
    work.run('sh', '-c', `${PROGRAMS[compression]} ${options.join(' ')} -c < ${name}`);

  function decompress(
    name: string,
    compression: Compression,
    more: Partial<Parameters<Images['decompress']>[0]> = {},
    signal = never,
  ) {
    const to = work.path(`out-${++outputs}`);
    return {
      to,
      done: images.decompress(
        { from: work.path(name), to, compression, maxOutputBytes: 64 * MIB, digests: [], ...more },
        signal,
      ),
    };
  }

  beforeAll(async () => {
    images = await way.images();
    work.makeDisk('disk.raw');
    work.write('small', 'the bytes of a small file');
    for (const compression of ALL) work.write(`disk.${compression}`, compress(compression, 'disk.raw'));
  });
  afterAll(async () => {
    await way.stop();
    work.clean();
  });

  describe.each(ALL)('of %s', (compression) => {
    it('gives the very bytes with their digests, and holes for zeros', async () => {
      const { to, done } = decompress(`disk.${compression}`, compression, { digests: ['sha512', 'md5'] });
      const disk = work.read('disk.raw');
      const digest = (algorithm: string) => createHash(algorithm).update(disk).digest('hex');
      expect(await done).toEqual({
        size: disk.length,
        digests: { sha256: digest('sha256'), sha512: digest('sha512'), md5: digest('md5') },
      });
      expect(work.read(basename(to)).equals(disk)).toBe(true);
      expect(statSync(to).blocks * 512).toBeLessThan(4 * MIB);
    });

    it('reads several members or frames to the end', async () => {
      const member = compress(compression, 'small');
      const name = basename(work.write(`members.${compression}`, member, member, member));
      const { to, done } = decompress(name, compression);
      await done;
      expect(work.read(basename(to)).toString()).toBe('the bytes of a small file'.repeat(3));
    });

    it('refuses a file that is cut short, and leaves nothing', async () => {
      for (const missing of [1, 5, 1000]) {
        work.patch(`disk.${compression}`, 'cut', (bytes) => bytes.subarray(0, bytes.length - missing));
        const { to, done } = decompress('cut', compression);
        const failure = await refusal(done);
        expect(failure.reason).toBe('CorruptImage');
        expect(failure.message).toMatch(/cut short/);
        expect(existsSync(to)).toBe(false);
      }
    });

    it('refuses what follows the compressed data', async () => {
      work.patch(`disk.${compression}`, 'followed', (bytes) => Buffer.concat([bytes, Buffer.from('trailing garbage')]));
      const { to, done } = decompress('followed', compression);
      expect((await refusal(done)).reason).toBe('CorruptImage');
      expect(existsSync(to)).toBe(false);
    });

    it('refuses damaged data', async () => {
      work.patch(
        `disk.${compression}`,
        'damaged',
        (bytes) => void bytes.fill(0x55, bytes.length >> 1, (bytes.length >> 1) + 64),
      );
      expect((await refusal(decompress('damaged', compression).done)).reason).toBe('CorruptImage');
    });

    it('stops a bomb at the bound', async () => {
      const { to, done } = decompress(`disk.${compression}`, compression, { maxOutputBytes: 10 * MIB });
      const failure = await refusal(done);
      expect(failure.reason).toBe('TooLarge');
      expect(failure.message).toMatch(/10485760 bytes/);
      expect(existsSync(to)).toBe(false);
    });
  });

  it('a gibibyte of zeros takes next to no space, and is refused where less is allowed', async () => {
    work.run('sh', '-c', 'head -c 1073741824 /dev/zero | zstd -q -c > bomb.zst');
    expect(statSync(work.path('bomb.zst')).size).toBeLessThan(MIB);
    const refused = decompress('bomb.zst', 'Zstd');
    expect((await refusal(refused.done)).reason).toBe('TooLarge');
    expect(existsSync(refused.to)).toBe(false);
    const seen: [number, number | undefined][] = [];
    const { to, done } = decompress('bomb.zst', 'Zstd', {
      maxOutputBytes: 1024 * MIB,
      progress: (bytes, total) => seen.push([bytes, total]),
    });
    expect((await done).size).toBe(1024 * MIB);
    expect(statSync(to).size).toBe(1024 * MIB);
    expect(statSync(to).blocks).toBeLessThan(64);
    expect(seen.length).toBeGreaterThan(1);
    expect(seen.every(([bytes, total]) => total === statSync(work.path('bomb.zst')).size && bytes <= total)).toBe(true);
  });

  it('frames of zstd --long=31 are read', async () => {
    work.write('long.zst', compress('Zstd', 'disk.raw', '-q', '--ultra', '--long=31'));
    expect((await decompress('long.zst', 'Zstd').done).size).toBe(16 * MIB);
  });

  it('a file that is not compressed is copied, sparse and with digests', async () => {
    const { to, done } = decompress('disk.raw', 'None');
    expect((await done).digests.sha256).toBe(work.sha256('disk.raw'));
    expect(statSync(to).blocks * 512).toBeLessThan(4 * MIB);
  });

  it('never overwrites nor removes a file that was there', async () => {
    const to = work.write('precious', 'mine');
    const job = { from: work.path('disk.Gzip'), to, compression: 'Gzip', maxOutputBytes: MIB, digests: [] } as const;
    await refusal(images.decompress(job, never));
    expect(work.read('precious').toString()).toBe('mine');
  });

  it('a full disk is told as such', async () => {
    // Writes to /dev/full fail as on a full disk.
    const to = work.path('full');
    symlinkSync('/dev/full', to);
    const read = { compression: 'Gzip' } as const;
    const job = { from: work.path('disk.Gzip'), to, read, maxOutputBytes: 64 * MIB, digests: [] };
    const failure = await refusal(runBulk(toolbox, job, never));
    expect(failure).toMatchObject({ reason: 'DiskFull', failureClass: 'Waiting' });
  });

  it('a missing decompressor names its package, and leaves nothing', async () => {
    const lacking = await way.images({ xz: '/nonexistent/xz' });
    const to = work.path('lacking');
    const failure = await refusal(
      lacking.decompress(
        { from: work.path('disk.Xz'), to, compression: 'Xz', maxOutputBytes: MIB, digests: [] },
        never,
      ),
    );
    expect(failure.message).toMatch(/xz is not installed.*apt-get install xz-utils/);
    expect(failure.failureClass).toBe('Waiting');
    expect(existsSync(to)).toBe(false);
  });

  it('an abort in the middle leaves neither process nor file', async () => {
    // 64 GiB: it cannot end by itself before it is stopped.
    work.run(
      'sh',
      '-c',
      'head -c 67108864 /dev/zero | xz -0 -c > part.xz && for i in $(seq 1024); do cat part.xz; done > endless.xz',
    );
    const abort = new AbortController();
    let during: string[] = [];
    const { to, done } = decompress(
      'endless.xz',
      'Xz',
      {
        maxOutputBytes: 2 ** 40,
        progress: () => {
          // What was said before it was stopped is still heard; xz may have gone by then.
          if (!abort.signal.aborted) during = openers(work.folder);
          abort.abort();
        },
      },
      abort.signal,
    );
    const failure = await refusal(done);
    expect(failure.reason).toBe('Aborted');
    expect(during).toContain('xz');
    expect(existsSync(to)).toBe(false);
    // The one that unpacks is killed by the kernel when its parent ends, and needs a turn at the processor to be gone.
    await expect.poll(() => openers(work.folder)).toEqual([]);
  });

  describe('with a member of an archive', () => {
    it.each([
      ['plain', ''],
      ['sparse, in GNU format', '--format=gnu -S'],
    ])('unpacks it when it is %s', async (_name, options) => {
      work.run(
        'sh',
        '-c',
        `cp --sparse=always disk.raw filesystem && tar ${options} -cf - filesystem | gzip -c > disk.tgz`,
      );
      const { to, done } = decompress('disk.tgz', 'Gzip', { member: 'filesystem' });
      expect(await done).toEqual({ size: 16 * MIB, digests: { sha256: work.sha256('disk.raw') } });
      expect(statSync(to).blocks * 512).toBeLessThan(4 * MIB);
      expect(existsSync(`${to}.tar`)).toBe(false);
    });

    it('keeps a result that is no archive', async () => {
      const { done } = decompress('disk.Gzip', 'Gzip', { member: 'filesystem' });
      expect((await done).digests.sha256).toBe(work.sha256('disk.raw'));
    });

    it('refuses an archive without it, and one in a sparse format that it does not know', async () => {
      work.run('sh', '-c', 'tar -cf - small | gzip -c > other.tgz');
      const without = decompress('other.tgz', 'Gzip', { member: 'filesystem' });
      expect((await refusal(without.done)).reason).toBe('NotAnImage');
      work.run(
        'sh',
        '-c',
        'cp --sparse=always disk.raw filesystem && tar --format=posix -S -cf - filesystem | gzip -c > pax.tgz',
      );
      const pax = decompress('pax.tgz', 'Gzip', { member: 'filesystem' });
      expect((await refusal(pax.done)).reason).toBe('NotSupported');
      for (const { to } of [without, pax]) expect([existsSync(to), existsSync(`${to}.tar`)]).toEqual([false, false]);
    });
  });
});
