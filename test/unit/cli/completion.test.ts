import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { complete } from '../../../src/cli/completion.ts';
import { Output } from '../../../src/cli/output.ts';
import { createProgram } from '../../../src/cli/program.ts';

let state = '';

beforeAll(() => {
  state = mkdtempSync(join(tmpdir(), 'imageproxy-completion-'));
  mkdirSync(join(state, 'objects'));
  object('VMImage', 'ubuntu', 'default');
  object('VMImage', 'debian', 'team');
  object('ImageSite', 'east', undefined);
});

afterAll(() => rmSync(state, { recursive: true, force: true }));

function object(kind: string, name: string, namespace: string | undefined): void {
  const metadata = {
    name,
    namespace,
    uid: 'u',
    generation: 1,
    resourceVersion: '1',
    creationTimestamp: '2026-01-01T00:00:00Z',
  };
  const record = {
    format: 1,
    origin: 'applied',
    annotations: {},
    overlay: {},
    object: { apiVersion: 'imageproxy.dev/v1beta1', kind, metadata, spec: {} },
  };
  writeFileSync(join(state, 'objects', `${kind}_${namespace ?? ''}_${name}.json`), JSON.stringify(record));
}

async function candidates(...words: string[]): Promise<string[]> {
  let text = '';
  const out = new Output({ write: (more: string) => (text += more) }, { env: {} });
  const context = {
    out,
    err: out,
    env: { IMAGEPROXY_STATE: state },
    now: Date.now,
    signal: new AbortController().signal,
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
  ])('of %j is %j', async (words, expected) => {
    expect(await candidates(...words)).toEqual(expected);
  });
});
