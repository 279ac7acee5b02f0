import { stat, statfs } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { createLogger, type LogLevel, type Logger } from '../telemetry/log.ts';
import type { Address, Quota } from './arguments.ts';
import type { RunningController } from './controller.ts';
import { CommandError, EXIT } from './exit.ts';
import type { CommandContext } from './output.ts';
import { manifestsDirectory, stateDirectory, type StateOptions } from './state.ts';
import { VERSION } from './version.ts';

export interface RunOptions extends StateOptions {
  manifests?: string;
  cache?: string;
  cacheQuota?: Quota;
  instance?: string;
  allowNetwork?: string[];
  fileRoot?: Map<string, string>;
  telemetry: Address;
  logLevel: LogLevel;
  logFormat?: 'json' | 'pretty';
  maxParallelDownloads: number;
}

/** `imageproxy run`: the controllers, until SIGTERM or SIGINT; they stop at a safe point. */
export async function run(options: RunOptions, context: CommandContext): Promise<number> {
  const manifests = manifestsDirectory(options.manifests, context.env);
  if (manifests === undefined) {
    throw new CommandError(
      EXIT.usage,
      'it needs a folder of manifests: give --manifests DIR, or set IMAGEPROXY_MANIFESTS',
    );
  }
  await demandFolder(manifests, '--manifests');
  for (const [name, folder] of options.fileRoot ?? []) await demandFolder(folder, `--file-root ${name}`);
  const state = stateDirectory(options, context.env);
  const cache = options.cache === undefined ? join(state, 'cache') : resolve(options.cache);
  const quotaBytes = options.cacheQuota === undefined ? undefined : await bytesOf(options.cacheQuota, cache);
  const log = createLogger({
    level: options.logLevel,
    ...(options.logFormat === undefined ? {} : { pretty: options.logFormat === 'pretty' }),
  });

  const stop = new AbortController();
  const stopping = AbortSignal.any([context.signal, stop.signal]);
  const { startController } = await import('./controller.ts');
  const controller = await startController(
    {
      manifests,
      state,
      cache,
      ...(quotaBytes === undefined ? {} : { cacheQuotaBytes: quotaBytes }),
      ...(options.instance === undefined ? {} : { instance: options.instance }),
      allowNetworks: options.allowNetwork ?? [],
      fileRoots: options.fileRoot ?? new Map(),
      maxParallelDownloads: options.maxParallelDownloads,
      log,
    },
    stopping,
  );
  try {
    const telemetry = await listen(options.telemetry, controller, log, stopping);
    log.info(
      {
        version: VERSION,
        manifests,
        state,
        cache,
        instance: controller.store.instance,
        ...(telemetry === undefined ? {} : { telemetry }),
      },
      'imageproxy runs',
    );
    context.signal.addEventListener(
      'abort',
      () => log.info('stopping at a safe point; a second signal stops at once'),
      { once: true },
    );
    await controller.done;
    if (!context.signal.aborted)
      throw new CommandError(EXIT.failed, 'the controllers ended by themselves: see the log');
    log.info('stopped');
    return EXIT.ok;
  } finally {
    stop.abort();
    await controller.done.catch(() => undefined);
  }
}

async function listen(
  address: Address,
  controller: RunningController,
  log: Logger,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (address === 'off') return undefined;
  const [{ Health }, { serveTelemetry }] = await Promise.all([
    import('../telemetry/health.ts'),
    import('../telemetry/server.ts'),
  ]);
  let ended = false;
  const end = (): void => {
    ended = true;
  };
  controller.done.then(end, end);
  const health = new Health();
  health.live('controllers', () => (ended ? 'the controllers have ended' : undefined));
  health.ready('running', () => (signal.aborted ? 'it is stopping' : undefined));
  try {
    const server = await serveTelemetry({ ...address, metrics: controller.metrics, health, log }, signal);
    return server.url;
  } catch (error) {
    const reason = (error as Error).message;
    throw new CommandError(
      EXIT.failed,
      /--telemetry/.test(reason) ? reason : `${reason} (give another --telemetry HOST:PORT, or --telemetry off)`,
    );
  }
}

async function demandFolder(path: string, option: string): Promise<void> {
  const facts = await stat(path).catch(() => undefined);
  if (facts?.isDirectory() === true) return;
  const fact = facts === undefined ? 'is not there' : 'is no folder';
  throw new CommandError(EXIT.notFound, `${option}: ${path} ${fact}: make it, or name another`);
}

/** A share is one of the volume that the cache lies on; its folder may not be there yet. */
async function bytesOf(quota: Quota, cache: string): Promise<number> {
  if ('bytes' in quota) return quota.bytes;
  for (let folder = cache; ; folder = dirname(folder)) {
    const volume = await statfs(folder).catch(() => undefined);
    if (volume !== undefined) return Math.floor(volume.bsize * volume.blocks * quota.share);
    if (folder === dirname(folder))
      throw new CommandError(EXIT.failed, `--cache-quota: the volume of ${cache} cannot be read`);
  }
}
