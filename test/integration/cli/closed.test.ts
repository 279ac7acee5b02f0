import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
// Loaded as who runs the tests: another user may not be able to read the sources.
import '../../../src/cli/controller.ts';
import '../../../src/cli/directory-place.ts';
import { lookAt } from '../../../src/cli/looking.ts';
import { manifestFiles, readManifest } from '../../../src/cli/manifest-files.ts';
import { Output } from '../../../src/cli/output.ts';
import { register } from '../../../src/cli/register.ts';
import { run } from '../../../src/cli/run.ts';
import { wait } from '../../../src/cli/wait.ts';

let root: string;
let closed: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'imageproxy-closed-'));
  closed = join(root, 'closed');
  mkdirSync(join(closed, 'objects'), { recursive: true });
  chmodSync(root, 0o755);
  chmodSync(closed, 0o000);
});
afterEach(() => {
  chmodSync(closed, 0o700);
  rmSync(root, { recursive: true, force: true });
});

const NOBODY = 65534;

/** As a user who may not look into the folder; root may look into all. */
async function asAnother<T>(work: () => Promise<T>): Promise<T> {
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid?.(NOBODY);
  try {
    return await work();
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
}

const out = new Output({ write: () => undefined }, { env: {} });
const context = { out, err: out, env: {}, now: Date.now, signal: new AbortController().signal };
const quiet = { telemetry: 'off', logLevel: 'silent', maxParallelDownloads: 1 } as const;

describe('a folder that its user may not look into is not told as one that is not there', () => {
  it.each([
    ['the state, by who looks', () => wait(['vmimg/a'], { state: closed, for: 'create', timeout: 1 }, context)],
    [
      'the state, by who changes something',
      () => {
        const image = { sha256: '0'.repeat(64), site: ['nova'], timeout: 1, wait: true };
        return register('https://example.org/a', { state: closed, ...image }, context);
      },
    ],
  ])('%s', async (_, command) => {
    await expect(asAnother(command)).rejects.toMatchObject({
      exitCode: 1,
      message: `${join(closed, 'objects')} may not be read by this user: run it as its owner`,
    });
  });

  it('the manifests, and the state, of run', async () => {
    const manifests = join(closed, 'manifests');
    await expect(asAnother(() => run({ manifests, ...quiet }, context))).rejects.toMatchObject({
      exitCode: 1,
      message: `${manifests} may not be read by this user: run it as its owner`,
    });
    await expect(asAnother(() => run({ manifests: root, state: closed, ...quiet }, context))).rejects.toMatchObject({
      reason: 'Rejected',
      message: `the state directory ${closed} cannot be written (EACCES: permission denied): run it as its owner, or give another --state`,
    });
  });

  it('but one that is only passed through, as a --file-root, need not be listed', async () => {
    chmodSync(closed, 0o711);
    await expect(asAnother(() => lookAt(closed))).rejects.toMatchObject({ exitCode: 1 });
    expect((await asAnother(() => lookAt(closed, { isListed: false })))?.isDirectory()).toBe(true);
  });

  it('the manifests, by who judges them', async () => {
    const file = join(closed, 'a.yaml');
    const judge = async () => Promise.all((await manifestFiles(file)).files.map((each) => readManifest(each)));
    expect(await asAnother(judge)).toMatchObject([
      { problems: [{ file, message: 'cannot be read: EACCES: permission denied' }] },
    ]);
  });
});
