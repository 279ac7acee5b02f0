import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ManifestObject } from '../stores/directory/manifest.ts';
import type { ConfigMap, Secret } from '../stores/store.ts';

export interface CredentialsFolder {
  path: string;
  remove(): Promise<void>;
}

/**
 * A folder of manifests with nothing but the given Secrets and ConfigMaps, for controllers of our own: the store keeps no Secret,
 * it reads them from manifests. Readable by its owner alone, and removed at the end.
 */
export async function credentialsFolder(
  state: string,
  credentials: readonly ManifestObject[],
): Promise<CredentialsFolder | undefined> {
  if (credentials.length === 0) return undefined;
  const path = await mkdtemp(join(state, 'credentials-'));
  await Promise.all(
    credentials.map(async ({ key, annotations, labels, content }, index) => {
      const { kind, data } = content as Pick<Secret, 'kind' | 'data'> | Pick<ConfigMap, 'kind' | 'data'>;
      const encoded = Object.entries<Uint8Array | string>(data).map(([name, value]) => [
        name,
        typeof value === 'string' ? value : Buffer.from(value).toString('base64'),
      ]);
      const object = {
        apiVersion: 'v1',
        kind,
        metadata: { ...key, annotations, labels },
        data: Object.fromEntries(encoded),
      };
      await writeFile(join(path, `${index}.json`), JSON.stringify(object), { mode: 0o600 });
    }),
  );
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}
