import type { ImageSite, SiteRow, VMImageStatus } from '../api/types.ts';
import type { StatusShare, Store } from '../stores/store.ts';
import type { Claims } from './imagesite/claims.ts';

/** What of the work on the objects of one API server is this controller's: all of it, where it is alone there. */
export interface Duties {
  /** Whether other controllers may serve other sites of the same objects. */
  readonly shared: boolean;
  /** Whether what all rows together say (phase, conditions, summary, the finalizer's end) is this controller's to write. */
  readonly summarizes: boolean;
  /** Whether this controller looks after the site: its cloud, its ImageSite's status, its row in each image. */
  serves(site: string): boolean;
  /** Whose each site is; undefined where nobody else can serve any. */
  readonly claims: Claims | undefined;
  /** What of an image's status is this controller's to write; undefined: all of it. */
  readonly share: StatusShare | undefined;
  /**
   * What this controller remembers of an image by `namespace/name`, where the place for it in the status is another's: its own
   * downloads' failure and its own artifacts.
   */
  readonly remembered: Map<string, Remembered>;
}

export interface Remembered extends Pick<VMImageStatus, 'failure' | 'artifacts'> {
  uid: string;
}

/** Nobody else: a directory, or one controller for a cluster. */
export const ALONE: Duties = {
  shared: false,
  summarizes: true,
  serves: () => true,
  claims: undefined,
  share: undefined,
  remembered: new Map(),
};

/**
 * One of several controllers on an API server. A site belongs to the controller whose selector matches its labels; one that is
 * missing, or abandoned for good, has no controller to be expected, so what is left of it in the rows falls to the one that summarizes.
 */
export function sharedDuties(store: Pick<Store, 'get'>, claims: Claims, summarizes: () => boolean): Duties {
  const serves = (name: string): boolean => {
    const site = store.get<ImageSite>('ImageSite', { name });
    if (site === undefined || site.spec.abandoned) return summarizes();
    return claims.isOurs(site);
  };
  return {
    shared: true,
    get summarizes() {
      return summarizes();
    },
    serves,
    claims,
    get share(): StatusShare {
      return { rows: 'sites', isOurs: serves, rest: summarizes() };
    },
    remembered: new Map(),
  };
}

/** The rows of an image's status that are this controller's, and those that are not. */
export function divided(rows: readonly SiteRow[], { serves }: Duties): { ours: SiteRow[]; others: SiteRow[] } {
  return { ours: rows.filter(({ name }) => serves(name)), others: rows.filter(({ name }) => !serves(name)) };
}
