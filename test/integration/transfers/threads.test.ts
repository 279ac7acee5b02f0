import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Validators } from '../../../src/cache/cache.ts';
import { startTransfers } from '../../../src/transfers/index.ts';
import { FROM_SOURCES } from '../../support/from-sources.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { content, digestOf, type Harness, httpSource, MIB, never, startHarness } from './harness.ts';

let harness: Harness;
let origin: Origin;
beforeEach(async () => {
  harness = startHarness();
  origin = await startOrigin();
});
afterEach(async () => {
  await harness.close();
  await origin.close();
});
const reason = (name: string) => expect.objectContaining({ reason: name });

describe('a process that is killed in mid download', () => {
  it('goes on from what was durable, in the same generation, and the digest is right', async () => {
    const body = content(100 * MIB);
    const declared = { sha256: digestOf(body) };
    const url = `${origin.url}/image`;
    origin.route('/image', { body, etag: '"1"', stallAfter: 90 * MIB });
    const request = harness.request(url, declared);
    const script = join(import.meta.dirname, 'fetching-process.ts');
    const child: ChildProcess = spawn(process.execPath, [...FROM_SOURCES, script, JSON.stringify(request)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let watermark = 0;
    let validators: Validators = {};
    if (child.stdout === null) throw new Error('no output');
    for await (const line of createInterface({ input: child.stdout })) {
      const said = JSON.parse(line) as { begun?: { validators: Validators }; progress?: { durable: number } };
      validators = said.begun?.validators ?? validators;
      watermark = said.progress?.durable ?? watermark;
      if (watermark > 0) child.kill('SIGKILL');
    }
    expect(watermark).toBeGreaterThanOrEqual(64 * MIB);
    expect(statSync(join(harness.folder, '1.part')).size).toBeGreaterThanOrEqual(watermark);
    origin.route('/image', { body, etag: '"1"' });
    const resume = { generation: 1, watermark, validators, source: url };
    const result = await harness.fetch({ ...request, resume, nextGeneration: 2 });
    expect(result).toMatchObject({ generation: 1, fromZero: false, size: body.length, digests: declared });
    expect(origin.requests.at(-1)?.headers.range).toBe(`bytes=${watermark}-`);
  });
});

describe('the threads', () => {
  it('begin with the transfer thread, before there is a job', async () => {
    const made = once(process, 'worker') as Promise<[Worker]>;
    const transfers = startTransfers();
    const [worker] = await made;
    expect(worker.threadName).toBe('transfers');
    await transfers.close();
  });

  it('are made once, and no more of them for twenty', async () => {
    // The kernel lists one that has ended a moment longer than Node.js does.
    const threads = () => readdirSync('/proc/self/task').length;
    const body = content(MIB);
    origin.route('/image', { body });
    await harness.fetch(harness.request(`${origin.url}/image`, {}, { also: ['sha256', 'sha512'] }));
    // The one for digests that are waited for, too: on a full machine it has to do those that go along, which get no turn.
    writeFileSync(join(harness.folder, 'a'), 'x');
    await harness.transfers.digest(join(harness.folder, 'a'), ['md5'], never);
    const before = threads();
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        harness.fetch(
          harness.request(`${origin.url}/image`, {}, { nextGeneration: n + 2, also: ['sha256', 'sha512'] }),
        ),
      ),
    );
    await expect.poll(threads).toBeLessThanOrEqual(before);
  });

  it.skipIf(process.platform !== 'linux')(
    'give way to others where digests are waited for, and run when nobody else does where not',
    async () => {
      // proc_pid_stat(5): fields 19 and 41, counted from the third, which is the first after the name.
      const priorities = () =>
        readdirSync('/proc/self/task').flatMap((task) => {
          try {
            const stat = readFileSync(`/proc/self/task/${task}/stat`, 'utf8');
            const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
            return [{ nice: Number(fields[16]), policy: Number(fields[38]) }];
          } catch {
            return []; // ended since it was listed
          }
        });
      const SCHED_IDLE = 5;
      const modest = () => priorities().filter(({ nice, policy }) => nice === 5 && policy !== SCHED_IDLE).length;
      const idle = () => priorities().filter(({ policy }) => policy === SCHED_IDLE).length;
      // Those of the test before may still be ending.
      await expect.poll(() => modest() + idle()).toBe(0);
      const file = join(harness.folder, 'a');
      writeFileSync(file, 'x');
      await harness.transfers.digest(file, ['md5'], never);
      expect([modest(), idle()]).toEqual([1, 0]);
      origin.route('/image', { body: content(MIB) });
      await harness.fetch(harness.request(`${origin.url}/image`, {}, { also: ['sha256', 'sha512'] }));
      // On a full machine another thread's digest may be there before this one has begun.
      await expect.poll(() => [modest(), idle()]).toEqual([1, 1]);
    },
  );

  it('reject what they were doing when one dies, as a failure that is tried again, and are started anew', async () => {
    origin.route('/image', { body: content(MIB), stallAfter: 1000 });
    const made = once(process, 'worker') as Promise<[Worker]>;
    const mortal = startTransfers();
    const [worker] = await made;
    const request = harness.request(`${origin.url}/image`, {});
    const fetching = mortal.fetch(request, {}, never);
    fetching.catch(() => {});
    await origin.stalled();
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    worker.postMessage(null); // nothing of ours is like that: it throws where nobody catches
    await expect(fetching).rejects.toMatchObject({ reason: 'InternalError', failureClass: 'Transient' });
    writeFileSync(join(harness.folder, 'a'), 'x');
    expect(await mortal.digest(join(harness.folder, 'a'), ['md5'], never)).toEqual({
      md5: digestOf(Buffer.from('x'), 'md5'),
    });
    await mortal.close();
  });

  it('do not keep a process alive that has nothing to do', async () => {
    const script = join(harness.folder, 'idle.ts');
    const index = join(import.meta.dirname, '../../../src/transfers/index.ts');
    writeFileSync(join(harness.folder, 'a'), 'x');
    writeFileSync(
      script,
      `import { startTransfers } from ${JSON.stringify(index)};
       const transfers = startTransfers();
       const { md5 } = await transfers.digest(${JSON.stringify(join(harness.folder, 'a'))}, ['md5'], new AbortController().signal);
       console.log(md5);`,
    );
    expect(
      execFileSync(process.execPath, [...FROM_SOURCES, script], { encoding: 'utf8', timeout: 60_000 }).trim(),
    ).toBe(digestOf(Buffer.from('x'), 'md5'));
  });

  it('stop every job when they are closed, and take no more', async () => {
    origin.route('/image', { body: content(MIB), stallAfter: 1000 });
    const transfers = startTransfers();
    const fetching = transfers.fetch(harness.request(`${origin.url}/image`, {}), {}, never);
    fetching.catch(() => {});
    await origin.stalled();
    await transfers.close();
    await expect(fetching).rejects.toEqual(reason('Aborted'));
    await expect(transfers.digest('/none', ['md5'], never)).rejects.toEqual(reason('Aborted'));
    await transfers.close();
  });

  it('are found by a bundle, where its second entry point is beside the first', async () => {
    const { build } = await import('esbuild');
    const out = join(harness.folder, 'dist');
    const source = join(import.meta.dirname, '../../../src/transfers');
    await build({
      entryPoints: {
        main: join(import.meta.dirname, 'fetching-process.ts'),
        'transfers-worker': join(source, 'worker.ts'),
      },
      outdir: out,
      bundle: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'silent',
    });
    writeFileSync(join(out, 'package.json'), '{"type":"module"}');
    const body = content(MIB);
    origin.route('/image', { body });
    const partials = join(harness.folder, 'partials');
    mkdirSync(partials);
    const request = {
      ...harness.request(`${origin.url}/image`, { sha256: digestOf(body), sha512: digestOf(body, 'sha512') }),
      source: httpSource(`${origin.url}/image`),
      directory: partials,
    };
    const child = spawn(process.execPath, [join(out, 'main.js'), JSON.stringify(request)], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    expect((await once(child, 'exit'))[0]).toBe(0);
    expect(existsSync(join(partials, '1.part'))).toBe(true);
    expect(readFileSync(join(partials, '1.part')).equals(body)).toBe(true);
  });
});
