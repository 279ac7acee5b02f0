import { API_KINDS } from '../api/crds.ts';
import type { ApiObject } from '../api/types.ts';
import type { Store } from '../stores/store.ts';
import type { Readiness } from '../telemetry/readiness.ts';

/** What the condition Ready of every object of ours says. */
export function* readinessOf(store: Pick<Store, 'list'>): Generator<Readiness> {
  for (const kind of API_KINDS) {
    for (const { metadata, status } of store.list<ApiObject>(kind)) {
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
