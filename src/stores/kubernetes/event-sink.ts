import { ApiError } from '../../runtime/api-error.ts';
import type { EventSink } from '../../runtime/events.ts';
import { type ApiClient, PATCH } from './client.ts';

/** Where an EventRecorder's events go. */
export function eventSink(client: ApiClient, fieldOwner: string): EventSink {
  const path = (namespace: string): string =>
    `/apis/events.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/events`;
  const query = { fieldManager: fieldOwner };
  return {
    async create(event) {
      await client.request({ method: 'POST', path: path(event.metadata.namespace), query, body: event });
    },
    async count(namespace, name, series) {
      try {
        await client.request({
          method: 'PATCH',
          path: `${path(namespace)}/${encodeURIComponent(name)}`,
          query,
          contentType: PATCH.merge,
          body: { series },
        });
        return true;
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) return false;
        throw error;
      }
    },
  };
}
