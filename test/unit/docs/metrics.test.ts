import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { labelsOfSeries } from '../../support/series.ts';

const PAGE = readFileSync(join(import.meta.dirname, '../../../docs/operations.md'), 'utf8');

/** Metrics of the page's table with their labels; a name that begins with `_` goes on where the first of its row has that word. */
function documented(): Map<string, string[]> {
  const rows = Array.from(PAGE.matchAll(/^\| (`imageproxy_[^|]*) \| ([^|]*) ?\|/gm));
  return new Map(
    rows.flatMap(([, names = '', labels = '']) => {
      const [first = '', ...others] = Array.from(names.matchAll(/`(\w+)`/g), ([, name = '']) => name);
      const prefix = first.slice(0, first.lastIndexOf('_'));
      const sorted = labels.split(',').flatMap((label) => label.trim() || []);
      return [first, ...others.map((end) => `${prefix}${end}`)].map((name) => [name, sorted.toSorted()] as const);
    }),
  );
}

test('each metric of the program is in the table of operations, with its labels, and no other one', async () => {
  const shown = new Map<string, string[]>();
  for (const [series, labels] of await labelsOfSeries()) {
    // A histogram is one metric in several series.
    if (!series.startsWith('imageproxy_') || /_(?:bucket|sum)$/.test(series)) continue;
    shown.set(series.replace(/_seconds_count$/, '_seconds'), [...labels].toSorted());
  }
  expect(shown.size).toBeGreaterThan(20);
  expect(documented()).toEqual(shown);
});
