import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..', '..');

describe('what is made from the CRDs', () => {
  it.each(['generate-types.ts', 'generate-reference.ts', 'generate-chart.ts'])(
    'is up to date, says %s',
    async (script) => {
      const run = promisify(execFile)(process.execPath, [join('scripts', script), '--check'], { cwd: ROOT });
      await expect(run).resolves.toEqual({ stdout: '', stderr: '' });
    },
  );
});
