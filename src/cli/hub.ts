import { ALONE, type Duties, sharedDuties } from '../reconcilers/duties.ts';
import { matchesSelector } from '../reconcilers/vmimage/targets.ts';
import type { Standing } from '../runtime/candidacy.ts';
import type { Store } from '../stores/store.ts';
import type { LabelSelector } from './label-selector.ts';

/** This controller's part, where several share an API server. */
export interface Hub {
  /** Labels of the ImageSites that it serves. */
  siteSelector: LabelSelector;
  /** Its holder writes what all rows together say, and ends finalizers. */
  summary: Pick<Standing, 'goodForMs' | 'onChange'>;
}

/** What of the common work is this controller's: all of it, where there is no hub. */
export function dutiesOf(hub: Hub | undefined, store: Store): Duties {
  if (hub === undefined) return ALONE;
  const { siteSelector, summary } = hub;
  return sharedDuties(
    store,
    (labels) => matchesSelector(labels, siteSelector),
    () => summary.goodForMs(0),
  );
}
