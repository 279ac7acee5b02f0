/**
 * A reporter for vitest: writes what went wrong outside of any test (a process of tests that was killed or aborted, a rejection that
 * nobody awaited) to the file that TESTS_OUTSIDE names, a JSON array of messages. Vitest's own JSON report leaves it out.
 */
import { writeFileSync } from 'node:fs';
import type { Reporter } from 'vitest/node';

type Told = Parameters<NonNullable<Reporter['onTestRunEnd']>>[1];

export default class implements Reporter {
  onTestRunEnd(_modules: unknown, errors: Told): void {
    const path = process.env['TESTS_OUTSIDE'];
    if (path !== undefined) writeFileSync(path, JSON.stringify(errors.map(innermost)));
  }
}

/** `Worker forks emitted error` says nothing; its cause names the signal and the file. */
function innermost(error: Told[number]): string {
  return error.cause === undefined ? error.message : innermost(error.cause);
}
