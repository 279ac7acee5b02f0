import { relative } from 'node:path';
import { z } from 'zod';

const Report = z.object({
  testResults: z.array(
    z.object({
      name: z.string(),
      status: z.string(),
      assertionResults: z.array(z.object({ status: z.string(), fullName: z.string() })),
    }),
  ),
});

export interface Tally {
  passed: number;
  failed: number;
  /** `file: name of the test`. */
  skipped: string[];
}

/**
 * Counts what a vitest run came to. A file that could not be loaded, an error outside of any test, and a run that died without a
 * report are failures too, though no test says so: a tally must never look better than the exit code.
 */
export function tallyOf(report: unknown, exitCode: number, root: string): Tally {
  const tally: Tally = { passed: 0, failed: 0, skipped: [] };
  const parsed = Report.safeParse(report);
  for (const file of parsed.success ? parsed.data.testResults : []) {
    const before = tally.failed;
    for (const { status, fullName } of file.assertionResults) {
      if (status === 'passed') tally.passed++;
      else if (status === 'failed') tally.failed++;
      else tally.skipped.push(`${relative(root, file.name)}: ${fullName}`);
    }
    if (file.status === 'failed' && tally.failed === before) tally.failed++;
  }
  if (tally.failed === 0 && (exitCode !== 0 || !parsed.success)) tally.failed = 1;
  return tally;
}
