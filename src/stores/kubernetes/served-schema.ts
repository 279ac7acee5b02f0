import type { Structural } from '../../api/crds.ts';
import type { Schemas } from '../../api/schema.ts';
import { API_VERSION, GROUP, VERSION } from '../../api/types.ts';
import { ApiError } from '../../runtime/api-error.ts';
import type { ApiClient } from './client.ts';

/** What the API server publishes of a kind, as far as it matters here. */
interface Published {
  'x-kubernetes-group-version-kind'?: readonly { group: string; version: string; kind: string }[];
  properties?: Readonly<Record<string, Published>>;
  items?: Published;
  additionalProperties?: Published | boolean;
  enum?: readonly unknown[];
}

/**
 * What this program knows of our kinds and the cluster does not: `VMImage spec.source.torrent`. Empty where its CRDs are as new as
 * the program, or newer (fields are only added), and where it does not tell. The published schema is compared, which everybody may
 * read, and not an annotation of the CRDs, which is another right, and a number that somebody has to remember to raise.
 */
export async function unknownToCluster(client: ApiClient, schemas: Schemas): Promise<string[]> {
  const published = await publishedSchemas(client);
  if (published === undefined) return [];
  return schemas.kinds.flatMap((kind) => {
    const theirs = published.find(({ 'x-kubernetes-group-version-kind': kinds = [] }) =>
      kinds.some((each) => each.group === GROUP && each.version === VERSION && each.kind === kind),
    );
    // A kind that is not there at all: the list says so, with the cure.
    if (theirs === undefined) return [];
    const found: string[] = [];
    compare(schemas.crd(kind).schema, theirs, '', found);
    return found.map((path) => `${kind} ${path}`);
  });
}

async function publishedSchemas(client: ApiClient): Promise<readonly Published[] | undefined> {
  try {
    const { components } = await client.request<{ components?: { schemas?: Record<string, Published> } }>({
      method: 'GET',
      path: `/openapi/v3/apis/${API_VERSION}`,
    });
    return Object.values(components?.schemas ?? {});
  } catch (error) {
    // Not published (yet), or closed to us: no reason to refuse work.
    if (error instanceof ApiError && [403, 404].includes(error.status)) return undefined;
    throw error;
  }
}

/** Fields and enum values of ours that are not among theirs; of a field that is missing only itself. */
function compare(ours: Structural, theirs: Published, path: string, found: string[]): void {
  for (const [name, node] of Object.entries(ours.properties ?? {})) {
    if (path === '' && !OURS.includes(name)) continue;
    const at = path === '' ? name : `${path}.${name}`;
    const known = theirs.properties?.[name];
    if (known === undefined) found.push(at);
    else compare(node, known, at, found);
  }
  if (ours.items !== undefined && theirs.items !== undefined) compare(ours.items, theirs.items, `${path}[]`, found);
  const [values, known] = [ours.additionalProperties, theirs.additionalProperties];
  if (typeof values === 'object' && typeof known === 'object') compare(values, known, `${path}.*`, found);
  const added = (ours.enum ?? []).filter((value) => theirs.enum !== undefined && !theirs.enum.includes(value));
  if (added.length > 0) found.push(`${path}: ${added.join(', ')}`);
}

/** What a CRD's schema says nothing of is Kubernetes' own. */
const OURS = ['spec', 'status'];
