import type { OpenStack } from '../support/openstack.ts';

/** An OpenStack site, as its admin applies it: the Secret with a clouds.yaml, and the ImageSite that refers to it. */
export async function openstackSite(name: string, namespace: string, cloud: OpenStack): Promise<object[]> {
  return [await openstackSecret(name, namespace, cloud), { ...SITE, metadata: { name }, spec: openstackSpec(name) }];
}

const SITE = { apiVersion: 'imageproxy.dev/v1beta1', kind: 'ImageSite' };

export async function openstackSecret(name: string, namespace: string, cloud: OpenStack): Promise<object> {
  const stringData = { 'clouds.yaml': await cloud.clouds('demo') };
  return { apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace }, stringData };
}

export function openstackSpec(secret: string): object {
  return { openstack: { secretRef: { name: secret }, cloud: 'demo', region: 'RegionOne' } };
}

/** What a user applies: an image from there, for these sites. */
export function vmimage(name: string, url: string, sha256: string, sites: readonly string[]): object {
  return {
    apiVersion: 'imageproxy.dev/v1beta1',
    kind: 'VMImage',
    metadata: { name, namespace: 'default' },
    spec: {
      source: { http: { urls: [url] } },
      checksums: { sha256 },
      registration: { name: `${name}-by-user`, visibility: 'Private' },
      sites: sites.map((site) => ({ name: site })),
    },
  };
}

export interface Glance {
  status: number;
  body: { status?: string; name?: string; os_hash_value?: string; created_at?: string; images?: { id: string }[] };
}

/** What the cloud itself says of an image; of all of the project's without an id. */
export async function inGlance(cloud: OpenStack, id = ''): Promise<Glance> {
  return (await cloud.image('demo', 'GET', id === '' ? '/images' : `/images/${id}`)) as Glance;
}
