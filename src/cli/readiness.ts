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
    for (const { metadata, status } of store.list<ApiObject>(kind)) {
      if (!(kind === 'ImageSite' ? duties.serves(metadata.name) : duties.summarizes)) continue;
      const ready = status.conditions?.find(({ type }) => type === 'Ready');
      yield {
        kind,
        name: metadata.name,
        ready: ready?.status ?? 'Unknown',
        reason: ready?.reason ?? '',
      };
    }
  }
}
