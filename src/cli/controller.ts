import { join } from 'node:path';
import { Failure } from '../api/failure.ts';
import { loadSchemas, type Schemas } from '../api/schema.ts';
import { API_VERSION, type ImageSubscription, type VMImage } from '../api/types.ts';
import type { Cache } from '../cache/cache.ts';
import { openCache } from '../cache/index.ts';
import { startCatalogReaders } from '../catalogs/thread.ts';
import { openCloud } from '../clouds/index.ts';
import { createControllers, type Controllers } from '../controllers/index.ts';
import type { Images } from '../images/images.ts';
import { createImages } from '../images/index.ts';
import { prepareLoans } from '../programs/runner/loans.ts';
import type { RunnerPlace } from '../programs/runner/protocol.ts';
import type { SiteDeps } from '../reconcilers/imagesite/opened.ts';
import { SiteConnections } from '../reconcilers/imagesite/connections.ts';
import { KeptLists } from '../reconcilers/imagesubscription/lists.ts';
import { startSelections } from '../reconcilers/imagesubscription/selections.ts';
import { Downloads } from '../reconcilers/vmimage/downloads.ts';
import { Looks } from '../reconcilers/vmimage/looks.ts';
import { Pace } from '../reconcilers/vmimage/pace.ts';
import { Siblings } from '../reconcilers/vmimage/siblings.ts';
import type { Settings } from '../reconcilers/settings.ts';
import { type Clock, systemClock } from '../runtime/clock.ts';
import type { Standing } from '../runtime/candidacy.ts';
import { Jobs } from '../runtime/jobs.ts';
import { pause } from '../runtime/pause.ts';
import { type DirectoryStore, type ManifestObject, openDirectoryStore } from '../stores/directory/index.ts';
import type { Store } from '../stores/store.ts';
import type { Logger } from '../telemetry/log.ts';
import type { ListNumbers } from '../telemetry/lists.ts';
import { createMetrics, type Metrics } from '../telemetry/metrics.ts';
import { startTransfers } from '../transfers/index.ts';
import { dutiesOf, type Hub } from './hub.ts';
import { readinessOf } from './readiness.ts';
import { VERSION } from './version.ts';

/** A store that is nobody else's: it says who we are, and is closed with the rest. */
export interface OwnStore extends Store {
  readonly instance: string;
  /** URL of the API server behind it: no source may reach that. */
  readonly server?: string;
  /** Whether it has been started already, by whoever opened it. */
  readonly isStarted?: boolean;
  close(): Promise<void>;
}

export interface ControllerOptions {
  manifests?: string;
  /** Secrets and ConfigMaps that are in no manifest. */
  credentials?: readonly ManifestObject[];
  state: string;
  /** Default: until it is stopped, not for as long as a command takes. */
  passing?: boolean;
  /** Default: `cache` in the state directory. */
  cache?: string;
  cacheQuotaBytes?: number;
  cacheReserveFreeBytes?: number;
  instance?: string;
  /** Where the Secrets of ImageSites live; default `imageproxy`. */
  controllerNamespace?: string;
  allowNetworks: readonly string[];
  fileRoots: ReadonlyMap<string, string>;
  maxParallelDownloads: number;
  /** Runs qemu-img and the decompressors; default: they run as children of this process. */
  toolRunner?: RunnerPlace;
  log: Logger;
  /** Default: of this controller alone. */
  metrics?: Metrics;
  /** The Lease under which clouds and status are written; given back at the end. Default: none is needed. */
  lease?: Standing;
  /** Where several controllers share the API server: which sites are this one's, and the Lease of who summarizes. */
  hub?: Hub;
  /** How long to wait for a cache that somebody else is still leaving, in milliseconds; default: not at all. */
  cachePatienceMs?: number;
  clock?: Clock;
  timeouts?: Settings['timeouts'];
  lossConfirmMs?: number;
}

export interface RunningController<S extends OwnStore = DirectoryStore> {
  readonly store: S;
  readonly metrics: Metrics;
  readonly controllers: Controllers;
  /** Background jobs that run or wait for their turn. */
  readonly jobsRunning: number;
  /** Ends when everything has stopped at a safe point: after the signal, or with the error that stopped it. */
  readonly done: Promise<void>;
}

const DEFAULT_TIMEOUTS = { connectMs: 15_000, headersMs: 60_000, stallMs: 60_000 };
const TiB = 2 ** 40;
const CACHE_LOOK_MS = 1000;
const SCRUB_INTERVAL_MS = 10 * 60_000;

/**
 * Puts the program together and starts it: store, cache, transfers, controllers. One signal ends it, from top to bottom; what is
 * begun then stays on the disk, and the next start goes on from there.
 * @throws Failure when the state or the cache cannot be taken
 */
export async function startController(options: ControllerOptions, signal: AbortSignal): Promise<RunningController> {
  const { log, clock = systemClock } = options;
  const schemas = loadSchemas();
  const store = await openDirectoryStore({
    state: options.state,
    ...(options.passing === undefined ? {} : { passing: options.passing }),
    ...(options.manifests === undefined ? {} : { manifests: options.manifests }),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    ...(options.instance === undefined ? {} : { instance: options.instance }),
    validate: (kind, input, old) => schemas.validate(kind, input, old),
    now: () => clock.now(),
    timers: globalThis,
    log,
  });
  const running = await startControllerOn(store, options, signal);
  warmUp(schemas);
  return running;
}

/** The same on a store that is open already, and closed with the controller. */
export async function startControllerOn<S extends OwnStore>(
  store: S,
  options: ControllerOptions,
  signal: AbortSignal,
): Promise<RunningController<S>> {
  const { log, clock = systemClock } = options;
  const { metrics = createMetrics({ version: VERSION }), lease } = options;
  const transfers = startTransfers({ log });
  const catalogs = startCatalogReaders({ log });
  const selections = startSelections({ log, signal });
  // The Lease goes back when nothing of ours is at work any more, and while the API server can still be told.
  const closing: (() => Promise<void>)[] = [
    () => transfers.close(),
    () => catalogs.close(),
    () => selections.close(),
    async () => lease?.withdraw(),
    () => store.close(),
  ];
  try {
    const directory = options.cache ?? join(options.state, 'cache');
    const open = () =>
      openCache({
        directory,
        ...(options.cacheQuotaBytes === undefined ? {} : { quotaBytes: options.cacheQuotaBytes }),
        ...(options.cacheReserveFreeBytes === undefined ? {} : { reserveFreeBytes: options.cacheReserveFreeBytes }),
        now: () => clock.now(),
        log,
      });
    const cache = await patiently(open, options.cachePatienceMs ?? 0, clock, log, signal);
    closing.unshift(() => cache.close());
    const { toolRunner } = options;
    if (toolRunner !== undefined) await prepareLoans(toolRunner.files, cache.scratch('.loan'));
    const images = createImages({
      scratchDirectory: join(directory, 'scratch'),
      ...(toolRunner === undefined ? {} : { runner: toolRunner }),
      log,
    });
    await tellMissingTools(images, log);
    const jobs = new Jobs((asker, urgency) => controllers.wakeAsker(asker, urgency));
    closing.unshift(() => jobs.close());
    const siblings = new Siblings(store.instance);
    // Before any controller hears of a change.
    store.subscribe<VMImage>('VMImage', (change) => siblings.note(change));
    const deps: SiteDeps = {
      store,
      cache,
      transfers,
      images,
      jobs,
      downloads: new Downloads({ cache, transfers, images, clock, log, metrics }),
      sites: new SiteConnections(),
      siblings,
      looks: new Looks(clock.now()),
      pace: new Pace(),
      catalogs,
      selections,
      lists: new KeptLists(join(options.state, 'lists')),
      clock,
      log,
      metrics,
      duties: dutiesOf(options.hub, store),
      authority: { goodForMs: (ms) => !signal.aborted && (lease?.goodForMs(ms) ?? true) },
      wake: (kind, key) => controllers.wake(kind, key),
      openCloud,
      settings: {
        instance: store.instance,
        controllerNamespace: options.controllerNamespace ?? 'imageproxy',
        network: { allow: options.allowNetworks, ...(store.server === undefined ? {} : { closed: [store.server] }) },
        fileRoots: options.fileRoots,
        maxParallelDownloads: options.maxParallelDownloads,
        maxImageBytes: TiB,
        lossConfirmMs: options.lossConfirmMs ?? 30_000,
        timeouts: options.timeouts ?? DEFAULT_TIMEOUTS,
      },
    };
    metrics.watchCache(() => cache.stats());
    metrics.watchJobs(() => jobs.running);
    metrics.watchImages(() => (deps.duties.summarizes ? phasesOf(store.list<VMImage>('VMImage')) : new Map()));
    metrics.watchReadiness(() => readinessOf(store, deps.duties));
    metrics.watchLists(() => listsOf(store.list<ImageSubscription>('ImageSubscription')));
    if (store.isStarted !== true) await store.start(signal);
    const controllers = createControllers(deps);
    lease?.onChange((holds) => {
      if (holds) controllers.wakeAll();
      // What writes to a cloud ends now, while the Lease cannot be another's yet; downloads go on.
      else {
        jobs.abort((key) => key.startsWith('site/') || key.startsWith('probe/'));
        deps.lists.doubt();
      }
    });
    options.hub?.summary.onChange((holds) => {
      if (!holds) return;
      deps.lists.doubt();
      controllers.wakeAll();
    });
    scrubSlowly(cache, clock, log, signal);
    const run = async () => {
      try {
        await controllers.run(signal);
      } finally {
        await closeAll(closing, log);
      }
    };
    const done = run();
    return {
      store,
      metrics,
      controllers,
      get jobsRunning() {
        return jobs.running;
      },
      done,
    };
  } catch (error) {
    await closeAll(closing, log);
    throw error;
  }
}

/** @throws Failure CacheInUse when it is still another's after that time */
async function patiently(
  open: () => Promise<Cache>,
  patienceMs: number,
  clock: Clock,
  log: Logger,
  signal: AbortSignal,
): Promise<Cache> {
  const end = clock.now() + patienceMs;
  for (;;) {
    try {
      return await open();
    } catch (error) {
      const inUse = error instanceof Failure && error.reason === 'CacheInUse';
      if (!inUse || clock.now() >= end) throw error;
      log.info({ err: error }, `${error.message}; waiting for it`);
      await pause(CACHE_LOOK_MS, clock, signal);
      signal.throwIfAborted();
    }
  }
}

async function tellMissingTools(images: Images, log: Logger): Promise<void> {
  try {
    for (const { tool, package: name } of await images.missingTools()) {
      log.warn({ tool }, `${tool} is not installed: images that need it wait until the package ${name} is there`);
    }
  } catch (error) {
    // The tool runner may start later than this.
    log.warn({ err: error }, 'which tools there are is not known yet');
  }
}

function phasesOf(images: readonly VMImage[]): Map<string, number> {
  const phases = new Map<string, number>();
  for (const image of images) {
    const phase = image.status.phase ?? 'Pending';
    phases.set(phase, (phases.get(phase) ?? 0) + 1);
  }
  return phases;
}

function listsOf(subscriptions: readonly ImageSubscription[]): ListNumbers[] {
  return subscriptions.map(({ metadata, status }) => ({
    subscription: `${metadata.namespace}/${metadata.name}`,
    readAt: dateOf(status.lastCheckedTime),
    expiresAt: dateOf(status.list?.expiresAt),
    entries: Object.entries(status.counts ?? {}),
  }));
}

/** Milliseconds since the epoch. */
function dateOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Date.parse(text);
}

/** Loads the rules' language while nobody waits: the first image that a user writes is otherwise the one that pays for it. */
function warmUp(schemas: Schemas): void {
  const source = { http: { urls: ['https://example.org/disk.raw'] } };
  const spec = { source, checksums: { sha256: '0'.repeat(64) }, sites: [] };
  setImmediate(() =>
    schemas.validate('VMImage', { apiVersion: API_VERSION, kind: 'VMImage', metadata: { name: 'warm-up' }, spec }),
  );
}

/** One blob at a time, with pauses: a disk that rots is found before the image on it is needed. */
function scrubSlowly(cache: Cache, clock: Clock, log: Logger, signal: AbortSignal): void {
  clock.after(SCRUB_INTERVAL_MS, () => {
    if (signal.aborted) return;
    cache
      .scrubNext(signal)
      .catch((error: unknown) => log.warn({ err: error }, 'a blob could not be looked at again'))
      .finally(() => scrubSlowly(cache, clock, log, signal));
  });
}

/** In order, each even if the one before failed: a lock that is not given back would keep the next start out. */
async function closeAll(closing: readonly (() => Promise<void>)[], log: Logger): Promise<void> {
  for (const close of closing) {
    await close().catch((error: unknown) => log.error({ err: error }, 'something did not close cleanly'));
  }
}
