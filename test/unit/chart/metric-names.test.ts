import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { labelsOfSeries } from '../../support/series.ts';

/** Labels that Prometheus adds. */
const OF_PROMETHEUS = ['namespace', 'job'];
const FILES = join(import.meta.dirname, '..', '..', '..', 'deploy', 'helm', 'imageproxy', 'files');

interface Panel {
  title: string;
  targets: { expr: string }[];
}

const alerts = (
  parse(readFileSync(join(FILES, 'alerts.yaml'), 'utf8')) as { rules: { alert: string; expr: string }[] }
).rules.map(({ alert, expr }) => [alert, expr] as const);
const panels = (JSON.parse(readFileSync(join(FILES, 'dashboard.json'), 'utf8')) as { panels: Panel[] }).panels.flatMap(
  ({ title, targets }) => targets.map(({ expr }) => [title, expr] as const),
);

describe.each([
  ['alert', alerts],
  ['panel', panels],
])('each %s', (_what, all) => {
  test.each(all)('%s asks for series and labels that there are', async (_name, expr) => {
    const series = await labelsOfSeries();
    const asked = [...expr.matchAll(/\b((?:imageproxy|process|nodejs)_[a-z0-9_]+)(?:\{([^}]*)\})?/g)];
    expect(asked.length).toBeGreaterThan(0);
    for (const [, name = '', matchers = ''] of asked) {
      const own = series.get(name);
      const labels = own === undefined ? undefined : [...own, ...OF_PROMETHEUS];
      expect(labels, name).toBeDefined();
      expect(matchers, `${name} is that of one release`).toMatch(/\$release|namespace="\$namespace",job="\$job"/);
      for (const [, label = ''] of matchers.matchAll(/([a-z_]+)[!=]~?"/g)) expect(labels, name).toContain(label);
    }
    const grouped = [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(', '));
    const known = new Set([...OF_PROMETHEUS, ...asked.flatMap(([, name = '']) => [...(series.get(name) ?? [])])]);
    for (const label of grouped) expect([...known], expr).toContain(label);
  });
});
