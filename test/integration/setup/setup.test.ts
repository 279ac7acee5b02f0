import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { npmScript } from '../../support/npm.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { Machine, onPath } from './machine.ts';

const MINUTES = 60_000;
const OF_24_OR_NEWER = /^(?:2[4-9]|[3-9]\d)\./;

let machine: Machine | undefined;

afterEach(() => machine?.remove());

/** With a lock file whose only package is a folder beside it: the real `npm ci`, and nothing to fetch. */
function machineWith(...programs: readonly string[]): Machine {
  machine?.remove();
  machine = new Machine(...programs);
  machine.clone('scripts/setup.sh', '.npmrc');
  const root = { name: 'imageproxy', version: '0.1.0', devDependencies: { beside: 'file:beside' } };
  const packages = {
    '': root,
    beside: { version: '1.0.0', dev: true },
    'node_modules/beside': { resolved: 'beside', link: true },
  };
  machine.write('package.json', JSON.stringify(root));
  machine.write('beside/package.json', JSON.stringify({ name: 'beside', version: '1.0.0' }));
  machine.write(
    'package-lock.json',
    JSON.stringify({ name: 'imageproxy', version: '0.1.0', lockfileVersion: 3, requires: true, packages }),
  );
  return machine;
}

function versionBrought({ checkout }: Machine): string {
  const node = join(checkout, '.tools', 'node', 'bin', 'node');
  return execFileSync(node, ['-p', 'process.versions.node'], { encoding: 'utf8' }).trim();
}

const BRINGS = 'setup: no Node.js 24 or newer with npm here; bringing one into .tools/\n';

describe('make setup brings Node.js by what the machine has', () => {
  it('takes a Node.js on PATH that is new enough, and does nothing the second time', async () => {
    const here = machineWith();
    here.has('node', process.execPath);
    here.hasNpm();
    const says = (what: string) => `setup: Node.js ${process.versions.node} (the one on PATH), ${what}\n`;
    const first = await here.setup();
    expect(first, first.err).toMatchObject({ code: 0, out: expect.stringContaining(says('installing dependencies')) });
    expect(existsSync(join(here.checkout, 'node_modules', 'beside', 'package.json'))).toBe(true);
    expect(readdirSync(join(here.checkout, '.tools'))).toEqual([]);
    here.script('npm', 'exit 1');
    expect(await here.setup()).toEqual({ code: 0, out: says('dependencies are current'), err: '' });
  });

  it('installs again when the lock file has changed, and says so when npm cannot', async () => {
    const here = machineWith();
    here.has('node', process.execPath);
    here.hasNpm();
    expect(await here.setup()).toMatchObject({ code: 0 });
    here.write('package-lock.json', `${readFileSync(join(here.checkout, 'package-lock.json'), 'utf8')}\n`);
    here.script('npm', 'exit 1');
    for (const _time of [1, 2])
      expect(await here.setup()).toMatchObject({ code: 1, err: 'setup: npm ci failed; see above\n' });
    here.hasNpm();
    expect(await here.setup()).toMatchObject({ code: 0 });
  });

  it(
    'takes npm where Node.js is too old, with an npm that fits',
    async () => {
      const here = machineWith();
      here.hasOldNode();
      here.hasNpm();
      const registry = await startOrigin();
      const npm = dirname(dirname(npmScript()));
      publishPackage(
        registry,
        here,
        { name: `node-linux-${process.arch}`, version: process.versions.node },
        (folder) => {
          mkdirSync(join(folder, 'bin'));
          symlinkSync(process.execPath, join(folder, 'bin', 'node'));
        },
      );
      const manifest = JSON.parse(readFileSync(join(npm, 'package.json'), 'utf8')) as Manifest;
      publishPackage(registry, here, { ...manifest, version: '11.99.0' }, (folder) => {
        for (const part of readdirSync(npm)) symlinkSync(join(npm, part), join(folder, part));
      });
      const env = {
        npm_config_registry: registry.url,
        npm_config_cache: join(here.root, 'cache'),
        no_proxy: '127.0.0.1',
      };
      const first = await here.setup(env);
      await registry.close();
      expect(first, first.err).toMatchObject({ code: 0, out: expect.stringContaining(BRINGS) });
      const version = versionBrought(here);
      expect(version).toBe(process.versions.node);
      expect(first.out).toContain(`setup: Node.js ${version} (brought by npm), installing dependencies\n`);
      expect(existsSync(join(here.checkout, '.tools', 'npm', 'node_modules', 'npm', 'bin', 'npm-cli.js'))).toBe(true);
      expect(existsSync(join(here.checkout, 'node_modules', 'beside', 'package.json'))).toBe(true);
      // Without the machine's npm nothing can be fetched, and nothing has to be.
      here.loses('npm');
      const current = `setup: Node.js ${version} (.tools/node), dependencies are current\n`;
      expect(await here.setup()).toEqual({ code: 0, out: current, err: '' });
    },
    5 * MINUTES,
  );

  const python = pythonWithPip();
  it.skipIf(python === undefined)(
    'takes pip where there is no npm',
    async () => {
      const here = machineWith();
      here.hasOldNode();
      here.has('python3', python ?? '');
      const first = await here.setup();
      expect(first, first.err).toMatchObject({ code: 0, out: expect.stringContaining(BRINGS) });
      const version = versionBrought(here);
      expect(version).toMatch(OF_24_OR_NEWER);
      expect(first.out).toContain(`setup: Node.js ${version} (brought by pip), installing dependencies\n`);
      expect(existsSync(join(here.checkout, 'node_modules', 'beside', 'package.json'))).toBe(true);
    },
    5 * MINUTES,
  );

  it('goes on with the next way where one fails, and tells why each of them could not', async () => {
    const here = machineWith();
    here.script('npm', 'echo "npm error code E403" >&2; exit 1');
    here.script('python3', 'case "$*" in *version) ;; *) echo "ERROR: No matching distribution" >&2; exit 1 ;; esac');
    const { code, err } = await here.setup();
    expect(code).toBe(1);
    expect(err).toMatch(
      /^setup: npm could not:\nnpm error code E403\nsetup: pip could not:\nERROR: No matching distribution\nsetup: cannot bring Node\.js 24: /,
    );
  });

  it('lets go of what it brought once that is too old', async () => {
    const here = machineWith();
    here.has('node', process.execPath);
    here.hasNpm();
    const brought = join(here.checkout, '.tools', 'node', 'bin', 'node');
    here.write('.tools/node/bin/node', '#!/bin/sh\necho 22\n');
    chmodSync(brought, 0o755);
    expect(await here.setup()).toMatchObject({ code: 0, out: expect.stringContaining('(the one on PATH)') });
    // The launcher and the make targets would go on with it.
    expect(existsSync(brought)).toBe(false);
  });

  it('says what to do where nothing can bring it', async () => {
    const here = machineWith();
    here.hasOldNode();
    expect(await here.setup()).toEqual({
      code: 1,
      out: BRINGS,
      err: 'setup: cannot bring Node.js 24: neither npm, pip nor curl could. Install it (https://nodejs.org/download) and try again\n',
    });
    expect(readdirSync(join(here.checkout, '.tools'))).toEqual([]);
  });
});

const FOR_CURL = ['curl', 'gzip', 'sha256sum', 'tar'];

describe.skipIf(!FOR_CURL.every(onPath))('make setup with curl', () => {
  const NAME = `node-v${process.versions.node}-linux-${process.arch}`;
  let dist: Origin;
  beforeEach(async () => (dist = await startOrigin()));
  afterEach(() => dist.close());

  /** Node.js as it is published, of the one that runs this test and its npm. */
  function archive({ root }: Machine): Buffer {
    const tree = join(root, NAME);
    mkdirSync(join(tree, 'bin'), { recursive: true });
    mkdirSync(join(tree, 'lib', 'node_modules'), { recursive: true });
    symlinkSync(process.execPath, join(tree, 'bin', 'node'));
    symlinkSync(dirname(dirname(npmScript())), join(tree, 'lib', 'node_modules', 'npm'));
    return pack(root, NAME);
  }

  /** What the folder of a release says of the archive, among others. */
  function publish(body: Buffer, sum: string): void {
    const sums = [
      `${'1'.repeat(64)}  node-v24-headers.tar.gz`,
      `${sum}  ${NAME}.tar.gz`,
      `${'2'.repeat(64)}  node-v24.pkg`,
    ];
    dist.route('/latest-v24.x/SHASUMS256.txt', { body: Buffer.from(`${sums.join('\n')}\n`) });
    dist.route(`/latest-v24.x/${NAME}.tar.gz`, { body });
  }

  it(
    'refuses what has another checksum or is cut short, adopts nothing of it, and takes what is right',
    async () => {
      const here = machineWith(...FOR_CURL);
      here.hasOldNode();
      const env = { NODE_DIST: dist.url, no_proxy: '127.0.0.1' };
      const body = archive(here);
      const sum = createHash('sha256').update(body).digest('hex');
      const refused = async (): Promise<string> => {
        const { code, err } = await here.setup(env);
        expect(code).toBe(1);
        expect(err).toContain('setup: cannot bring Node.js 24: neither npm, pip nor curl could.');
        expect(existsSync(join(here.checkout, '.tools', 'node'))).toBe(false);
        expect(existsSync(join(here.checkout, '.tools', 'curl', 'bin'))).toBe(false);
        return err;
      };

      expect(await refused()).toContain('404');
      publish(body, '0'.repeat(64));
      expect(await refused()).toContain(`${NAME}.tar.gz: FAILED`);
      publish(body.subarray(0, 2 ** 20), sum);
      expect(await refused()).toContain(`${NAME}.tar.gz: FAILED`);

      publish(body, sum);
      const { code, out, err } = await here.setup(env);
      expect(code, err).toBe(0);
      expect(out).toContain(`setup: Node.js ${process.versions.node} (brought by curl), installing dependencies\n`);
      expect(versionBrought(here)).toBe(process.versions.node);
      expect(existsSync(join(here.checkout, 'node_modules', 'beside', 'package.json'))).toBe(true);
      const asked = dist.requests.length;
      expect(await here.setup(env)).toMatchObject({
        code: 0,
        out: expect.stringContaining('dependencies are current'),
      });
      expect(dist.requests).toHaveLength(asked);
    },
    5 * MINUTES,
  );
});

interface Manifest {
  name: string;
  version: string;
}

/** A package as a registry tells of it, with what `fill` links into its folder. */
function publishPackage(registry: Origin, { root }: Machine, manifest: Manifest, fill: (folder: string) => void): void {
  const { name, version } = manifest;
  const folder = join(root, name, 'package');
  mkdirSync(folder, { recursive: true });
  fill(folder);
  rmSync(join(folder, 'package.json'), { force: true });
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest));
  const archive = pack(join(root, name), 'package');
  registry.route(`/${name}/-/${name}-${version}.tgz`, { body: archive });
  const integrity = `sha512-${createHash('sha512').update(archive).digest('base64')}`;
  const dist = { tarball: `${registry.url}/${name}/-/${name}-${version}.tgz`, integrity };
  const told = { name, 'dist-tags': { latest: version }, versions: { [version]: { ...manifest, dist } } };
  registry.route(`/${name}`, { body: Buffer.from(JSON.stringify(told)) });
}

/** A folder and all that its links lead to. */
function pack(parent: string, folder: string): Buffer {
  const file = join(parent, `${folder}.tar.gz`);
  execFileSync('tar', ['--dereference', '--use-compress-program=gzip -1', '-C', parent, '-cf', file, folder]);
  return readFileSync(file);
}

/** Its own path, for what is on PATH may be a script that looks at PATH. */
function pythonWithPip(): string | undefined {
  const { status, stdout } = spawnSync('python3', ['-c', 'import pip, sys; print(sys.executable)'], {
    encoding: 'utf8',
  });
  return status === 0 ? stdout.trim() : undefined;
}
