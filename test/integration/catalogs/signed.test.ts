import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { CatalogFormat } from '../../../src/catalogs/catalog.ts';
import { readCatalog, recognise } from '../../../src/catalogs/index.ts';
import { readEntries } from '../../../src/catalogs/kept.ts';
import { readList } from '../../../src/catalogs/reading.ts';
import type { Trust } from '../../../src/trust/trust.ts';
import { type Site, refusal, request, SHA256, SHA512 } from '../../unit/catalogs/reading.ts';
import { describePublished } from './published.ts';
import { entryOf, identifierFor, metadata } from '../../support/marketplace.ts';
import { startOrigin } from '../../support/origin.ts';
import { installed } from '../images/workspace.ts';
import { ENDORSERS, makePublisher, type Person, PROGRAMS, type Publisher } from './publisher.ts';

const DOCS = join(import.meta.dirname, '../../../docs/lists');
const URL = 'https://lists.example.org/a/list';
/** The keys and the signatures are made now; an hour later the lists are judged. */
const NOW = Date.now() + 3_600_000;
const day = (days: number) => new Date(NOW + days * 86_400_000).toISOString().replace(/\.\d+/, '');

describe.skipIf(!installed(...PROGRAMS))('with the programs that publishers use', () => {
  let publisher: Publisher;
  beforeAll(() => {
    publisher = makePublisher();
  });
  afterAll(() => publisher.close());

  const read = (format: CatalogFormat, url: string, documents: Site['documents'], trust: Trust, at = NOW) =>
    readCatalog(format, request(url, { documents, trust, at }));

  function hepix(changes: object = {}, endorsers: readonly Person[] = ['alice']): string {
    const named = endorsers.map((person) => ({
      'hv:x509': {
        'dc:creator': person,
        'hv:dn': ENDORSERS[person].subject,
        'hv:ca': ENDORSERS[person].issuer,
        'hv:email': '',
      },
    }));
    return JSON.stringify(
      {
        'hv:imagelist': {
          'dc:identifier': 'e55c1afe-0a62-4d31-a8d7-fb8c825f92a2',
          'dc:date:created': day(-1),
          'dc:date:expires': day(30),
          'hv:version': '1',
          'hv:endorser': named.length === 1 ? named[0] : named,
          'hv:images': [
            {
              'hv:image': {
                'dc:identifier': 'a',
                'dc:title': 'Größe',
                'hv:uri': 'http://h/x.qcow2',
                'hv:version': '1',
                'hv:size': '12',
                'sl:checksum:sha512': SHA512,
              },
            },
          ],
          ...changes,
        },
      },
      undefined,
      1,
    );
  }

  describe('a HEPiX list that openssl signed', () => {
    it('is taken from its endorser, who is named', async () => {
      const catalog = await read('HEPiX', URL, { [URL]: publisher.smime(hepix()) }, publisher.x509('alice'));
      expect(catalog.list.signer).toMatchObject({ kind: 'x509', subject: ENDORSERS.alice.subject, digest: 'sha256' });
      expect(catalog.entries).toMatchObject([{ id: 'a', title: 'Größe' }]);
      expect(catalog.skipped).toEqual([]);
    });

    it('is taken by one of several endorsers', async () => {
      const document = publisher.smime(hepix({}, ['alice', 'bob']), 'bob');
      expect((await read('HEPiX', URL, { [URL]: document }, publisher.x509('alice', 'bob'))).list.signer?.subject).toBe(
        ENDORSERS.bob.subject,
      );
    });

    it.each([
      [
        'by another of the same authority',
        (p: Publisher) => [p.smime(hepix(), 'bob'), p.x509('alice')],
        /^EndorserNotTrusted: /,
      ],
      [
        'by another who is trusted too, but is not the one it names',
        (p: Publisher) => [p.smime(hepix(), 'bob'), p.x509('alice', 'bob')],
        /^EndorserMismatch: the list says that \/DC=org\/DC=example\/CN=alice .* endorses it, but .*CN=bob.* signed it/,
      ],
      [
        'naming nobody',
        (p: Publisher) => [p.smime(hepix({ 'hv:endorser': undefined })), p.x509('alice')],
        /^EndorserMismatch: the list names no endorser/,
      ],
      [
        'and changed after that',
        (p: Publisher) => [
          Buffer.from(p.smime(hepix()).toString().replace('http://h/x', 'http://h/y')),
          p.x509('alice'),
        ],
        /^SignatureInvalid: /,
      ],
      ['not at all', (p: Publisher) => [Buffer.from(hepix()), p.x509('alice')], /^SignatureMissing: /],
      [
        'long ago',
        (p: Publisher) => [p.smime(hepix({ 'dc:date:expires': day(-1 / 24) })), p.x509('alice')],
        /^ListExpired: /,
      ],
      [
        'for later',
        (p: Publisher) => [p.smime(hepix({ 'dc:date:created': day(1) })), p.x509('alice')],
        /^ListFromFuture: /,
      ],
      [
        'although it is no list',
        (p: Publisher) => [p.smime('hello'), p.x509('alice')],
        /^InvalidList: the list cannot be read: it is not JSON/,
      ],
    ] satisfies readonly (readonly [string, (p: Publisher) => readonly [Buffer, Trust], RegExp])[])(
      'is refused, signed %s',
      async (_, make, expected) => {
        const [document, trust] = make(publisher);
        expect(await refusal(read('HEPiX', URL, { [URL]: document }, trust))).toMatch(expected);
      },
    );

    it('may be signed by an OpenPGP key that is trusted itself, whoever it names', async () => {
      const catalog = await read('HEPiX', URL, { [URL]: publisher.clearsign(hepix()) }, publisher.openpgp('alice'));
      expect(catalog.list.signer).toMatchObject({ kind: 'openpgp' });
    });

    it('is read out of its envelope where nobody is asked to vouch', async () => {
      const { entries, list } = await read('HEPiX', URL, { [URL]: publisher.smime(hepix()) }, { kind: 'unsigned' });
      expect(entries).toHaveLength(1);
      expect(list).not.toHaveProperty('signer');
    });

    it('is recognised, also when its content cannot be read by eye', () => {
      publisher.write('list.json', hepix());
      publisher.run('openssl cms -sign -nodetach -binary -in list.json -signer alice.pem -inkey alice.key -out opaque');
      publisher.run(
        'openssl cms -sign -nodetach -binary -in list.json -signer alice.pem -inkey alice.key -outform DER -out der',
      );
      expect([publisher.smime(hepix()), publisher.read('opaque'), publisher.read('der')].map(recognise)).toEqual([
        'HEPiX',
        'HEPiX',
        'HEPiX',
      ]);
    });
  });

  describe('a checksum file', () => {
    const SUMS = `${SHA256} *x.img\n`;
    const url = 'https://cloud.example.org/noble/SHA256SUMS';
    const here = (documents: Site['documents'], trust: Trust) => read('ChecksumFile', url, documents, trust);

    it('is taken clear-signed, with the date of its signature', async () => {
      const catalog = await here({ [url]: publisher.clearsign(SUMS) }, publisher.openpgp('alice'));
      expect(catalog).toMatchObject({ entries: [{ id: 'x.img' }], list: { signer: { kind: 'openpgp' } } });
      expect(Math.abs(Date.parse(catalog.list.createdAt ?? '') - NOW)).toBeLessThan(2 * 3_600_000);
    });

    it.each(['.gpg', '.asc', '.sig', '.sign'])('is taken with its signature beside it under %s', async (suffix) => {
      const signature = publisher.detached(SUMS);
      expect(await here({ [url]: SUMS, [`${url}${suffix}`]: signature }, publisher.openpgp('alice'))).toMatchObject({
        entries: [{ id: 'x.img' }],
      });
    });

    it('is looked for beside a URL with a query', async () => {
      const asked = `${url}?token=1`;
      const documents = { [asked]: SUMS, [`${url}.gpg?token=1`]: publisher.detached(SUMS) };
      expect((await read('ChecksumFile', asked, documents, publisher.openpgp('alice'))).entries).toHaveLength(1);
    });

    it('passes over pages that a server gives for what it does not have', async () => {
      const documents = {
        [url]: SUMS,
        [`${url}.gpg`]: '<html>Not found</html>',
        [`${url}.asc`]: publisher.detached(SUMS),
      };
      expect((await here(documents, publisher.openpgp('alice'))).entries).toHaveLength(1);
    });

    it('that begins with a zero, as DER does, is still a text', async () => {
      const text = `00${SHA256.slice(2)}  x.img\n`;
      publisher.write('SUMS', text);
      publisher.run('openssl cms -sign -binary -in SUMS -signer alice.pem -inkey alice.key -outform DER -out SUMS.p7s');
      const documents = { [url]: text, [`${url}.p7s`]: publisher.read('SUMS.p7s') };
      expect((await here(documents, publisher.x509('alice'))).entries).toHaveLength(1);
      expect((await here({ [url]: text }, { kind: 'unsigned' })).entries).toHaveLength(1);
    });

    it('takes a 403 for what it is at an object store: there is no such file', async () => {
      const made = request(url, {
        documents: { [url]: SUMS, [`${url}.asc`]: publisher.detached(SUMS) },
        trust: publisher.openpgp('alice'),
        at: NOW,
      });
      const fetch: typeof made.fetch = (place, options) =>
        place.endsWith('.gpg') ? Promise.reject(new Failure('Forbidden', 'answered 403')) : made.fetch(place, options);
      expect((await readCatalog('ChecksumFile', { ...made, fetch })).entries).toHaveLength(1);
    });

    it.each([
      [
        'without any signature',
        () => [{ [url]: SUMS }, publisher.openpgp('alice')],
        'SignatureMissing: the list has no signature in it, and there is none beside it (its name with .gpg, .asc, .sig, .sign): subscribe to the signed form, or give trust: unsigned: {}',
      ],
      ['without a minisign signature', () => [{ [url]: SUMS }, publisher.minisign], /^SignatureMissing: .*\.minisig/],
      ['without a certificate', () => [{ [url]: SUMS }, publisher.x509('alice')], /^SignatureMissing: .*\.p7s/],
      [
        'with a key that is not trusted',
        () => [{ [url]: publisher.clearsign(SUMS, 'bob') }, publisher.openpgp('alice')],
        /^UntrustedSigner: /,
      ],
      [
        'with the signature of another file',
        () => [{ [url]: SUMS, [`${url}.gpg`]: publisher.detached(`${SUMS}\n`) }, publisher.openpgp('alice')],
        /^SignatureInvalid: /,
      ],
      [
        'with a line more than was signed',
        () => [
          { [url]: Buffer.concat([publisher.clearsign(SUMS), Buffer.from(`${SHA256}  y.img\n`)]) },
          publisher.openpgp('alice'),
        ],
        /^Signature\w+: /,
      ],
    ] satisfies readonly (readonly [string, () => readonly [Site['documents'], Trust], string | RegExp])[])(
      'is refused %s',
      async (_, make, expected) => {
        const [documents, trust] = make();
        expect(await refusal(here(documents, trust))).toMatch(expected);
      },
    );

    it('that is clear-signed is read where nobody is asked to vouch', async () => {
      expect(await here({ [url]: publisher.clearsign(SUMS) }, { kind: 'unsigned' })).toMatchObject({
        entries: [{}],
        skipped: [],
      });
    });
  });

  describe('simplestreams', () => {
    const ROOT = 'https://cloud.example.org/releases/';
    const INDEX = `${ROOT}streams/v1/index.sjson`;
    const SIGNED = `${ROOT}streams/v1/x.sjson`;
    const index = (path: string) =>
      JSON.stringify({
        format: 'index:1.0',
        index: { x: { path, datatype: 'image-downloads', format: 'products:1.0' } },
      });
    const products = JSON.stringify({
      format: 'products:1.0',
      products: { p: { versions: { 1: { items: { 'disk1.img': { path: 'x.img', sha256: SHA256 } } } } } },
    });

    it('is proven all the way', async () => {
      const documents = {
        [INDEX]: publisher.clearsign(index('streams/v1/x.sjson')),
        [SIGNED]: publisher.clearsign(products),
      };
      const catalog = await read('Simplestreams', INDEX, documents, publisher.openpgp('alice'));
      expect(catalog).toMatchObject({ entries: [{ id: 'p' }], list: { signer: { kind: 'openpgp' } } });
      expect(catalog.entries[0]).not.toHaveProperty('signer');
    });

    it('names who signed the products, where that is another than who signed the index', async () => {
      const documents = {
        [INDEX]: publisher.clearsign(index('streams/v1/x.sjson')),
        [SIGNED]: publisher.clearsign(products, 'bob'),
      };
      const { list, entries } = await read('Simplestreams', INDEX, documents, publisher.openpgp('alice', 'bob'));
      expect(entries[0]?.signer?.fingerprint).toMatch(/^[0-9a-f]+$/i);
      expect(entries[0]?.signer?.fingerprint).not.toBe(list.signer?.fingerprint);
      expect(await refusal(read('Simplestreams', INDEX, documents, publisher.openpgp('alice')))).toMatch(
        /^UntrustedSigner: /,
      );
    });

    it('is refused when a signed index leads to products that nobody signed', async () => {
      const plain = `${ROOT}streams/v1/x.json`;
      const documents = { [INDEX]: publisher.clearsign(index('streams/v1/x.json')), [plain]: products };
      expect(await refusal(read('Simplestreams', INDEX, documents, publisher.openpgp('alice')))).toMatch(
        /^SignatureMissing: /,
      );
      const beside = { ...documents, [`${plain}.gpg`]: publisher.detached(products) };
      expect((await read('Simplestreams', INDEX, beside, publisher.openpgp('alice'))).entries).toHaveLength(1);
    });

    it('is refused when its products were changed', async () => {
      const changed = publisher.clearsign(products).toString().replace('x.img', 'y.img');
      const documents = { [INDEX]: publisher.clearsign(index('streams/v1/x.sjson')), [SIGNED]: changed };
      expect(await refusal(read('Simplestreams', INDEX, documents, publisher.openpgp('alice')))).toMatch(
        /^SignatureInvalid: /,
      );
    });
  });

  describe("ImageProxy's own list", () => {
    const page = readFileSync(join(DOCS, 'imageproxy-list.md'), 'utf8');
    const commands = page.match(/^(?:gpg|minisign|openssl) .*$/gm) ?? [];
    const LIST = (/^```yaml\n([^]*?)^```$/m.exec(page)?.[1] ?? '')
      .replace(/createdAt: .*/, `createdAt: ${day(-1)}`)
      .replace(/(metadata:[^]*?)expiresAt: .*/, `$1expiresAt: ${day(30)}`);
    const command = (pattern: RegExp) => commands.find((each) => pattern.test(each)) ?? 'false';
    const url = 'https://images.example.org/images.yaml';

    it.each([
      ['gpg --clearsign', 'images.yaml.asc', undefined, () => publisher.openpgp('alice', 'bob')],
      ['gpg --detach-sign', 'images.yaml', 'images.yaml.gpg', () => publisher.openpgp('alice', 'bob')],
      ['minisign -S', 'images.yaml', 'images.yaml.minisig', () => publisher.minisign],
      ['openssl cms -sign -in', 'images.list', undefined, () => publisher.x509('alice')],
      ['openssl cms -sign -binary', 'images.yaml', 'images.yaml.p7s', () => publisher.x509('alice')],
    ] as const)('signed as its page says, with %s, is taken', async (start, name, signature, trust) => {
      publisher.write('images.yaml', LIST);
      publisher.run(command(new RegExp(`^${start}`)));
      const documents = {
        [url]: publisher.read(name),
        ...(signature === undefined ? {} : { [`https://images.example.org/${signature}`]: publisher.read(signature) }),
      };
      const catalog = await read('ImageProxy', url, documents, trust());
      expect(catalog.entries).toMatchObject([{ id: 'debian-13', os: { distro: 'debian', version: '13' } }]);
      expect(catalog.list).toMatchObject({ identity: 'physics-images', signer: { kind: trust().kind } });
      expect(catalog).toMatchObject({ skipped: [], warnings: [] });
      expect(recognise(publisher.read(name))).toBe('ImageProxy');
      const forged = {
        ...documents,
        [url]: Buffer.from(documents[url]?.toString().replace('/debian-13', '/debian-12') ?? ''),
      };
      expect(await refusal(read('ImageProxy', url, forged, trust()))).toMatch(/^SignatureInvalid: /);
    });
  });

  describe("a Marketplace's entries, each with an XML signature,", () => {
    const market = (entries: readonly string[], trust: Trust, url = 'https://mp.example.org/metadata') =>
      read('Marketplace', url, { [url]: metadata(...entries) }, trust);
    const bobs = { subject: 'CN=bob,DC=example,DC=org', email: 'bob@example.org' };

    it('are taken each by itself, and name their endorser', async () => {
      const entries = [
        publisher.xmlsign(entryOf()),
        publisher.xmlsign(entryOf({ content: 'b', ...bobs }), 'bob'),
        publisher.xmlsign(entryOf({ content: 'c', more: '<!-- ü --><slterms:version>1 &amp; 2</slterms:version>' })),
      ];
      const catalog = await market(entries, publisher.x509('alice', 'bob'));
      expect(catalog.skipped).toEqual([]);
      expect(catalog.list).not.toHaveProperty('signer');
      expect(catalog.entries.map(({ id, signer, version }) => [id, signer?.subject, version])).toEqual([
        [identifierFor('ttylinux'), ENDORSERS.alice.subject, undefined],
        [identifierFor('b'), ENDORSERS.bob.subject, undefined],
        [identifierFor('c'), ENDORSERS.alice.subject, '1 & 2'],
      ]);
    });

    it('are skipped with the reason when they are not to be believed, and the others are taken', async () => {
      const good = publisher.xmlsign(entryOf({ content: 'good' }));
      const entries = [
        good,
        publisher.xmlsign(entryOf({ content: 'other', ...bobs }), 'bob'),
        publisher.xmlsign(entryOf({ content: 'tampered' })).replace('images.example.org', 'evil.example.org'),
        entryOf({ content: 'bare' }),
        publisher.xmlsign(entryOf({ content: 'named', ...bobs })),
        publisher.xmlsign(entryOf({ content: 'mail', email: 'carol@example.org' })),
        publisher.xmlsign(entryOf({ content: 'issuer', issuer: 'CN=Other CA' })),
        publisher.xmlsign(publisher.xmlsign(entryOf({ content: 'twice' })), 'bob'),
        // The signed entry as a child of a forged one.
        entryOf({ content: 'wrapped' }).replace('</rdf:RDF>', `${good}</rdf:RDF>`),
      ];
      const catalog = await market(entries, publisher.x509('alice'));
      expect(catalog.entries.map(({ id }) => id)).toEqual([identifierFor('good')]);
      expect(catalog.skipped.map(({ id, reason }) => [id, reason])).toEqual([
        [identifierFor('other'), 'EndorserNotTrusted'],
        [identifierFor('tampered'), 'SignatureInvalid'],
        [identifierFor('bare'), 'SignatureMissing'],
        [identifierFor('named'), 'EndorserMismatch'],
        [identifierFor('mail'), 'EndorserMismatch'],
        [identifierFor('issuer'), 'EndorserMismatch'],
        [identifierFor('twice'), expect.stringMatching(/^Sign/)],
        [identifierFor('wrapped'), 'SignatureInvalid'],
      ]);
      expect(catalog.skipped.find(({ id }) => id === identifierFor('mail'))?.message).toBe(
        "the entry gives carol@example.org as its endorser's address, his certificate alice@example.org",
      );
    });

    it('that nobody vouches for are the failure of the list when there is no other', async () => {
      expect(await refusal(market([publisher.xmlsign(entryOf(bobs), 'bob')], publisher.x509('alice')))).toMatch(
        /^EndorserNotTrusted: /,
      );
    });

    describe('while revocation lists are missing', () => {
      const ours = () => publisher.xmlsign(entryOf());
      const strangers = () => publisher.xmlsign(entryOf({ content: 'b', ...bobs }), 'bob');
      const required = (...people: Person[]): Trust => ({ ...publisher.x509(...people), crl: 'Require' });

      it('are refused for that, not for the strangers among them', async () => {
        const [own, other] = [ours(), strangers()];
        expect(await refusal(market([other, own], required('alice')))).toMatch(/^CrlMissing: /);
        expect(await refusal(market([own, other], required('alice')))).toMatch(/^CrlMissing: /);
      });

      it('leave the kept list as it is, but for those whose endorser is out', async () => {
        const folder = join(mkdtempSync(join(tmpdir(), 'marketplace-')), 'uid');
        const origin = await startOrigin();
        const path = '/metadata';
        const network = { allow: ['127.0.0.0/8'] };
        const timeouts = { connectMs: 60_000, headersMs: 60_000, stallMs: 60_000 };
        const look = async (trust: Trust) => {
          const source = { kind: 'http', url: origin.url + path, headers: {}, network, timeouts } as const;
          const task = { format: 'Marketplace', source, trust, at: NOW, folder, accepted: undefined } as const;
          const { kept } = await readList({ ...task, rollback: 'Refuse' }, readCatalog, new AbortController().signal);
          if (kept === undefined) throw new Error('nothing is kept');
          const { entries = [], skipped = [] } = (await readEntries(folder, kept)) ?? {};
          const out = skipped.map(({ id, reason }) => [id, reason]);
          return { distrust: kept.distrust?.reason, ids: entries.map(({ id }) => id), out };
        };
        try {
          origin.route(path, { body: Buffer.from(metadata(strangers(), ours())) });
          const both = [identifierFor('b'), identifierFor('ttylinux')];
          expect(await look(publisher.x509('alice', 'bob'))).toEqual({ distrust: undefined, ids: both, out: [] });
          expect(await look(required('alice', 'bob'))).toEqual({ distrust: undefined, ids: both, out: [] });
          expect(await look(required('alice'))).toEqual({
            distrust: undefined,
            ids: [],
            out: [
              [identifierFor('b'), 'EndorserNotTrusted'],
              [identifierFor('ttylinux'), 'CrlMissing'],
            ],
          });
          expect(await look(publisher.x509())).toMatchObject({ distrust: 'EndorserNotTrusted' });
        } finally {
          await origin.close();
          rmSync(join(folder, '..'), { recursive: true, force: true });
        }
      });
    });

    it('under a tag are one, whoever answers', async () => {
      const url = 'https://mp.example.org/tag/alice@example.org/base';
      const tag = '<dcterms:alternative>base</dcterms:alternative>';
      const signed = publisher.xmlsign(entryOf({ more: tag }));
      expect((await market([signed], publisher.x509('alice'), url)).entries).toMatchObject([
        { id: 'alice@example.org/base', signer: { subject: ENDORSERS.alice.subject } },
      ]);
      const another = publisher.xmlsign(entryOf({ content: 'b', ...bobs, more: tag }), 'bob');
      expect(await refusal(market([another], publisher.x509('alice', 'bob'), url))).toMatch(
        /^InvalidEntry: it is not what alice@example\.org calls base/,
      );
    });
  });

  describe("HEPiX's page", () => {
    it('has the command that signs a list', async () => {
      const command = /^openssl cms -sign .*$/m.exec(readFileSync(join(DOCS, 'hepix.md'), 'utf8'))?.[0] ?? 'false';
      publisher.write('list.json', hepix());
      publisher.run(command);
      expect(
        (await read('HEPiX', URL, { [URL]: publisher.read('image.list') }, publisher.x509('alice'))).entries,
      ).toHaveLength(1);
    });
  });
});

describePublished();
