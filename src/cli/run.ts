import { statfs } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Health } from '../telemetry/health.ts';
import { createLogger, type LogLevel } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Address, Quota } from './arguments.ts';
import type { ControllerOptions, OwnStore, RunningController } from './controller.ts';
import { CommandError, EXIT } from './exit.ts';
import { lookAt } from './looking.ts';
import type { CommandContext } from './output.ts';
import { meansCluster } from './place.ts';
import type { ClusterOptions } from './run-kubernetes.ts';
import type { Setting, Started } from './setting.ts';
import { manifestsDirectory, stateDirectory, type StateOptions } from './state.ts';
import { VERSION } from './version.ts';

export interface RunOptions extends StateOptions, ClusterOptions {
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
  toolRunner?: string;
  toolFiles?: string;
}

const STAY_MS = 3_600_000;

/** `imageproxy run`: the controllers, until SIGTERM or SIGINT; they stop at a safe point. */
export async function run(options: RunOptions, context: CommandContext): Promise<number> {
  const start = await wayToRun(options, context);
  for (const [name, folder] of options.fileRoot ?? [])
    await demandFolder(folder, `--file-root ${name}`, { isListed: false });
  const common = await controllerOptions(options, context.env);
  const { log } = common;
  const stop = new AbortController();
  const signal = AbortSignal.any([context.signal, stop.signal]);
  const health = new Health();
  health.ready('running', () => (signal.aborted ? 'it is stopping' : undefined));
  let telemetry: string | undefined;
  const serve = async (metrics: Metrics): Promise<string | undefined> => {
    telemetry = await listen(options.telemetry, metrics, health, common, signal);
    return telemetry;
  };
  context.signal.addEventListener('abort', () => log.info('stopping at a safe point; a second signal stops at once'), {
    once: true,
  });
  let controller: RunningController<OwnStore> | undefined;
  // Our own timers keep no process alive: with an API server that is away and no telemetry there may be nothing else for a while.
  const alive = setInterval(() => undefined, STAY_MS);
  try {
    const end = (reason: CommandError): void => stop.abort(reason);
    const started = await start({ options: common, env: context.env, health, serve, end, signal });
    controller = started.controller;
    const { state, cache } = common;
    const { instance } = controller.store;
    log.info(
      { version: VERSION, ...started.facts, state, cache, instance, ...(telemetry === undefined ? {} : { telemetry }) },
      'imageproxy runs',
    );
    let ended = false;
    health.live('controllers', () => (ended ? 'the controllers have ended' : undefined));
    await controller.done.finally(() => {
      ended = true;
    });
    if (!signal.aborted) throw new CommandError(EXIT.failed, 'the controllers ended by themselves: see the log');
    signal.throwIfAborted();
  } catch (error) {
    // A stop that was asked for is a success, whatever it interrupted.
    if (!context.signal.aborted) throw error;
    log.info('stopped');
  } finally {
    stop.abort();
    await controller?.done.catch(() => undefined);
    clearInterval(alive);
  }
  return EXIT.ok;
}

/** On a cluster, or on a folder of manifests. `--state` tells nothing here: with a cluster the cache lies in it. */
async function wayToRun(options: RunOptions, context: CommandContext): Promise<(setting: Setting) => Promise<Started>> {
  const named = options.kubernetes === true || options.kubeconfig !== undefined || options.context !== undefined;
  if (named || (options.manifests === undefined && meansCluster(context))) {
    if (options.manifests !== undefined) {
      throw new CommandError(
        EXIT.usage,
        '--manifests: with --kubernetes objects come from the API server; leave it away',
      );
    }
    const { startOnCluster } = await import('./run-kubernetes.ts');
    return (setting) => startOnCluster(options, setting);
  }
  const manifests = manifestsDirectory(options.manifests, context.env);
  if (manifests === undefined) {
    throw new CommandError(
      EXIT.usage,
      'it needs a folder of manifests: give --manifests DIR, or set IMAGEPROXY_MANIFESTS; on a cluster give --kubernetes',
    );
  }
  await demandFolder(manifests, '--manifests');
  return (setting) => startOnFolder(manifests, setting);
}

async function startOnFolder(manifests: string, { options, serve, signal }: Setting): Promise<Started> {
  const { startController } = await import('./controller.ts');
  const stop = new AbortController();
  const controller = await startController({ ...options, manifests }, AbortSignal.any([signal, stop.signal]));
  try {
    await serve(controller.metrics);
  } catch (error) {
    stop.abort();
    await controller.done.catch(() => undefined);
    throw error;
  }
  return { controller, facts: { manifests } };
}

async function controllerOptions(
  options: RunOptions,
  env: NodeJS.ProcessEnv,
): Promise<ControllerOptions & { cache: string }> {
  const state = stateDirectory(options, env);
  const cache = options.cache === undefined ? join(state, 'cache') : resolve(options.cache);
  const toolRunner = toolRunnerOf(options, state);
  const quotaBytes = options.cacheQuota === undefined ? undefined : await bytesOf(options.cacheQuota, cache);
  return {
    state,
    cache,
    ...(quotaBytes === undefined ? {} : { cacheQuotaBytes: quotaBytes }),
    ...(options.instance === undefined ? {} : { instance: options.instance }),
    allowNetworks: options.allowNetwork ?? [],
    fileRoots: options.fileRoot ?? new Map(),
    maxParallelDownloads: options.maxParallelDownloads,
    ...(toolRunner === undefined ? {} : { toolRunner }),
    log: createLogger({
      level: options.logLevel,
      ...(options.logFormat === undefined ? {} : { pretty: options.logFormat === 'pretty' }),
    }),
  };
}

function toolRunnerOf({ toolRunner, toolFiles }: RunOptions, state: string): ControllerOptions['toolRunner'] {
  if (toolRunner !== undefined) {
    return { socket: resolve(toolRunner), files: toolFiles === undefined ? join(state, 'tools') : resolve(toolFiles) };
  }
  if (toolFiles === undefined) return undefined;
  throw new CommandError(EXIT.usage, '--tool-files: it is for a tool runner; give --tool-runner SOCKET too');
}

async function listen(
  address: Address,
  metrics: Metrics,
  health: Health,
  { log }: ControllerOptions,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (address === 'off') return undefined;
  const { serveTelemetry } = await import('../telemetry/server.ts');
  try {
    return (await serveTelemetry({ ...address, metrics, health, log }, signal)).url;
  } catch (error) {
    const reason = (error as Error).message;
    throw new CommandError(
      EXIT.failed,
      /--telemetry/.test(reason) ? reason : `${reason} (give another --telemetry HOST:PORT, or --telemetry off)`,
    );
  }
}

async function demandFolder(path: string, option: string, look: { isListed?: boolean } = {}): Promise<void> {
  const facts = await lookAt(path, look);
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
