import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { stringify } from 'yaml';
import { parseDocument } from '../../../src/catalogs/imageproxy/document.ts';
import { one, read, refusal, SHA256, SHA512, skipped } from './reading.ts';

const HEAD = `apiVersion: imageproxy.dev/v1beta1
kind: ImageList
metadata:
  id: physics-images
  title: Images of the physics group
  version: "2026.11.20"
  createdAt: 2026-11-20T10:00:00Z
  expiresAt: 2026-12-20T10:00:00Z
`;
const IMAGE = `  - id: debian-13
    version: "20261118"
    title: Debian 13
    urls: [https://images.example.org/debian-13.qcow2]
    checksums: { sha512: ${SHA512} }
`;
const list = (images = IMAGE) => `${HEAD}images:\n${images}`;
const FULL = `${IMAGE}    description: The group's Debian
    contentChecksums: { sha256: ${SHA256} }
    size: 468647936
    format: Qcow2
    compression: None
    arch: amd64
    os: { name: Linux, distro: Debian, version: "13" }
    minRamMiB: 512
    minDiskGiB: 10
    createdAt: 2026-11-18T09:00:00+01:00
    expiresAt: 2027-11-18T00:00:00Z
    deprecated: use debian-14
    fields: { vo: physics, build: 17 }
`;

describe("ImageProxy's own list", () => {
  it('is read with all that it says', async () => {
    expect(await read('ImageProxy', list(FULL))).toEqual({
      list: {
        format: 'ImageProxy',
        identity: 'physics-images',
        title: 'Images of the physics group',
        version: '2026.11.20',
        digest: expect.stringMatching(/^sha256:/),
        createdAt: '2026-11-20T10:00:00Z',
        expiresAt: '2026-12-20T10:00:00Z',
      },
      entries: [
        {
          id: 'debian-13',
          version: '20261118',
          title: 'Debian 13',
          description: "The group's Debian",
          urls: ['https://images.example.org/debian-13.qcow2'],
          checksums: { sha512: SHA512 },
          contentChecksums: { sha256: SHA256 },
          size: 468647936,
          format: 'Qcow2',
          compression: 'None',
          arch: 'x86_64',
          os: { name: 'Linux', distro: 'debian', version: '13' },
          minRamMiB: 512,
          minDiskGiB: 10,
          createdAt: '2026-11-18T08:00:00Z',
          expiresAt: '2027-11-18T00:00:00Z',
          deprecated: 'use debian-14',
          fields: expect.objectContaining({ vo: 'physics', build: '17', id: 'debian-13' }),
        },
      ],
      skipped: [],
      warnings: [],
    });
  });

  it('may be empty, without end, and JSON', async () => {
    expect(await read('ImageProxy', `${HEAD.replace(/ {2}expiresAt.*\n/, '')}images: []\n`)).toMatchObject({
      entries: [],
    });
    const json = {
      apiVersion: 'imageproxy.dev/v1beta1',
      kind: 'ImageList',
      metadata: { id: 'x', version: '1', createdAt: '2026-01-01T00:00:00Z' },
    };
    const image = { id: 'a', urls: ['https://h/a'], checksums: { sha256: SHA256 } };
    expect(await one(read('ImageProxy', JSON.stringify({ ...json, images: [image] })))).toMatchObject({ id: 'a' });
  });

  it('warns of fields that it does not know', async () => {
    const reading = read('ImageProxy', list(`${IMAGE}    cheksums: {}\n`));
    expect((await reading).warnings).toEqual(['images have the unknown field cheksums, which is ignored']);
    expect((await reading).entries).toHaveLength(1);
  });

  it.each([
    [
      'is something else',
      'apiVersion: v1\nkind: ConfigMap\n',
      'InvalidList: the list cannot be read: it must begin with apiVersion: imageproxy.dev/v1beta1 and kind: ImageList',
    ],
    ['is empty', '', 'InvalidList: the list cannot be read: it is empty'],
    ['is a text', 'hello', 'InvalidList: the list cannot be read: it is no map'],
    [
      'has no metadata',
      'apiVersion: imageproxy.dev/v1beta1\nkind: ImageList\nimages: []',
      'InvalidList: the list cannot be read: metadata: id is missing; version is missing; createdAt is missing',
    ],
    [
      'has an unquoted version',
      list().replace('"2026.11.20"', '24.10'),
      'InvalidList: the list cannot be read: metadata: version must be text: put it in quotation marks',
    ],
    [
      'has a date without time',
      list().replace('2026-12-20T10:00:00Z', '2026-12-20'),
      'InvalidList: the list cannot be read: metadata: expiresAt must be a date like 2026-01-31T12:00:00Z, not "2026-12-20"',
    ],
    [
      'has no images',
      HEAD,
      'InvalidList: the list cannot be read: images is missing or no list; images: [] is an empty one',
    ],
    ['is expired', list().replace('2026-12-20T10', '2026-11-20T10'), /^ListExpired: /],
    ['is from the future', list().replace('2026-11-20T10:00:00Z', '2026-11-22T10:00:00Z'), /^ListFromFuture: /],
    [
      'has a key twice',
      list().replace('  title:', '  title: Other\n  title:'),
      'InvalidList: the list cannot be read: it has the key title twice in one object, and which is meant cannot be told',
    ],
    ['is no YAML', `${HEAD}images: [`, /^InvalidList: the list cannot be read: it is not YAML: line \d+: /],
    [
      'has two documents',
      `${list()}---\n${list()}`,
      'InvalidList: the list cannot be read: it holds several YAML documents: give one',
    ],
    ['has an alias', `${HEAD}x: &a [1]\nimages: *a`, /^InvalidList: the list cannot be read: it has an a(lias|nchor)/],
    [
      'has a merge key',
      `${HEAD}x: &a {b: 1}\nimages:\n  - <<: *a`,
      /^InvalidList: the list cannot be read: it has an a(lias|nchor)/,
    ],
    ['has a tag', `${HEAD}images: !!js/function 'x'`, /^InvalidList: /],
    [
      'has a tag of YAML itself',
      `${HEAD}images: !!set {a, b}`,
      /^InvalidList: the list cannot be read: it has an anchor/,
    ],
    [
      'has dates of YAML 1.1',
      `%YAML 1.1\n---\n${list()}`,
      /^InvalidList: the list cannot be read: metadata: createdAt must be a date, not/,
    ],
    [
      'is nested too deep',
      `${HEAD}images: ${'['.repeat(100)}${']'.repeat(100)}`,
      'InvalidList: the list cannot be read: it is nested more than 32 deep',
    ],
    [
      'has a key that is no text',
      `${HEAD}images: []\n? [a]\n: b`,
      'InvalidList: the list cannot be read: it has a key that is no text',
    ],
  ])('that %s is refused', async (_, document, expected) => {
    expect(await refusal(read('ImageProxy', document))).toMatch(expected);
  });

  it('with a bomb of aliases is refused at once', async () => {
    const levels = Array.from(
      { length: 30 },
      (_, i) =>
        `a${i}: &a${i} [${Array(9)
          .fill(i === 0 ? 'x' : `*a${i - 1}`)
          .join(', ')}]`,
    );
    expect(await refusal(read('ImageProxy', `${HEAD}${levels.join('\n')}\nimages: []`))).toContain('InvalidList');
  });

  it.each([
    ['without id', IMAGE.replace('  - id: debian-13', '  - name: debian-13'), '#1 InvalidEntry: id is missing'],
    [
      'with a number for an id',
      IMAGE.replace('id: debian-13', 'id: 13'),
      '13 InvalidEntry: id must be text in quotation marks, not 13',
    ],
    [
      'with a number for a version',
      IMAGE.replace('"20261118"', '24.10'),
      'debian-13 InvalidEntry: version must be text: put it in quotation marks',
    ],
    ['without URLs', IMAGE.replace(/ {4}urls.*\n/, ''), 'debian-13 InvalidEntry: urls is missing'],
    ['with no URL', IMAGE.replace(/\[https.*\]/, '[]'), 'debian-13 InvalidEntry: urls must have one URL at least'],
    [
      'with one URL for a list',
      IMAGE.replace(/\[(https.*)\]/, '$1'),
      'debian-13 InvalidEntry: urls must be a list of URLs',
    ],
    [
      'with a URL of another scheme',
      IMAGE.replace('https:', 'ftp:'),
      'debian-13 InvalidEntry: urls.0 must be an http or https URL: ftp: cannot be fetched',
    ],
    [
      'without checksums',
      IMAGE.replace(/ {4}checksums.*\n/, ''),
      'debian-13 InvalidEntry: checksums is missing: give sha256 or sha512 of the file',
    ],
    [
      'with no checksum',
      IMAGE.replace(/\{ sha512.*\}/, '{}'),
      'debian-13 InvalidEntry: checksums is missing: give sha256 or sha512 of the file',
    ],
    [
      'with a checksum that is none',
      IMAGE.replace(SHA512, 'abc'),
      'debian-13 InvalidEntry: checksums.sha512 must be a sha512 digest in hex, not "abc"',
    ],
    [
      'with a checksum of another kind',
      IMAGE.replace('sha512', 'sha384'),
      /debian-13 InvalidEntry: checksums .*sha384/,
    ],
    [
      'with a format of another name',
      `${IMAGE}    format: qcow2\n`,
      'debian-13 InvalidEntry: format must be one of Raw, Qcow2, Vmdk, Vdi, Vhd, Vhdx, Ova',
    ],
    [
      'with a compression of another name',
      `${IMAGE}    compression: gz\n`,
      'debian-13 InvalidEntry: compression must be one of None, Gzip, Bzip2, Xz, Zstd',
    ],
    [
      'with memory in words',
      `${IMAGE}    minRamMiB: 1 GiB\n`,
      'debian-13 InvalidEntry: minRamMiB must be a number of MiB, not "1 GiB"',
    ],
    [
      'with a key twice',
      `${IMAGE}    title: Other\n`,
      'debian-13 InvalidEntry: it has the key title twice, and which is meant cannot be told',
    ],
    ['that is a text', '  - debian\n', '#1 InvalidEntry: it is no map'],
  ])('goes on without an image %s', async (_, image, expected) => {
    const reading = read('ImageProxy', list(`${image}${IMAGE.replace('debian-13', 'good')}`));
    expect(await skipped(reading)).toMatch(expected);
    expect((await reading).entries.map(({ id }) => id)).toEqual(['good']);
  });

  test('reads what a YAML library writes', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 4 }), { minKeys: 1 }), (any) => {
        // Without what JSON cannot say: YAML has a zero below zero.
        const value: unknown = JSON.parse(JSON.stringify(any));
        const text = stringify(value, { aliasDuplicateObjects: false });
        expect(parseDocument(text)).toEqual({ value, repeated: [] });
      }),
    );
  });

  it('takes keys of JavaScript for keys', async () => {
    const entry = await one(
      read(
        'ImageProxy',
        list(`${IMAGE}    fields: { __proto__: x, constructor: y }\n    __proto__: { polluted: true }\n`),
      ),
    );
    expect(entry.fields['constructor']).toBe('y');
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });
});
