import type { Logger } from 'pino';
import type { Cache } from '../cache/cache.ts';
import type { CatalogReaders } from '../catalogs/thread.ts';
import type { Images } from '../images/images.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Jobs } from '../runtime/jobs.ts';
import type { Store } from '../stores/store.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Transfers } from '../transfers/transfers.ts';
import type { Duties } from './duties.ts';
import type { Settings } from './settings.ts';
import type { SiteConnections } from './imagesite/connections.ts';
import type { KeptLists } from './imagesubscription/lists.ts';
import type { Selections } from './imagesubscription/selections.ts';
import type { Downloads } from './vmimage/downloads.ts';
import type { Looks } from './vmimage/looks.ts';
import type { Pace } from './vmimage/pace.ts';
import type { Siblings } from './vmimage/siblings.ts';

/** What reconcilers work with. Made once, in `cli/run.ts`; a test makes its own. */
export interface Deps {
  store: Store;
  cache: Cache;
  transfers: Transfers;
  images: Images;
  jobs: Jobs;
  downloads: Downloads;
  sites: SiteConnections;
  siblings: Siblings;
  looks: Looks;
  /** How often progress is written. */
  pace: Pace;
  /** Where published lists are read. */
  catalogs: CatalogReaders;
  /** Where it is decided which entries of a list are taken. */
  selections: Selections;
  /** The lists that were accepted. */
  lists: KeptLists;
  clock: Clock;
  log: Logger;
  metrics: Metrics;
  authority: Authority;
  duties: Duties;
  /** Queues an object again. */
  wake(kind: 'VMImage' | 'ImageSite', key: string): void;
  settings: Settings;
}

/** How long the right to write must still last when something is begun or released, in milliseconds. */
export const LEASE_MARGIN_MS = 10_000;

/** The right to write, to clouds and into a status: always there in a directory, a Lease on Kubernetes. */
export interface Authority {
  /** Whether it is certain to be ours for so many milliseconds more. */
  goodForMs(ms: number): boolean;
}
