import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Puts an object into a state folder as the directory store keeps it: from the manifest `file`, or applied by a command. */
export function storeObject(
  state: string,
  { kind, name, namespace }: { kind: string; name: string; namespace: string | undefined },
  { file, status }: { file?: string; status?: object } = {},
): void {
  const metadata = {
    name,
    namespace,
    uid: 'u',
    generation: 1,
    resourceVersion: '1',
    creationTimestamp: '2026-01-01T00:00:00Z',
  };
  const record = {
    format: 1,
    ...(file === undefined ? { origin: 'applied' } : { origin: 'manifest', file }),
    annotations: {},
    overlay: {},
    object: { apiVersion: 'imageproxy.dev/v1beta1', kind, metadata, spec: {}, status },
  };
  mkdirSync(join(state, 'objects'), { recursive: true });
  writeFileSync(join(state, 'objects', `${kind}_${namespace ?? ''}_${name}.json`), JSON.stringify(record));
}
