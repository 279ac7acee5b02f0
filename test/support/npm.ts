import { execFileSync } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';

const CHECKOUT = join(import.meta.dirname, '..', '..');

/** The npm that `make setup` works with, as a script for Node.js: the one that it brought, else this machine's. */
export function npmScript(): string {
  const brought = ['npm/node_modules/npm', 'node/lib/node_modules/npm'].map((folder) =>
    join(CHECKOUT, '.tools', folder, 'bin', 'npm-cli.js'),
  );
  const onPath = (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'npm'));
  const found = [...brought, ...onPath].find((path) => existsSync(path));
  if (found === undefined) throw new Error('no npm here: `make setup` brings one, or uses the one on PATH');
  return realpathSync(found);
}

/** Runs npm with the Node.js of this process, also for its scripts. Resolves to what it printed. */
export function npm(words: readonly string[], cwd = CHECKOUT): string {
  return execFileSync(process.execPath, [npmScript(), ...words], {
    cwd,
    env: { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env['PATH'] ?? ''}` },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Bundles the program, and packs it as `npm publish` would. Returns the path of the archive, in `folder`. */
export function packProgram(folder: string): string {
  const printed = npm(['pack', '--silent', '--pack-destination', folder]);
  return join(folder, printed.trim().split('\n').at(-1) ?? '');
}
