import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { CatalogFormat } from '../../../src/catalogs/catalog.ts';
import { readCatalog } from '../../../src/catalogs/index.ts';
import { readEntries } from '../../../src/catalogs/kept.ts';
import { readList } from '../../../src/catalogs/reading.ts';
import type { Trust, X509Trust } from '../../../src/trust/trust.ts';
import { hepixList } from '../../support/hepix.ts';
import { entryOf, identifierFor, metadata } from '../../support/marketplace.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { SHA256 } from '../../unit/catalogs/reading.ts';
import { installed } from '../images/workspace.ts';
import { ENDORSERS, makePublisher, PROGRAMS, type Publisher } from './publisher.ts';

/** The keys and the signatures are made now; an hour later the lists are judged. */
const NOW = Date.now() + 3_600_000;
const PATH = '/streams/v1/list';

describe.skipIf(!installed(...PROGRAMS))('a list that was accepted, when trust has changed,', () => {
  let publisher: Publisher;
  let origin: Origin;
  let folder: string;

  beforeAll(() => {
    publisher = makePublisher();
  });
  afterAll(() => publisher.close());
  beforeEach(async () => {
    origin = await startOrigin();
    folder = join(mkdtempSync(join(tmpdir(), 'judging-')), 'uid');
  });
  afterEach(async () => {
    await origin.close();
    rmSync(join(folder, '..'), { recursive: true, force: true });
  });

  const serve = (body: string | Uint8Array, path = PATH) => origin.route(path, { body: Buffer.from(body) });
  const unreachable = () => origin.route(PATH, { status: 503 });

  async function look(format: CatalogFormat, trust: Trust, at = NOW, path = PATH) {
    const network = { allow: ['127.0.0.0/8'] };
    const timeouts = { connectMs: 60_000, headersMs: 60_000, stallMs: 60_000 };
    const source = { kind: 'http', url: origin.url + path, headers: {}, network, timeouts } as const;
    const task = { format, source, trust, at, folder, accepted: undefined, rollback: 'Refuse' } as const;
    const outcome = await readList(task, readCatalog, new AbortController().signal);
    if (outcome.kept === undefined) throw new Error(JSON.stringify(outcome));
    const { entries = [], skipped = [] } = (await readEntries(folder, outcome.kept)) ?? {};
    return {
      kind: outcome.kind,
      distrust: outcome.kept.distrust?.reason,
      doubt: outcome.kind === 'Refused' ? outcome.doubt?.reason : undefined,
      ids: entries.map(({ id }) => id),
      skipped: skipped.map(({ id, reason, signer }) => [id, reason, signer]),
    };
  }

  /** Their authority is gone, too. */
  const withoutAuthority = (trust: X509Trust): Trust => ({
    ...trust,
    anchors: { certificates: [], crls: [], policies: [] },
  });

  const hepix = () => {
    const image = { id: 'a', title: 'A', url: 'https://images.example.org/a', bytes: new Uint8Array(1) };
    return hepixList({ id: 'list', version: '1', images: [image] });
  };

  describe('a HEPiX list', () => {
    beforeEach(async () => {
      serve(publisher.smime(hepix()));
      expect(await look('HEPiX', publisher.x509('alice'))).toMatchObject({ kind: 'Accepted', ids: ['a'] });
    });

    it('has lost its endorser also where his authority was taken out with him', async () => {
      const gone = withoutAuthority(publisher.x509('bob'));
      expect(await look('HEPiX', gone)).toMatchObject({ distrust: 'EndorserNotTrusted', doubt: undefined });
      unreachable();
      expect(await look('HEPiX', gone)).toMatchObject({ distrust: 'EndorserNotTrusted', doubt: undefined });
      const back = await look('HEPiX', publisher.x509('alice'));
      expect(back).toMatchObject({ kind: 'Refused', distrust: undefined, doubt: undefined, ids: ['a'] });
    });

    it.each(['openpgp', 'minisign'] as const)('has lost its endorser where trust is by %s now', async (kind) => {
      const trust = kind === 'openpgp' ? publisher.openpgp('alice') : publisher.minisign;
      expect(await look('HEPiX', trust)).toMatchObject({ distrust: 'EndorserNotTrusted', doubt: undefined });
    });

    it('is in doubt, and no more than that, where only the authority is gone, or a CRL is missing', async () => {
      const gone = withoutAuthority(publisher.x509('alice'));
      expect(await look('HEPiX', gone)).toMatchObject({ distrust: undefined, doubt: 'UntrustedSigner', ids: ['a'] });
      unreachable();
      const required: Trust = { ...publisher.x509('alice'), crl: 'Require' };
      expect(await look('HEPiX', required)).toMatchObject({ distrust: undefined, doubt: 'CrlMissing', ids: ['a'] });
    });

    it('is as good as it was where nobody need vouch for it any more, or its date is past', async () => {
      unreachable();
      expect(await look('HEPiX', { kind: 'unsigned' })).toMatchObject({ distrust: undefined, doubt: undefined });
      const later = NOW + 60 * 86_400_000;
      const past = await look('HEPiX', publisher.x509('alice'), later);
      expect(past).toMatchObject({ kind: 'Refused', distrust: undefined, doubt: undefined });
    });
  });

  describe('a list that nobody was asked to vouch for', () => {
    beforeEach(async () => {
      serve(hepix());
      expect(await look('HEPiX', { kind: 'unsigned' })).toMatchObject({ kind: 'Accepted' });
    });

    it('is out when neither it nor what is served now has a signature', async () => {
      expect(await look('HEPiX', publisher.x509('alice'))).toMatchObject({ distrust: 'SignatureMissing' });
      serve(publisher.smime(hepix()));
      const signed = await look('HEPiX', publisher.x509('alice'));
      expect(signed).toMatchObject({ kind: 'Accepted', distrust: undefined });
    });

    it('is in doubt while it cannot be fetched: a signature may lie beside it by now', async () => {
      unreachable();
      const doubtful = await look('HEPiX', publisher.x509('alice'));
      expect(doubtful).toMatchObject({ distrust: undefined, doubt: 'SignatureMissing' });
    });

    it('is good when it is proven now by the signature that nobody asked for then', async () => {
      serve(publisher.smime(hepix()));
      await look('HEPiX', { kind: 'unsigned' });
      unreachable();
      const proven = await look('HEPiX', publisher.x509('alice'));
      expect(proven).toMatchObject({ kind: 'Refused', distrust: undefined, doubt: undefined });
    });
  });

  describe('a simplestreams index with parts of two signers', () => {
    const products = (name: string) =>
      JSON.stringify({
        format: 'products:1.0',
        products: { [name]: { versions: { 1: { items: { 'disk1.img': { path: 'x.img', sha256: SHA256 } } } } } },
      });
    const part = (path: string) => ({ path, datatype: 'image-downloads', format: 'products:1.0' });

    beforeEach(async () => {
      const index = { a: part('streams/v1/a.sjson'), b: part('streams/v1/b.sjson') };
      serve(publisher.clearsign(JSON.stringify({ format: 'index:1.0', index })));
      serve(publisher.clearsign(products('a')), '/streams/v1/a.sjson');
      serve(publisher.clearsign(products('b'), 'bob'), '/streams/v1/b.sjson');
      const both = await look('Simplestreams', publisher.openpgp('alice', 'bob'));
      expect(both).toMatchObject({ kind: 'Accepted', ids: ['a', 'b'] });
    });

    it('loses the products of the key that is taken out, and no others; with the key they are back', async () => {
      const lost = { kind: 'Refused', distrust: undefined, doubt: undefined, ids: ['a'] };
      const skipped = [['b', 'UntrustedSigner', undefined]];
      expect(await look('Simplestreams', publisher.openpgp('alice'))).toEqual({ ...lost, skipped });
      unreachable();
      expect(await look('Simplestreams', publisher.openpgp('alice'))).toEqual({ ...lost, skipped });
      expect(await look('Simplestreams', publisher.openpgp('alice', 'bob'))).toMatchObject({ ids: ['a', 'b'] });
    });

    it('is out with the key of its index', async () => {
      expect(await look('Simplestreams', publisher.openpgp('bob'))).toMatchObject({ distrust: 'UntrustedSigner' });
    });
  });

  describe("a Marketplace's answer", () => {
    const bobs = { subject: 'CN=bob,DC=example,DC=org', email: 'bob@example.org' };
    const [ours, theirs] = [identifierFor('ttylinux'), identifierFor('b')];
    const entries = () => [publisher.xmlsign(entryOf()), publisher.xmlsign(entryOf({ content: 'b', ...bobs }), 'bob')];

    /** An alice of an authority that anybody can make, under the name of the real one. */
    const forge = (document: string) => {
      const subject = '/DC=org/DC=example/CN=';
      publisher.write('forged.ext', 'keyUsage=digitalSignature\n');
      for (const command of [
        `req -x509 -newkey rsa:2048 -nodes -keyout authority.key -out authority.pem -days 30 -subj ${subject}SPACE`,
        `req -newkey rsa:2048 -nodes -keyout forged.key -out forged.csr -subj ${subject}alice`,
        'x509 -req -in forged.csr -CA authority.pem -CAkey authority.key -set_serial 9 -days 30 -extfile forged.ext -out forged.pem',
      ])
        publisher.openssl(...command.split(' ').map((word) => word.replace('SPACE', 'Example CA')));
      return publisher.xmlsign(document, 'forged');
    };
    const certificateOf = (person: string) =>
      publisher
        .read(`${person}.pem`)
        .toString()
        .replaceAll(/-----[^-]+-----|\s/g, '');

    it('tells of an entry that is not believed who made it, as far as his signature proves it', async () => {
      const stolen = publisher
        .xmlsign(entryOf({ content: 'stolen', ...bobs }), 'bob')
        .replace(/<X509Certificate>[^<]*</, `<X509Certificate>${certificateOf('alice')}<`);
      const renamed = publisher.xmlsign(entryOf({ content: 'renamed' }));
      const bytes = metadata(
        publisher.xmlsign(entryOf({ content: 'b', ...bobs }), 'bob'),
        publisher.xmlsign(entryOf()),
        stolen,
        renamed.replaceAll(identifierFor('renamed'), theirs),
        entryOf({ content: 'bare' }),
        forge(entryOf({ content: 'forged' })),
      );
      serve(bytes);
      const { ids, skipped } = await look('Marketplace', publisher.x509('bob'));
      expect(ids).toEqual([theirs]);
      expect(skipped).toEqual([
        [ours, 'EndorserNotTrusted', ENDORSERS.alice],
        [identifierFor('stolen'), 'SignatureInvalid', 'Unproven'],
        [theirs, 'SignatureInvalid', 'Unproven'],
        [identifierFor('bare'), 'SignatureMissing', 'Unproven'],
        [identifierFor('forged'), 'UntrustedSigner', ENDORSERS.alice],
      ]);
    });

    it('loses the entries of an endorser who is revoked, whatever others have written in his name, also while it cannot be fetched', async () => {
      serve(metadata(...entries(), forge(entryOf()), entryOf()));
      const strangers = [
        [ours, 'UntrustedSigner', ENDORSERS.alice],
        [ours, 'SignatureMissing', 'Unproven'],
      ];
      const trust = publisher.x509('alice', 'bob');
      expect(await look('Marketplace', trust)).toMatchObject({ ids: [ours, theirs], skipped: strangers });
      publisher.write('index.txt', '');
      publisher.write('number', '01\n');
      const rules = ['database = index.txt', 'crlnumber = number', 'default_md = sha256', 'default_crl_days = 30'];
      publisher.write('ca.cnf', ['[ca]', 'default_ca = us', '[us]', ...rules, ''].join('\n'));
      const authority = ['-config', 'ca.cnf', '-keyfile', 'ca.key', '-cert', 'ca.pem'];
      publisher.openssl('ca', ...authority, '-revoke', 'alice.pem');
      publisher.openssl('ca', ...authority, '-gencrl', '-out', 'crl.pem');
      const crls = [{ name: 'crl.pem', bytes: publisher.read('crl.pem') }];
      const revoking: Trust = { ...trust, crl: 'Require', anchors: { ...trust.anchors, crls } };
      const out = { distrust: undefined, doubt: undefined, ids: [theirs] };
      const revoked = [ours, 'CertificateRevoked', ENDORSERS.alice];
      unreachable();
      expect(await look('Marketplace', revoking)).toMatchObject({ ...out, skipped: [revoked, ...strangers] });
    });

    it('under a tag tells it of the tag', async () => {
      const path = '/tag/alice@example.org/base';
      const tag = '<dcterms:alternative>base</dcterms:alternative>';
      serve(metadata(publisher.xmlsign(entryOf({ more: tag })), entryOf({ content: 'bare' })), path);
      const [id, trust] = ['alice@example.org/base', publisher.x509('alice')];
      expect(await look('Marketplace', trust, NOW, path)).toMatchObject({
        ids: [id],
        skipped: [[id, 'SignatureMissing', 'Unproven']],
      });
      const out = await look('Marketplace', publisher.x509('bob'), NOW, path);
      expect(out.skipped).toContainEqual([id, 'EndorserNotTrusted', ENDORSERS.alice]);
    });

    it('loses the entries of an endorser who is out with his authority, and not those of others', async () => {
      serve(metadata(...entries()));
      expect(await look('Marketplace', publisher.x509('alice', 'bob'))).toMatchObject({ ids: [ours, theirs] });
      unreachable();
      const out = await look('Marketplace', withoutAuthority(publisher.x509('bob')));
      expect(out).toMatchObject({ distrust: undefined, doubt: 'UntrustedSigner', ids: [theirs] });
      expect(out.skipped).toEqual([[ours, 'EndorserNotTrusted', ENDORSERS.alice]]);
      const back = await look('Marketplace', publisher.x509('alice', 'bob'));
      expect(back).toMatchObject({ doubt: undefined, ids: [ours, theirs], skipped: [] });
    });
  });
});
