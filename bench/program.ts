import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { packProgram } from '../test/support/npm.ts';

/**
 * The program as users have it, from the npm package and in the container image: bundled. From a checkout Node.js strips the types
 * of each module at the start, and keeps what it needs for that: 60 MiB that nobody else has.
 * @returns the path of its command, below `root`
 */
export function shippedProgram(root: string): string {
  const home = join(root, 'imageproxy');
  mkdirSync(home);
  execFileSync('tar', ['-xzf', packProgram(root), '-C', home, '--strip-components=1']);
  return join(home, 'bin', 'imageproxy');
}
