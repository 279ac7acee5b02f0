import type { ImageSite } from '../api/types.ts';
import type { NetworkPolicy } from '../sources/source.ts';
import type { Store } from '../stores/store.ts';
import type { Settings } from './settings.ts';

/**
 * Where a tenant's URL may lead now: what the operator admits, without the sites' own APIs. They are read from the sites' status, so
 * those of a site that is in trouble, suspended or another controller's stay closed too, from the first moment after a start.
 */
export function networkOf({ store, settings }: { store: Store; settings: Settings }): NetworkPolicy {
  const { allow, closed = [] } = settings.network;
  const sites = store.list<ImageSite>('ImageSite').flatMap((site) => site.status?.cloud?.endpoints ?? []);
  return { allow, closed: [...new Set([...closed, ...sites])] };
}
