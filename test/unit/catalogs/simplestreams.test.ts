import { describe, expect, it } from 'vitest';
import { readCatalog } from '../../../src/catalogs/index.ts';
import { one, read, refusal, request, SHA256, skipped } from './reading.ts';

const ROOT = 'https://cloud.example.org/releases/';
const INDEX = `${ROOT}streams/v1/index.json`;
const PRODUCTS = `${ROOT}streams/v1/org.example:released:download.json`;
const NAME = 'org.example:server:24.04:amd64';

const disk = { ftype: 'disk1.img', path: 'server/noble/x-amd64.img', sha256: SHA256, md5: 'e'.repeat(32), size: 12345 };
const product = {
  aliases: '24.04,noble,lts',
  arch: 'amd64',
  os: 'ubuntu',
  release: 'noble',
  release_title: '24.04 LTS',
  version: '24.04',
  versions: {
    '20240423': { label: 'release', pubname: 'x-20240423', items: { 'disk1.img': { ...disk, path: 'old.img' } } },
    '20240423.10': { label: 'release', pubname: 'x-20240423.10', items: { 'disk1.img': disk } },
    '20240423.9': { items: { 'disk1.img': { ...disk, path: 'older.img' } } },
  },
};
const products = (of: unknown, changes: object = {}) =>
  JSON.stringify({
    content_id: 'org.example:released:download',
    datatype: 'image-downloads',
    format: 'products:1.0',
    updated: 'Thu, 20 Nov 2026 10:10:10 +0000',
    products: of,
    ...changes,
  });
const index = (of: object, changes: object = {}) =>
  JSON.stringify({ format: 'index:1.0', updated: 'Thu, 20 Nov 2026 10:10:11 +0000', index: of, ...changes });
const part = (path = 'streams/v1/org.example:released:download.json') => ({
  datatype: 'image-downloads',
  format: 'products:1.0',
  path,
  products: [NAME],
});
const items = (...of: (readonly [string, object])[]) => ({
  [NAME]: { ...product, versions: { 1: { items: Object.fromEntries(of) } } },
});

describe('a simplestreams index', () => {
  it('is read with its products: of each the newest version with a disk', async () => {
    const documents = { [INDEX]: index({ a: part() }), [PRODUCTS]: products({ [NAME]: product }) };
    const catalog = await readCatalog('Simplestreams', request(INDEX, { documents }));
    expect(catalog).toEqual({
      list: {
        format: 'Simplestreams',
        createdAt: '2026-11-20T10:10:11Z',
        digest: expect.stringMatching(/^sha256:/),
      },
      entries: [
        {
          id: NAME,
          version: '20240423.10',
          title: 'ubuntu 24.04 LTS amd64',
          urls: [`${ROOT}server/noble/x-amd64.img`],
          checksums: { sha256: SHA256, md5: 'e'.repeat(32) },
          contentChecksums: {},
          size: 12345,
          arch: 'x86_64',
          os: { distro: 'ubuntu', version: '24.04' },
          fields: expect.objectContaining({
            release: 'noble',
            aliases: '24.04,noble,lts',
            label: 'release',
            ftype: 'disk1.img',
          }),
        },
      ],
      skipped: [],
      warnings: [],
    });
  });

  it('changes its digest when products change, though the index does not', async () => {
    const digest = async (of: unknown) => {
      const documents = { [INDEX]: index({ a: part() }), [PRODUCTS]: products(of) };
      return (await readCatalog('Simplestreams', request(INDEX, { documents }))).list.digest;
    };
    expect(await digest({})).not.toBe(await digest({ [NAME]: product }));
    expect(await digest({})).toBe(await digest({}));
  });

  it('is followed to downloads only', async () => {
    const documents = {
      [INDEX]: index({
        a: { ...part('streams/v1/aws.json'), datatype: 'image-ids' },
        b: { ...part('streams/v1/other.json'), format: 'other:1.0' },
        c: part(),
      }),
      [PRODUCTS]: products({}),
    };
    const made = request(INDEX, { documents });
    expect((await readCatalog('Simplestreams', made)).entries).toEqual([]);
    expect(made.asked).toEqual([INDEX, PRODUCTS]);
  });

  it.each([
    ['https://h/a/b/streams/v1/index.json', 'https://h/a/b/x.json'],
    ['https://h/streams/v1/index.json?token=1', 'https://h/x.json'],
    ['https://h/lists/index.json', 'https://h/lists/x.json'],
    ['https://me:pw@h:8443/a/streams/v1/index.json', 'https://h:8443/a/x.json'],
  ])('at %s has paths that are relative to the folder of streams/', async (url, expected) => {
    const documents = { [url]: index({ a: part('x.json') }), [expected]: products({}) };
    const made = request(url, { documents });
    await readCatalog('Simplestreams', made);
    expect(made.asked).toEqual([url, expected]);
  });

  it.each([
    '../other/x.json',
    'streams/../../x.json',
    '/etc/x.json',
    '//evil.example.org/x.json',
    'https://evil.example.org/x.json',
    'streams\\..\\..\\x.json',
    '%2e%2e/x.json',
    '%2E%2e/x.json',
    'a/./x.json',
    'a/',
    '',
    'a\u0000b',
  ])('that refers to %j is refused, and nothing there is asked for', async (path) => {
    const made = request(INDEX, { documents: { [INDEX]: index({ a: part(path) }) } });
    expect(await refusal(readCatalog('Simplestreams', made))).toMatch(/^InvalidList: the list cannot be read: index: /);
    expect(made.asked).toEqual([INDEX]);
  });

  it('may have a path whose name begins like a scheme', async () => {
    const documents = { [INDEX]: index({ a: part('https:x.json') }), [`${ROOT}https:x.json`]: products({}) };
    expect(await readCatalog('Simplestreams', request(INDEX, { documents }))).toMatchObject({ entries: [] });
  });

  it.each([
    ['is no JSON', 'x', /^InvalidList: .* it is not JSON/],
    [
      'is of another format',
      JSON.stringify({ format: 'index:2.0' }),
      'InvalidList: the list cannot be read: its format is index:2.0: index:1.0 and products:1.0 are known',
    ],
    ['has no format', '{}', /^InvalidList: .*format/],
    [
      'has no index',
      JSON.stringify({ format: 'index:1.0' }),
      'InvalidList: the list cannot be read: its index is missing or no object',
    ],
    ['has a part without path', index({ a: {} }), 'InvalidList: the list cannot be read: index a: path is missing'],
    ['has a part that is none', index({ a: 1 }), /^InvalidList: the list cannot be read: index a: /],
    [
      'has a key twice',
      index({ a: part() }).replace('"path"', '"path":"x","path"'),
      'InvalidList: the list cannot be read: it has the key path twice in one object',
    ],
    [
      'refers to more than 64 documents',
      index(Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`p${i}`, part(`${i}.json`)]))),
      'InvalidList: the list cannot be read: it refers to 65 documents, of at most 64',
    ],
    ['is from the future', index({}, { updated: 'Sun, 22 Nov 2026 00:00:00 +0000' }), /^ListFromFuture: /],
  ])('that %s is refused', async (_, document, expected) => {
    expect(await refusal(read('Simplestreams', document, INDEX))).toMatch(expected);
  });

  it.each([
    [
      'older than the index says, is refused',
      'Thu, 20 Nov 2026 10:10:11 +0000',
      `SourceChanged: ${PRODUCTS} is of 2026-11-20T10:10:10Z, but the index speaks of one of 2026-11-20T10:10:11Z: the mirror is being updated, or serves old documents`,
    ],
    ['as old as the index says, is taken', 'Thu, 20 Nov 2026 10:10:10 +0000', 'accepted'],
    ['newer than the index says, is taken', 'Thu, 19 Nov 2026 10:10:10 +0000', 'accepted'],
  ])('beside a products document that is %s', async (_, updated, expected) => {
    const documents = { [INDEX]: index({ a: { ...part(), updated } }), [PRODUCTS]: products({}) };
    expect(await refusal(readCatalog('Simplestreams', request(INDEX, { documents })))).toContain(expected);
  });

  it('beside a products document without a date is refused, if it says one', async () => {
    const undated = { [PRODUCTS]: products({}, { updated: undefined }) };
    const updated = 'Thu, 20 Nov 2026 10:10:11 +0000';
    const reading = (changes: object) =>
      readCatalog(
        'Simplestreams',
        request(INDEX, { documents: { [INDEX]: index({ a: { ...part(), ...changes } }), ...undated } }),
      );
    expect(await refusal(reading({ updated }))).toMatch(
      /^SourceChanged: .* does not say when it was updated, but the index/,
    );
    expect(await refusal(reading({}))).toContain('accepted');
  });

  it('that refers to an index is refused', async () => {
    const documents = { [INDEX]: index({ a: part() }), [PRODUCTS]: index({}) };
    expect(await refusal(readCatalog('Simplestreams', request(INDEX, { documents })))).toBe(
      'InvalidList: the list cannot be read: its index refers to another index',
    );
  });

  it('that refers to a document that is not there says which', async () => {
    expect(
      await refusal(readCatalog('Simplestreams', request(INDEX, { documents: { [INDEX]: index({ a: part() }) } }))),
    ).toBe(`NotFound: ${PRODUCTS} answered 404`);
  });
});

describe('products of simplestreams', () => {
  it('can be subscribed to by themselves, and have an identity', async () => {
    const { list, entries } = await read('Simplestreams', products({ [NAME]: product }), PRODUCTS);
    expect(list).toMatchObject({ identity: 'org.example:released:download', createdAt: '2026-11-20T10:10:10Z' });
    expect(entries[0]?.urls).toEqual([`${ROOT}server/noble/x-amd64.img`]);
  });

  it.each([
    [
      'disk1.img before its variants',
      [
        ['uefi1.img', { ...disk, ftype: 'uefi1.img', path: 'u.img' }],
        ['disk1.img', { ...disk, path: 'd.img' }],
      ],
      'd.img',
    ],
    [
      'a disk by its ftype',
      [
        ['root', { ...disk, ftype: 'root.tar.xz', path: 'r' }],
        ['anything', { ...disk, path: 'd.img' }],
      ],
      'd.img',
    ],
    [
      "LXD's disk",
      [
        ['lxd.tar.xz', { ftype: 'lxd.tar.xz', path: 'm' }],
        ['root.squashfs', { ftype: 'squashfs', path: 's' }],
        ['disk.qcow2', { ...disk, ftype: 'disk-kvm.img', path: 'd.qcow2' }],
      ],
      'd.qcow2',
    ],
    [
      'what there is',
      [
        ['vmdk', { ...disk, ftype: 'vmdk', path: 'd.vmdk' }],
        ['ova', { ...disk, ftype: 'ova', path: 'd.ova' }],
      ],
      'd.vmdk',
    ],
  ] as const)('give %s', async (_, of, path) => {
    expect((await one(read('Simplestreams', products(items(...of)), PRODUCTS))).urls).toEqual([ROOT + path]);
  });

  it('without any disk are left out, and counted', async () => {
    const container = {
      versions: { 1: { items: { 'root.tar.xz': { ftype: 'root.tar.xz', path: 'r', sha256: SHA256 } } } },
    };
    expect(
      await read('Simplestreams', products({ a: container, b: { versions: {} }, c: {}, [NAME]: product }), PRODUCTS),
    ).toMatchObject({
      entries: [{ id: NAME }],
      skipped: [],
      warnings: ['products without a disk image, which are left out: 3'],
    });
  });

  it('fall back to the newest version that has a disk, not to an older one when that disk is broken', async () => {
    const versions = { ...product.versions, '20250101': { items: {} } };
    const found = await one(read('Simplestreams', products({ [NAME]: { ...product, versions } }), PRODUCTS));
    expect(found.version).toBe('20240423.10');
    const broken = { ...versions, '20250102': { items: { 'disk1.img': { ...disk, sha256: 'x' } } } };
    expect(await skipped(read('Simplestreams', products({ [NAME]: { ...product, versions: broken } }), PRODUCTS))).toBe(
      `${NAME} InvalidEntry: version 20250102: sha256 must be a sha256 digest in hex, not "x"`,
    );
  });

  it.each([
    ['has no checksum', { sha256: undefined, md5: undefined }, 'InvalidEntry: version 1 has no sha256 for its disk'],
    ['has no path', { path: undefined }, 'InvalidEntry: version 1: path is missing'],
    ['has a size in words', { size: 'large' }, 'InvalidEntry: version 1: size must be a number of bytes, not "large"'],
    [
      'leaves the root',
      { path: '../../etc/passwd' },
      'InvalidEntry: "../../etc/passwd" is not the path of a file below the list\'s folder',
    ],
    ['is elsewhere', { path: 'https://evil/x.img' }, /InvalidEntry: "https:\/\/evil\/x\.img" is not the path/],
  ])('whose disk %s are skipped', async (_, changes, expected) => {
    expect(
      await skipped(read('Simplestreams', products(items(['disk1.img', { ...disk, ...changes }])), PRODUCTS)),
    ).toMatch(expected);
  });

  it('are skipped, and the others are taken, when one is no object or has a key twice', async () => {
    const text = products({ a: 1, b: product, [NAME]: product }).replace(
      '"arch":"amd64"',
      '"arch":"arm64","arch":"amd64"',
    );
    const reading = read('Simplestreams', text, PRODUCTS);
    expect(await skipped(reading)).toBe(
      'a InvalidEntry: it is no object\nb InvalidEntry: it has a key twice, and which is meant cannot be told',
    );
    expect((await reading).entries.map(({ id }) => id)).toEqual([NAME]);
  });

  it('are skipped when their name is there twice', async () => {
    const text = products({ a: product, [NAME]: product }).replace('"a":', `"${NAME}":`);
    expect(await skipped(read('Simplestreams', text, PRODUCTS))).toContain(`${NAME} InvalidEntry: it has a key twice`);
  });

  it('that two documents of an index have are taken from neither', async () => {
    const documents = {
      [INDEX]: index({ a: part('a.json'), b: part('b.json') }),
      [`${ROOT}a.json`]: products({ [NAME]: product }),
      [`${ROOT}b.json`]: products({ [NAME]: product }),
    };
    expect(await skipped(readCatalog('Simplestreams', request(INDEX, { documents })))).toMatch(/DuplicateEntry/);
  });

  it('are refused when the document has them not, or has two', async () => {
    expect(await refusal(read('Simplestreams', products(1), PRODUCTS))).toContain(
      'its products are missing or no object',
    );
    const twice = products({}).replace('"products":', '"products":{},"products":');
    expect(await refusal(read('Simplestreams', twice, PRODUCTS))).toContain(
      'it has the key products twice in one object',
    );
  });
});
