import { describe, expect, test } from 'vitest';
import { createMetrics } from '../../../src/telemetry/metrics.ts';

async function lines(metrics: ReturnType<typeof createMetrics>): Promise<string[]> {
  const { body } = await metrics.expose();
  return body.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

describe('metrics', () => {
  const make = () => createMetrics({ version: '1.2.3', process: false });

  test('are Prometheus text with help and type for each', async () => {
    const { contentType, body } = await createMetrics({ version: '1.2.3' }).expose();
    expect(contentType).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(body.endsWith('\n')).toBe(true);
    const helped = new Set(Array.from(body.matchAll(/^# HELP (\S+) \S.*$/gm), (m) => m[1]));
    const typed = new Set(Array.from(body.matchAll(/^# TYPE (\S+) (?:counter|gauge|histogram)$/gm), (m) => m[1]));
    expect(typed).toEqual(helped);
    for (const line of body.split('\n').filter((l) => l !== '' && !l.startsWith('#'))) {
      expect(line).toMatch(/^[a-z_][a-z_0-9]*(\{[a-z_]+="[^"\n]*"(,[a-z_]+="[^"\n]*")*\})? (-?[0-9.e+-]+|\+Inf|NaN)$/i);
    }
    expect(body).toContain('process_resident_memory_bytes ');
    expect(body).toContain(`imageproxy_build_info{version="1.2.3",node="${process.versions.node}"} 1`);
  });

  test('of one process part do not meet those of another', async () => {
    const [one, two] = [make(), make()];
    one.reconciled('VMImage', { seconds: 0.1 });
    expect(await lines(one)).toContain('imageproxy_reconcile_total{kind="VMImage"} 1');
    expect((await lines(two)).join('\n')).not.toContain('VMImage');
  });

  test('count reconciles, and failed ones by reason', async () => {
    const metrics = make();
    metrics.reconciled('VMImage', { seconds: 0.01 });
    metrics.reconciled('VMImage', { seconds: 3, failure: 'DigestMismatch' });
    expect(await lines(metrics)).toEqual(
      expect.arrayContaining([
        'imageproxy_reconcile_total{kind="VMImage"} 2',
        'imageproxy_reconcile_errors_total{kind="VMImage",reason="DigestMismatch"} 1',
        'imageproxy_reconcile_duration_seconds_bucket{le="0.02",kind="VMImage"} 1',
        'imageproxy_reconcile_duration_seconds_sum{kind="VMImage"} 3.01',
      ]),
    );
  });

  test('sum bytes and seconds by step, source and site', async () => {
    const metrics = make();
    metrics.transferred({ step: 'Fetch', source: 'http', bytes: 100, seconds: 2 });
    metrics.transferred({ step: 'Upload', site: 'nova', bytes: 40, seconds: 1 });
    metrics.transferred({ step: 'Upload', site: 'nova', bytes: 2, seconds: 1 });
    expect(await lines(metrics)).toEqual(
      expect.arrayContaining([
        'imageproxy_transfer_bytes_total{step="Fetch",source="http",site=""} 100',
        'imageproxy_transfer_bytes_total{step="Upload",source="",site="nova"} 42',
        'imageproxy_transfer_duration_seconds_count{step="Upload",source="",site="nova"} 2',
      ]),
    );
  });

  test('do not grow with the number of sites', async () => {
    const metrics = make();
    for (let i = 0; i < 500; i++) metrics.transferred({ step: 'Upload', site: `site-${i}`, bytes: 1, seconds: 1 });
    metrics.transferred({ step: 'Upload', site: 'site-7', bytes: 1, seconds: 1 });
    const bytes = (await lines(metrics)).filter((line) => line.startsWith('imageproxy_transfer_bytes_total'));
    expect(bytes).toHaveLength(201);
    expect(bytes).toContain('imageproxy_transfer_bytes_total{step="Upload",source="",site="other"} 300');
    expect(bytes).toContain('imageproxy_transfer_bytes_total{step="Upload",source="",site="site-7"} 2');
  });

  test('escape what a label holds', async () => {
    const metrics = make();
    metrics.transferred({ step: 'Upload', site: 'a"b\\c\nd', bytes: 1, seconds: 1 });
    expect(await lines(metrics)).toContain(
      'imageproxy_transfer_bytes_total{step="Upload",source="",site="a\\"b\\\\c\\nd"} 1',
    );
  });

  test('ask the cache, the images and the jobs at each scrape, so that what is gone is not counted', async () => {
    const metrics = make();
    let evictions = 2;
    let phases = new Map([
      ['Ready', 3],
      ['Fetching', 1],
    ]);
    metrics.watchCache(() => ({ bytes: 5, quotaBytes: 10, reservedBytes: 2, pinnedBytes: 1, blobs: 1, evictions }));
    metrics.watchImages(() => phases);
    metrics.watchJobs(() => phases.get('Fetching') ?? 0);
    expect(await lines(metrics)).toEqual(
      expect.arrayContaining([
        'imageproxy_cache_bytes 5',
        'imageproxy_cache_quota_bytes 10',
        'imageproxy_cache_reserved_bytes 2',
        'imageproxy_cache_pinned_bytes 1',
        'imageproxy_cache_blobs 1',
        'imageproxy_cache_evictions_total 2',
        'imageproxy_images{phase="Ready"} 3',
        'imageproxy_images{phase="Fetching"} 1',
        'imageproxy_jobs_running 1',
      ]),
    );
    evictions = 3;
    phases = new Map([['Ready', 4]]);
    const later = await lines(metrics);
    expect(later).toEqual(
      expect.arrayContaining([
        'imageproxy_cache_evictions_total 3',
        'imageproxy_images{phase="Ready"} 4',
        'imageproxy_jobs_running 0',
      ]),
    );
    expect(later.join('\n')).not.toContain('Fetching');
  });

  test('of each queue are its depth, its retries and how long keys wait', async () => {
    const metrics = make();
    const queue = metrics.queue('VMImage');
    queue.depth(7);
    queue.retried();
    queue.latency(1500);
    expect(await lines(metrics)).toEqual(
      expect.arrayContaining([
        'imageproxy_queue_depth{queue="VMImage"} 7',
        'imageproxy_queue_retries_total{queue="VMImage"} 1',
        'imageproxy_queue_wait_seconds_sum{queue="VMImage"} 1.5',
      ]),
    );
  });

  test('tell of each kind how many are Ready, why others are not, and which site is not', async () => {
    const metrics = make();
    const object = (kind: string, name: string, ready: 'True' | 'False', reason: string) => ({
      kind,
      name,
      ready,
      reason,
    });
    metrics.watchReadiness(() => [
      object('VMImage', 'a', 'True', 'Ready'),
      object('VMImage', 'b', 'True', 'Ready'),
      object('VMImage', 'c', 'False', 'DigestMismatch'),
      object('ImageSite', 'east', 'True', 'Ready'),
      object('ImageSite', 'west', 'False', 'Unauthorized'),
      object('ImageSite', 'resting', 'False', 'Suspended'),
    ]);
    expect(await lines(metrics)).toEqual(
      expect.arrayContaining([
        'imageproxy_resources{kind="VMImage",ready="True",reason="Ready"} 2',
        'imageproxy_resources{kind="VMImage",ready="False",reason="DigestMismatch"} 1',
        'imageproxy_site_ready{site="east"} 1',
        'imageproxy_site_ready{site="west"} 0',
      ]),
    );
    // It was asked for, and is no reason to wake anybody.
    expect((await lines(metrics)).join('\n')).not.toContain('site="resting"');
    metrics.watchReadiness(() => []);
    expect((await lines(metrics)).join('\n')).not.toMatch(/^imageproxy_(resources|site_ready)/m);
  });

  test('of very many sites count the last together, as ready as the worst of them', async () => {
    const metrics = make();
    const sites = Array.from({ length: 300 }, (_, index) => ({
      kind: 'ImageSite',
      name: `site-${index}`,
      ready: index === 250 ? ('False' as const) : ('True' as const),
      reason: 'Ready',
    }));
    metrics.watchReadiness(() => sites);
    const told = (await lines(metrics)).filter((line) => line.startsWith('imageproxy_site_ready'));
    expect(told).toHaveLength(201);
    expect(told).toContain('imageproxy_site_ready{site="other"} 0');
  });

  test('tell of each followed list when it was read, when it expires, and what is in it; of one that is gone nothing', async () => {
    const metrics = make();
    metrics.listRead('HEPiX', 'Accepted');
    metrics.listRead('HEPiX', 'SignatureInvalid');
    const expiresAt = Date.parse('2026-12-01T00:00:00Z');
    const entries = [['selected', 3] as const, ['ready', 2] as const];
    metrics.watchLists(() => [
      { subscription: 'physics/egi', readAt: 1000, expiresAt, entries },
      { subscription: 'physics/new', readAt: undefined, expiresAt: undefined, entries: [] },
    ]);
    expect(await lines(metrics)).toEqual(
      expect.arrayContaining([
        'imageproxy_list_reads_total{format="HEPiX",result="SignatureInvalid"} 1',
        'imageproxy_list_read_timestamp_seconds{subscription="physics/egi"} 1',
        `imageproxy_list_expiry_timestamp_seconds{subscription="physics/egi"} ${expiresAt / 1000}`,
        'imageproxy_list_entries{subscription="physics/egi",state="ready"} 2',
      ]),
    );
    expect((await lines(metrics)).join('\n')).not.toContain('physics/new');
    metrics.watchLists(() => []);
    expect((await lines(metrics)).join('\n')).not.toContain('physics/egi');
  });
});
