import { describe, expect, test } from 'vitest';
import { tallyOf } from '../../scripts/tally.ts';

interface File {
  status: string;
  tests: Record<string, string>;
  message?: string;
}

function report(...files: File[]): unknown {
  return {
    testResults: files.map(({ status, tests, message = '' }, index) => ({
      name: `/repo/test/${index}.test.ts`,
      status,
      message,
      assertionResults: Object.entries(tests).map(([fullName, result]) => ({
        fullName,
        status: result,
        failureMessages: result === 'failed' ? ['\u001B[31mError: 1 is not 2\u001B[0m\n    at file.ts:1'] : [],
      })),
    })),
  };
}

describe('the tally of a test run', () => {
  test('counts passed tests, and names the failed and the skipped ones', () => {
    const files = [
      { status: 'passed', tests: { a: 'passed', b: 'skipped' } },
      { status: 'failed', tests: { c: 'failed', d: 'passed', e: 'pending', f: 'todo' } },
    ];
    expect(tallyOf(report(...files), 1, '/repo')).toEqual({
      passed: 2,
      failures: ['test/1.test.ts: c: Error: 1 is not 2'],
      skipped: ['test/0.test.ts: b', 'test/1.test.ts: e', 'test/1.test.ts: f'],
    });
  });

  test('counts a file that could not be loaded as a failure, and says why', () => {
    const file = { status: 'failed', tests: {}, message: 'Cannot find module x\nRequire stack' };
    expect(tallyOf(report(file), 1, '/repo').failures).toEqual(['test/0.test.ts: Cannot find module x']);
  });

  test('counts a file whose teardown failed after its tests passed', () => {
    expect(tallyOf(report({ status: 'failed', tests: { a: 'passed' } }), 1, '/repo')).toMatchObject({
      passed: 1,
      failures: ['test/0.test.ts'],
    });
  });

  test('says of a file whose process died what ended it, and what else went wrong outside of any test', () => {
    const died = 'Worker exited unexpectedly with signal SIGABRT while running test file /repo/test/0.test.ts';
    const file = { status: 'failed', tests: { a: 'passed', b: 'pending' } };
    expect(tallyOf(report(file), 1, '/repo', [died, 'nobody awaited this\nat b.ts:1'])).toEqual({
      passed: 1,
      failures: [`test/0.test.ts: ${died}`, 'outside of any test: nobody awaited this'],
      skipped: ['test/0.test.ts: b'],
    });
  });

  test.each([
    ['an error outside of any test', report({ status: 'passed', tests: { a: 'passed' } }), 1, 'exit code 1'],
    ['a run that died without a report', undefined, 137, 'exit code 137, no report'],
    ['a report that cannot be read, whatever the exit code', { other: true }, 0, 'exit code 0, no report'],
  ])('is never better than the run: %s', (_name, input, code, told) => {
    expect(tallyOf(input, code, '/repo').failures).toEqual([`outside of any test: ${told}`]);
  });

  test('of nothing is nothing', () => {
    expect(tallyOf(report(), 0, '/repo')).toEqual({ passed: 0, failures: [], skipped: [] });
  });
});
