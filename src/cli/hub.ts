import { ALONE, type Duties, sharedDuties } from '../reconcilers/duties.ts';
import { matchesSelector } from '../reconcilers/vmimage/targets.ts';
import type { Candidacy, Standing } from '../runtime/candidacy.ts';
import type { Store } from '../stores/store.ts';
import type { LabelSelector } from './label-selector.ts';

/** This controller's part, where several share an API server. */
export interface Hub {
  /** Labels of the ImageSites that it serves. */
  siteSelector: LabelSelector;
  /** Its holder writes what all rows together say, and ends finalizers. */
  summary: Candidacy;
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

/** Who may not write at all shall not keep the others from summarizing. `gained`: it is ours to summarize from now on. */
export function standWith(lease: Standing, summary: Candidacy, gained: () => void): void {
  const follow = (holds: boolean): void => {
    if (holds) summary.stand();
    else void summary.withdraw();
  };
  lease.onChange(follow);
  follow(lease.goodForMs(0));
  summary.onChange((holds) => {
    if (holds) gained();
  });
}
