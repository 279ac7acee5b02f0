import {
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  openSync,
  writeSync,
  ftruncateSync,
  closeSync,
  existsSync,
  chmodSync,
} from 'node:fs';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { content, digestOf, type Harness, MIB, never, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(() => {
  harness = startHarness();
});
afterAll(() => harness.close());
beforeEach(() => harness.clean());

const path = (name: string) => join(harness.folder, name);
const reason = (name: string) => expect.objectContaining({ reason: name });

/** A file of 32 MiB with three pieces of data in it. */
function sparse(name: string): void {
  const descriptor = openSync(path(name), 'w');
  for (const at of [0, 7 * MIB + 4096, 20 * MIB]) writeSync(descriptor, content(100_000), 0, 100_000, at);
  ftruncateSync(descriptor, 32 * MIB + 17);
  closeSync(descriptor);
}

describe('a copy', () => {
  it('has the same bytes, and its holes are holes', async () => {
    sparse('from');
    const progress: number[] = [];
    await harness.transfers.copy(
      { from: path('from'), to: path('to') },
      { onProgress: (n) => progress.push(n) },
      never,
    );
    execFileSync('cmp', [path('from'), path('to')]);
    expect(statSync(path('to')).blocks * 512).toBeLessThan(2 * MIB);
    expect(progress.at(-1)).toBe(32 * MIB + 17);
  });

  it('makes holes of zeros that had been written', async () => {
    writeFileSync(path('from'), Buffer.concat([content(MIB), Buffer.alloc(8 * MIB), content(1000)]));
    await harness.transfers.copy({ from: path('from'), to: path('to') }, {}, never);
    execFileSync('cmp', [path('from'), path('to')]);
    expect(statSync(path('to')).blocks * 512).toBeLessThan(2 * MIB);
  });

  it('of a read-only blob can be written by its owner', async () => {
    writeFileSync(path('from'), 'x');
    chmodSync(path('from'), 0o444);
    await harness.transfers.copy({ from: path('from'), to: path('to') }, {}, never);
    expect(statSync(path('to')).mode & 0o777).toBe(0o644);
  });

  it('never replaces what is there', async () => {
    writeFileSync(path('from'), 'new');
    writeFileSync(path('to'), 'old');
    const copying = harness.transfers.copy({ from: path('from'), to: path('to') }, {}, never);
    await expect(copying).rejects.toEqual(reason('Conflict'));
    expect(readFileSync(path('to'), 'utf8')).toBe('old');
  });

  it('that is stopped leaves nothing', async () => {
    const descriptor = openSync(path('from'), 'w');
    ftruncateSync(descriptor, 2 ** 36); // a minute of zeros
    closeSync(descriptor);
    const abort = new AbortController();
    const copying = harness.transfers.copy(
      { from: path('from'), to: path('to') },
      { onProgress: () => abort.abort() },
      abort.signal,
    );
    await expect(copying).rejects.toEqual(reason('Aborted'));
    expect(existsSync(path('to'))).toBe(false);
  });

  it('of nothing fails and leaves nothing', async () => {
    await expect(harness.transfers.copy({ from: path('none'), to: path('to') }, {}, never)).rejects.toEqual(
      reason('InternalError'),
    );
    expect(existsSync(path('to'))).toBe(false);
  });
});

describe('a digest', () => {
  it('is that of the file, for several at once', async () => {
    const body = content(3 * MIB + 1);
    writeFileSync(path('a'), body);
    expect(await harness.transfers.digest(path('a'), ['sha512', 'sha256', 'sha1', 'md5'], never)).toEqual({
      sha512: digestOf(body, 'sha512'),
      sha256: digestOf(body),
      sha1: digestOf(body, 'sha1'),
      md5: digestOf(body, 'md5'),
    });
  });

  it('of a small file does not wait for that of a large one', async () => {
    const descriptor = openSync(path('huge'), 'w');
    ftruncateSync(descriptor, 2 ** 36);
    closeSync(descriptor);
    writeFileSync(path('small'), 'x');
    const abort = new AbortController();
    const huge = harness.transfers.digest(path('huge'), ['sha256'], abort.signal);
    huge.catch(() => {});
    expect(await harness.transfers.digest(path('small'), ['sha256'], never)).toEqual({
      sha256: digestOf(Buffer.from('x')),
    });
    abort.abort();
    await expect(huge).rejects.toEqual(reason('Aborted'));
  });

  it('of a file that is not there fails', async () => {
    await expect(harness.transfers.digest(path('none'), ['sha256'], never)).rejects.toEqual(reason('InternalError'));
  });
});

/** A real full disk: a file system of 8 MiB in memory. Only root may mount. */
describe.skipIf(process.getuid?.() !== 0)('a full disk', () => {
  it('is DiskFull, with the cure, and the bytes that had room stay', async () => {
    const small = path('small');
    mkdirSync(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', small]);
    try {
      const root = path('root');
      mkdirSync(root);
      writeFileSync(join(root, 'image'), content(12 * MIB));
      const source = { kind: 'file', root, path: 'image' } as const;
      const request = harness.request('', {}, { source, directory: small });
      await expect(harness.fetch(request)).rejects.toMatchObject({ reason: 'DiskFull', message: /free space/ });
      expect(statSync(join(small, '1.part')).size).toBeGreaterThan(6 * MIB);
      const copying = harness.transfers.copy({ from: join(root, 'image'), to: join(small, 'copy') }, {}, never);
      await expect(copying).rejects.toEqual(reason('DiskFull'));
      expect(existsSync(join(small, 'copy'))).toBe(false);
    } finally {
      execFileSync('umount', [small]);
      rmSync(small, { recursive: true });
    }
  });
});
