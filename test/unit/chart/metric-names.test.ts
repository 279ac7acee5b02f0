import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { createMetrics } from '../../../src/telemetry/metrics.ts';

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

/** Every series that the program can show, and the labels that it has; Prometheus adds namespace and job. */
async function shown(): Promise<Map<string, Set<string>>> {
  const metrics = createMetrics({ version: '1' });
  metrics.reconciled('VMImage', { seconds: 1, failure: 'InternalError' });
  metrics.told('VMImage', { type: 'Warning', reason: 'DigestMismatch' });
  metrics.transferred({ step: 'Fetch', source: 'http', site: 'east', bytes: 1, seconds: 1 });
  metrics.watchImages(() => new Map([['Ready', 1]]));
  metrics.watchReadiness(() => [{ kind: 'ImageSite', name: 'east', ready: 'True', reason: 'Ready' }]);
  metrics.queue('VMImage').latency(1);
  metrics.queue('VMImage').retried();
  metrics.queue('VMImage').depth(1);
  const { body } = await metrics.expose();
  const series = new Map<string, Set<string>>();
  for (const line of body.split('\n').filter((each) => each !== '' && !each.startsWith('#'))) {
    const [, name = '', labels = ''] = /^([a-z_0-9]+)(?:\{(.*)\})? /.exec(line) ?? [];
    const known = series.get(name) ?? new Set(['namespace', 'job']);
    for (const [, label = ''] of labels.matchAll(/([a-z_]+)="/g)) known.add(label);
    series.set(name, known);
  }
  return series;
}

describe.each([
  ['alert', alerts],
  ['panel', panels],
])('each %s', (_what, all) => {
  test.each(all)('%s asks for series and labels that there are', async (_name, expr) => {
    const series = await shown();
    const asked = [...expr.matchAll(/\b((?:imageproxy|process|nodejs)_[a-z0-9_]+)(?:\{([^}]*)\})?/g)];
    expect(asked.length).toBeGreaterThan(0);
    for (const [, name = '', matchers = ''] of asked) {
      const labels = series.get(name);
      expect(labels, name).toBeDefined();
      expect(matchers, `${name} is that of one release`).toMatch(/\$release|namespace="\$namespace",job="\$job"/);
      for (const [, label = ''] of matchers.matchAll(/([a-z_]+)[!=]~?"/g)) expect(labels, name).toContain(label);
    }
    const grouped = [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(', '));
    const known = new Set(asked.flatMap(([, name = '']) => [...(series.get(name) ?? [])]));
    for (const label of grouped) expect([...known], expr).toContain(label);
  });
});
