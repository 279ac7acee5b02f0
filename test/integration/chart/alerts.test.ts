import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Condition } from '../../../src/api/types.ts';
import { readinessOf } from '../../../src/cli/readiness.ts';
import type { Kind, Resource } from '../../../src/stores/store.ts';
import { createMetrics } from '../../../src/telemetry/metrics.ts';
import { API_SERVER_PATIENCE_MS } from '../../support/apiserver.ts';
import { CHART, Helm, type Rendered, type Values } from '../../support/kubernetes/chart.ts';
import { installed } from '../images/workspace.ts';

const run = promisify(execFile);
const OURS = 'namespace="imageproxy",job="imageproxy"';

interface Rule {
  alert: string;
  expr: string;
  labels: Record<string, string>;
  annotations: { summary: string; description: string };
}

/** Series by the minute in the notation of promtool; `0x90` is 0 for 90 minutes. */
type Series = Readonly<Record<string, string>>;

/** The series that the program itself shows of one object whose condition Ready is False, as it stays for five hours. */
async function shownOf(of: Kind, reason: string, suspend = false): Promise<Series> {
  const ready: Partial<Condition> = { type: 'Ready', status: 'False', reason };
  const object = { metadata: { name: 'a' }, spec: { suspend }, status: { conditions: [ready] } };
  const store = { list: <T extends Resource>(kind: Kind) => (kind === of ? [object as unknown as T] : []) };
  const metrics = createMetrics({ version: '1', process: false });
  metrics.watchReadiness(() => readinessOf(store, { summarizes: true, serves: () => true }));
  const { body } = await metrics.expose();
  const lines = body.matchAll(/^(imageproxy_resources)\{(.*)\} (\d+)$/gm);
  return Object.fromEntries(
    Array.from(lines, ([, name, labels, value]) => [`${name}{${OURS},${labels}}`, `${value}x300`]),
  );
}

const cache = (pinned: number, reserved: number): Series => ({
  [`imageproxy_cache_pinned_bytes{${OURS}}`]: `${pinned}x300`,
  [`imageproxy_cache_reserved_bytes{${OURS}}`]: `${reserved}x300`,
  [`imageproxy_cache_quota_bytes{${OURS}}`]: '100x300',
});

const up: Series = { [`imageproxy_build_info{${OURS},version="1"}`]: '1x300' };
/** By alert: what makes it speak, each by itself; what it has said at the latest when, with which labels; and what leaves it silent. */
const CASES: Readonly<
  Record<
    string,
    { fires: readonly Series[]; after: string; says: string; labels?: Record<string, string>; silent: Series }
  >
> = {
  ImageProxyDown: {
    fires: [{ 'imageproxy_build_info{namespace="imageproxy",job="west-imageproxy"}': '1x300' }],
    after: '11m',
    says: 'ImageProxy is not running, or is not scraped.',
    silent: up,
  },
  ImageProxySiteNotReady: {
    fires: [{ [`imageproxy_site_ready{${OURS},site="east"}`]: '0x300' }],
    after: '16m',
    says: 'The site east is not Ready.',
    labels: { site: 'east' },
    silent: {
      [`imageproxy_site_ready{${OURS},site="east"}`]: '1x300',
      'imageproxy_site_ready{namespace="imageproxy",job="another",site="west"}': '0x300',
    },
  },
  ImageProxyImagesStalled: {
    fires: [{ [`imageproxy_images{${OURS},phase="Failed"}`]: '2x300' }],
    after: '61m',
    says: '2 VMImages have failed and wait for a person.',
    labels: { phase: 'Failed' },
    silent: { [`imageproxy_images{${OURS},phase="Fetching"}`]: '9x300' },
  },
  ImageProxyImagesMissing: {
    fires: [{ [`imageproxy_images{${OURS},phase="Missing"}`]: '1x300' }],
    after: '31m',
    says: '1 VMImages are gone from a cloud and were not registered again.',
    labels: { phase: 'Missing' },
    silent: { [`imageproxy_images{${OURS},phase="Ready"}`]: '1x300' },
  },
  ImageProxyListUnusable: {
    fires: [await shownOf('ImageSubscription', 'SignatureInvalid')],
    after: '61m',
    says: '1 ImageSubscriptions are not Ready (SignatureInvalid).',
    labels: { reason: 'SignatureInvalid' },
    silent: {
      ...(await shownOf('ImageSubscription', 'SignatureInvalid', true)),
      ...(await shownOf('VMImage', 'SignatureInvalid')),
    },
  },
  ImageProxyCacheFull: {
    fires: [
      cache(95, 0),
      // What is being fetched, converted or unpacked keeps others out as well, and is no blob yet.
      cache(40, 55),
    ],
    after: '31m',
    says: '95% of the cache is in use by images that are being worked on.',
    silent: cache(40, 45),
  },
  ImageProxyInternalErrors: {
    fires: [
      { [`imageproxy_reconcile_errors_total{${OURS},kind="VMImage",reason="InternalError"}`]: '0+1x300' },
      // A fault of a download, a conversion or an upload: no reconcile fails. While it is tried again the reason is another one.
      await shownOf('VMImage', 'InternalError'),
      { [`imageproxy_resources{${OURS},kind="VMImage",ready="False",reason="InternalError"}`]: '1 _ _ '.repeat(40) },
    ],
    after: '90m',
    says: 'ImageProxy meets errors of its own with VMImage objects.',
    labels: { kind: 'VMImage' },
    silent: {
      [`imageproxy_reconcile_errors_total{${OURS},kind="VMImage",reason="NetworkError"}`]: '0+1x300',
      ...(await shownOf('VMImage', 'NetworkError')),
      // Once, and over.
      [`imageproxy_resources{${OURS},kind="VMImage",ready="False",reason="InternalError"}`]: '_x175 1x3 _x120',
    },
  },
};

describe.skipIf(!installed('promtool'))('the alerts', () => {
  let helm: Helm;
  let folder: string;

  beforeAll(async () => {
    helm = await Helm.start();
    folder = await mkdtemp(join(tmpdir(), 'imageproxy-alerts-'));
  }, API_SERVER_PATIENCE_MS);
  afterAll(async () => {
    await helm?.close();
    await rm(folder, { recursive: true, force: true });
  });

  const groups = async (values: Values = {}): Promise<{ name: string; rules: Rule[] }[]> => {
    const objects = await helm.template({ prometheusRule: { enabled: true, ...values } });
    const rule = objects.find(({ kind }) => kind === 'PrometheusRule') as Rendered;
    return (rule as unknown as { spec: { groups: { name: string; rules: Rule[] }[] } }).spec.groups;
  };
  /** JSON is YAML, too. */
  const write = async (name: string, content: unknown): Promise<string> => {
    const path = join(folder, name);
    await writeFile(path, JSON.stringify(content));
    return path;
  };

  test('are rules as Prometheus takes them, and each has a case here', async () => {
    const all = await groups();
    const file = await write('rules.yaml', { groups: all });
    await expect(run('promtool', ['check', 'rules', file])).resolves.toMatchObject({ stdout: /SUCCESS/ });
    expect(all.flatMap(({ rules }) => rules.map(({ alert }) => alert)).toSorted()).toEqual(
      Object.keys(CASES).toSorted(),
    );
  });

  test.each(Object.entries(CASES))(
    '%s speaks when it should, and not before',
    async (name, { fires, after, says, labels = {}, silent }) => {
      const all = await groups();
      await write('rules.yaml', { groups: all });
      const rule = all.flatMap(({ rules }) => rules).find(({ alert }) => alert === name) as Rule;
      const inputs = (series: Series) => Object.entries(series).map(([each, values]) => ({ series: each, values }));
      const exp_labels = { ...rule.labels, namespace: 'imageproxy', job: 'imageproxy', ...labels };
      const description = rule.annotations.description.replaceAll(
        /\{\{ \$labels\.(\w+) \}\}/g,
        (_all, label: string) => labels[label] ?? '',
      );
      const alerting = (eval_time: string, exp_alerts: unknown[]) => ({ eval_time, alertname: name, exp_alerts });
      const file = await write('case.yaml', {
        rule_files: ['rules.yaml'],
        evaluation_interval: '1m',
        tests: [
          ...fires.map((series) => ({
            interval: '1m',
            input_series: inputs({ ...(name === 'ImageProxyDown' ? {} : up), ...series }),
            alert_rule_test: [
              alerting('5m', []),
              alerting(after, [{ exp_labels, exp_annotations: { summary: says, description } }]),
            ],
          })),
          { interval: '1m', input_series: inputs({ ...up, ...silent }), alert_rule_test: [alerting('3h', [])] },
        ],
      });
      await expect(run('promtool', ['test', 'rules', file])).resolves.toMatchObject({ stdout: /SUCCESS/ });
    },
  );

  test('can be left out one by one, and carry labels of the site', async () => {
    const all = await groups({ disabled: ['ImageProxyDown'], alertLabels: { team: 'images', severity: 'page' } });
    const rules = all.flatMap((group) => group.rules);
    expect(rules).toHaveLength(Object.keys(CASES).length - 1);
    for (const { labels } of rules) expect(labels).toEqual({ team: 'images', severity: 'page' });
    await expect(groups({ disabled: ['ImageProxyUp'] })).rejects.toThrow('disabled');
  });

  test('the questions of the dashboard are ones that Prometheus can answer', async () => {
    const dashboard = JSON.parse(readFileSync(join(CHART, 'files', 'dashboard.json'), 'utf8')) as {
      panels: { id: number; targets: { refId: string; expr: string }[] }[];
    };
    const rules = dashboard.panels.flatMap(({ id, targets }) =>
      targets.map(({ refId, expr }) => ({
        record: `panel:${id}:${refId}`,
        expr: expr.replaceAll('$__rate_interval', '5m'),
      })),
    );
    expect(rules.length).toBeGreaterThan(20);
    const file = await write('dashboard.yaml', { groups: [{ name: 'dashboard', rules }] });
    await expect(run('promtool', ['check', 'rules', file])).resolves.toMatchObject({ stdout: /SUCCESS/ });
    const [objects] = [await helm.template({ dashboard: { enabled: true } })];
    const map = objects.find(({ metadata }) => metadata.name === 'imageproxy-dashboard') as unknown as {
      data: Record<string, string>;
    };
    expect(JSON.parse(map.data['imageproxy.json'] ?? '')).toEqual(dashboard);
  });
});
