import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { API_KINDS, type Structural } from '../../../src/api/crds.ts';
import { isApiKind, loadSchemas } from '../../../src/api/schema.ts';
import { ruleCases } from './rule-cases.ts';

const schemas = loadSchemas();
const SHA256 = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08';

function image(spec: object, metadata: object = {}): Record<string, unknown> {
  return {
    apiVersion: 'imageproxy.dev/v1beta1',
    kind: 'VMImage',
    metadata: { name: 'noble', ...metadata },
    spec: {
      source: { http: { urls: ['https://example.org/a'] } },
      checksums: { sha256: SHA256 },
      sites: [{ name: 'a' }],
      ...spec,
    },
  };
}

function errorsOf(spec: object, metadata: object = {}): string[] {
  return schemas.validate('VMImage', image(spec, metadata)).errors.map(({ path, message }) => `${path}: ${message}`);
}

describe('defaults and pruning', () => {
  it('fills in every default, also within the objects that it fills in, and says that nobody has looked yet', () => {
    const { object } = schemas.validate('VMImage', image({}));
    expect(object).toEqual({
      apiVersion: 'imageproxy.dev/v1beta1',
      kind: 'VMImage',
      metadata: { name: 'noble', namespace: 'default' },
      spec: {
        source: { http: { urls: ['https://example.org/a'] } },
        checksums: { sha256: SHA256 },
        sites: [{ name: 'a', optional: false }],
        compression: 'Auto',
        format: 'Auto',
        verification: { allowWeak: false, insecureSkipVerify: false },
        registration: { visibility: 'Private', protected: false, hidden: false },
        state: 'Active',
        onExpiry: 'Deactivate',
        deletionPolicy: 'Delete',
        history: 1,
        suspend: false,
      },
      status: { observedGeneration: -1 },
    });
  });

  it('does not fill in what a site overrides', () => {
    const { object } = schemas.validate('VMImage', image({ sites: [{ name: 'a', registration: { name: 'b' } }] }));
    expect(object).toHaveProperty('spec.sites', [{ name: 'a', optional: false, registration: { name: 'b' } }]);
  });

  it('prunes unknown fields with a warning that names the one that was probably meant', () => {
    const verdict = schemas.validate(
      'VMImage',
      image({ deletion_policy: 'Retain', suspended: true, zzz: {} }, { x: 1 }),
    );
    expect(verdict.object).not.toHaveProperty('spec.zzz');
    expect(verdict.object).not.toHaveProperty('metadata.x');
    expect(verdict.warnings).toEqual([
      { path: 'metadata.x', message: 'unknown field, it is ignored' },
      { path: 'spec.deletion_policy', message: 'unknown field, it is ignored: did you mean deletionPolicy?' },
      { path: 'spec.suspended', message: 'unknown field, it is ignored' },
      { path: 'spec.zzz', message: 'unknown field, it is ignored' },
    ]);
  });

  it('takes names of JavaScript for names like any other', () => {
    const properties = JSON.parse('{"__proto__": "a", "constructor": "b", "toString": "c"}') as object;
    const { object, errors } = schemas.validate('VMImage', image({ registration: { properties }, hasOwnProperty: 1 }));
    expect(errors).toEqual([]);
    const spec = object?.['spec'] as { registration: { properties: object }; hasOwnProperty: unknown };
    expect(Object.entries(spec.registration.properties)).toEqual(Object.entries(properties));
    expect(Object.hasOwn(spec, 'hasOwnProperty')).toBe(false);
  });

  it('changes neither the input nor the object before', () => {
    const [input, old] = [image({ suspend: true }), image({})];
    const before = structuredClone([input, old]);
    schemas.validate('VMImage', input, old);
    expect([input, old]).toEqual(before);
  });
});

describe('messages', () => {
  it.each([
    [
      { format: 'qcow2' },
      'spec.format: must be one of Auto, Raw, Qcow2, Vmdk, Vdi, Vhd, Vhdx, Ova, Iso, not "qcow2"; did you mean Qcow2?',
    ],
    [{ history: 11 }, 'spec.history: must be at most 10, not 11'],
    [{ history: '1' }, 'spec.history: must be an integer, not "1"'],
    [{ history: 1.5 }, 'spec.history: must be an integer, not 1.5'],
    [{ suspend: 'yes' }, 'spec.suspend: must be true or false, not "yes"'],
    [
      { registration: { os: { version: 24.1 } } },
      'spec.registration.os.version: must be a string, not 24.1: put it in quotes',
    ],
    [{ registration: 'a' }, 'spec.registration: must be an object (field: value), not "a"'],
    [{ sites: { name: 'a' } }, 'spec.sites: must be a list, not an object'],
    [{ sites: ['a'] }, 'spec.sites[0]: must be an object (field: value), not "a"'],
    [{ sites: [null] }, 'spec.sites[0]: must be an object (field: value), not null'],
    [{ sites: [{}] }, 'spec.sites[0].name: is required'],
    [{ sites: [{ name: 'a' }, { name: 'a' }] }, 'spec.sites[1]: name "a" is there already: remove one of the two'],
    [{ guid: '' }, 'spec.guid: must not be empty'],
    [{ guid: 'x'.repeat(254) }, 'spec.guid: must be at most 253 characters long, it has 254'],
    [
      { expiresAt: '2027-02-30T00:00:00Z' },
      'spec.expiresAt: must be a date and time as in 2027-04-30T00:00:00Z (RFC 3339), not "2027-02-30T00:00:00Z"',
    ],
    [
      { registration: { tags: Array.from({ length: 65 }, (_, i) => `t${i}`) } },
      'spec.registration.tags: must have at most 64 entries, it has 65',
    ],
    [{ source: { http: { urls: [] } } }, 'spec.source.http.urls: must have at least 1 entry'],
    [
      { registration: { properties: { a: true } } },
      'spec.registration.properties.a: must be a string, not true: put it in quotes',
    ],
  ])('of %j name the field, the fact and the cure', (spec, message) => {
    expect(errorsOf(spec)).toEqual([message]);
  });

  it('count characters as the API server does, not halves of them', () => {
    expect(errorsOf({ guid: '🐧'.repeat(253) })).toEqual([]);
    expect(errorsOf({ guid: '🐧'.repeat(254) })).toEqual([
      'spec.guid: must be at most 253 characters long, it has 254',
    ]);
  });

  it('of CEL rules wait until the schema is content, as on the API server', () => {
    const wrong = { siteSelector: {}, format: 'qcow2' };
    expect(errorsOf(wrong).map((each) => each.split(':')[0])).toEqual(['spec.format']);
    expect(errorsOf({ siteSelector: {} }).map((each) => each.split(':')[0])).toEqual(['spec.sites']);
  });

  it.each([
    [
      { name: 'Noble' },
      'metadata.name: "Noble" is not a name: at most 253 lower case letters, digits, - and ., e.g. ubuntu-24.04',
    ],
    [{ name: undefined }, 'metadata.name: is required'],
    [{ namespace: 'a.b' }, 'metadata.namespace: "a.b" is not a namespace: at most 63 lower case letters, digits and -'],
    [{ labels: { a: 1 } }, 'metadata.labels: the value of a must be a string, not 1: put it in quotes'],
    [{ labels: [] }, 'metadata.labels: must be an object (key: value), not a list'],
    [{ labels: { a: '-' } }, 'metadata.labels: "-" is no value of the label a: at most 63 letters, digits, -, _ and .'],
    [
      { annotations: { a: 'x'.repeat(300_000) } },
      'metadata.annotations: must be at most 262144 bytes, they are 300001',
    ],
    [{ finalizers: ['a b'] }, 'metadata.finalizers[0]: "a b" is not a name'],
  ])('of the metadata %j name the field, the fact and the cure', (metadata, message) => {
    expect(errorsOf({}, metadata)).toEqual([message]);
  });

  it.each(['/a', 'a/', 'a/b/c', 'a b', '', 'x'.repeat(64), 'Example.org/a'])('refuse the label key %j', (key) => {
    expect(errorsOf({}, { labels: { [key]: 'v' } })).toHaveLength(1);
  });

  it('tell of an object of another kind or version', () => {
    const other = { ...image({}), apiVersion: 'imageproxy.dev/v1', kind: 'Image' };
    expect(schemas.validate('VMImage', other).errors).toEqual([
      { path: 'apiVersion', message: 'must be imageproxy.dev/v1beta1, not "imageproxy.dev/v1"' },
      { path: 'kind', message: 'must be VMImage, not "Image"' },
    ]);
    expect(API_KINDS.filter(isApiKind)).toEqual([...API_KINDS]);
    expect(isApiKind('Image')).toBe(false);
  });
});

describe('updates', () => {
  it('judge transition rules only where there was an object', () => {
    const changed = image({ guid: 'b' });
    expect(schemas.validate('VMImage', changed).errors).toEqual([]);
    expect(schemas.validate('VMImage', changed, image({ guid: 'a' })).errors.map((each) => each.path)).toEqual([
      'spec.guid',
    ]);
  });

  it('find entries of a list again by their keys and not by their places', () => {
    const bad = { name: 'bad', registration: { properties: { owner: 'me' } } };
    const old = image({ sites: [bad] });
    const moved = image({ sites: [{ name: 'a' }, bad] });
    expect(schemas.validate('VMImage', moved, old).errors).toEqual([]);
    const worse = image({ sites: [{ ...bad, registration: { properties: { owner: 'you' } } }] });
    expect(schemas.validate('VMImage', worse, old).errors.map((each) => each.path)).toEqual([
      'spec.sites[0].registration.properties',
    ]);
  });
});

describe('any input', () => {
  it('gets a verdict and no exception', () => {
    fc.assert(
      fc.property(fc.constantFrom(...API_KINDS), fc.jsonValue(), fc.jsonValue(), (kind, junk, spec) => {
        for (const input of [junk, { apiVersion: 'imageproxy.dev/v1beta1', kind, metadata: junk, spec }]) {
          const { object, errors } = schemas.validate(kind, input);
          expect(object === undefined).toBe(errors.length > 0);
        }
      }),
      { numRuns: 300 },
    );
  });

  it.each(API_KINDS)('with a spec like that of %s gets a verdict and no exception', (kind) => {
    fc.assert(
      fc.property(like(kind), (spec) => {
        const { object, errors } = schemas.validate(kind, { ...image({}), kind, spec });
        expect(object === undefined).toBe(errors.length > 0);
      }),
      { numRuns: 60 },
    );
  });

  it('that was accepted is accepted again, unchanged and without a warning, as a creation and as an update of itself', () => {
    const accepted = ruleCases().filter((row) => row.accepted === true && row.old === undefined);
    fc.assert(
      fc.property(fc.constantFrom(...accepted), like('VMImage'), (row, extra) => {
        const spec = { ...(extra as object), ...(row.object['spec'] as object) };
        for (const input of [row.object, { ...row.object, spec }]) {
          const first = schemas.validate(row.kind, input);
          if (first.object === undefined) continue;
          expect(schemas.validate(row.kind, first.object)).toEqual({ ...first, warnings: [] });
          expect(schemas.validate(row.kind, first.object, first.object)).toEqual({ ...first, warnings: [] });
        }
      }),
      { numRuns: 150 },
    );
  });

  /** Specs with the right names and mostly the right types. */
  function like(kind: (typeof API_KINDS)[number]): fc.Arbitrary<unknown> {
    return value(schemas.crd(kind).schema.properties?.['spec'] ?? {});
  }

  function value(node: Structural): fc.Arbitrary<unknown> {
    const usual = sound(node);
    return fc.oneof({ weight: 40, arbitrary: usual }, { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 1 }) });
  }

  function sound(node: Structural): fc.Arbitrary<unknown> {
    if (node.enum !== undefined) return fc.constantFrom(...node.enum);
    if (node.type === 'string') return fc.oneof(fc.constantFrom('a', SHA256, 'https://h/a', '30m', '1Gi'), fc.string());
    if (node.type === 'integer') return fc.integer({ min: -1, max: 12 });
    if (node.type === 'boolean') return fc.boolean();
    if (node.type === 'array') return fc.array(value(node.items ?? {}), { maxLength: 3 });
    if (node.additionalProperties !== undefined)
      return fc.dictionary(fc.string(), value(node.additionalProperties), { maxKeys: 3 });
    const properties = Object.entries(node.properties ?? {}).map(([name, each]) => [name, value(each)] as const);
    return fc.record(Object.fromEntries(properties), { requiredKeys: [] });
  }
});

describe('a broken installation', () => {
  it('is told by the file that is missing or wrong', () => {
    const directory = mkdtempSync(join(tmpdir(), 'crds-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    expect(() => loadSchemas(directory).crd('VMImage')).toThrow(/imageproxy\.dev_vmimages\.yaml/);
    writeFileSync(join(directory, 'imageproxy.dev_vmimages.yaml'), 'spec: { names: { kind: Other }, versions: [] }');
    expect(() => loadSchemas(directory).crd('VMImage')).toThrow('is not the CRD of VMImage: reinstall imageproxy');
  });
});
