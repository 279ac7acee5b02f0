import { describe, expect, it } from 'vitest';
import { loadSchemas } from '../../../../src/api/schema.ts';
import { ApiError } from '../../../../src/runtime/api-error.ts';
import type { ApiClient, ApiRequest } from '../../../../src/stores/kubernetes/client.ts';
import { preflight } from '../../../../src/stores/kubernetes/preflight.ts';

const schemas = loadSchemas();
const SCOPE = { controllerNamespace: 'imageproxy' };
const TASKS = { leases: [{ namespace: 'imageproxy', name: 'east' }], sites: [] };

type Node = { properties?: Record<string, Node>; items?: Node; enum?: unknown[] };

/** What the API server publishes of our own CRDs, changed by the test. */
function published(change: (kinds: Record<string, Node>) => void = () => undefined): object {
  const kinds = Object.fromEntries(
    schemas.kinds.map((kind) => [kind, structuredClone(schemas.crd(kind).schema) as Node]),
  );
  change(kinds);
  const components = Object.entries(kinds).map(([kind, schema]) => [
    `dev.imageproxy.v1beta1.${kind}`,
    { ...schema, 'x-kubernetes-group-version-kind': [{ group: 'imageproxy.dev', version: 'v1beta1', kind }] },
  ]);
  return { components: { schemas: Object.fromEntries(components) as object } };
}

function at(node: Node | undefined, ...path: string[]): Node {
  const found = path.reduce<Node | undefined>(
    (each, name) => (name === '[]' ? each?.items : each?.properties?.[name]),
    node,
  );
  if (found === undefined) throw new Error(`no ${path.join('.')}`);
  return found;
}

/** An API server that publishes this, and grants what `may` says. */
function server(
  openapi: () => object,
  may: (asked: Record<string, string | undefined>) => boolean = () => true,
): { client: ApiClient; asked: Record<string, string | undefined>[] } {
  const asked: Record<string, string | undefined>[] = [];
  const request = async ({ path, body }: ApiRequest) => {
    if (path.startsWith('/openapi')) return openapi();
    const { resourceAttributes } = (body as { spec: { resourceAttributes: Record<string, string | undefined> } }).spec;
    asked.push(resourceAttributes);
    return { status: { allowed: may(resourceAttributes) } };
  };
  return { client: { request } as unknown as ApiClient, asked };
}

describe('What a cluster lacks', () => {
  it('is nothing where its CRDs are ours', async () => {
    const { client } = server(() => published());
    await expect(preflight(client, schemas, SCOPE, TASKS)).resolves.toBeUndefined();
  });

  it('is nothing where its CRDs have more than ours', async () => {
    const newer = published(({ VMImage }) => {
      const spec = at(VMImage, 'spec');
      spec.properties = { ...spec.properties, tomorrow: {} };
    });
    await expect(preflight(server(() => newer).client, schemas, SCOPE, TASKS)).resolves.toBeUndefined();
  });

  it('is told by the fields and values that are missing, each once, with the cure', async () => {
    const older = published(({ VMImage, ImageSite }) => {
      delete at(VMImage, 'spec', 'source').properties?.['http'];
      delete at(VMImage, 'status', 'sites', '[]').properties?.['operation'];
      const policy = at(ImageSite, 'spec', 'drift', 'policy');
      policy.enum = policy.enum?.filter((value) => value !== 'Report') ?? [];
    });
    await expect(preflight(server(() => older).client, schemas, SCOPE, TASKS)).rejects.toMatchObject({
      reason: 'NotSupported',
      message: expect.stringMatching(
        /needs VMImage spec\.source\.http, VMImage status\.sites\[\]\.operation, ImageSite spec\.drift\.policy: Report: upgrade .*helm upgrade.*kubectl apply/,
      ),
    });
  });

  it('is not looked for where the server publishes nothing', async () => {
    const { client } = server(() => {
      throw new ApiError(404, '', 'Not Found');
    });
    await expect(preflight(client, schemas, SCOPE, TASKS)).resolves.toBeUndefined();
  });

  it('is asked for by verb, resource, name and place: where all namespaces are looked at, once for all', async () => {
    const { client, asked } = server(() => published());
    await preflight(client, schemas, SCOPE, TASKS);
    const words = asked.map(({ verb, resource, subresource, name, namespace }) =>
      [verb, subresource === undefined ? resource : `${resource}/${subresource}`, name ?? '*', namespace ?? '*'].join(
        ' ',
      ),
    );
    expect(new Set(words).size).toBe(words.length);
    expect(words).toEqual(
      expect.arrayContaining([
        'list vmimages * *',
        'patch vmimages/status * *',
        'watch secrets * *',
        'patch imagesites/status * *',
        'create leases * imageproxy',
        'update leases east imageproxy',
      ]),
    );
    const narrow = server(() => published());
    await preflight(narrow.client, schemas, { ...SCOPE, namespaces: ['a', 'b'] }, TASKS);
    const places = (resource: string) => [
      ...new Set(narrow.asked.filter((each) => each['resource'] === resource).map(({ namespace }) => namespace ?? '*')),
    ];
    expect(places('vmimages')).toEqual(['a', 'b']);
    expect(places('secrets')).toEqual(['a', 'b', 'imageproxy']);
    expect(places('imagesites')).toEqual(['*']);
    expect(places('events')).toEqual(['a', 'b', 'default']);
  });

  it('is told as verbs of a resource in a place, and cut where it grows long', async () => {
    const { client } = server(
      () => published(),
      ({ resource, verb }) => resource !== 'secrets' || verb === 'get',
    );
    await expect(preflight(client, schemas, { ...SCOPE, namespaces: ['a'] }, TASKS)).rejects.toMatchObject({
      reason: 'Forbidden',
      message: expect.stringMatching(
        /may not: list, watch secrets in namespace a; list, watch secrets in namespace imageproxy\. Grant/,
      ),
    });
    const all = server(
      () => published(),
      () => false,
    );
    const namespaces = Array.from({ length: 50 }, (_, n) => `n${n}`);
    const failure = (await preflight(all.client, schemas, { ...SCOPE, namespaces }, TASKS).catch(
      (error: unknown) => error,
    )) as Error;
    expect(failure.message).toMatch(/and \d+ more/);
    expect(failure.message.length).toBeLessThan(2_000);
  });
});
