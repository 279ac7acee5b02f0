import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { Generation, Generations } from '../../../src/transfers/generation.ts';
import { PrimaryHash } from '../../../src/transfers/primary-hash.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'generation-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('a generation', () => {
  it('is a new inode, also where an earlier process left a file of the same name', async () => {
    writeFileSync(join(folder, '7.part'), 'old bytes');
    const old = openSync(join(folder, '7.part'), 'r');
    const generation = await Generation.create(folder, 7);
    await generation.write(0, Buffer.from('new'));
    expect(readFileSync(generation.path, 'utf8')).toBe('new');
    expect(readFileSync(old, 'utf8')).toBe('old bytes');
    closeSync(old);
    expect(statSync(generation.path).mode & 0o777).toBe(0o600);
    await generation.release();
  });

  it('goes on from its durable watermark; what is beyond it is cut away', async () => {
    writeFileSync(join(folder, '1.part'), 'durable, and not');
    const generation = await Generation.reopen(folder, 1, 7);
    expect(generation?.watermark).toBe(7);
    expect(readFileSync(join(folder, '1.part'), 'utf8')).toBe('durable');
    await generation?.release();
  });

  it('goes on, also without root’s rights, where the cache had made the file read-only and could not take it in', async () => {
    const module = (path: string) => JSON.stringify(new URL(`../../../src/${path}`, import.meta.url).href);
    // A process of its own: root may write to every file, and a thread cannot give that up.
    const program = `
      import { chownSync, writeFileSync } from 'node:fs';
      import { diskFiles } from ${module('cache/files.ts')};
      import { Generation } from ${module('transfers/generation.ts')};
      if (process.getuid() === 0) {
        chownSync('.', 65534, 65534);
        process.setgid(65534);
        process.setuid(65534);
      }
      writeFileSync('1.part', 'durable');
      await diskFiles.seal('1.part');
      const generation = await Generation.reopen('.', 1, 7);
      await generation.write(7, Buffer.from(' and more'));
      await generation.release();`;
    execFileSync(process.execPath, ['--input-type=module', '--eval', program], { cwd: folder, stdio: 'pipe' });
    expect(readFileSync(join(folder, '1.part'), 'utf8')).toBe('durable and more');
    expect(statSync(join(folder, '1.part')).mode & 0o777).toBe(0o600);
  });

  it('is not resumed when its file has gone or is shorter than the journal says', async () => {
    expect(await Generation.reopen(folder, 1, 5)).toBeUndefined();
    writeFileSync(join(folder, '1.part'), '1234');
    expect(await Generation.reopen(folder, 1, 5)).toBeUndefined();
  });

  it('lets nobody read above the watermark', async () => {
    const generation = await Generation.create(folder, 1);
    await generation.write(4, Buffer.from('efgh'));
    const buffer = Buffer.alloc(8);
    expect(generation.watermark).toBe(0);
    await generation.write(0, Buffer.from('ab'));
    expect(await generation.read(buffer, 8, 0)).toBe(2);
    await generation.write(2, Buffer.from('cd'));
    expect(await generation.read(buffer, 8, 0)).toBe(8);
    expect(buffer.toString()).toBe('abcdefgh');
    await generation.release();
  });

  it('is durable up to the watermark of its last sync, not further', async () => {
    const generation = await Generation.create(folder, 1);
    await generation.write(0, Buffer.from('abcd'));
    expect(generation.durable).toBe(0);
    await generation.sync();
    await generation.write(4, Buffer.from('efgh'));
    expect(generation.durable).toBe(4);
    await generation.release();
  });

  it('is read to its end by who holds it, after the file was renamed and the writer has let go', async () => {
    const generation = await Generation.create(folder, 1);
    await generation.write(0, Buffer.from('abcd'));
    generation.hold();
    await generation.release();
    renameSync(generation.path, join(folder, 'blob'));
    const buffer = Buffer.alloc(4);
    expect(await generation.read(buffer, 4, 0)).toBe(4);
    await generation.release();
  });

  it('tells its followers of growth and of its end, and may fail by its digest after the last byte', async () => {
    const generation = await Generation.create(folder, 1);
    const seen: unknown[] = [];
    const stop = generation.onChange(() => seen.push([generation.watermark, generation.outcome]));
    await generation.write(0, Buffer.from('ab'));
    generation.end('complete');
    const failure = new Failure('DigestMismatch', 'wrong');
    generation.end(failure);
    generation.end('complete');
    stop();
    expect(seen).toEqual([
      [2, 'growing'],
      [2, 'complete'],
      [2, failure],
    ]);
    await generation.release();
  });

  it('is found while it grows and for a while after its proof, but not after a failure', async () => {
    const generations = new Generations();
    const generation = await Generation.create(folder, 1);
    generations.add(generation);
    expect(generations.find(folder, 1)).toBe(generation);
    expect(generations.find(folder, 2)).toBeUndefined();
    generations.linger(generation);
    expect(generations.find(folder, 1)).toBe(generation);
    generations.remove(generation);
    expect(generations.find(folder, 1)).toBeUndefined();
    await generation.release();
  });
});

describe('the primary hash', () => {
  it('is that of the file, in whatever order it is written and wherever an earlier run had stopped', async () => {
    const arbitrary = fc
      .record({
        lengths: fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 12 }),
        kept: fc.nat({ max: 12 }),
      })
      .chain(({ lengths, kept }) => {
        let end = 0;
        const parts = lengths.map((length) => ({ start: end, end: (end += length) }));
        const first = parts.slice(0, kept);
        const rest = parts.slice(kept);
        return fc.record({
          size: fc.constant(end),
          offset: fc.constant(first.at(-1)?.end ?? 0),
          order: fc.oneof(fc.constant(rest), fc.shuffledSubarray(rest, { minLength: rest.length })),
          together: fc.boolean(),
        });
      });
    let number = 0;
    await fc.assert(
      fc.asyncProperty(arbitrary, async ({ size, offset, order, together }) => {
        const bytes = Buffer.allocUnsafe(size);
        for (let at = 0; at < size; at += 1) bytes[at] = (at * 7 + (at >> 7)) & 255;
        number += 1;
        const path = join(folder, `${number}.part`);
        writeFileSync(path, bytes.subarray(0, offset));
        const generation =
          offset === 0 ? await Generation.create(folder, number) : await Generation.reopen(folder, number, offset);
        if (generation === undefined) throw new Error('not resumed');
        const hash = new PrimaryHash('sha256', generation);
        const write = async ({ start, end }: { start: number; end: number }) => {
          hash.feed(start, bytes.subarray(start, end));
          await generation.write(start, bytes.subarray(start, end));
          hash.written();
        };
        if (together) await Promise.all(order.map(write));
        else for (const part of order) await write(part);
        expect(await hash.digest(size)).toBe(createHash('sha256').update(bytes).digest('hex'));
        await generation.release();
      }),
      { numRuns: 40 },
    );
  });

  it('can be stopped while it reads a long partial', async () => {
    writeFileSync(join(folder, '1.part'), '');
    truncateSync(join(folder, '1.part'), 2 ** 36);
    const generation = await Generation.reopen(folder, 1, 2 ** 36);
    if (generation === undefined) throw new Error('not resumed');
    const hash = new PrimaryHash('sha256', generation);
    const digest = hash.digest(2 ** 36);
    const refused = expect(digest).rejects.toMatchObject({ reason: 'Aborted' });
    await hash.stop();
    await refused;
    await generation.release();
  });

  it('fails when the file is shorter than what was written', async () => {
    writeFileSync(join(folder, '1.part'), 'abcdefgh');
    const generation = await Generation.reopen(folder, 1, 8);
    if (generation === undefined) throw new Error('not resumed');
    truncateSync(generation.path, 4);
    const hash = new PrimaryHash('sha256', generation);
    await expect(hash.digest(8)).rejects.toThrow('shorter');
    await generation.release();
  });
});
