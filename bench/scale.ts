import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Agent, request } from 'undici';
import type { VMImage } from '../src/api/types.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { ApiClient, PATCH } from '../src/stores/kubernetes/client.ts';
import { loadCredentials } from '../src/stores/kubernetes/credentials.ts';
import { startApiServer } from '../test/support/apiserver.ts';
import { freePorts } from '../test/support/ports.ts';
import { ext4 } from '../test/support/disks.ts';
import { startOrigin } from '../test/support/origin.ts';
import { shippedProgram } from './program.ts';
import { peakOf, usageOf } from './usage.ts';

/**
 * Many VMImages on a real API server, all of them Ready at a directory site:
 *
 *   node bench/scale.ts [--images N] [--rest SECONDS] [--edits N]
 *
 * - first run: N objects are made, until all are Ready
 * - restart: from the start of the process until each object has been reconciled once
 * - at rest: requests to the API server, by the server's own count, while every image is looked at at its site once a minute
 * - latency: from the answer to an edit until its watcher sees the status that answers it (so it holds a write to etcd twice)
 *
 * API server, etcd and this script run on the same machine.
 */
const { values } = parseArgs({
  options: {
    images: { type: 'string', default: '10000' },
    rest: { type: 'string', default: '180' },
    edits: { type: 'string', default: '500' },
  },
});
const count = Number(values.images);
const restSeconds = Number(values.rest);
const edits = Number(values.edits);

const NAMESPACE = 'default';
const PATH = `/apis/imageproxy.dev/v1beta1/namespaces/${NAMESPACE}/vmimages`;
const EDITS_PER_SECOND = 10;
const PARALLEL = 32;
/** Of the API server's verbs, those that change nothing. */
const READS = new Set(['GET', 'LIST', 'WATCH']);

const root = mkdtempSync(join(process.env['BENCH_DIRECTORY'] ?? tmpdir(), 'imageproxy-scale-'));
const server = await startApiServer();
const origin = await startOrigin();
const insecure = new Agent({ connect: { rejectUnauthorized: false } });
const stop = new AbortController();
const died = new AbortController();
const credentials = await loadCredentials({ kubeconfig: server.kubeconfig, clock: systemClock });
const client = new ApiClient(credentials, systemClock, stop.signal);
const command = shippedProgram(root);
let program: Program | undefined;
try {
  const disk = ext4('scale', 1);
  origin.route('/disk.raw', { body: disk.bytes, etag: '"1"' });
  const shelf = join(root, 'shelf');
  mkdirSync(shelf);
  await server.namespace('imageproxy');

  program = await startProgram();
  await server.apply('/apis/imageproxy.dev/v1beta1/imagesites/shelf', {
    apiVersion: 'imageproxy.dev/v1beta1',
    kind: 'ImageSite',
    metadata: { name: 'shelf' },
    // The shortest interval there is: at rest each image is looked at once a minute, and still nothing may be written.
    spec: { directory: { path: shelf }, maxParallelUploads: 16, drift: { interval: '1m' } },
  });
  const began = performance.now();
  await inParallel(count, async (index) => {
    await client.request({ method: 'POST', path: PATH, body: imageOf(index, `${origin.url}/disk.raw`, disk.sha256) });
  });
  console.log(`${count} VMImages made in ${secondsSince(began)} s; each is registered at a directory site …`);
  await until(async () => (await metric(program, 'imageproxy_images', { phase: 'Ready' })) === count);
  console.log(`all Ready ${secondsSince(began)} s after the first was made, peak memory ${program.peakMiB()} MiB`);
  await program.end();

  program = await startProgram();
  await until(async () => (await metric(program, 'imageproxy_reconcile_total', { kind: 'VMImage' })) >= count);
  await until(async () => (await metric(program, 'imageproxy_queue_depth', {})) === 0);
  const observed = (performance.now() - program.startedAt) / 1000;
  console.log(`restart: all ${count} reconciled ${observed.toFixed(1)} s after the process was started`);

  // What a start brings with it (the first probes, events) is not rest.
  await pause(15_000);
  const [before, cpuBefore] = [await requests(), usageOf(program.pid).cpuSeconds];
  await pause(restSeconds * 1000);
  const after = await requests();
  const perMinute = (of: (each: Counted) => boolean) =>
    ((sum(after.filter(of)) - sum(before.filter(of))) / (restSeconds / 60)).toFixed(1);
  const writes = (each: Counted) => each.group === 'imageproxy.dev' && !READS.has(each.verb);
  const cpu = (((usageOf(program.pid).cpuSeconds - cpuBefore) / restSeconds) * 100).toFixed(1);
  console.log(
    `at rest (every image looked at once a minute), ${restSeconds} s: ${perMinute(writes)} writes a minute to our kinds, ${perMinute((each) => each.group === 'imageproxy.dev')} requests a minute to them in all, ${perMinute((each) => each.resource === 'leases')} to Leases (the API server's own among them), ${cpu} % of a core`,
  );

  const times = (await latencies(edits)).sort((a, b) => a - b);
  const at = (share: number) =>
    `${Math.round(times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0)} ms`;
  console.log(`edit → status, ${times.length} edits: median ${at(0.5)}, p90 ${at(0.9)}, p99 ${at(0.99)}, max ${at(1)}`);
  console.log(`peak memory since the restart: ${program.peakMiB()} MiB`);
  await program.end();
} finally {
  program?.kill();
  stop.abort();
  await credentials.close();
  await insecure.close();
  await origin.close();
  await server.stop();
  rmSync(root, { recursive: true, force: true });
}

interface Program {
  readonly pid: number;
  readonly telemetry: string;
  readonly startedAt: number;
  peakMiB(): number;
  end(): Promise<void>;
  kill(): void;
}

async function startProgram(): Promise<Program> {
  const [port] = await freePorts(1);
  const startedAt = performance.now();
  const child: ChildProcess = spawn(
    command,
    ['run', '--kubernetes', '--kubeconfig', server.kubeconfig, '--state', join(root, 'state')]
      .concat(['--allow-network', '127.0.0.0/8', '--telemetry', `127.0.0.1:${port}`, '--log-level', 'warn'])
      .concat(['--cache-quota', '1Gi']),
    { stdio: 'inherit' },
  );
  const exited = once(child, 'exit');
  const gone = () => died.abort(new Error('the program has ended by itself'));
  child.on('exit', gone);
  const pid = child.pid ?? 0;
  const peak = peakOf(pid);
  let highest = 0;
  const telemetry = `http://127.0.0.1:${port}`;
  await until(async () => (await request(`${telemetry}/readyz`)).statusCode === 200);
  return {
    pid,
    telemetry,
    startedAt,
    peakMiB: () => Math.round((highest = Math.max(highest, peak.highest()))),
    async end() {
      peak.stop();
      child.off('exit', gone);
      child.kill('SIGTERM');
      await exited;
    },
    kill() {
      peak.stop();
      child.kill('SIGKILL');
    },
  };
}

function imageOf(index: number, url: string, sha256: string): object {
  return {
    apiVersion: 'imageproxy.dev/v1beta1',
    kind: 'VMImage',
    metadata: { name: `image-${index}`, namespace: NAMESPACE, labels: { part: String(index % 100) } },
    spec: {
      source: { http: { urls: [url, `${url}?mirror`] } },
      checksums: { sha256 },
      registration: {
        name: `image ${index}`,
        visibility: 'Private',
        tags: ['scale'],
        properties: { os_distro: 'debian' },
      },
      sites: [{ name: 'shelf' }],
    },
  };
}

/** Asks so many objects, at an even pace, to look again, and waits for the word that they did. Milliseconds. */
async function latencies(howMany: number): Promise<number[]> {
  const asked = new Map<string, number>();
  const times: number[] = [];
  const ended = new AbortController();
  const { metadata } = await client.request<{ metadata: { resourceVersion: string } }>({
    method: 'GET',
    path: PATH,
    query: { limit: '1' },
  });
  const done = Promise.withResolvers<void>();
  const watching = (async () => {
    for await (const { object } of client.watch(PATH, { resourceVersion: metadata.resourceVersion }, ended.signal)) {
      const { lastHandledReconcileAt } = (object as VMImage).status;
      const since = lastHandledReconcileAt === undefined ? undefined : asked.get(lastHandledReconcileAt);
      if (since === undefined || lastHandledReconcileAt === undefined) continue;
      asked.delete(lastHandledReconcileAt);
      times.push(performance.now() - since);
      if (times.length === howMany) done.resolve();
    }
  })();
  for (let index = 0; index < howMany; index++) {
    const word = `bench-${index}`;
    const body = { metadata: { annotations: { 'imageproxy.dev/requestedAt': word } } };
    const path = `${PATH}/image-${Math.floor((index * count) / howMany)}`;
    asked.set(word, performance.now());
    await client.request({ method: 'PATCH', path, contentType: PATCH.merge, body });
    await pause(1000 / EDITS_PER_SECOND);
  }
  await done.promise;
  ended.abort();
  await watching.catch(() => undefined);
  return times;
}

interface Counted {
  group: string;
  resource: string;
  verb: string;
  count: number;
}

/** The API server's own count of what it was asked. */
async function requests(): Promise<Counted[]> {
  const { body } = await request(`${server.url}/metrics`, {
    dispatcher: insecure,
    headers: { authorization: `Bearer ${server.token}` },
  });
  return samplesOf(await body.text(), 'apiserver_request_total').map(({ labels, value }) => ({
    group: labels['group'] ?? '',
    resource: labels['resource'] ?? '',
    verb: labels['verb'] ?? '',
    count: value,
  }));
}

function sum(counted: readonly Counted[]): number {
  return counted.reduce((total, each) => total + each.count, 0);
}

/** The sum of a metric of the program over all series with these labels. */
async function metric(of: Program | undefined, name: string, wanted: Record<string, string>): Promise<number> {
  const { body } = await request(`${of?.telemetry}/metrics`);
  return samplesOf(await body.text(), name)
    .filter(({ labels }) => Object.entries(wanted).every(([label, value]) => labels[label] === value))
    .reduce((total, { value }) => total + value, 0);
}

/** Prometheus text format, as far as it is needed here: `name{a="b",…} value`. */
function samplesOf(text: string, name: string): { labels: Record<string, string>; value: number }[] {
  return text.split('\n').flatMap((line) => {
    if (!line.startsWith(`${name}{`) && !line.startsWith(`${name} `)) return [];
    const labels = Object.fromEntries([...line.matchAll(/([a-z_]+)="([^"]*)"/g)].map(([, key, value]) => [key, value]));
    return [{ labels: labels as Record<string, string>, value: Number(line.slice(line.lastIndexOf(' ') + 1)) }];
  });
}

async function inParallel(total: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: PARALLEL }, async () => {
      while (next < total) await work(next++);
    }),
  );
}

async function until(ask: () => Promise<boolean>): Promise<void> {
  // Metrics of ten thousand images cost the program some milliseconds: it is not asked all the time.
  while (!(await ask().catch(() => false))) {
    died.signal.throwIfAborted();
    await pause(500);
  }
}

function secondsSince(start: number): string {
  return ((performance.now() - start) / 1000).toFixed(1);
}
