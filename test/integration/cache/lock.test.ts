import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openCache } from '../../../src/cache/index.ts';
import { startHolder } from './process.ts';

const quiet = { info() {}, warn() {}, error() {} };

function folder(): string {
  const directory = mkdtempSync(join(tmpdir(), 'cache-lock-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function open(directory: string) {
  return openCache({ directory, now: Date.now, log: quiet, quotaBytes: 2 ** 30, reserveFreeBytes: 0 });
}

describe('the lock of the cache', () => {
  it('keeps a second process out, with the name of the first, and is free after SIGKILL', async () => {
    const directory = folder();
    const first = startHolder('hold', directory);
    await first.line('holding');
    const second = startHolder('hold', directory);
    const refusal = await second.line('refused');
    expect(refusal).toContain(`in use by process ${first.pid} on host ${hostname()} since 20`);
    expect(refusal).toContain('give this one a folder of its own');
    await expect(open(directory)).rejects.toMatchObject({ reason: 'CacheInUse' });

    first.kill();
    expect((await first.exited).signal).toBe('SIGKILL');
    const third = startHolder('hold', directory);
    await third.line('holding');
  });

  it('is not lost by the attempts of others', async () => {
    const directory = folder();
    const cache = await open(directory);
    for (let attempt = 0; attempt < 3; attempt += 1) {
      await expect(open(directory)).rejects.toMatchObject({ reason: 'CacheInUse' });
      await startHolder('hold', directory).line('refused');
    }
    await cache.close();
    await startHolder('hold', directory).line('holding');
  });

  it('is taken without a warning of an experimental module', async () => {
    const child = startHolder('fill', folder(), '1000000');
    await child.line('closed');
    await child.exited;
    expect(child.stderr()).toBe('');
  });
});

describe('a process that is killed between two steps', () => {
  it('has lost nothing that it said was admitted, and left nothing behind', async () => {
    // The steps of a start and three admissions; every third one, as each takes a process.
    let [step, complete] = [0, false];
    for (; !complete; step += 3) {
      const directory = folder();
      const child = startHolder('fill', directory, String(step));
      const lines: string[] = [];
      for (const number of [0, 1, 2]) {
        const bytes = Buffer.alloc(10_000, `blob ${number}.`);
        const sha256 = createHash('sha256').update(bytes).digest('hex');
        const line = await child.line(`admitted ${sha256}`).catch(() => undefined);
        if (line !== undefined) lines.push(sha256);
      }
      complete = (await child.exited).signal === null;

      const cache = await open(directory);
      for (const sha256 of lines) expect(await cache.find({ sha256 }, 'public'), `step ${step}`).toBeDefined();
      let files = 0;
      for (const name of readdirSync(join(directory, 'blobs'), { recursive: true, encoding: 'utf8' })) {
        const sha256 = name.split('/')[2];
        if (sha256 === undefined) continue;
        files += 1;
        const blob = await cache.get(sha256);
        expect(
          createHash('sha256')
            .update(readFileSync(blob?.path ?? ''))
            .digest('hex'),
          `step ${step}`,
        ).toBe(sha256);
      }
      expect(cache.stats().blobs).toBe(files);
      expect(readdirSync(join(directory, 'scratch'))).toEqual([]);
      await cache.close();
    }
    expect(step).toBeGreaterThan(20);
  });
});
