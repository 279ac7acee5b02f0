import { API_KINDS } from '../api/crds.ts';
import type { ApiObject } from '../api/types.ts';
import type { Duties } from '../reconcilers/duties.ts';
import type { Store } from '../stores/store.ts';
import type { Readiness } from '../telemetry/readiness.ts';

/**
 * What the condition Ready of every object says that is this controller's to tell of: of several on an API server each tells of its
 * own sites, and the one that summarizes of the rest, so that nobody is woken as often as there are controllers.
 */
export function* readinessOf(
  store: Pick<Store, 'list'>,
  duties: Pick<Duties, 'summarizes' | 'serves'>,
): Generator<Readiness> {
  for (const kind of API_KINDS) {
    for (const object of store.list<ApiObject>(kind)) {
      const { name } = object.metadata;
      if (!(kind === 'ImageSite' ? duties.serves(name) : duties.summarizes)) continue;
      const ready = object.status.conditions?.find(({ type }) => type === 'Ready');
      yield {
        kind,
        name,
        ready: ready?.status ?? 'Unknown',
        reason: isSuspended(object) ? 'Suspended' : (ready?.reason ?? ''),
      };
    }
  }
}

/** Images and subscriptions keep the conditions that they had when they were suspended; those must not wake anybody until they are resumed. */
function isSuspended({ metadata, spec }: ApiObject): boolean {
  return spec.suspend && metadata.deletionTimestamp === undefined;
}
