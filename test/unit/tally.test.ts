import { describe, expect, test } from 'vitest';
import { tallyOf } from '../../scripts/tally.ts';

function report(...files: { status: string; tests: Record<string, string> }[]): unknown {
  return {
    testResults: files.map(({ status, tests }, index) => ({
      name: `/repo/test/${index}.test.ts`,
      status,
      assertionResults: Object.entries(tests).map(([fullName, result]) => ({ fullName, status: result })),
    })),
  };
}

describe('the tally of a test run', () => {
  test('counts passed and failed tests, and names the skipped ones', () => {
    const files = [
      { status: 'passed', tests: { a: 'passed', b: 'skipped' } },
      { status: 'failed', tests: { c: 'failed', d: 'passed', e: 'pending', f: 'todo' } },
    ];
    expect(tallyOf(report(...files), 1, '/repo')).toEqual({
      passed: 2,
      failed: 1,
      skipped: ['test/0.test.ts: b', 'test/1.test.ts: e', 'test/1.test.ts: f'],
    });
  });

  test('counts a file that could not be loaded as a failure', () => {
    expect(tallyOf(report({ status: 'failed', tests: {} }), 1, '/repo').failed).toBe(1);
  });

  test('counts a file whose teardown failed after its tests passed', () => {
    expect(tallyOf(report({ status: 'failed', tests: { a: 'passed' } }), 1, '/repo')).toMatchObject({
      passed: 1,
      failed: 1,
    });
  });

  test.each([
    ['an error outside of any test', report({ status: 'passed', tests: { a: 'passed' } }), 1],
    ['a run that died without a report', undefined, 137],
    ['a report that cannot be read, whatever the exit code', { other: true }, 0],
  ])('is never better than the run: %s', (_name, input, code) => {
    expect(tallyOf(input, code, '/repo').failed).toBe(1);
  });

  test('of nothing is nothing', () => {
    expect(tallyOf(report(), 0, '/repo')).toEqual({ passed: 0, failed: 0, skipped: [] });
  });
});
