import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { COMPILED, imageproxy, Program } from './program.ts';

const temporary = mkdtempSync(join(tmpdir(), 'imageproxy-demo-test-'));

afterEach(async () => {
  await Program.killAll();
  rmSync(temporary, { recursive: true, force: true });
});

it('keeps every promise of the demo, and leaves nothing behind', async () => {
  const { code, out, err } = await imageproxy(['demo', '--fast', '--offline'], {
    TMPDIR: temporary,
    ...COMPILED,
  });
  expect(err).toBe('');
  expect(out).toMatch(/All \d+ promises kept/);
  expect(out.match(/✓/g)).toHaveLength(11);
  expect(code).toBe(0);
  expect(readdirSync(temporary)).toEqual([]);
});
