import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deleteObjects } from '../../../src/cli/delete.ts';
import { Output } from '../../../src/cli/output.ts';
import { storeObject } from './stored.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'imageproxy-delete-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

describe('delete', () => {
  it('of an object that a second file holds, too, names that file and touches nothing', async () => {
    const state = join(root, 'state');
    const [first, second] = [join(root, 'a.yaml'), join(root, 'b.yaml')];
    const manifest = { apiVersion: 'imageproxy.dev/v1beta1', kind: 'VMImage', metadata: { name: 'u' }, spec: {} };
    for (const file of [first, second]) writeFileSync(file, JSON.stringify(manifest));
    storeObject(state, { kind: 'VMImage', name: 'u', namespace: 'default' }, { file: first });
    const problem = { file: second, document: 1, line: 1, field: 'metadata.name', severity: 'error' };
    writeFileSync(
      join(state, 'problems.json'),
      JSON.stringify([{ ...problem, object: 'VMImage default/u', message: `VMImage default/u is also in ${first}` }]),
    );
    const out = new Output({ write: () => undefined }, { env: {} });
    const context = { out, err: out, env: {}, now: Date.now, signal: new AbortController().signal };
    await expect(deleteObjects(['vmimg/u'], { state, wait: true, timeout: 1 }, context)).rejects.toMatchObject({
      exitCode: 1,
      message: `VMImage default/u is also in ${second}, which would make it again: take it out there, then delete it`,
    });
    expect([existsSync(first), existsSync(second)]).toEqual([true, true]);
  });
});
