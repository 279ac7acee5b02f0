import type { ImageSite, SiteRow, VMImage } from '../../../src/api/types.ts';
import type { Wanted } from '../../../src/reconcilers/vmimage/served.ts';

export const T0 = Date.parse('2026-11-21T12:00:00Z');
export const CREATED = '2026-11-21T11:00:00Z';

interface Parts {
  metadata?: Partial<VMImage['metadata']>;
  spec?: Partial<VMImage['spec']>;
}

/** A VMImage as a store gives it, defaults filled in. */
export function vmimage({ metadata, spec }: Parts = {}, status?: Partial<VMImage['status']>): VMImage {
  return {
    apiVersion: 'imageproxy.dev/v1beta1',
    kind: 'VMImage',
    metadata: {
      name: 'ubuntu',
      namespace: 'default',
      uid: 'uid-ubuntu',
      generation: 1,
      resourceVersion: '1',
      creationTimestamp: CREATED,
      finalizers: ['imageproxy.dev/registrations'],
      ...metadata,
    },
    spec: {
      source: { http: { urls: ['https://origin.example.org/ubuntu.qcow2'] } },
      checksums: { sha256: 'a'.repeat(64) },
      compression: 'Auto',
      format: 'Auto',
      verification: { allowWeak: false, insecureSkipVerify: false },
      registration: { visibility: 'Private', protected: false, hidden: false },
      sites: [{ name: 'nova', optional: false }],
      state: 'Active',
      onExpiry: 'Deactivate',
      deletionPolicy: 'Delete',
      history: 1,
      suspend: false,
      ...spec,
    },
    status: { observedGeneration: -1, ...status },
  };
}

export function imagesite(
  { metadata, spec }: { metadata?: Partial<ImageSite['metadata']>; spec?: Partial<ImageSite['spec']> } = {},
  status?: Partial<ImageSite['status']>,
): ImageSite {
  return {
    apiVersion: 'imageproxy.dev/v1beta1',
    kind: 'ImageSite',
    metadata: {
      name: 'nova',
      uid: 'uid-nova',
      generation: 1,
      resourceVersion: '1',
      creationTimestamp: CREATED,
      ...metadata,
    },
    spec: {
      directory: { path: '/srv/images' },
      allowedNamespaces: ['*'],
      verification: { allowWeak: true, allowUnverified: true },
      maxParallelUploads: 2,
      drift: { interval: '30m', policy: 'Repair' },
      abandoned: false,
      suspend: false,
      ...spec,
    },
    status: {
      observedGeneration: 1,
      identity: 'nova',
      conditions: [
        {
          type: 'Ready',
          status: 'True',
          observedGeneration: 1,
          lastTransitionTime: CREATED,
          reason: 'Ready',
          message: '',
        },
      ],
      ...status,
    },
  };
}

/** A row that serves the image's generation 1. */
export function servingRow(name = 'nova', more: Partial<SiteRow> = {}): SiteRow {
  const digest = `sha256:${'a'.repeat(64)}`;
  return {
    name,
    siteIdentity: name,
    observedGeneration: 1,
    phase: 'Ready',
    imageID: `id-${name}`,
    digest,
    artifacts: [{ role: 'Disk', id: `id-${name}`, digest, sentDigest: digest, format: 'Qcow2', size: 1000 }],
    registeredAt: CREATED,
    lastCheckedTime: CREATED,
    ...more,
  };
}

/** What the row serves is what is wanted, so nobody may ask for bytes. */
export function wantedAs(row: SiteRow): Wanted {
  return {
    plan: {
      parts: [
        {
          role: 'Disk',
          field: 'spec',
          candidates: [],
          scope: 'public',
          declared: { sha256: 'a'.repeat(64) },
          content: {},
          compression: 'Auto',
          format: 'Auto',
          key: 'k',
        },
      ],
      inputsHash: 'i',
    },
    digest: row.digest,
    content: () => Promise.reject(new Error('asked for bytes')),
  };
}
