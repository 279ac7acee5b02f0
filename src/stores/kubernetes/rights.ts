import type { ApiClient } from './client.ts';
import type { ObjectKey } from '../store.ts';
import { RESOURCES, type ResourceType } from './resources.ts';

/** One thing that this program does at the API server, as RBAC names it. */
interface Right {
  verb: string;
  group: string;
  resource: string;
  subresource?: string;
  name?: string;
  /** Absent: in the whole cluster. */
  namespace?: string;
}

/** How many questions are under way at a time: fifty namespaces are hundreds of them. */
const SIDE_BY_SIDE = 8;
/** A message that names more is read by nobody. */
const NAMED = 16;

const WATCHED = ['get', 'list', 'watch'];
const LEASES = 'coordination.k8s.io';

export interface RightsScope {
  /** Only these are looked at; absent: all. */
  namespaces?: readonly string[];
  controllerNamespace: string;
}

/** What a controller does beside looking after what people write. */
export interface Tasks {
  /** Leases that it takes. */
  leases: readonly Required<ObjectKey>[];
  /** Names of ImageSites that it makes. */
  sites: readonly string[];
}

/** All that a controller does, and what its roles must grant therefore. */
export function rightsOf({ namespaces, controllerNamespace }: RightsScope, { leases, sites }: Tasks): Right[] {
  const everywhere: readonly (string | undefined)[] = namespaces ?? [undefined];
  const withOwn = namespaces === undefined ? everywhere : [...new Set([...namespaces, controllerNamespace])];
  const withDefault = namespaces === undefined ? everywhere : [...new Set([...namespaces, 'default'])];
  const { VMImage, ImageSubscription, ImageSite, Secret, ConfigMap } = RESOURCES;
  return [
    ...[VMImage, ImageSubscription].flatMap((type) => everywhere.flatMap((namespace) => kept(type, namespace))),
    // Subscriptions make VMImages, and take away what is theirs.
    ...everywhere.flatMap((namespace) => rights(VMImage, ['create', 'delete'], namespace)),
    ...kept(ImageSite, undefined),
    ...[Secret, ConfigMap].flatMap((type) => withOwn.flatMap((namespace) => rights(type, WATCHED, namespace))),
    // Events of what has no namespace are in `default`.
    ...withDefault.flatMap((namespace) => plain('events.k8s.io', 'events', ['create', 'patch'], namespace)),
    // Who creates cannot be asked for a name, except by an apply.
    ...leases.flatMap(({ namespace, name }) => [
      ...plain(LEASES, 'leases', ['get', 'update'], namespace).map((right) => ({ ...right, name })),
      ...plain(LEASES, 'leases', ['create'], namespace),
    ]),
    ...sites.flatMap((name) => rights(ImageSite, ['create'], undefined).map((right) => ({ ...right, name }))),
  ];
}

/** A kind that is watched, and whose finalizers and status are written. */
function kept(type: ResourceType, namespace: string | undefined): Right[] {
  return [
    ...rights(type, [...WATCHED, 'patch'], namespace),
    ...rights(type, ['patch'], namespace).map((right) => ({ ...right, subresource: 'status' })),
  ];
}

function rights(
  { apiVersion, plural }: ResourceType,
  verbs: readonly string[],
  namespace: string | undefined,
): Right[] {
  return plain(apiVersion.includes('/') ? (apiVersion.split('/')[0] ?? '') : '', plural, verbs, namespace);
}

function plain(group: string, resource: string, verbs: readonly string[], namespace: string | undefined): Right[] {
  return verbs.map((verb) => ({ verb, group, resource, ...(namespace === undefined ? {} : { namespace }) }));
}

/**
 * Which of these rights we do not have, in words. The API server is asked for each (SelfSubjectAccessReview, which everybody may
 * ask), so that a person is told all of them at once, at the start, and not one after the other as the work comes to them.
 */
export async function missingRights(client: ApiClient, wanted: readonly Right[]): Promise<string[]> {
  const left = [...wanted];
  const missing = new Set<Right>();
  const ask = async (): Promise<void> => {
    for (let right = left.shift(); right !== undefined; right = left.shift()) {
      if (!(await isGranted(client, right))) missing.add(right);
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, ask));
  return inWords(wanted.filter((right) => missing.has(right)));
}

async function isGranted(client: ApiClient, { verb, group, resource, subresource, name, namespace }: Right) {
  const { status } = await client.request<{ status: { allowed: boolean } }>({
    method: 'POST',
    path: '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews',
    body: {
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SelfSubjectAccessReview',
      spec: { resourceAttributes: { verb, group, resource, subresource, name, namespace } },
    },
  });
  return status.allowed;
}

/** `list, watch vmimages.imageproxy.dev in namespace a`: one line for each resource and place. */
function inWords(missing: readonly Right[]): string[] {
  const verbs = new Map<string, string[]>();
  for (const { verb, group, resource, subresource, name, namespace } of missing) {
    const what = `${resource}${group === '' ? '' : `.${group}`}${subresource === undefined ? '' : `/${subresource}`}`;
    const where = namespace === undefined ? 'in the whole cluster' : `in namespace ${namespace}`;
    const key = `${what}${name === undefined ? '' : ` ${name}`} ${where}`;
    verbs.set(key, [...(verbs.get(key) ?? []), verb]);
  }
  const lines = [...verbs].map(([key, each]) => `${each.join(', ')} ${key}`);
  return lines.length <= NAMED ? lines : [...lines.slice(0, NAMED), `and ${lines.length - NAMED} more`];
}
