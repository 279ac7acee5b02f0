import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { complete, completion } from '../../../src/cli/completion.ts';
import { type CommandContext, Output } from '../../../src/cli/output.ts';
import { createProgram } from '../../../src/cli/program.ts';
import { storeObject } from './stored.ts';

let state = '';

beforeAll(() => {
  state = mkdtempSync(join(tmpdir(), 'imageproxy-completion-'));
  storeObject(state, { kind: 'VMImage', name: 'ubuntu', namespace: 'default' });
  storeObject(state, { kind: 'VMImage', name: 'debian', namespace: 'team' });
  storeObject(state, { kind: 'ImageSite', name: 'east', namespace: undefined });
  const attention = ['img-$(touch pwned).img', 'img-1.img', '--all'].map((id) => ({ id, reason: 'PendingApproval' }));
  storeObject(state, { kind: 'ImageSubscription', name: 'pub', namespace: 'default' }, { status: { attention } });
});

afterAll(() => rmSync(state, { recursive: true, force: true }));

async function candidates(...words: string[]): Promise<string[]> {
  return answered({}, words);
}

async function answered(how: { calledAs?: string }, words: string[]): Promise<string[]> {
  let text = '';
  const out = new Output({ write: (more: string) => (text += more) }, { env: {} });
  const context = {
    out,
    err: out,
    env: { IMAGEPROXY_STATE: state },
    now: Date.now,
    signal: new AbortController().signal,
    ...how,
  };
  await complete(
    createProgram(async () => undefined),
    words,
    context,
  );
  return text.split('\n').filter((line) => line !== '');
}

describe('completion', () => {
  it.each([
    [['reg'], ['register']],
    [['confirm-'], ['confirm-deletions', 'confirm-removal']],
    [['__'], []],
    [['get', '--all'], ['--all-namespaces']],
    [
      ['get', '-o', ''],
      ['wide', 'json', 'yaml', 'name'],
    ],
    [
      ['get', 'vmim'],
      ['vmimg', 'vmimage', 'vmimages'],
    ],
    [['get', 'vmimg', ''], ['ubuntu']],
    [['get', '-o', 'json', 'vmimg', ''], ['ubuntu']],
    [['get', '-n', 'team', 'vmimg', ''], ['debian']],
    [
      ['get', '-A', 'vmimg', ''],
      ['ubuntu', 'debian'],
    ],
    [
      ['get', '-n', ''],
      ['default', 'team'],
    ],
    [['delete', 'vmimg/u'], ['vmimg/ubuntu']],
    [['delete', 'imgsite'], ['imgsite/']],
    [['describe', 'imgsite/'], ['imgsite/east']],
    [['confirm-removal', 'vmimg/ubuntu', ''], ['east']],
    [['register', 'https://x', '--site', ''], ['east']],
    [
      ['wait', 'vmimg/ubuntu', '--for', 'cond'],
      ['condition=Ready', 'condition=Available', 'condition=Stalled'],
    ],
    [
      ['completion', ''],
      ['bash', 'zsh', 'fish'],
    ],
    [['explain', 'imagesite.spec.dir'], ['imagesite.spec.directory']],
    [
      ['explain', 'vmimage.spec.sites.'],
      ['vmimage.spec.sites.name', 'vmimage.spec.sites.optional', 'vmimage.spec.sites.registration'],
    ],
    [['validate', ''], []],
    [['nonsense', ''], []],
    [
      ['approve', 'pub', ''],
      ['img-$(touch pwned).img', 'img-1.img'],
    ],
  ])('of %j is %j', async (words, expected) => {
    expect(await candidates(...words)).toEqual(expected);
  });

  it("leaves out for kubectl, whose script quotes nothing, what is more than a shell's plain word", async () => {
    expect(await answered({ calledAs: 'kubectl imageproxy' }, ['approve', '--state', state, 'pub', ''])).toEqual([
      'img-1.img',
      ':4',
    ]);
  });

  it("runs nothing that stands in a stranger's name, in a real bash, neither at TAB nor at Enter", async () => {
    const folder = mkdtempSync(join(tmpdir(), 'imageproxy-completion-'));
    const id = "img-$(touch pwned)`touch pwned`;'*.img";
    writeFileSync(join(folder, 'program'), `#!/bin/sh\nprintf '<%s>' "$@" >asked\ncat names\n`, { mode: 0o755 });
    writeFileSync(join(folder, 'names'), `${id}\n`);
    let script = '';
    const out = new Output({ write: (more: string) => (script += more) }, { env: {} });
    await completion('bash', { out } as unknown as CommandContext);
    const typed = `${script}
      COMP_WORDS=(./program approve pub 'img-\\$'); COMP_CWORD=3
      _imageproxy; eval "printf %s \${COMPREPLY[0]}"`;
    const { stdout } = await promisify(execFile)('bash', ['-c', typed], { cwd: folder });
    expect(stdout).toBe(id);
    expect(readFileSync(join(folder, 'asked'), 'utf8')).toBe('<__complete><--><approve><pub><img-$>');
    expect(readdirSync(folder).sort()).toEqual(['asked', 'names', 'program']);
    rmSync(folder, { recursive: true });
  });
});
