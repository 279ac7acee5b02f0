import type { ImageSite } from '../api/types.ts';
import { ALONE, type Duties, sharedDuties } from '../reconcilers/duties.ts';
import type { Claims } from '../reconcilers/imagesite/claims.ts';
import type { Standing } from '../runtime/candidacy.ts';
import type { Store } from '../stores/store.ts';

/** This controller's part, where several share an API server. */
export interface Hub {
  /** Which ImageSites it serves. */
  claims: Claims;
  /** Its holder writes what all rows together say, and ends finalizers. */
  summary: Pick<Standing, 'goodForMs' | 'onChange'>;
}

/** What of the common work is this controller's: all of it, where there is no hub. */
export function dutiesOf(hub: Hub | undefined, store: Store): Duties {
  if (hub === undefined) return ALONE;
  const { claims, summary } = hub;
  store.subscribe<ImageSite>('ImageSite', (change) => claims.note(change));
  return sharedDuties(store, claims, () => summary.goodForMs(0));
}
