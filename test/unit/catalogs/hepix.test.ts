import { describe, expect, it } from 'vitest';
import { readRam } from '../../../src/catalogs/hepix/ram.ts';
import { NOW, one, read, refusal, request, SHA256, SHA512, skipped } from './reading.ts';
import { readCatalog } from '../../../src/catalogs/index.ts';

const URL = 'https://lists.example.org/list';

const IMAGE = {
  'dc:identifier': '623b0bc7-abc2-4961-8700-53e358772a96',
  'dc:title': 'Batch node',
  'dc:description': 'A node\u0000 of\n the batch\u202e system',
  'hv:hypervisor': 'QEMU,KVM',
  'hv:size': 404994202,
  'hv:uri': 'https://images.example.org/batch-node-2.7.2-x86_64.hdd.gz',
  'hv:version': '2.7.2-1-2',
  'sl:arch': 'x86_64',
  'sl:checksum:sha512': SHA512,
  'sl:comments': 'Batch Node',
  'sl:os': 'Linux',
  'sl:osversion': 'SL 5.5',
};

const LIST = {
  'dc:date:created': '2026-11-01T10:00:00Z',
  'dc:date:expires': '2026-12-01T10:00:00Z',
  'dc:description': 'Images of the group',
  'dc:identifier': 'e55c1afe-0a62-4d31-a8d7-fb8c825f92a2',
  'dc:source': 'lists.example.org',
  'dc:title': 'The group',
  'hv:endorser': {
    'hv:x509': {
      'dc:creator': 'Alice',
      'hv:ca': '/DC=org/DC=example/CN=Example CA',
      'hv:dn': '/DC=org/DC=example/CN=alice',
      'hv:email': 'alice@example.org',
    },
  },
  'hv:uri': URL,
  'hv:version': '20261101100000',
};

const list = (images: unknown, changes: object = {}) =>
  JSON.stringify({ 'hv:imagelist': { ...LIST, 'hv:images': images, ...changes } });
const image = (changes: object = {}) => [{ 'hv:image': { ...IMAGE, ...changes } }];
const without = <T extends object>(object: T, key: keyof T) =>
  Object.fromEntries(Object.entries(object).filter(([name]) => name !== key));

describe('a HEPiX list', () => {
  it('is read with all that it says', async () => {
    const catalog = await read('HEPiX', list(image()));
    expect(catalog).toEqual({
      list: {
        format: 'HEPiX',
        identity: 'e55c1afe-0a62-4d31-a8d7-fb8c825f92a2',
        title: 'The group',
        version: '20261101100000',
        digest: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
        createdAt: '2026-11-01T10:00:00Z',
        expiresAt: '2026-12-01T10:00:00Z',
      },
      entries: [
        {
          id: '623b0bc7-abc2-4961-8700-53e358772a96',
          version: '2.7.2-1-2',
          title: 'Batch node',
          description: 'A node of the batch system',
          urls: ['https://images.example.org/batch-node-2.7.2-x86_64.hdd.gz'],
          checksums: { sha512: SHA512 },
          contentChecksums: {},
          size: 404994202,
          format: 'Raw',
          compression: 'Gzip',
          arch: 'x86_64',
          os: { name: 'Linux', version: 'SL 5.5' },
          fields: expect.objectContaining({
            'hv:hypervisor': 'QEMU,KVM',
            'hv:size': '404994202',
            'sl:comments': 'Batch Node',
          }),
        },
      ],
      skipped: [],
      warnings: [],
    });
  });

  it('may be empty: that is how a list is retired', async () => {
    expect(await read('HEPiX', list([]))).toMatchObject({ entries: [], skipped: [] });
  });

  it.each([
    ['sizes as strings', { 'hv:size': '404994202' }, { size: 404994202 }],
    ['sizes beyond 2^32', { 'hv:size': '21474836480' }, { size: 21474836480 }],
    ['a version that is a number', { 'hv:version': 3 }, { version: '3' }],
    ['QCOW2', { 'hv:format': 'QCOW2', 'hv:uri': 'http://h/x' }, { format: 'Qcow2' }],
    ['OVA', { 'hv:format': 'OVA', 'hv:uri': 'http://h/x' }, { format: 'Ova' }],
    ['ova', { 'hv:format': 'ova', 'hv:uri': 'http://h/x.ova' }, { format: 'Ova' }],
    ['vdi.gz', { 'hv:format': 'vdi.gz', 'hv:uri': 'http://h/x' }, { format: 'Vdi', compression: 'Gzip' }],
    ['vhd.gz by the URL', { 'hv:uri': 'http://h/x.vhd.gz' }, { format: 'Vhd', compression: 'Gzip' }],
    ['vpc.gz by the URL', { 'hv:uri': 'http://h/x.vpc.gz' }, { format: 'Vhd', compression: 'Gzip' }],
    ['ext3.gz by the URL', { 'hv:uri': 'http://h/x.ext3.gz' }, { format: 'Raw', compression: 'Gzip' }],
    [
      'a format, and a compression by the URL',
      { 'hv:format': 'QCOW2', 'hv:uri': 'http://h/x.qcow2.bz2' },
      { format: 'Qcow2', compression: 'Bzip2' },
    ],
    ['a URL with a query', { 'hv:uri': 'http://h/x.vmdk?token=1.gz' }, { format: 'Vmdk' }],
    ['an architecture of another name', { 'sl:arch': 'amd64' }, { arch: 'x86_64' }],
    ['32 bits', { 'sl:arch': 'x86' }, { arch: 'i686' }],
    ['memory in bytes', { 'hv:ram_minimum': '536870912' }, { minRamMiB: 512 }],
    ['memory in MiB', { 'hv:ram_minimum': '512' }, { minRamMiB: 512 }],
    ['memory in GiB', { 'hv:ram_minimum': '4' }, { minRamMiB: 4096 }],
    [
      'sha256 instead of sha512',
      { 'sl:checksum:sha512': undefined, 'sl:checksum:sha256': SHA256.toUpperCase() },
      { checksums: { sha256: SHA256 } },
    ],
    ['md5 beside it', { 'sl:checksum:md5': 'e'.repeat(32) }, { checksums: { sha512: SHA512, md5: 'e'.repeat(32) } }],
    ['an end of its own', { 'dc:date:expires': '2026-11-30T00:00:00Z' }, { expiresAt: '2026-11-30T00:00:00Z' }],
    [
      "AppDB's distribution",
      { 'sl:osname': 'Ubuntu', 'sl:osversion': '14.04' },
      { os: { name: 'Linux', distro: 'ubuntu', version: '14.04' } },
    ],
    [
      'ports and addresses in the URL',
      { 'hv:uri': ' http://[2001:db8::1]:8080/x.raw ' },
      { urls: ['http://[2001:db8::1]:8080/x.raw'], format: 'Raw' },
    ],
  ])('is read with its dirt: %s', async (_, changes, expected) => {
    expect(await one(read('HEPiX', list(image(changes))))).toMatchObject(expected);
  });

  it('may have null where it says nothing', async () => {
    const nulls = { 'sl:osname': null, 'hv:format': null, 'dc:date:expires': null, 'ad:group': null };
    expect((await one(read('HEPiX', list(image(nulls), { 'dc:title': null })))).fields).not.toHaveProperty('ad:group');
    expect(await skipped(read('HEPiX', list(image({ 'hv:size': null }))))).toContain('hv:size is missing');
  });

  it('whose format and location contradict each other leaves it to the bytes', async () => {
    const entry = await one(read('HEPiX', list(image({ 'hv:format': 'raw.bz2', 'hv:uri': 'http://h/x.qcow2.gz' }))));
    expect(entry).not.toHaveProperty('format');
    expect(entry).not.toHaveProperty('compression');
  });

  it('may lack what only describes', async () => {
    const bare = without(without(without(IMAGE, 'dc:title'), 'dc:description'), 'sl:arch');
    const entry = await one(read('HEPiX', list([{ 'hv:image': bare }])));
    expect(entry).not.toHaveProperty('arch');
    expect(entry).not.toHaveProperty('title');
  });

  it('gives its virtual organisation to each image that names none', async () => {
    const vo = { 'ad:vo': 'some.vo', 'ad:mpuri': 'https://m/list' };
    expect((await one(read('HEPiX', list(image(), vo)))).fields).toMatchObject({ 'ad:vo': 'some.vo' });
    expect((await one(read('HEPiX', list(image({ 'ad:vo': 'its.own' }), vo)))).fields['ad:vo']).toBe('its.own');
    expect((await one(read('HEPiX', list(image(), vo)))).fields).not.toHaveProperty('ad:mpuri');
  });

  it('may have an array of endorsers, no wrapper, images without theirs, and a byte order mark', async () => {
    const catalog = await read(
      'HEPiX',
      `\uFEFF${JSON.stringify({ ...LIST, 'hv:endorser': [LIST['hv:endorser'], LIST['hv:endorser']], 'hv:images': [IMAGE] })}`,
    );
    expect(catalog.entries).toHaveLength(1);
    expect(catalog.warnings).toEqual(['the list has no hv:imagelist around it, as the oldest lists']);
  });

  it('that says it is elsewhere is taken with a warning, which holds no token', async () => {
    const uri = 'https://token:x-oauth-basic@new.example.org/list?key=secret';
    const { warnings } = await read('HEPiX', list([], { 'hv:uri': uri }));
    expect(warnings).toEqual([
      expect.stringMatching(
        /^the list says that it is at https:\/\/new\.example\.org\/list\?…[0-9a-f]{8}, another place/,
      ),
    ]);
    expect((await read('HEPiX', list([], { 'hv:uri': 'http://me:pw@lists.example.org/list' }))).warnings).toEqual([]);
  });
});

describe('a HEPiX list is refused as a whole', () => {
  it.each([
    [
      'without identity',
      list([], { 'dc:identifier': undefined }),
      'InvalidList: the list cannot be read: dc:identifier is missing',
    ],
    [
      'with an empty identity',
      list([], { 'dc:identifier': ' ' }),
      'InvalidList: the list cannot be read: dc:identifier must be an identifier of at most 253 printable characters, not ""',
    ],
    [
      'without version',
      list([], { 'hv:version': undefined }),
      'InvalidList: the list cannot be read: hv:version is missing',
    ],
    [
      'without a date of making',
      list([], { 'dc:date:created': undefined }),
      'InvalidList: the list cannot be read: dc:date:created is missing',
    ],
    [
      'without an end',
      list([], { 'dc:date:expires': undefined }),
      'InvalidList: the list cannot be read: dc:date:expires is missing',
    ],
    [
      'with a date of another form',
      list([], { 'dc:date:expires': '01/12/2026' }),
      'InvalidList: the list cannot be read: dc:date:expires must be a date like 2026-01-31T12:00:00Z, not "01/12/2026"',
    ],
    [
      'with a day that no calendar has',
      list([], { 'dc:date:expires': '2027-02-31T00:00:00Z' }),
      'InvalidList: the list cannot be read: dc:date:expires must be a date like 2026-01-31T12:00:00Z, not "2027-02-31T00:00:00Z"',
    ],
    [
      'expired',
      list([], { 'dc:date:expires': '2026-11-21T11:59:59Z' }),
      'ListExpired: the list expired at 2026-11-21T11:59:59Z: its publisher must sign a new one; the images that are here stay as they are',
    ],
    [
      'from the future',
      list([], { 'dc:date:created': '2026-11-21T12:06:00Z' }),
      'ListFromFuture: the list was made at 2026-11-21T12:06:00Z, which is still to come: look at the clock here, and ask the publisher about his',
    ],
    ['that is no JSON', '<html>Log in</html>', /^InvalidList: the list cannot be read: it is not JSON: /],
    ['cut short', list(image()).slice(0, -9), /^InvalidList: the list cannot be read: it is not JSON: /],
    ['that is empty', '', /^InvalidList: the list cannot be read: it is not JSON: /],
    [
      'with a NUL',
      list([]).replace('The group', 'The\u0000group'),
      /^InvalidList: the list cannot be read: it is not JSON: /,
    ],
    [
      'that is no list',
      '{"images": [], "metadata": {}}',
      'InvalidList: the list cannot be read: it is no image list: it has neither hv:imagelist nor hv:images',
    ],
    ['that is no object', '[1]', 'InvalidList: the list cannot be read: it is JSON, but no object'],
    [
      'with a wrapper that is none',
      '{"hv:imagelist": 1}',
      'InvalidList: the list cannot be read: its hv:imagelist is no object',
    ],
    [
      'without images',
      JSON.stringify({ 'hv:imagelist': LIST }),
      'InvalidList: the list cannot be read: its hv:images is missing or no list',
    ],
    [
      'with an endorser that is none',
      list([], { 'hv:endorser': { 'hv:x509': { 'hv:dn': '/CN=x' } } }),
      'InvalidList: the list cannot be read: hv:endorser 1: hv:x509.hv:ca is missing',
    ],
    [
      'with a key twice',
      list([]).replace('"hv:version"', '"hv:version":"1","hv:version"'),
      'InvalidList: the list cannot be read: it has the key hv:version twice in one object, and which is meant cannot be told',
    ],
    [
      'with a key twice, once escaped',
      list([]).replace('"hv:version"', '"hv:v\\u0065rsion":"1","hv:version"'),
      'InvalidList: the list cannot be read: it has the key hv:version twice in one object, and which is meant cannot be told',
    ],
    [
      'nested too deep',
      list([], { x: JSON.parse('['.repeat(40) + ']'.repeat(40)) }),
      'InvalidList: the list cannot be read: it is nested more than 32 deep',
    ],
    [
      'in another encoding',
      Buffer.from(list([], { 'dc:title': 'É' }), 'latin1'),
      'InvalidList: the list cannot be read: it is not UTF-8 text',
    ],
  ])('%s', async (_, document, expected) => {
    expect(await refusal(read('HEPiX', document))).toMatch(expected);
  });

  it('not when it was made on a machine whose clock is 5 minutes ahead', async () => {
    expect(await read('HEPiX', list([], { 'dc:date:created': '2026-11-21T12:05:00Z' }))).toMatchObject({ skipped: [] });
  });

  it('at its last second, and not before', async () => {
    const documents = { [URL]: list([]) };
    const end = Date.parse('2026-12-01T10:00:00Z');
    expect(await refusal(readCatalog('HEPiX', request(URL, { documents, at: end })))).toContain('ListExpired');
    expect(await readCatalog('HEPiX', request(URL, { documents, at: end - 1 }))).toMatchObject({ skipped: [] });
    expect(NOW).toBeLessThan(end);
  });
});

describe('an image of a HEPiX list is skipped, and the list goes on,', () => {
  const ID = IMAGE['dc:identifier'];
  it.each([
    ['without identifier', { 'dc:identifier': undefined }, '#1 InvalidEntry: dc:identifier is missing'],
    [
      'with an identifier of control characters',
      { 'dc:identifier': 'a\u0007b' },
      'a b InvalidEntry: dc:identifier must be an identifier of at most 253 printable characters, not "a b"',
    ],
    ['without location', { 'hv:uri': undefined }, `${ID} InvalidEntry: hv:uri is missing`],
    ['without size', { 'hv:size': undefined }, `${ID} InvalidEntry: hv:size is missing`],
    ['without version', { 'hv:version': undefined }, `${ID} InvalidEntry: hv:version is missing`],
    ['without checksum', { 'sl:checksum:sha512': undefined }, `${ID} InvalidEntry: sl:checksum:sha512 is missing`],
    [
      'with a checksum that is none',
      { 'sl:checksum:sha512': 'bignum' },
      `${ID} InvalidEntry: sl:checksum:sha512 must be a sha512 digest in hex, not "bignum"`,
    ],
    [
      'with a sha256 for a sha512',
      { 'sl:checksum:sha512': SHA256 },
      /InvalidEntry: sl:checksum:sha512 must be a sha512 digest in hex/,
    ],
    [
      'with a size in words',
      { 'hv:size': '20e12bytes' },
      `${ID} InvalidEntry: hv:size must be a number of bytes, not "20e12bytes"`,
    ],
    ['with a negative size', { 'hv:size': -1 }, `${ID} InvalidEntry: hv:size must be a number of bytes, not -1`],
    [
      'with a size beyond all numbers',
      { 'hv:size': 1e300 },
      `${ID} InvalidEntry: hv:size must be a number of bytes, not 1e+300`,
    ],
    [
      'with a location of another scheme',
      { 'hv:uri': 'file:///etc/passwd' },
      `${ID} InvalidEntry: hv:uri must be an http or https URL: file: cannot be fetched`,
    ],
    [
      'with a location that is none',
      { 'hv:uri': 'x.qcow2' },
      `${ID} InvalidEntry: hv:uri must be a URL, not "x.qcow2"`,
    ],
    [
      'with a password in its location',
      { 'hv:uri': 'https://me:secret@h/x' },
      `${ID} InvalidEntry: hv:uri holds a user name or password, which everybody could read`,
    ],
    [
      'with a line break in its location',
      { 'hv:uri': 'https://h/x\ny' },
      `${ID} InvalidEntry: hv:uri must be a URL, not "https://h/x y"`,
    ],
    [
      'that is a tar of files',
      { 'hv:format': 'tar.gz' },
      `${ID} NotSupported: it is a tar.gz, an archive of files: no machine boots it as a disk`,
    ],
    [
      'that is a cpio by its name',
      { 'hv:uri': 'http://h/x.cpio.bz2' },
      `${ID} NotSupported: it is a cpio.bz2, an archive of files: no machine boots it as a disk`,
    ],
    ['with an object for a text', { 'sl:arch': {} }, `${ID} InvalidEntry: sl:arch must be text, not an object`],
    [
      'with more than one fault',
      { 'hv:uri': undefined, 'hv:size': [] },
      `${ID} InvalidEntry: hv:uri is missing; hv:size must be a number of bytes, not a list`,
    ],
  ])('%s', async (_, changes, expected) => {
    const document = list([...image(changes), ...image({ 'dc:identifier': 'good' })]);
    const reading = read('HEPiX', document);
    expect(await skipped(reading)).toMatch(expected);
    expect((await reading).entries.map(({ id }) => id)).toEqual(['good']);
  });

  it.each([[[1]], [[null]], [['x']], [[[]]], [[{ 'hv:image': 'x' }]]])('if it is no image: %j', async (images) => {
    expect(await skipped(read('HEPiX', list(images)))).toBe('#1 InvalidEntry: it is no object');
  });

  it('if it has a key twice', async () => {
    const document = list([...image(), ...image({ 'dc:identifier': 'good' })]).replace(
      '"hv:uri":"https://images',
      '"hv:uri":"https://other.example.org/x","hv:uri":"https://images',
    );
    const reading = read('HEPiX', document);
    expect(await skipped(reading)).toBe(
      `${ID} InvalidEntry: it has the key hv:uri twice, and which is meant cannot be told`,
    );
    expect((await reading).entries.map(({ id }) => id)).toEqual(['good']);
  });

  it('if others have its identifier, and those too', async () => {
    const document = list([...image(), ...image({ 'dc:identifier': 'good' }), ...image({ 'dc:title': 'Another' })]);
    const reading = read('HEPiX', document);
    expect(await skipped(reading)).toBe(
      `${ID} DuplicateEntry: the list has this id several times (images #1, #3): its publisher must give each image an id of its own`,
    );
    expect((await reading).entries.map(({ id }) => id)).toEqual(['good']);
  });

  it('with its title, as far as it can be told', async () => {
    const { skipped: rows } = await read('HEPiX', list(image({ 'hv:uri': undefined })));
    expect(rows[0]).toMatchObject({ id: ID, title: 'Batch node' });
  });
});

describe("keys that are JavaScript's own", () => {
  it('are keys like others', async () => {
    const document = list(image({ constructor: 'x', toString: 'y' })).replace(
      '"dc:title"',
      '"__proto__":{"polluted":"yes"},"dc:title"',
    );
    const entry = await one(read('HEPiX', document));
    expect(entry.fields['constructor']).toBe('x');
    expect(Object.hasOwn(entry.fields, '__proto__')).toBe(false);
    expect(Object.getPrototypeOf(entry.fields)).toBe(Object.prototype);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  it('can be identifiers', async () => {
    const ids = ['__proto__', 'constructor', 'toString'];
    const { entries } = await read('HEPiX', list(ids.map((id) => ({ 'hv:image': { ...IMAGE, 'dc:identifier': id } }))));
    expect(entries.map(({ id }) => id)).toEqual(ids);
  });
});

describe('the least memory', () => {
  it.each([
    [512, 512],
    ['536870912', 512],
    [536870913, 513],
    ['4', 4096],
    ['4.0', 4096],
    [63, 64512],
    [64, 64],
    [1048575, 1048575],
    ['999999999999999999', 16_777_216],
    [0, undefined],
    ['512 MB', undefined],
    ['-1', undefined],
    [null, undefined],
    [{}, undefined],
    [{ toString: '' }, undefined],
  ])('%j is %j MiB', (value, mib) => {
    expect(readRam(value)).toBe(mib);
  });
});
