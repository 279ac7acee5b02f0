import { describe, expect, it, test } from 'vitest';
import { accept } from '../../../src/catalogs/acceptance.ts';
import { fortyDigits, identifierOf } from '../../../src/catalogs/marketplace/identifier.ts';
import { splitEntries } from '../../../src/catalogs/marketplace/xml.ts';
import { readCatalog } from '../../../src/catalogs/index.ts';
import { entryOf, identifierFor, metadata } from '../../support/marketplace.ts';
import { one, read, refusal, request, skipped } from './reading.ts';

const ID = identifierFor('ttylinux');
const market = (...entries: readonly string[]) => read('Marketplace', metadata(...entries));

describe("the Marketplace's identifier", () => {
  it.each([
    ['c319bbd5afc0a22ba3eaed0507c39383ec28eeff', 'MMZu9WvwKIro-rtBQfDk4PsKO7_'],
    ['639ac4915da045efa809bd02b2609d9d3f932e85', 'GOaxJFdoEXvqAm9ArJgnZ0_ky6F'],
    ['3b51c07673a28d7114ab64fa22f9d6de91350f50', 'DtRwHZzoo1xFKtk-iL51t6RNQ9Q'],
    ['66b42b5b24234bea1140a19cb4cd4038ebdbcc7a', 'Ga0K1skI0vqEUChnLTNQDjr28x6'],
    ['0000000000000000000000000000000000000000', 'A'.repeat(27)],
  ])('of SHA-1 %s is %s', (sha1, identifier) => {
    expect(identifierOf(sha1)).toBe(identifier);
  });

  it('is the same for a SHA-1 with a zero too many, or without its own', () => {
    expect(fortyDigits(`0${'a'.repeat(40)}`)).toBe('a'.repeat(40));
    expect(fortyDigits('a'.repeat(38))).toBe(`00${'a'.repeat(38)}`);
    expect(fortyDigits(`1${'a'.repeat(40)}`)).toHaveLength(41);
  });
});

describe('an entry of a Marketplace', () => {
  it('is read with all that it says', async () => {
    const more = `<dcterms:format>raw</dcterms:format><dcterms:compression>gz</dcterms:compression><slterms:version>1.4</slterms:version>
      <dcterms:title>tty &amp; linux</dcterms:title><dcterms:description><![CDATA[small <b>]]></dcterms:description>
      <dcterms:created>2026-09-01T00:00:00Z</dcterms:created><dcterms:valid>2027-03-01T00:00:00Z</dcterms:valid>
      <dcterms:publisher>Example</dcterms:publisher><slterms:inbound-port>22</slterms:inbound-port><slterms:inbound-port>443</slterms:inbound-port>
      <ex:note xmlns:ex="http://example.org/">hello</ex:note>`;
    const entry = await one(market(entryOf({ more })));
    expect(entry).toMatchObject({
      id: ID,
      version: '1.4',
      title: 'tty & linux',
      description: 'small <b>',
      urls: ['https://images.example.org/ttylinux.qcow2.gz'],
      checksums: {},
      contentChecksums: {
        md5: expect.stringMatching(/^[0-9a-f]{32}$/),
        sha1: expect.stringMatching(/^[0-9a-f]{40}$/),
        sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
        sha512: expect.stringMatching(/^[0-9a-f]{128}$/),
      },
      compression: 'Gzip',
      arch: 'i686',
      os: { name: 'ttylinux', distro: 'ttylinux', version: '9.7' },
      createdAt: '2026-09-01T00:00:00Z',
      expiresAt: '2027-03-01T00:00:00Z',
      fields: {
        'dcterms:publisher': 'Example',
        'slterms:inbound-port': '22, 443',
        '{http://example.org/}note': 'hello',
        'slreq:bytes': '8',
        'slreq:email': 'alice@example.org',
        'slreq:subject': 'CN=alice,DC=example,DC=org',
        'slreq:endorsement': '2026-10-01T10:00:00Z',
        'slreq:endorsers': 'alice@example.org',
      },
    });
    expect(Object.keys(entry.contentChecksums)).toEqual(['sha512', 'sha256', 'sha1', 'md5']);
    // The entry says raw, the file's name qcow2.
    expect(entry).not.toHaveProperty('format');
    // The file is compressed, and slreq:bytes is of what is in it.
    expect(entry).not.toHaveProperty('size');
  });

  it('may stand alone, and tells the size of a file that is not compressed', async () => {
    const alone = entryOf({ locations: ['http://h/x.qcow2'] });
    expect(await one(read('Marketplace', `<?xml version="1.0"?>${alone}`))).toMatchObject({ size: 8, format: 'Qcow2' });
  });

  it.each([
    ['<dcterms:format>raw</dcterms:format>', 'http://h/x', { format: 'Raw' }],
    [
      '<dcterms:format>qcow2</dcterms:format><dcterms:compression>bz2</dcterms:compression>',
      'http://h/x',
      { format: 'Qcow2', compression: 'Bzip2' },
    ],
    ['<dcterms:compression>gz</dcterms:compression>', 'http://h/x.qcow', { format: 'Qcow2', compression: 'Gzip' }],
    ['<dcterms:format/><dcterms:compression/>', 'http://h/x.vmdk.gz', { format: 'Vmdk', compression: 'Gzip' }],
  ])('says what the file is: %s at %s', async (more, location, expected) => {
    const { format, compression } = await one(market(entryOf({ locations: [location], more })));
    expect({ format, compression }).toEqual(expected);
  });

  it('has its locations in order, and only those that can be fetched', async () => {
    const locations = [
      'pdisk:pdisk.example.org:8445:x',
      'http://a/x',
      'ftp://b/x',
      'https://me:pw@c/x',
      'https://d/x',
      'occi://e',
    ];
    expect((await one(market(entryOf({ locations })))).urls).toEqual(['http://a/x', 'https://d/x']);
  });

  it('that is deprecated says why, and needs no location any more', async () => {
    const entry = await one(
      market(entryOf({ locations: [], more: '<slterms:deprecated>a hole in it</slterms:deprecated>' })),
    );
    expect(entry).toMatchObject({ deprecated: 'a hole in it', urls: [] });
    expect((await one(market(entryOf({ more: '<slterms:deprecated/>' })))).deprecated).toBe('no reason is given');
  });

  it.each([
    [
      'without location',
      entryOf({ locations: [] }),
      'InvalidEntry: it has no slterms:location with http or https: it has none',
    ],
    [
      "whose locations are a site's own",
      entryOf({ locations: ['pdisk:a:1:x'] }),
      'InvalidEntry: it has no slterms:location with http or https: the first, "pdisk:a:1:x", must be an http or https URL: pdisk: cannot be fetched',
    ],
    [
      'of another Marketplace',
      entryOf().replace('xml:base="http://mp.stratuslab.eu/"', 'xml:base="http://mp.stratuslab.eu/BAD"'),
      'InvalidEntry: its xml:base must be http://mp.stratuslab.eu/, not "http://mp.stratuslab.eu/BAD"',
    ],
    [
      'about another image',
      entryOf().replace(`about="#${ID}"`, 'about="#MMZu9WvwKIro"'),
      `InvalidEntry: rdf:about "#MMZu9WvwKIro" is not its dcterms:identifier ${ID}`,
    ],
    [
      'with an identifier that is none',
      entryOf().replaceAll(ID, 'short'),
      /dcterms:identifier "short" is not of 27 characters/,
    ],
    [
      "whose identifier is another image's",
      entryOf().replaceAll(ID, identifierFor('x')),
      `InvalidEntry: its identifier ${identifierFor('x')} is not that of its SHA-1, which is ${ID}`,
    ],
    ['without SHA-1', entryOf().replace('>SHA-1<', '>SHA-3<'), /it has no slreq:checksum with the algorithm SHA-1/],
    [
      'with a checksum that is none',
      entryOf().replace(/(SHA-256<.*?<slreq:value>)\w+/, '$1XYZ'),
      'InvalidEntry: its checksum SHA-256 must be a sha256 digest in hex, not "xyz"',
    ],
    [
      'with two checksums that differ',
      entryOf()
        .replace('>MD5<', '>SHA-1<')
        .replace(/(SHA-1<.*?<slreq:value>)\w+/, `$1${'a'.repeat(40)}`),
      /its identifier|two checksums SHA-1 that differ/,
    ],
    [
      'without endorsement',
      entryOf().replace(/<slreq:endorsement.*<\/slreq:endorsement>/, ''),
      'InvalidEntry: rdf:Description has no slreq:endorsement',
    ],
    [
      'without endorser',
      entryOf().replace(/<endorser .*<\/endorser>/, ''),
      'InvalidEntry: slreq:endorsement has no slreq:endorser',
    ],
    [
      'with an address that is none',
      entryOf({ email: 'alice_at_example.org' }),
      'InvalidEntry: slreq:email "alice_at_example.org" is no address',
    ],
    [
      'with a time that is none',
      entryOf({ endorsedAt: '2026-10-01X10:00:00Z' }),
      /dcterms:created of slreq:endorsement must be a date like/,
    ],
    [
      'with an end that is none',
      entryOf({ more: '<dcterms:valid>2026-10-01X10:00:00Z</dcterms:valid>' }),
      /dcterms:valid must be a date like/,
    ],
    [
      'deprecated twice',
      entryOf({ more: '<slterms:deprecated>0</slterms:deprecated><slterms:deprecated>0</slterms:deprecated>' }),
      'InvalidEntry: rdf:Description has more than one slterms:deprecated',
    ],
    [
      'with two descriptions',
      entryOf().replace('</rdf:RDF>', '<rdf:Description/></rdf:RDF>'),
      'InvalidEntry: rdf:RDF has more than one rdf:Description',
    ],
    [
      'with a size in words',
      entryOf().replace('<slreq:bytes>8', '<slreq:bytes>eight'),
      'InvalidEntry: slreq:bytes must be a number of bytes, not "eight"',
    ],
  ])('%s is skipped, and the others are taken', async (_, entry, expected) => {
    const reading = market(entry, entryOf({ content: 'good' }));
    expect(await skipped(reading)).toMatch(expected);
    expect((await reading).entries.map(({ id }) => id)).toEqual([identifierFor('good')]);
  });

  it('that is refused is the failure of the list when there is no other', async () => {
    expect(await refusal(market(entryOf({ locations: [] })))).toMatch(/^InvalidEntry: it has no slterms:location/);
  });
});

describe("a Marketplace's answer is refused", () => {
  it.each([
    ['when it is no XML', 'not here', /^InvalidList: the list cannot be read: it is not well-formed XML: /],
    [
      'when it is a page',
      '<html><body/></html>',
      'InvalidList: the list cannot be read: it begins with <html>: a Marketplace answers with <metadata> or <rdf:RDF>',
    ],
    [
      'when it holds other things',
      '<metadata><entry/></metadata>',
      'InvalidList: the list cannot be read: it holds <entry> where an rdf:RDF was expected',
    ],
    [
      'when it is cut short',
      metadata(entryOf()).slice(0, -20),
      /^InvalidList: the list cannot be read: it is not well-formed XML: /,
    ],
    [
      'with a DOCTYPE',
      '<!DOCTYPE metadata [<!ENTITY a "b">]><metadata/>',
      'InvalidList: the list cannot be read: it has a DOCTYPE, which must not be',
    ],
    [
      'with an entity that nobody defined',
      '<metadata>&lol;</metadata>',
      /^InvalidList: the list cannot be read: it is not well-formed XML: /,
    ],
    [
      'nested too deep',
      `<metadata>${entryOf({ more: '<a>'.repeat(40) + '</a>'.repeat(40) })}</metadata>`,
      'InvalidList: the list cannot be read: its elements are nested more than 32 deep',
    ],
  ])('%s', async (_, document, expected) => {
    expect(await refusal(read('Marketplace', document))).toMatch(expected);
  });

  it('when the trust is for other signatures', async () => {
    const url = 'https://mp.example.org/metadata';
    const trust = { kind: 'minisign', publicKeys: [] } as const;
    expect(await refusal(readCatalog('Marketplace', request(url, { documents: {}, trust })))).toMatch(
      /^InvalidTrust: entries of a Marketplace have XML signatures/,
    );
  });

  it('not when it has no entry', async () => {
    expect(await market()).toMatchObject({ entries: [], skipped: [] });
  });
});

describe('the entries of an answer', () => {
  it('are cut out exactly as they stand, for each is signed by itself', () => {
    const entries = [
      entryOf({ content: 'ä𝄞' }),
      '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" a="&#60;x>" />',
      entryOf({ content: 'b' }),
    ];
    expect(
      splitEntries(`<?xml version="1.0"?>\r\n<!-- ü < > -->\r\n<metadata>\r\n 𝄞${entries.join('\r\n')}</metadata>\r\n`),
    ).toEqual(entries);
  });

  it('are not confused by an rdf:RDF inside of one', () => {
    const nested = entryOf({ more: '<x xmlns="y"><rdf:RDF/></x>' });
    expect(splitEntries(metadata(nested, entryOf()))).toEqual([nested, entryOf()]);
  });
});

describe('several endorsements of one image', () => {
  const of = (email: string, endorsedAt: string, more = '') =>
    entryOf({ email, subject: `CN=${email}`, endorsedAt, more });
  const deprecated = '<slterms:deprecated>hole</slterms:deprecated>';

  it('are one entry, by the newest word of those who stand by it', async () => {
    const entry = await one(
      market(of('a@x', '2026-01-01T00:00:00Z'), of('b@x', '2026-03-01T00:00:00Z'), of('c@x', '2026-02-01T00:00:00Z')),
    );
    expect(entry.fields).toMatchObject({ 'slreq:email': 'b@x', 'slreq:endorsers': 'a@x, b@x, c@x' });
  });

  it('by the same endorser: the newest counts', async () => {
    const entry = await one(market(of('a@x', '2026-01-02T00:00:00Z', deprecated), of('a@x', '2026-01-01T00:00:00Z')));
    expect(entry.deprecated).toBe('hole');
    const again = await one(market(of('a@x', '2026-01-02T00:00:00Z', deprecated), of('a@x', '2026-01-03T00:00:00Z')));
    expect(again.deprecated).toBeUndefined();
  });

  it('of which one is deprecated or expired: the other stands, though it is older', async () => {
    const old = of('b@x', '2026-01-01T00:00:00Z');
    expect((await one(market(of('a@x', '2026-02-01T00:00:00Z', deprecated), old))).fields['slreq:email']).toBe('b@x');
    const expired = '<dcterms:valid>2026-02-02T00:00:00Z</dcterms:valid>';
    expect((await one(market(of('a@x', '2026-02-01T00:00:00Z', expired), old))).fields['slreq:email']).toBe('b@x');
  });

  it('of which all are expired are still one entry, with its date', async () => {
    const expired = '<dcterms:valid>2026-02-02T00:00:00Z</dcterms:valid>';
    expect((await one(market(of('a@x', '2026-02-01T00:00:00Z', expired)))).expiresAt).toBe('2026-02-02T00:00:00Z');
  });
});

describe('a tag', () => {
  const tags = (tag: string) => `<dcterms:alternative>${tag}</dcterms:alternative>`;
  const old = entryOf({ content: 'old', endorsedAt: '2026-01-01T00:00:00Z', more: tags('base') });
  const young = entryOf({ content: 'new', endorsedAt: '2026-02-01T00:00:00Z', more: tags('other') + tags('base') });

  test.each([
    'https://mp.example.org/tag/alice@example.org/base',
    'https://mp.example.org/marketplace/tag/alice%40example.org/base/',
    'https://mp.example.org/metadata/alice@example.org?tag=base',
  ])('%s is one entry, whose id stays while the image changes', async (url) => {
    for (const [answer, content] of [
      [metadata(old), 'old'],
      [metadata(old, young), 'new'],
      [metadata(young, old), 'new'],
      [young, 'new'],
    ] as const) {
      const catalog = await readCatalog('Marketplace', request(url, { documents: { [url]: answer } }));
      expect(catalog.entries).toMatchObject([
        { id: 'alice@example.org/base', fields: { 'dcterms:identifier': identifierFor(content) } },
      ]);
      expect(catalog.list).toMatchObject({ identity: 'alice@example.org/base', title: 'base of alice@example.org' });
    }
  });

  const url = 'https://mp.example.org/tag/alice@example.org/base';
  const tagged = (...entries: string[]) =>
    readCatalog('Marketplace', request(url, { documents: { [url]: metadata(...entries) } }));

  it.each(['x'.repeat(253), 'a%00b', '%20'])('%j cannot be an id', async (name) => {
    const place = `https://mp.example.org/tag/alice@example.org/${name}`;
    expect(await refusal(readCatalog('Marketplace', request(place, { documents: { [place]: metadata() } })))).toMatch(
      /^InvalidSpec: spec\.url: the tag/,
    );
  });

  it('has the date of its newest endorsement, against answers from long ago', async () => {
    expect((await tagged(old, young)).list.createdAt).toBe('2026-02-01T00:00:00Z');
  });

  it('takes the newest that is not deprecated', async () => {
    const gone = young.replace('<dcterms:type>', '<slterms:deprecated>hole</slterms:deprecated><dcterms:type>');
    expect((await tagged(old, gone)).entries).toMatchObject([
      { fields: { 'dcterms:identifier': identifierFor('old') } },
    ]);
    expect((await tagged(gone)).entries).toMatchObject([{ id: 'alice@example.org/base', deprecated: 'hole' }]);
    const expired = young.replace(
      '<dcterms:type>',
      '<dcterms:valid>2026-02-02T00:00:00Z</dcterms:valid><dcterms:type>',
    );
    expect((await tagged(expired, old)).entries).toMatchObject([
      { fields: { 'dcterms:identifier': identifierFor('old') } },
    ]);
  });

  it('that falls back to an older image is no older list for that', async () => {
    const before = (await tagged(old, young)).list;
    const gone = young.replace('<dcterms:type>', '<slterms:deprecated>hole</slterms:deprecated><dcterms:type>');
    const rules = { url, format: 'Marketplace', rollback: 'Refuse' } as const;
    expect(accept((await tagged(gone, old)).list, { ...before, url }, rules)).toEqual([]);
    expect(() =>
      accept({ ...before, digest: 'sha256:x', createdAt: '2026-01-01T00:00:00Z' }, { ...before, url }, rules),
    ).toThrow(expect.objectContaining({ reason: 'ListRollback' }));
  });

  it('hears the newest word on each image: one that was deprecated later is not taken by what was said before', async () => {
    const gone = young
      .replace('<dcterms:type>', '<slterms:deprecated>hole</slterms:deprecated><dcterms:type>')
      .replaceAll('2026-02-01T00:00:00Z', '2026-02-02T00:00:00Z');
    for (const answer of [
      [old, young, gone],
      [gone, young, old],
    ]) {
      const { list, entries } = await tagged(...answer);
      expect(entries).toMatchObject([{ fields: { 'dcterms:identifier': identifierFor('old') } }]);
      expect(list.createdAt).toBe('2026-02-02T00:00:00Z');
    }
  });

  it('is in what the endorser signed: an answer with another image of his, or of another, is refused', async () => {
    expect(await refusal(tagged(entryOf()))).toBe(
      'InvalidEntry: it is not what alice@example.org calls base: its endorser is alice@example.org, its dcterms:alternative missing',
    );
    expect(await refusal(tagged(entryOf({ email: 'mallory@example.org', more: tags('base') })))).toMatch(
      /its endorser is mallory@example\.org/,
    );
  });
});
