import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PAGE_BYTES, pages } from '../../../src/sources/pages.ts';
import { DirectFile } from '../../../src/transfers/direct.ts';

let folder: string;
let handle: FileHandle;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'direct-'));
  handle = await open(join(folder, 'file'), 'wx+');
});
afterEach(async () => {
  await handle.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('a file that is written past the kernel', () => {
  it('takes whole pages, and what cannot be written so is left to the caller', async () => {
    const direct = await DirectFile.open(handle.fd);
    if (direct === undefined) return; // not on this file system: everything is the caller's
    const bytes = pages(4 * PAGE_BYTES).fill(7);
    expect(direct.takes(0, bytes)).toBe(true);
    expect(direct.takes(3 * PAGE_BYTES, bytes.subarray(PAGE_BYTES))).toBe(true);
    expect(direct.takes(1, bytes)).toBe(false);
    expect(direct.takes(0, bytes.subarray(1))).toBe(false);
    expect(direct.takes(0, bytes.subarray(0, 100))).toBe(false);
    expect(await direct.write(0, bytes)).toBe(bytes.length);
    // Memory that only looks like pages: where the kernel refuses it, nothing more is tried.
    const elsewhere = new Uint8Array(Buffer.allocUnsafeSlow(PAGE_BYTES * 64).buffer);
    const written = await direct.write(4 * PAGE_BYTES, elsewhere);
    expect([0, elsewhere.length]).toContain(written);
    if (written === 0) expect(direct.takes(0, bytes)).toBe(false);
    await direct.close();
    expect(readFileSync(join(folder, 'file')).subarray(0, bytes.length).equals(bytes)).toBe(true);
  });

  it('is found by its descriptor, whatever has become of its name', async () => {
    rmSync(join(folder, 'file'));
    const direct = await DirectFile.open(handle.fd);
    const bytes = pages(PAGE_BYTES).fill(9);
    if (direct !== undefined) expect(await direct.write(0, bytes)).toBe(PAGE_BYTES);
    else await handle.write(bytes, 0, PAGE_BYTES, 0);
    const read = Buffer.alloc(PAGE_BYTES);
    await handle.read(read, 0, PAGE_BYTES, 0);
    expect(read.equals(bytes)).toBe(true);
    await direct?.close();
  });
});
