/**
 * `node scripts/test.ts [check] unit integration e2e`: runs these vitest projects one after another (integration tests measure time and
 * start servers; unit tests beside them would disturb both). The last line is `N passed, N failed[, N skipped]` over all of them;
 * with `check`, failed checks hold no test back, and count as one failure.
 * With CI=true a skipped test is a failure: there, everything that tests need is installed.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { missingForNode } from '../test/support/kubernetes/node.ts';
import { tallyOf } from './tally.ts';

const root = join(import.meta.dirname, '..');
const withCheck = process.argv[2] === 'check';
const projects = process.argv.slice(withCheck ? 3 : 2);
if (projects.length === 0) {
  console.error('usage: node scripts/test.ts [check] PROJECT…   (unit, integration, e2e)');
  process.exit(64);
}

async function run(script: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<number> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', ...script], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  // Ctrl-C reaches vitest as well; it stops its tests and we tell what came out.
  const ignore = (): void => undefined;
  process.on('SIGINT', ignore);
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  child.on('error', reject);
  child.on('close', (code) => resolve(code ?? 1));
  const code = await promise;
  process.off('SIGINT', ignore);
  return code;
}

function runProject(project: string, report: string, outside: string): Promise<number> {
  return run(
    [
      // The tests on a node bring the node.
      ...(project === 'e2e'
        ? [join('scripts', 'e2e.ts')]
        : [join('node_modules', 'vitest', 'vitest.mjs'), 'run', `--project=${project}`]),
      '--passWithNoTests',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${report}`,
      '--reporter=./scripts/outside.ts',
    ],
    { TESTS_OUTSIDE: outside },
  );
}

const folder = mkdtempSync(join(tmpdir(), 'imageproxy-tests-'));
let passed = 0;
const failures: string[] = [];
const checked = !withCheck || (await run([join('scripts', 'check.ts')])) === 0;
if (!checked) failures.push('the check; see the top, or `make check`');
const skipped: string[] = [];
try {
  for (const project of projects) {
    const missing = project === 'e2e' ? missingForE2e() : undefined;
    if (missing !== undefined) {
      skipped.push(`test/e2e, all of it: ${missing}`);
      continue;
    }
    const report = join(folder, `${project}.json`);
    const outside = join(folder, `${project}-outside.json`);
    const code = await runProject(project, report, outside);
    const tally = tallyOf(readReport(report), code, root, readReport(outside));
    passed += tally.passed;
    failures.push(...tally.failures);
    skipped.push(...tally.skipped);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** A cluster that somebody names needs nothing here. */
function missingForE2e(): string | undefined {
  return (process.env['E2E_KUBECONFIG'] ?? '') === '' ? missingForNode() : undefined;
}

function readReport(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

const strict = process.env['CI'] === 'true' || process.env['CI'] === '1';
tell('Failed:', failures);
tell(strict ? 'Skipped, which CI refuses:' : 'Skipped:', skipped);
if (failures.length > 0 || (strict && skipped.length > 0)) process.exitCode = 1;
console.log(`${passed} passed, ${failures.length} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ''}`);

function tell(title: string, lines: readonly string[]): void {
  if (lines.length > 0) console.log([title, ...lines].join('\n  '));
}
