import { ApiError } from '../../runtime/api-error.ts';
import type { Lease, LeaseClient } from '../../runtime/lease.ts';
import type { ApiClient } from './client.ts';

/** One Lease of a namespace; it needs not be there. */
export function leaseClient(client: ApiClient, namespace: string, name: string): LeaseClient {
  const collection = `/apis/coordination.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/leases`;
  const path = `${collection}/${encodeURIComponent(name)}`;
  const kind = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' };
  return {
    async read(signal) {
      try {
        return await client.request<Lease>({ method: 'GET', path, signal });
      } catch (error) {
        if (error instanceof ApiError && error.status === 404 && error.reason === 'NotFound') return undefined;
        throw error;
      }
    },
    create: (spec, signal, annotations = {}) =>
      client.request({
        method: 'POST',
        path: collection,
        signal,
        body: { ...kind, metadata: { name, namespace, annotations }, spec },
      }),
    // The resourceVersion in the metadata makes the server refuse it when it is another version by now.
    update: (lease, spec, signal) =>
      client.request({ method: 'PUT', path, signal, body: { ...kind, metadata: lease.metadata, spec } }),
  };
}
