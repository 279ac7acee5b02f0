/**
 * What moving bytes costs: one file from an origin (nginx) through ImageProxy's transfer thread, proven, into a receiver of PUTs,
 * against curl doing the download alone and the upload alone. Everything on loopback; ratios are what counts.
 *
 *     node bench/transfers.ts [--gib 2] [--rounds 3] [--hashing] [--rate 100m] [--digests sha256,sha512]
 *
 * `--hashing`: the receiver computes md5 and sha512 of what it takes, as Glance does. `--rate`: nginx's limit_rate.
 * Every way is run once in each round, and its best round counts: dirty pages of one must not be another's to wait for.
 */
import { type ChildProcess, execFileSync, fork } from 'node:child_process';
import { createHash, randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Algorithm, Digests } from '../src/api/digest.ts';
import { startTransfers } from '../src/transfers/index.ts';
import { type Wanted, Way } from './following.ts';
import { startNginx } from './nginx.ts';

const { values: options } = parseArgs({
  options: {
    gib: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '3' },
    hashing: { type: 'boolean', default: false },
    rate: { type: 'string' },
    digests: { type: 'string', default: 'sha256' },
    role: { type: 'string' },
  },
});

if (options.role === 'receiver') receiver();
else await bench();

/** A process of its own that takes PUTs and throws them away. */
function receiver(): void {
  const server = createServer((socket) => {
    let head = '';
    let left = -1;
    const hashes = options.hashing ? [createHash('md5'), createHash('sha512')] : [];
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      let body = chunk;
      if (left < 0) {
        head += chunk.toString('latin1');
        const end = head.indexOf('\r\n\r\n');
        if (end < 0) return;
        left = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
        if (/expect: 100-continue/i.test(head)) socket.write('HTTP/1.1 100 Continue\r\n\r\n');
        body = Buffer.from(head.slice(end + 4), 'latin1');
      }
      for (const hash of hashes) hash.update(body);
      left -= body.length;
      if (left === 0) socket.end('HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n');
    });
  });
  server.listen(0, '127.0.0.1', () => process.send?.((server.address() as { port: number }).port));
}

async function bench(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-transfers-'));
  const file = join(folder, 'image.raw');
  let origin: Awaited<ReturnType<typeof startNginx>> | undefined;
  let receiving: ChildProcess | undefined;
  try {
    const { size, digests } = makeFile(file, Number(options.gib) * 2 ** 30);
    origin = await startNginx(folder, options.rate);
    const url = `${origin.url}${options.rate === undefined ? '' : '/slow'}/image.raw`;
    receiving = fork(import.meta.filename, ['--role=receiver', ...(options.hashing ? ['--hashing'] : [])]);
    const [port] = (await once(receiving, 'message')) as [number];
    const put = `http://127.0.0.1:${port}/file`;
    const algorithms = options.digests.split(',') as Algorithm[];
    const declared = Object.fromEntries(algorithms.map((name) => [name, digests[name]])) as Digests;

    const curl =
      (...args: string[]) =>
      async () =>
        void execFileSync('curl', ['-sS', '--fail', ...args], { stdio: 'inherit' });
    const transfers = startTransfers();
    const way = new Way(transfers, url, folder);
    const nothing: Wanted = { declared: {}, also: [] };
    const proof: Wanted = { declared, also: [] };
    let peak = 0;
    const sampler = setInterval(() => (peak = Math.max(peak, process.memoryUsage.rss())), 50);
    const idle = process.memoryUsage.rss();
    const following = (wanted: Wanted) => way.follow(wanted, { url: put, headers: {}, totalBytes: size });
    const alone = () =>
      transfers.upload(
        { url: put, headers: {}, path: file, totalBytes: size, holdBackBytes: 0, stallMs: 30_000 },
        { mayFinish: async () => {} },
        new AbortController().signal,
      );
    const copy = join(folder, 'copy');
    const ways = {
      download: curl('-o', copy, url),
      plain: () => way.fetch(nothing),
      proven: () => way.fetch(proof),
      upload: curl('-T', file, put),
      alone,
      unproven: () => following(nothing),
      following: () => following(proof),
    };
    const best: Partial<Record<keyof typeof ways, Run>> = {};
    for (let round = 0; round < Number(options.rounds); round += 1) {
      for (const [name, way] of Object.entries(ways) as [keyof typeof ways, () => Promise<unknown>][]) {
        const run = await timed(way);
        rmSync(copy, { force: true });
        if (run.seconds < (best[name]?.seconds ?? Infinity)) best[name] = run;
      }
    }
    clearInterval(sampler);
    await transfers.close();

    const gib = size / 2 ** 30;
    const floor = Math.max(best.download?.seconds ?? 0, best.upload?.seconds ?? 0);
    const row = (what: string, run: Run | undefined, against: number | undefined) => {
      const { seconds = Number.NaN, cpuSeconds = Number.NaN } = run ?? {};
      const ratio = (seconds / (against ?? Number.NaN)).toFixed(2).padStart(5);
      const cost = (cpuSeconds / gib).toFixed(2);
      console.log(`${what.padEnd(44)} ${seconds.toFixed(2).padStart(7)} s  ${ratio} ×  ${cost} CPU s/GiB`);
    };
    const regime = options.rate === undefined ? '' : `, origin ${options.rate}/s`;
    console.log(`${gib} GiB, declared ${options.digests}${regime}${options.hashing ? ', hashing receiver' : ''}`);
    row('curl -o, download alone', best.download, best.download?.seconds);
    row('fetch, no digest (× download)', best.plain, best.download?.seconds);
    row('fetch, proven (× download)', best.proven, best.download?.seconds);
    row('curl -T, upload alone', best.upload, best.upload?.seconds);
    row('upload alone (× upload)', best.alone, best.upload?.seconds);
    row('fetch, no digest, upload following (× slower)', best.unproven, floor);
    row('fetch, proven, upload following (× slower)', best.following, floor);
    const added = (best.following?.seconds ?? 0) / (best.unproven?.seconds ?? Number.NaN) - 1;
    console.log(`proving adds ${(100 * added).toFixed(1)} % to the way from origin to cloud`);
    console.log(`resident: idle ${mib(idle)}, peak ${mib(peak)} MiB (whole process)`);
  } finally {
    receiving?.kill('SIGKILL');
    await origin?.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Run {
  seconds: number;
  /** This process's own, all threads; children (curl) are not in it. */
  cpuSeconds: number;
}

async function timed(work: () => Promise<unknown>): Promise<Run> {
  const [start, cpu] = [performance.now(), process.cpuUsage()];
  await work();
  const { user, system } = process.cpuUsage(cpu);
  return { seconds: (performance.now() - start) / 1000, cpuSeconds: (user + system) / 1e6 };
}

function makeFile(path: string, size: number): { size: number; digests: Digests } {
  const block = randomFillSync(Buffer.allocUnsafe(8 * 1024 * 1024));
  const hashes = { sha256: createHash('sha256'), sha512: createHash('sha512') };
  const descriptor = openSync(path, 'w');
  for (let done = 0; done < size; done += block.length) {
    block.writeDoubleLE(done);
    writeSync(descriptor, block);
    for (const hash of Object.values(hashes)) hash.update(block);
  }
  closeSync(descriptor);
  return {
    size: statSync(path).size,
    digests: { sha256: hashes.sha256.digest('hex'), sha512: hashes.sha512.digest('hex') },
  };
}

function mib(bytes: number): number {
  return Math.round(bytes / 2 ** 20);
}
