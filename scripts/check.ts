/** `make check`: all that can be said about the sources without running them. Checks run side by side; only failures show output. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');

interface Check {
  name: string;
  /** Arguments to Node.js. */
  script: readonly string[];
  cure?: string;
}

const tool = (path: string) => join('node_modules', path);

const CHECKS: readonly Check[] = [
  { name: 'types', script: [tool('typescript/bin/tsc'), '--noEmit', '-p', '.'] },
  { name: 'lint', script: [tool('oxlint/bin/oxlint'), '--type-aware', '--deny-warnings'] },
  { name: 'unused code', script: [tool('knip/bin/knip.js'), '--no-progress'] },
  { name: 'format', script: [tool('@biomejs/biome/bin/biome'), 'format', '.'], cure: 'npm run format' },
  { name: 'architecture', script: ['scripts/check-architecture.ts'] },
  { name: 'docs and text', script: ['scripts/check-text.ts'] },
  { name: 'shell scripts', script: ['scripts/check-shell.ts'] },
  ...generated('types of the CRDs', 'scripts/generate-types.ts'),
  ...generated('reference docs', 'scripts/generate-reference.ts'),
  ...generated('Helm chart', 'scripts/generate-chart.ts'),
];

/** What is generated from the CRDs must be what is committed. */
function generated(name: string, script: string): Check[] {
  return existsSync(join(root, script)) ? [{ name, script: [script, '--check'], cure: 'npm run generate' }] : [];
}

interface Outcome {
  ok: boolean;
  output: string;
  seconds: number;
}

async function run(check: Check): Promise<Outcome> {
  const started = performance.now();
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', ...check.script], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const { promise, resolve } = Promise.withResolvers<boolean>();
  child.on('error', (error) => {
    output += String(error);
    resolve(false);
  });
  child.on('close', (code) => resolve(code === 0));
  const ok = await promise;
  return { ok, output, seconds: (performance.now() - started) / 1000 };
}

const waiting = [...CHECKS];
const failed: string[] = [];

async function worker(): Promise<void> {
  for (let check = waiting.shift(); check !== undefined; check = waiting.shift()) {
    const { ok, output, seconds } = await run(check);
    console.log(`check: ${ok ? 'ok  ' : 'FAIL'} ${check.name.padEnd(18)} ${seconds.toFixed(1)} s`);
    if (ok) continue;
    failed.push(check.name);
    console.log(output.trimEnd().replaceAll(/^/gm, '  '));
    if (check.cure !== undefined) console.log(`  cure: ${check.cure}`);
  }
}

await Promise.all(Array.from({ length: Math.max(2, availableParallelism()) }, worker));
if (failed.length > 0) {
  console.log(`check: failed: ${failed.join(', ')}`);
  process.exitCode = 1;
}
