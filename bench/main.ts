import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, existsSync, mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { stringify } from 'yaml';
import type { VMImage } from '../src/api/types.ts';
import { readState } from '../src/stores/directory/index.ts';
import { openstackSite, vmimage } from '../test/support/house.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../test/support/openstack.ts';
import { peakOf, type Usage, usageOf } from './usage.ts';
import { startTransfers } from '../src/transfers/index.ts';
import { type Wanted, Way } from './following.ts';
import { startNginx } from './nginx.ts';
import { shippedProgram } from './program.ts';

/**
 * URL → Ready in a real Glance, beside what people do by hand and beside the floor, all in one run:
 *
 *   node bench/main.ts [--size GIB] [--runs N] [--images N]
 *
 * - pipeline: curl -o FILE URL && sha512sum FILE && openstack image create --file FILE
 * - floor: the slower of a plain download (curl -o /dev/null) and a plain upload (curl -T FILE), each alone
 * - ours: a manifest is written; the clock stops when its status says Ready
 * - the way alone: the same bytes the same way, without controllers, once proven as they prove them, and once not looked at
 *
 * The machine is shared with Glance and the origin, so read the ratios, not the seconds. Each is taken within one run, and the median
 * of all runs is told: the floor itself moves by a third from minute to minute where the machine is a virtual one.
 */
const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '2' },
    runs: { type: 'string', default: '3' },
    images: { type: 'string', default: '20' },
  },
});
const sizeBytes = Math.round(Number(values.size) * 2 ** 30);
const runs = Number(values.runs);
const SETTLE_MS = 10_000;
const root = mkdtempSync(join(process.env['BENCH_DIRECTORY'] ?? tmpdir(), 'imageproxy-bench-'));

interface Regime {
  name: string;
  path: string;
}

const REGIMES: Regime[] = [
  { name: 'origin without limit', path: '/disk.raw' },
  { name: 'origin at 100 MB/s', path: '/slow/disk.raw' },
];

if (!openstackAvailable() || !existsSync('/usr/sbin/nginx') || !existsSync('/usr/bin/openstack')) {
  console.error('bench: needs Keystone, Glance, python3-openstackclient and nginx: sudo make setup-tests');
  process.exit(1);
}
const { bavail, bsize } = statfsSync(root);
if (bavail * bsize < sizeBytes * 8) {
  console.error(
    `bench: ${root} has too little space: ${8 * Number(values.size)} GiB are needed (BENCH_DIRECTORY=… chooses another place)`,
  );
  process.exit(1);
}

const openstack = await startOpenStack({ directory: join(root, 'openstack') });
const origin = await startNginx(root);
const program = shippedProgram(root);
try {
  console.log(`making a disk of ${values.size} GiB …`);
  const disk = await makeDisk(join(root, 'disk.raw'));
  for (const regime of REGIMES) await compare(regime, disk);
  await many(Number(values.images));
} finally {
  await origin.stop();
  await openstack.stop();
  rmSync(root, { recursive: true, force: true });
}

interface Disk {
  path: string;
  sha256: string;
  sha512: string;
}

async function compare(regime: Regime, disk: Disk): Promise<void> {
  const url = origin.url + regime.path;
  const samples = {
    download: [] as number[],
    upload: [] as number[],
    pipeline: [] as number[],
    one: [] as number[],
    two: [] as number[],
    none: [] as number[],
    unproven: [] as number[],
    proven: [] as number[],
  };
  const nothing: Wanted = { declared: {}, also: [] };
  const proof: Wanted = { declared: { sha256: disk.sha256 }, also: ['sha512'] };
  const usage: Usage[] = [];
  for (let run = 0; run < runs; run++) {
    samples.download.push(await timed(() => void execFileSync('curl', ['-sf', '-o', '/dev/null', url])));
    samples.upload.push(await plainUpload(disk.path));
    const one = await ours(url, { sha256: disk.sha256 });
    samples.one.push(one.seconds);
    usage.push(one.usage);
    samples.two.push((await ours(url, { sha256: disk.sha256, sha512: disk.sha512 })).seconds);
    samples.none.push((await ours(url, undefined)).seconds);
    samples.unproven.push(await wayAlone(url, nothing));
    samples.proven.push(await wayAlone(url, proof));
    samples.pipeline.push(await pipeline(url));
    process.stdout.write('.');
  }
  const floors = samples.upload.map((seconds, run) => Math.max(seconds, samples.download[run] ?? 0));
  const row = (name: string, times: number[]) => ({
    what: name,
    'seconds (median)': median(times).toFixed(1),
    'min–max': `${Math.min(...times).toFixed(1)}–${Math.max(...times).toFixed(1)}`,
    'of the floor': ratio(times, floors).toFixed(2),
    'of the pipeline': ratio(times, samples.pipeline).toFixed(2),
  });
  console.log(`\n\n${values.size} GiB, ${regime.name}, ${runs} runs; the floor is ${median(floors).toFixed(1)} s`);
  console.table([
    row('download alone (curl)', samples.download),
    row('upload alone (curl -T)', samples.upload),
    row('pipeline: curl, sha512sum, openstack', samples.pipeline),
    row('ours, sha256 declared', samples.one),
    row('ours, sha256 and sha512 declared', samples.two),
    row('ours, nothing declared (no upload before the end)', samples.none),
    row('the way alone, nothing proven', samples.unproven),
    row('the way alone, sha256 proven, sha512 for Glance', samples.proven),
  ]);
  console.log(`proving adds ${(100 * (ratio(samples.proven, samples.unproven) - 1)).toFixed(1)} % to the way`);
  const cpu = median(usage.map((each) => each.cpuSeconds)) / Number(values.size);
  console.log(
    `ours, sha256: ${cpu.toFixed(1)} CPU s per GiB, peak memory ${Math.round(median(usage.map((each) => each.peakMiB)))} MiB (all processes)`,
  );
}

/** Twenty at once, small ones: what counts is memory. */
async function many(count: number): Promise<void> {
  const each = 32 * 2 ** 20;
  const images = await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const path = join(root, `many-${index}.raw`);
      execFileSync('sh', [
        '-c',
        `head -c ${each} /dev/urandom > ${path} && /sbin/mke2fs -q -F -t ext4 -E nodiscard ${path}`,
      ]);
      return { name: `many-${index}`, path: `/many-${index}.raw`, sha256: await digestOf(path, 'sha256') };
    }),
  );
  const { seconds, usage } = await session(
    images.map(({ name, path, sha256 }) => vmimage(name, specOf(origin.url + path, { sha256 }))),
  );
  console.log(
    `\n${count} images of 32 MiB at once: ${seconds.toFixed(1)} s, peak memory ${Math.round(usage.peakMiB)} MiB`,
  );
}

function ours(url: string, checksums: Record<string, string> | undefined): Promise<{ seconds: number; usage: Usage }> {
  return session([vmimage('bench', specOf(url, checksums))]);
}

function specOf(url: string, checksums: Record<string, string> | undefined): Record<string, unknown> {
  return {
    source: { http: { urls: [url] } },
    ...(checksums === undefined ? { verification: { insecureSkipVerify: true } } : { checksums }),
    sites: [{ name: 'nova' }],
  };
}

/** Starts the program, lets it become idle, then writes the manifests and waits until all are Ready. */
async function session(images: ReturnType<typeof vmimage>[]): Promise<{ seconds: number; usage: Usage }> {
  const folder = mkdtempSync(join(root, 'session-'));
  const [manifests, state] = [join(folder, 'manifests'), join(folder, 'state')];
  mkdirSync(manifests);
  const write = (name: string, objects: object[]) => {
    const text = objects
      .map((object) =>
        stringify({
          apiVersion: 'kind' in object && object.kind === 'Secret' ? 'v1' : 'imageproxy.dev/v1beta1',
          ...object,
        }),
      )
      .join('---\n');
    writeFileSync(join(manifests, name), text, { mode: 0o600 });
  };
  write('site.yaml', openstackSite('nova', await openstack.clouds('demo'), 'demo'));
  const child = spawn(
    program,
    [
      'run',
      '--manifests',
      manifests,
      '--state',
      state,
      '--allow-network',
      '127.0.0.0/8',
      '--telemetry',
      'off',
      '--log-level',
      'warn',
    ],
    { stdio: 'inherit' },
  );
  const exited = once(child, 'exit');
  const peak = peakOf(child.pid ?? 0);
  try {
    await until(state, 'ImageSite', (objects) => objects.some(isReady));
    const before = usageOf(child.pid ?? 0);
    const seconds = await timed(() => {
      write('images.yaml', images);
      return until(state, 'VMImage', (objects) => objects.length === images.length && objects.every(isReady));
    });
    return {
      seconds,
      usage: { cpuSeconds: usageOf(child.pid ?? 0).cpuSeconds - before.cpuSeconds, peakMiB: peak.stop() },
    };
  } finally {
    peak.stop();
    child.kill('SIGTERM');
    await exited;
    await removeImages(openstack);
    rmSync(folder, { recursive: true, force: true });
  }
}

async function until(
  state: string,
  kind: 'ImageSite' | 'VMImage',
  wanted: (objects: VMImage[]) => boolean,
): Promise<void> {
  const stop = new AbortController();
  const objects = new Map<string, VMImage>();
  const { promise, resolve } = Promise.withResolvers<void>();
  while (!existsSync(join(state, 'instance.json'))) await new Promise((again) => setTimeout(again, 50));
  await readState(state).watch(
    kind,
    ({ object }) => {
      objects.set(object.metadata.name, object as unknown as VMImage);
      if (wanted([...objects.values()])) resolve();
    },
    stop.signal,
  );
  await promise;
  stop.abort();
}

function isReady(object: VMImage): boolean {
  return object.status.conditions?.some((each) => each.type === 'Ready' && each.status === 'True') === true;
}

async function plainUpload(path: string): Promise<number> {
  const { url, token } = await emptyImage();
  const headers = ['Expect:', `X-Auth-Token: ${token}`, 'Content-Type: application/octet-stream'];
  const seconds = await timed(() => {
    execFileSync('curl', ['-sf', ...headers.flatMap((header) => ['-H', header]), '-T', path, url]);
  });
  await removeImages(openstack);
  return seconds;
}

async function wayAlone(url: string, wanted: Wanted): Promise<number> {
  const image = await emptyImage();
  const transfers = startTransfers();
  try {
    const headers = { 'x-auth-token': image.token };
    const way = new Way(transfers, url, root);
    return await timed(() => way.follow(wanted, { url: image.url, headers, totalBytes: sizeBytes }));
  } finally {
    await transfers.close();
    await removeImages(openstack);
  }
}

/** A record in Glance, and where its bytes go. */
async function emptyImage(): Promise<{ url: string; token: string }> {
  const draft = { name: 'floor', disk_format: 'raw', container_format: 'bare' };
  const { id } = (await openstack.image('demo', 'POST', '/images', draft)).body as { id: string };
  const { token } = await openstack.token('demo');
  return { url: `${openstack.glanceUrl}/v2/images/${id}/file`, token };
}

async function pipeline(url: string): Promise<number> {
  const file = join(root, 'pipeline.raw');
  const seconds = await timed(() => {
    const script = `curl -sf -o ${file} ${url} && sha512sum ${file} && openstack image create --file ${file} --disk-format raw --container-format bare bench -f value -c id`;
    const done = spawnSync('sh', ['-c', script], {
      env: { ...process.env, ...environment(), PYTHONWARNINGS: 'ignore' },
      encoding: 'utf8',
    });
    if (done.status !== 0) throw new Error(`the pipeline failed: ${done.stderr}`);
  });
  rmSync(file);
  await removeImages(openstack);
  return seconds;
}

function environment(): Record<string, string> {
  return {
    PATH: `/usr/bin:${process.env['PATH']}`,
    OS_AUTH_URL: openstack.authUrl,
    OS_USERNAME: 'demo',
    OS_PASSWORD: 'demo-password',
    OS_PROJECT_NAME: 'demo',
    OS_USER_DOMAIN_NAME: 'Default',
    OS_PROJECT_DOMAIN_NAME: 'Default',
    OS_IDENTITY_API_VERSION: '3',
  };
}

async function removeImages(cloud: OpenStack): Promise<void> {
  const list = await cloud.image('demo', 'GET', '/images?limit=200');
  for (const { id } of (list.body as { images: { id: string }[] }).images)
    await cloud.image('demo', 'DELETE', `/images/${id}`);
}

/** Random bytes, so that nothing is saved by holes, with a file system at the front, so that it is a disk. */
async function makeDisk(path: string): Promise<Disk> {
  execFileSync('sh', [
    '-c',
    `head -c ${sizeBytes} /dev/urandom > ${path} && /sbin/mke2fs -q -F -t ext4 -E nodiscard ${path}`,
  ]);
  const [sha256, sha512] = [await digestOf(path, 'sha256'), await digestOf(path, 'sha512')];
  return { path, sha256, sha512 };
}

async function digestOf(path: string, algorithm: string): Promise<string> {
  const hash = createHash(algorithm);
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/**
 * Seconds. Each begins on the same machine: what was written before is on the disk, and the memory that it took has gone back to the host.
 * (Where free memory is the host's after some seconds, 2 GiB of it cost half a second at once, and five after a pause: whoever came
 * first after a removal won that.)
 */
async function timed(work: () => void | Promise<void>): Promise<number> {
  execFileSync('sync');
  await pause(SETTLE_MS);
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

function median(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** The median of the ratios of what was measured in the same run. */
function ratio(times: readonly number[], others: readonly number[]): number {
  return median(times.map((seconds, run) => seconds / (others[run] ?? Number.NaN)));
}
