import { relative } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { z } from 'zod';

const Report = z.object({
  testResults: z.array(
    z.object({
      name: z.string(),
      status: z.string(),
      message: z.string().default(''),
      assertionResults: z.array(
        z.object({ status: z.string(), fullName: z.string(), failureMessages: z.array(z.string()).nullish() }),
      ),
    }),
  ),
});

/** What scripts/outside.ts wrote. */
const Outside = z.array(z.string()).catch([]);

export interface Tally {
  passed: number;
  /** `file: name of the test: what it said first`, because a log of CI may be read from its end only. */
  failures: string[];
  /** `file: name of the test`. */
  skipped: string[];
}

/**
 * Counts what a vitest run came to. A file that could not be loaded, an error outside of any test, and a run that died without a
 * report are failures too, though no test says so: a tally must never look better than the exit code.
 */
export function tallyOf(report: unknown, exitCode: number, root: string, outside?: unknown): Tally {
  const tally: Tally = { passed: 0, failures: [], skipped: [] };
  const parsed = Report.safeParse(report);
  const errors = new Set(Outside.parse(outside));
  for (const file of parsed.success ? parsed.data.testResults : []) {
    const before = tally.failures.length;
    const path = relative(root, file.name);
    for (const { status, fullName, failureMessages } of file.assertionResults) {
      const test = `${path}: ${fullName}`;
      if (status === 'passed') tally.passed++;
      else if (status === 'failed') tally.failures.push(withFirstLine(test, failureMessages?.[0] ?? ''));
      else tally.skipped.push(test);
    }
    if (file.status === 'failed' && tally.failures.length === before) {
      // Where its process died, the report gives no reason.
      const died = [...errors].find((error) => error.includes(file.name));
      if (died !== undefined) errors.delete(died);
      tally.failures.push(withFirstLine(path, file.message || (died ?? '')));
    }
  }
  for (const error of errors) tally.failures.push(withFirstLine('outside of any test', error));
  if (tally.failures.length === 0 && (exitCode !== 0 || !parsed.success)) {
    tally.failures.push(`outside of any test: exit code ${exitCode}${parsed.success ? '' : ', no report'}`);
  }
  return tally;
}

function withFirstLine(what: string, message: string): string {
  const [first = ''] = stripVTControlCharacters(message).trim().split('\n');
  return first === '' ? what : `${what}: ${first}`;
}
