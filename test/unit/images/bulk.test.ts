import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { readProgress } from '../../../src/images/convert.ts';
import { gunzip } from '../../../src/images/gunzip.ts';
import { SparseWriter } from '../../../src/images/sparse-writer.ts';
import { printable } from '../../../src/api/printable.ts';
import { crc32c } from '../../../src/images/vhdx.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'images-unit-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the sparse writer', () => {
  const pieces = fc.array(
    fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 5000 }),
      fc.nat(3 * 2 ** 20).map((length) => new Uint8Array(length)),
    ),
    { maxLength: 8 },
  );

  it('writes the very bytes, whatever runs of zeros they have and however they are cut', () => {
    const path = join(folder, 'any');
    fc.assert(
      fc.property(pieces, (chunks) => {
        const fd = openSync(path, 'w');
        const writer = new SparseWriter(fd, 2 ** 30, ['sha256']);
        for (const chunk of chunks) writer.write(Buffer.from(chunk));
        const produced = writer.finish();
        closeSync(fd);
        const whole = Buffer.concat(chunks);
        expect(readFileSync(path).equals(whole)).toBe(true);
        expect(produced).toEqual({
          size: whole.length,
          digests: { sha256: createHash('sha256').update(whole).digest('hex') },
        });
      }),
      { numRuns: 60 },
    );
  });

  it('leaves holes for zeros, at the end too', () => {
    const path = join(folder, 'holes');
    const fd = openSync(path, 'w');
    const writer = new SparseWriter(fd, 2 ** 30, []);
    writer.write(Buffer.from('begin'));
    writer.skip(64 * 2 ** 20);
    writer.finish();
    closeSync(fd);
    expect(statSync(path).size).toBe(64 * 2 ** 20 + 5);
    expect(statSync(path).blocks * 512).toBeLessThan(128 * 1024);
  });

  it('refuses the first byte above its limit', () => {
    const writer = new SparseWriter(undefined, 10, []);
    writer.write(Buffer.alloc(10));
    expect(() => writer.write(Buffer.alloc(1))).toThrow(expect.objectContaining({ reason: 'TooLarge' }));
  });
});

describe('gunzip', () => {
  const one = gzipSync(Buffer.alloc(300_000, 'one'));
  const two = gzipSync(Buffer.alloc(200_000, 'two'));

  async function run(...parts: Buffer[]): Promise<number> {
    const path = join(folder, 'x.gz');
    writeFileSync(path, Buffer.concat(parts));
    const fd = openSync(path, 'r');
    let size = 0;
    try {
      await gunzip(fd, statSync(path).size, (bytes) => {
        size += bytes.length;
      });
    } finally {
      closeSync(fd);
    }
    return size;
  }

  it('reads all members', async () => {
    expect(await run(one, two, one)).toBe(800_000);
  });

  it('takes NULs to the end for padding, also when they are longer than a buffer', async () => {
    expect(await run(one, Buffer.alloc(700))).toBe(300_000);
    expect(await run(one, Buffer.alloc(5 * 2 ** 20))).toBe(300_000);
  });

  it.each<[string, Buffer[]]>([
    ['garbage', [one, Buffer.from('garbage')]],
    ['a member behind padding, which zlib would drop in silence', [one, Buffer.alloc(700), two]],
    ['garbage behind much padding', [one, Buffer.alloc(3 * 2 ** 20), Buffer.from('x')]],
    ['half a member', [one, two.subarray(0, 100)]],
    ['the first byte of a member', [one, Buffer.from([0x1f])]],
  ])('refuses %s after a member', async (_name, parts) => {
    await expect(run(...parts)).rejects.toMatchObject({ reason: 'CorruptImage' });
  });

  it('refuses a file cut at any byte', async () => {
    const small = gzipSync('some bytes of an image');
    for (let length = 1; length < small.length; length++) {
      await expect(run(small.subarray(0, length))).rejects.toBeInstanceOf(Failure);
    }
  });

  it('refuses a wrong checksum', async () => {
    const damaged = Buffer.from(one);
    damaged[damaged.length - 6] = (damaged[damaged.length - 6] ?? 0) ^ 1;
    await expect(run(damaged)).rejects.toMatchObject({ reason: 'CorruptImage' });
  });
});

describe('the progress of qemu-img', () => {
  it('is read to its end wherever the pipe cuts it, and never goes back', async () => {
    const text = Array.from({ length: 101 }, (_, percent) => `    (${percent.toFixed(2)}/100%)\r`).join('');
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 200 }), async (cuts) => {
        async function* chunks() {
          let at = 0;
          for (const length of [...cuts, text.length]) {
            yield Buffer.from(text.slice(at, at + length));
            at += length;
          }
        }
        const seen: number[] = [];
        await readProgress(chunks(), (fraction) => seen.push(fraction));
        expect(seen.at(-1)).toBe(1);
        expect(seen).toEqual(seen.toSorted((a, b) => a - b));
      }),
    );
  });
});

describe('bytes of strangers', () => {
  it('become one short printable line in messages', () => {
    expect(printable('a\u001b[31m\nb\u202e\0c')).toBe('a [31m b c');
    expect(printable('x'.repeat(500))).toHaveLength(120);
  });

  it('have the checksum of RFC 3720', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  });
});
