import { mkdir } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Disk } from '../../../../src/stores/directory/disk.ts';
import type { Problem } from '../../../../src/stores/directory/manifest.ts';
import { ProblemBoard, readProblems } from '../../../../src/stores/directory/problems.ts';
import { Bench } from '../support.ts';

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.make();
  await mkdir(bench.state);
});
afterEach(() => bench.dispose());

describe('Problems with manifests', () => {
  it('are written at a later scan where the disk was full, and logged once', async () => {
    let isFull = true;
    class FullDisk extends Disk {
      override async replace(path: string, text: string, durable: boolean): Promise<void> {
        if (isFull) throw new Error('ENOSPC');
        await super.replace(path, text, durable);
      }
    }
    const problem: Problem = { file: 'a.yaml', document: 1, line: 1, field: '', message: 'is bad', severity: 'error' };
    const board = new ProblemBoard(bench.state, new FullDisk(), bench.log);
    await expect(board.set([problem])).rejects.toThrow('ENOSPC');
    isFull = false;
    await board.set([problem]);
    expect(await readProblems(bench.state)).toEqual([problem]);
    isFull = true;
    await expect(board.set([])).rejects.toThrow('ENOSPC');
    isFull = false;
    await board.set([]);
    expect(await readProblems(bench.state)).toEqual([]);
    expect(bench.log.messages('error')).toEqual(['is bad']);
    expect(bench.log.messages('info')).toEqual(['no longer: is bad']);
  });
});
