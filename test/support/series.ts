import { createMetrics } from '../../src/telemetry/metrics.ts';

/** Every series that the program can show, in the words of Prometheus, and the labels that it has. */
export async function labelsOfSeries(): Promise<Map<string, Set<string>>> {
  const metrics = createMetrics({ version: '1' });
  metrics.reconciled('VMImage', { seconds: 1, failure: 'InternalError' });
  metrics.told('VMImage', { type: 'Warning', reason: 'DigestMismatch' });
  metrics.transferred({ step: 'Fetch', source: 'http', site: 'east', bytes: 1, seconds: 1 });
  metrics.watchImages(() => new Map([['Ready', 1]]));
  metrics.watchReadiness(() => [{ kind: 'ImageSite', name: 'east', ready: 'True', reason: 'Ready' }]);
  metrics.listRead('HEPiX', 'Accepted');
  metrics.watchLists(() => [{ subscription: 'physics/egi', readAt: 1, expiresAt: 1, entries: [['selected', 1]] }]);
  metrics.queue('VMImage').latency(1);
  metrics.queue('VMImage').retried();
  metrics.queue('VMImage').depth(1);
  const { body } = await metrics.expose();
  const series = new Map<string, Set<string>>();
  for (const line of body.split('\n').filter((each) => each !== '' && !each.startsWith('#'))) {
    const [, name = '', labels = ''] = /^([a-z_0-9]+)(?:\{(.*)\})? /.exec(line) ?? [];
    const known = series.get(name) ?? new Set();
    for (const [, label = ''] of labels.matchAll(/([a-z_]+)="/g)) known.add(label);
    series.set(name, known);
  }
  return series;
}
