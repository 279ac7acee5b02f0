import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { describe as describeObject } from '../../../src/cli/describe.ts';
import { Output } from '../../../src/cli/output.ts';
import type { Problem } from '../../../src/stores/directory/manifest.ts';
import { storeObject } from './stored.ts';

let state: string;
beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), 'imageproxy-describe-'));
  const key = { kind: 'VMImage', name: 'u', namespace: 'default' };
  storeObject(state, key, { file: '/srv/manifests/sub/u.yaml' });
});
afterEach(() => rmSync(state, { recursive: true, force: true }));

async function page(problem: Partial<Problem>): Promise<string> {
  const whole: Problem = { file: '', document: 0, line: 0, field: '', message: 'THE FACT', severity: 'error' };
  writeFileSync(join(state, 'problems.json'), JSON.stringify([{ ...whole, ...problem }]));
  let text = '';
  const out = new Output({ write: (more: string) => (text += more) }, { env: {} });
  const context = { out, err: out, env: {}, now: Date.now, signal: new AbortController().signal };
  await describeObject('vmimg', 'u', { state }, context);
  return text;
}

describe('What describe tells of manifests', () => {
  it.each<[string, Partial<Problem>, boolean]>([
    ['of the object', { file: '/srv/manifests/b.yaml', object: 'VMImage default/u' }, true],
    ['of its file', { file: '/srv/manifests/sub/u.yaml' }, true],
    ['of a folder above it', { file: '/srv/manifests' }, true],
    ['of another folder', { file: '/srv/manifests/su' }, false],
    ['of another object of its file', { file: '/srv/manifests/sub/u.yaml', object: 'VMImage default/x' }, false],
    [
      'of another object whose name begins like its own',
      { file: '/srv/manifests/b.yaml', object: 'VMImage default/u-24', message: 'VMImage default/u-24: THE FACT' },
      false,
    ],
  ])('a problem %s', async (_, problem, isTold) => {
    expect((await page(problem)).includes('THE FACT')).toBe(isTold);
  });

  it('deletions that are held, also where another folder is read now, with the ways out', async () => {
    const text = await page({ file: '/srv/wrong', held: true });
    expect(text).toContain('/srv/wrong: error: THE FACT');
    expect(text).toMatch(/to be deleted: imageproxy confirm-deletions/);
    expect(text).not.toContain('Correct /srv/wrong');
  });
});
