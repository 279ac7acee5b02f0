import { API_VERSION, GROUP, VERSION } from '../../api/types.ts';
import type { Kind, ObjectKey } from '../store.ts';

/** How the API server calls a kind. */
export interface ResourceType {
  kind: Kind;
  apiVersion: string;
  /** `/apis/imageproxy.dev/v1beta1`, or `/api/v1`. */
  root: string;
  plural: string;
  namespaced: boolean;
  /**
   * Only its metadata is watched: a Secret's values are read when they are needed, and kept nowhere. (RBAC knows no verb for
   * metadata alone, so `list` and `watch` are needed all the same; what this saves is memory, and values lying about in it.)
   */
  metadataOnly: boolean;
}

const ours = (kind: Kind, plural: string, namespaced: boolean): ResourceType => ({
  kind,
  apiVersion: API_VERSION,
  root: `/apis/${GROUP}/${VERSION}`,
  plural,
  namespaced,
  metadataOnly: false,
});
const core = (kind: Kind, plural: string): ResourceType => ({
  kind,
  apiVersion: 'v1',
  root: '/api/v1',
  plural,
  namespaced: true,
  metadataOnly: true,
});

export const RESOURCES: Readonly<Record<Kind, ResourceType>> = {
  VMImage: ours('VMImage', 'vmimages', true),
  ImageSubscription: ours('ImageSubscription', 'imagesubscriptions', true),
  ImageSite: ours('ImageSite', 'imagesites', false),
  Secret: core('Secret', 'secrets'),
  ConfigMap: core('ConfigMap', 'configmaps'),
};

/** Where all objects of a kind are, or those of one namespace. */
export function collectionPath({ root, plural }: ResourceType, namespace?: string): string {
  return namespace === undefined
    ? `${root}/${plural}`
    : `${root}/namespaces/${encodeURIComponent(namespace)}/${plural}`;
}

/** Where one object is. A namespaced kind without a namespace means `default`, as kubectl has it. */
export function objectPath(type: ResourceType, { namespace, name }: ObjectKey): string {
  const home = type.namespaced ? (namespace ?? 'default') : undefined;
  return `${collectionPath(type, home)}/${encodeURIComponent(name)}`;
}

/** The key as the copy has it. */
export function fullKey(type: ResourceType, { namespace, name }: ObjectKey): ObjectKey {
  return type.namespaced ? { namespace: namespace ?? 'default', name } : { name };
}
