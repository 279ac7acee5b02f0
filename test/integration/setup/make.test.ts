import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Machine, onPath, type Outcome } from './machine.ts';

const MINUTES = 60_000;
/** What a small Debian has, beside make: to unpack a disk and to sign a list with. mke2fs is in sbin, and qemu-img is not there. */
const PROGRAMS = ['make', 'gzip', 'openssl', 'prlimit', 'setpriv'];

describe.skipIf(!PROGRAMS.every(onPath))('a newcomer with a fresh clone, an old Node.js and nothing else', () => {
  let machine: Machine;
  let home = '';
  let temporary = '';
  const make = (...targets: readonly string[]): Promise<Outcome> =>
    machine.run('make', targets, {
      // Nothing of his is there, but where packages come from; and they are not fetched for this test alone.
      HOME: home,
      npm_config_userconfig: process.env['npm_config_userconfig'] ?? join(homedir(), '.npmrc'),
      npm_config_cache: process.env['npm_config_cache'] ?? join(homedir(), '.npm'),
      TMPDIR: temporary,
      // In a developer's shell it is often set; what a checkout needs to be worked with is not decided by it.
      NODE_ENV: 'production',
      LANG: 'C.UTF-8',
    });

  beforeAll(() => {
    machine = new Machine(...PROGRAMS);
    home = join(machine.root, 'home');
    temporary = join(machine.root, 'tmp');
    machine.clone();
    machine.hasOldNode();
    machine.hasNpm();
    for (const folder of [home, temporary]) mkdirSync(folder);
  });

  afterAll(() => machine.remove());

  it('is told by make what each target does', async () => {
    const makefile = readFileSync(join(machine.checkout, 'Makefile'), 'utf8');
    const targets = /^\.PHONY: (?<names>.*)$/m.exec(makefile)?.groups?.['names']?.split(' ') ?? [];
    const { code, out } = await make();
    expect(code).toBe(0);
    const told = Array.from(out.matchAll(/^ {2}make (\S+) +\S/gm), ([, name]) => name);
    expect(new Set(told)).toEqual(new Set(targets));
    expect(await make('help')).toMatchObject({ code: 0, out });
  });

  it(
    'types make demo, and is told at its end what to try next',
    async () => {
      const { code, out, err } = await make('demo');
      expect(code, out + err).toBe(0);
      expect(out).toMatch(/^setup: Node\.js \S+ \(brought by npm\), installing dependencies$/m);
      expect(out).toContain('(qemu-img is not installed (package qemu-utils): raw images only, no qcow2)');
      expect(out).toMatch(/^All 11 promises kept, in /m);
      const next = out.slice(out.indexOf('Try next'));
      expect(next).toContain(`spec: { directory: { path: ${home}/shelf } }`);
      expect(next).toMatch(/^ *bin\/imageproxy register \$url --sha512 \$sum --site shelf\.yaml$/m);
      expect(out.trimEnd().split('\n').at(-1)?.trim()).toBe('bin/imageproxy --help');
      // npm keeps compiled code there.
      expect(readdirSync(temporary).filter((name) => name.startsWith('imageproxy'))).toEqual([]);
    },
    10 * MINUTES,
  );

  it('finds all of it there the second time, and the commands that he was told', async () => {
    machine.loses('npm');
    expect(await make('setup')).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^setup: Node\.js \S+ \(\.tools\/node\), dependencies are current$/m),
      err: '',
    });
    for (const words of [['explain', 'vmimage.spec'], ['--help']]) {
      expect(await machine.run('bin/imageproxy', words, { HOME: home }), words[0]).toMatchObject({ code: 0, err: '' });
    }
    // With NODE_ENV=production as well.
    expect(existsSync(join(machine.checkout, 'node_modules', 'vitest', 'package.json'))).toBe(true);
    expect(lstatSync(join(machine.checkout, 'node_modules')).isSymbolicLink()).toBe(false);
  });
});
