import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';

const checkout = join(import.meta.dirname, '..');

/**
 * The program as users have it, from the npm package and in the container image: bundled. From a checkout Node.js strips the types
 * of each module at the start, and keeps what it needs for that: 60 MiB that nobody else has.
 * @returns the path of its command, below `root`
 */
export function shippedProgram(root: string): string {
  execFileSync(process.execPath, ['--disable-warning=ExperimentalWarning', join(checkout, 'scripts', 'bundle.ts')]);
  const home = join(root, 'imageproxy');
  mkdirSync(home);
  for (const part of ['bin', 'dist', 'crds', 'package.json'])
    cpSync(join(checkout, part), join(home, part), { recursive: true });
  return join(home, 'bin', 'imageproxy');
}
