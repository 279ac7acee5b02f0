import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ext4 } from '../../support/disks.ts';
import { directorySite, vmimage, yamlOf } from '../../support/house.ts';
import { npm, packProgram } from '../../support/npm.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';

const CHECKOUT = join(import.meta.dirname, '..', '..', '..');

interface Outcome {
  code: number;
  out: string;
  err: string;
}

describe('the npm package, installed', () => {
  let root = '';
  let installed = '';
  let origin: Origin;

  beforeAll(async () => {
    origin = await startOrigin();
    root = mkdtempSync(join(tmpdir(), 'imageproxy-package-'));
    // What the package asks for beside itself could come from nowhere else.
    const offline = ['--offline', '--cache', join(root, 'cache')];
    npm(['install', '--global', '--prefix', join(root, 'prefix'), ...offline, packProgram(root)], root);
    installed = join(root, 'prefix', 'lib', 'node_modules', 'imageproxy');
    // All that the machine has beside it.
    mkdirSync(join(root, 'bin'));
    symlinkSync(process.execPath, join(root, 'bin', 'node'));
    for (const program of ['dirname', 'readlink']) symlinkSync(`/usr/bin/${program}`, join(root, 'bin', program));
    mkdirSync(join(root, 'home'));
  });

  afterAll(async () => {
    await origin.close();
    rmSync(root, { recursive: true, force: true });
  });

  function run(command: string, ...words: readonly string[]): Promise<Outcome> {
    const { promise, resolve } = Promise.withResolvers<Outcome>();
    const env = {
      PATH: `${join(root, 'prefix', 'bin')}:${join(root, 'bin')}`,
      HOME: join(root, 'home'),
      LANG: 'C.UTF-8',
    };
    execFile(command, words, { cwd: root, env }, (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code), out, err }),
    );
    return promise;
  }

  it('holds the program, the contract and what is to be read, and brings no other package', () => {
    expect(readdirSync(installed).toSorted()).toEqual([
      'CHANGELOG.md',
      'LICENSE',
      'README.md',
      'bin',
      'crds',
      'dist',
      'package.json',
    ]);
    expect(readdirSync(join(root, 'prefix', 'lib', 'node_modules'))).toEqual(['imageproxy']);
    expect(readdirSync(join(installed, 'dist')).filter((name) => !name.endsWith('.js'))).toEqual([]);
    const files = readdirSync(installed, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const homesick = files.filter(({ parentPath, name }) =>
      readFileSync(join(parentPath, name), 'utf8').includes(CHECKOUT),
    );
    expect(homesick.map(({ name }) => name)).toEqual([]);
  });

  it('tells its version, also as a plugin of kubectl', async () => {
    const { version } = JSON.parse(readFileSync(join(CHECKOUT, 'package.json'), 'utf8')) as { version: string };
    expect(await run('imageproxy', '--version')).toEqual({ code: 0, out: `${version}\n`, err: '' });
    expect(await run('imageproxy', 'version')).toMatchObject({
      code: 0,
      out: expect.stringContaining(`imageproxy ${version} (Node.js ${process.version}`),
    });
    const plugin = await run('kubectl-imageproxy', '--help');
    expect(plugin).toMatchObject({ code: 0, out: expect.stringContaining('Usage: kubectl imageproxy COMMAND') });
  });

  it('says that it needs a newer Node.js, where that is too old', async () => {
    const old = join(root, 'old');
    mkdirSync(old);
    writeFileSync(join(old, 'node'), '#!/bin/sh\necho v18.20.4\n', { mode: 0o755 });
    const bin = join(root, 'prefix', 'bin', 'imageproxy');
    expect(await run('/usr/bin/env', `PATH=${old}:${join(root, 'bin')}`, bin, 'version')).toEqual({
      code: 69,
      out: '',
      err: `imageproxy: it needs Node.js 24 or newer, and ${old}/node is v18.20.4: install Node.js 24 or newer\n`,
    });
  });

  it('judges manifests by the contract that it holds', async () => {
    const image = (sha256: string) =>
      vmimage('disk', {
        source: { http: { urls: [`${origin.url}/disk`] } },
        checksums: { sha256 },
        sites: [{ name: 'shelf' }],
      });
    writeFileSync(join(root, 'good.yaml'), yamlOf(image('0'.repeat(64))));
    writeFileSync(join(root, 'bad.yaml'), yamlOf(image('0')));
    expect(await run('imageproxy', 'validate', 'good.yaml')).toMatchObject({
      code: 0,
      err: expect.stringContaining('1 object: all well'),
    });
    expect(await run('imageproxy', 'validate', 'bad.yaml')).toMatchObject({
      code: 1,
      out: expect.stringContaining('spec.checksums.sha256'),
    });
  });

  it('does the main job in one line', async () => {
    const disk = ext4('packaged');
    origin.route('/disk.raw', { body: disk.bytes, etag: '"1"' });
    const shelf = join(root, 'shelf');
    mkdirSync(shelf);
    writeFileSync(join(root, 'shelf.yaml'), yamlOf(directorySite('shelf', shelf)));
    const line = [`${origin.url}/disk.raw`, '--sha256', disk.sha256, '--site', 'shelf.yaml'];
    const { code, out, err } = await run('imageproxy', 'register', ...line, '--allow-network', '127.0.0.0/8');
    expect(code, err).toBe(0);
    const id = out.trim();
    expect(id).toMatch(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    const index = readFileSync(join(shelf, 'index.json'), 'utf8');
    expect(index).toContain(id);
    expect(index).toContain(disk.sha256);
  });
});
