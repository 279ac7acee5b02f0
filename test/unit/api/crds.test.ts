import { isDeepStrictEqual } from 'node:util';
import { describe, expect, it } from 'vitest';
import { COMPRESSIONS, FORMATS } from '../../../src/images/format.ts';
import { API_KINDS, readCrd, type Structural } from '../../../src/api/crds.ts';
import { MESSAGE_LIMIT } from '../../../src/api/conditions.ts';

interface Node {
  path: string;
  schema: Structural;
}

function nodes(schema: Structural, path: string): Node[] {
  const below = Object.entries(schema.properties ?? {}).flatMap(([name, each]) => nodes(each, `${path}.${name}`));
  const { items, additionalProperties } = schema;
  return [
    { path, schema },
    ...below,
    ...(items === undefined ? [] : nodes(items, `${path}[]`)),
    ...(additionalProperties === undefined ? [] : nodes(additionalProperties, `${path}{}`)),
  ];
}

const all = API_KINDS.flatMap((kind) => nodes(readCrd(kind).schema, kind));
const at = (path: string): Structural => {
  const node = all.find((each) => each.path === path);
  if (node === undefined) throw new Error(`no field ${path}`);
  return node.schema;
};
const pathsWhere = (wrong: (node: Node) => boolean): string[] => all.filter(wrong).map(({ path }) => path);

describe('the CRDs', () => {
  it('bound every string, list and map, for the cost of CEL and the memory of whoever reads them', () => {
    expect(
      pathsWhere(
        ({ schema }) =>
          (schema.type === 'string' && schema.enum === undefined && schema.maxLength === undefined) ||
          (schema.type === 'array' && schema.maxItems === undefined) ||
          (schema.additionalProperties !== undefined && schema.maxProperties === undefined),
      ),
    ).toEqual([]);
  });

  it('bound every number from below', () => {
    expect(pathsWhere(({ schema }) => schema.type === 'integer' && schema.minimum === undefined)).toEqual([]);
  });

  it('say of every list how it is merged', () => {
    expect(
      pathsWhere(({ schema }) => schema.type === 'array' && schema['x-kubernetes-list-type'] === undefined),
    ).toEqual([]);
  });

  it('describe every field, and end every description', () => {
    const undescribed = pathsWhere(
      ({ path, schema }) =>
        !path.endsWith('.metadata') && !/(\[\]|\{\})$/.test(path) && !/[.…]$/.test(schema.description ?? ''),
    );
    expect(undescribed).toEqual([]);
  });

  it('say the default in the description of every field that has one', () => {
    const silent = pathsWhere(
      ({ path, schema }) =>
        schema.default !== undefined &&
        schema.type !== 'object' &&
        schema.type !== 'array' &&
        !path.includes('.status.') &&
        !schema.description?.includes(`Default: ${JSON.stringify(schema.default).replaceAll('"', '')}`),
    );
    expect(silent).toEqual([]);
  });

  it('close no enum in status but that of a condition', () => {
    expect(pathsWhere(({ path, schema }) => path.includes('.status') && schema.enum !== undefined)).toEqual(
      API_KINDS.map((kind) => `${kind}.status.conditions[].status`),
    );
  });

  it('write enums in CamelCase', () => {
    expect(
      pathsWhere(({ schema }) => schema.enum?.some((each) => !/^[A-Z][A-Za-z0-9]*$/.test(String(each))) ?? false),
    ).toEqual([]);
  });

  it('give every rule a message that does not repeat the expression', () => {
    const rules = all.flatMap(({ schema }) => schema['x-kubernetes-validations'] ?? []);
    expect(rules.filter(({ message }) => message === undefined || /\bself\.|has\(|\n/.test(message))).toEqual([]);
    expect(new Set(rules.flatMap(Object.keys))).toEqual(new Set(['rule', 'message', 'fieldPath']));
  });

  it('spell formats and compressions as the code does', () => {
    expect(at('VMImage.spec.format').enum).toEqual(['Auto', ...FORMATS]);
    expect(at('VMImage.spec.compression').enum).toEqual(['Auto', ...COMPRESSIONS]);
    expect(at('ImageSite.spec.acceptedFormats[]').enum).toEqual([...FORMATS]);
  });

  it('take the messages that the code writes', () => {
    expect(at('VMImage.status.sites[].message').maxLength).toBe(MESSAGE_LIMIT);
    expect(at('VMImage.status.failure.message').maxLength).toBe(MESSAGE_LIMIT);
  });

  it('use one schema for what several kinds have', () => {
    const same = (a: string, b: string): boolean => isDeepStrictEqual(schemaOf(a), schemaOf(b));
    const schemaOf = (path: string): unknown => ({ ...at(path), description: undefined });
    expect(same('VMImage.spec.siteSelector', 'ImageSubscription.spec.template.spec.siteSelector')).toBe(true);
    expect(same('VMImage.spec.sites', 'ImageSubscription.spec.template.spec.sites')).toBe(true);
    expect(same('VMImage.spec.sites[].registration', 'ImageSubscription.spec.template.spec.registration')).toBe(true);
    expect(same('VMImage.spec.source.http.caRef', 'ImageSubscription.spec.caRef')).toBe(true);
    for (const field of ['history', 'onExpiry', 'deletionPolicy']) {
      expect(same(`VMImage.spec.${field}`, `ImageSubscription.spec.template.spec.${field}`)).toBe(true);
    }
    for (const kind of ['ImageSite', 'ImageSubscription']) {
      expect(at(`${kind}.status.conditions[]`)).toEqual(at('VMImage.status.conditions[]'));
    }
    const overrides = Object.keys(at('VMImage.spec.sites[].registration').properties ?? {});
    expect(overrides).toEqual(Object.keys(at('VMImage.spec.registration').properties ?? {}));
  });

  it('fit into the annotation that kubectl apply writes', () => {
    for (const kind of API_KINDS) expect(JSON.stringify(readCrd(kind).schema).length).toBeLessThan(200_000);
  });
});
