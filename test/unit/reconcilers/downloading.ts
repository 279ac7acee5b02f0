import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { Blob, Cache } from '../../../src/cache/cache.ts';
import { openCache } from '../../../src/cache/index.ts';
import type { Images } from '../../../src/images/images.ts';
import { Downloads } from '../../../src/reconcilers/vmimage/downloads.ts';
import type { Part } from '../../../src/reconcilers/vmimage/plan.ts';
import type { Urgency } from '../../../src/runtime/jobs.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { ScriptedOrigins } from './scripted-origins.ts';
import { Workbench } from './workbench.ts';

/** Every file is a raw disk by its first byte. */
const images = {
  recognise: () => ({ compression: 'None', format: 'Raw', judgedByHead: true }),
  inspect: async () => ({ format: 'Raw', virtualSize: 1 }),
} as unknown as Images;

/** Real downloads into a real cache; the thread that brings the bytes, and time, are the test's. */
export class DownloadBench extends Workbench {
  readonly origins = new ScriptedOrigins();
  readonly cache: Cache;

  private constructor(cache: Cache) {
    super();
    this.cache = cache;
    Object.assign(this.deps, { cache, images, transfers: this.origins });
    Object.assign(this.deps.settings, { maxParallelDownloads: 4 });
    this.restart();
  }

  static async open(quotaBytes = 2 ** 30): Promise<DownloadBench> {
    const directory = mkdtempSync(join(tmpdir(), 'downloads-'));
    const log = createLogger({ level: 'silent' });
    const cache = await openCache({ directory, quotaBytes, reserveFreeBytes: 0, now: () => 0, log });
    onTestFinished(async () => {
      await cache.close();
      rmSync(directory, { recursive: true, force: true });
    });
    return new DownloadBench(cache);
  }

  /** The process has forgotten what it knew of mirrors. */
  restart(): void {
    this.deps.downloads = new Downloads(this.deps);
  }

  /** Runs a download beside any job. `changes` are the urgencies with which it woke its askers. */
  download(part: Part) {
    const { downloads } = this.deps;
    downloads.ask('test', [part]);
    const view = downloads.newView(2 ** 30);
    const changes: Urgency[] = [];
    const stop = new AbortController();
    const handle = { signal: stop.signal, changed: (urgency: Urgency) => void changes.push(urgency) };
    const blob: Promise<Blob> = downloads.run(part, { maxBytes: 2 ** 30, bound: '', also: [] }, handle, view);
    blob.catch(() => undefined);
    return { blob, view, changes, stop };
  }
}

/** A disk whose bytes are at these places. */
export function partFrom(urls: readonly string[], declared: Part['declared']): Part {
  return {
    role: 'Disk',
    field: 'spec',
    candidates: urls.map((url) => ({
      kind: 'http',
      url,
      headers: {},
      network: { allow: [] },
      timeouts: { connectMs: 1000, headersMs: 1000, stallMs: 1000 },
    })),
    scope: 'public',
    declared,
    content: {},
    compression: 'Auto',
    format: 'Auto',
    key: `of ${urls.join(' ')}`,
  };
}
