import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Reason } from '../api/failure.ts';
import { boundedLabel } from './bounded-label.ts';
import { listMetrics, type ListMetrics } from './lists.ts';
import { readinessMetrics, type ReadinessMetrics } from './readiness.ts';

/** What a byte-moving step is called in metrics; the same words as in a row's progress. */
export type TransferStep = 'Fetch' | 'Decompress' | 'Convert' | 'Upload' | 'Copy' | 'Digest';

export interface TransferSample {
  step: TransferStep;
  /** Kind of source (`http`, `file`, …), never a URL. */
  source?: string;
  /** Name of the ImageSite. */
  site?: string;
  bytes: number;
  seconds: number;
}

/** The numbers of a cache's own `stats()`. */
export interface CacheNumbers {
  /** Bytes of blobs and partials on the volume. */
  bytes: number;
  quotaBytes: number;
  /** Set aside for work in flight: all that it may write, what it has written among it. */
  reservedBytes: number;
  /** Bytes of blobs in use, which cannot be evicted. */
  pinnedBytes: number;
  blobs: number;
  /** Blobs removed to make room since the process began. */
  evictions: number;
}

/** What one work queue tells about itself (`runtime/queue.ts` calls it an observer). */
export interface QueueMetrics {
  /** Keys that wait for a worker. */
  depth(depth: number): void;
  /** A key was taken this many milliseconds after it was due. */
  latency(ms: number): void;
  /** A key was put back after a failure. */
  retried(): void;
}

export interface Metrics extends ReadinessMetrics, ListMetrics {
  /** One reconcile ended; with a failure when it did not do what it should. */
  reconciled(kind: string, outcome: { seconds: number; failure?: Reason }): void;
  /** An event of an object: what became of it, by reason. */
  told(kind: string, event: { type: 'Normal' | 'Warning'; reason: string }): void;
  /** Bytes moved since the last sample of the same transfer; call it as they move, or once at the end. */
  transferred(sample: TransferSample): void;
  /** Asked at every scrape. */
  watchCache(read: () => CacheNumbers): void;
  queue(name: string): QueueMetrics;
  /** Asked at every scrape: number of VMImages in each phase. A phase without images must not keep its last number. */
  watchImages(read: () => ReadonlyMap<string, number>): void;
  /** Asked at every scrape: background jobs that run or wait for their lane. */
  watchJobs(read: () => number): void;
  /** Everything in Prometheus' text format. */
  expose(): Promise<{ contentType: string; body: string }>;
}

export interface MetricsOptions {
  version: string;
  /** CPU, memory, event loop and garbage collection of this process. Default: true. */
  process?: boolean;
}

const RECONCILE_BUCKETS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10];
const TRANSFER_BUCKETS = [0.1, 1, 5, 15, 60, 300, 1200, 3600, 14400];
const QUEUE_BUCKETS = [0.001, 0.01, 0.1, 1, 10, 60];

/**
 * The program's metrics, in a registry of its own. Labels hold kinds, reasons, steps and site names only: an image's name, a
 * digest or a URL would make a new time series for each.
 */
export function createMetrics(options: MetricsOptions): Metrics {
  const registry = new Registry();
  if (options.process ?? true) collectDefaultMetrics({ register: registry });
  const build = new Gauge({
    name: 'imageproxy_build_info',
    help: 'Always 1; the labels say what runs.',
    labelNames: ['version', 'node'],
    registers: [registry],
  });
  build.set({ version: options.version, node: process.versions.node }, 1);
  return {
    ...reconcileMetrics([registry]),
    ...transferMetrics([registry]),
    ...cacheMetrics(registry),
    ...workMetrics(registry),
    ...readinessMetrics(registry),
    ...listMetrics(registry),
    queue: queueMetrics([registry]),
    async expose() {
      return { contentType: registry.contentType, body: await registry.metrics() };
    },
  };
}

function workMetrics(registry: Registry): Pick<Metrics, 'watchImages' | 'watchJobs'> {
  let readImages: (() => ReadonlyMap<string, number>) | undefined;
  registry.registerMetric(
    new Gauge({
      name: 'imageproxy_images',
      help: 'VMImages by phase.',
      labelNames: ['phase'],
      registers: [],
      collect() {
        this.reset();
        for (const [phase, count] of readImages?.() ?? []) this.set({ phase }, count);
      },
    }),
  );
  let readJobs: (() => number) | undefined;
  registry.registerMetric(
    new Gauge({
      name: 'imageproxy_jobs_running',
      help: 'Background jobs (downloads, conversions, uploads) that run or wait for their turn.',
      registers: [],
      collect() {
        this.set(readJobs?.() ?? 0);
      },
    }),
  );
  return {
    watchImages(read) {
      readImages = read;
    },
    watchJobs(read) {
      readJobs = read;
    },
  };
}

function reconcileMetrics(registers: Registry[]): Pick<Metrics, 'reconciled' | 'told'> {
  const total = new Counter({
    name: 'imageproxy_reconcile_total',
    help: 'Reconciles that ended, failed ones too.',
    labelNames: ['kind'],
    registers,
  });
  const errors = new Counter({
    name: 'imageproxy_reconcile_errors_total',
    help: 'Reconciles that ended in a failure, by its reason.',
    labelNames: ['kind', 'reason'],
    registers,
  });
  const seconds = new Histogram({
    name: 'imageproxy_reconcile_duration_seconds',
    help: 'How long a reconcile took; it never waits for bytes.',
    labelNames: ['kind'],
    buckets: RECONCILE_BUCKETS,
    registers,
  });
  const events = new Counter({
    name: 'imageproxy_events_total',
    help: 'What users were told about their objects, by reason: Registered, DigestMismatch, …',
    labelNames: ['kind', 'type', 'reason'],
    registers,
  });
  return {
    told(kind, { type, reason }) {
      events.inc({ kind, type, reason });
    },
    reconciled(kind, outcome) {
      total.inc({ kind });
      seconds.observe({ kind }, outcome.seconds);
      if (outcome.failure !== undefined) errors.inc({ kind, reason: outcome.failure });
    },
  };
}

function transferMetrics(registers: Registry[]): Pick<Metrics, 'transferred'> {
  const labelNames = ['step', 'source', 'site'];
  const bytes = new Counter({
    name: 'imageproxy_transfer_bytes_total',
    help: 'Bytes moved, by step, kind of source and site.',
    labelNames,
    registers,
  });
  const seconds = new Histogram({
    name: 'imageproxy_transfer_duration_seconds',
    help: 'How long transfers took, by step, kind of source and site.',
    labelNames,
    buckets: TRANSFER_BUCKETS,
    registers,
  });
  const site = boundedLabel();
  return {
    transferred(sample) {
      const labels = { step: sample.step, source: sample.source ?? '', site: site(sample.site ?? '') };
      bytes.inc(labels, sample.bytes);
      seconds.observe(labels, sample.seconds);
    },
  };
}

function queueMetrics(registers: Registry[]): Metrics['queue'] {
  const labelNames = ['queue'];
  const retries = new Counter({
    name: 'imageproxy_queue_retries_total',
    help: 'Keys added again after a failure.',
    labelNames,
    registers,
  });
  const depth = new Gauge({
    name: 'imageproxy_queue_depth',
    help: 'Keys that wait for a worker.',
    labelNames,
    registers,
  });
  const wait = new Histogram({
    name: 'imageproxy_queue_wait_seconds',
    help: 'How long keys waited for a worker once they were due; the count is the number of keys taken.',
    labelNames,
    buckets: QUEUE_BUCKETS,
    registers,
  });
  return (queue) => ({
    depth: (keys) => depth.set({ queue }, keys),
    latency: (ms) => wait.observe({ queue }, ms / 1000),
    retried: () => retries.inc({ queue }),
  });
}

function cacheMetrics(registry: Registry): Pick<Metrics, 'watchCache'> {
  let read: (() => CacheNumbers) | undefined;
  const gauge = (name: string, help: string, pick: (numbers: CacheNumbers) => number): void => {
    registry.registerMetric(
      new Gauge({
        name,
        help,
        registers: [],
        collect() {
          if (read !== undefined) this.set(pick(read()));
        },
      }),
    );
  };
  gauge('imageproxy_cache_bytes', 'Bytes of blobs and partial files in the cache.', (n) => n.bytes);
  gauge('imageproxy_cache_quota_bytes', 'Bytes that the cache may use.', (n) => n.quotaBytes);
  gauge(
    'imageproxy_cache_reserved_bytes',
    'Bytes set aside for work in flight, those that it has written among them.',
    (n) => n.reservedBytes,
  );
  gauge('imageproxy_cache_pinned_bytes', 'Bytes of blobs in use, which are never evicted.', (n) => n.pinnedBytes);
  gauge('imageproxy_cache_blobs', 'Verified blobs in the cache.', (n) => n.blobs);
  registry.registerMetric(
    new Counter({
      name: 'imageproxy_cache_evictions_total',
      help: 'Blobs removed to make room.',
      registers: [],
      collect() {
        this.reset();
        this.inc(read?.().evictions ?? 0);
      },
    }),
  );
  return {
    watchCache(reader) {
      read = reader;
    },
  };
}
