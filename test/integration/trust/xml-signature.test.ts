import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { type Party, Pki } from '../../support/pki.ts';
import { installed, judge, trusting, verdict } from './judging.ts';

const DSIG = 'http://www.w3.org/2000/09/xmldsig#';
const C14N = 'http://www.w3.org/TR/2001/REC-xml-c14n-20010315';
const EXCLUSIVE = 'http://www.w3.org/2001/10/xml-exc-c14n#';
const SHA256 = 'http://www.w3.org/2001/04/xmlenc#sha256';
const RSA_SHA256 = 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256';

interface Template {
  canonicalization?: string;
  method?: string;
  digest?: string;
  transforms?: string[];
  uri?: string;
  references?: string;
  keyInfo?: string;
  prefix?: string;
  /** Before the signature, below the root. */
  body?: string;
}

const RDF = 'http://www.w3.org/1999/02/22-rdf-syntax-ns#:RDF';

const BODY =
  '\n  <rdf:Description rdf:about="#MMZu9WvwKIro-rtBQfDk4PsKO7_">\r\n    <dcterms:title>a &amp; b &lt; "c" é</dcterms:title>' +
  '<!-- a comment --><slterms:os><![CDATA[<linux>]]></slterms:os>\n    <x xmlns="urn:x" b="2" a="1"/></rdf:Description>\n';

describe.skipIf(!installed('openssl', 'prlimit', 'setpriv', 'xmlsec1'))('an XML signature', () => {
  const pki = new Pki();
  afterAll(() => pki.close());
  const root = pki.party({ subject: '/CN=Root' });
  const alice = pki.party({ subject: '/C=EU/O=Lab/CN=Alice', issuer: root, key: 'rsa' });
  const trust = trusting([{ name: 'root.0', bytes: root.pem }]);

  const algorithms = (names: readonly string[], tag: string) =>
    names.map((each) => `<${tag} Algorithm="${each}"/>`).join('');

  function template(options: Template = {}): string {
    const {
      canonicalization = `${C14N}#WithComments`,
      method = RSA_SHA256,
      digest = SHA256,
      uri = '',
      prefix = '',
    } = options;
    const p = prefix === '' ? '' : `${prefix}:`;
    const transforms = algorithms(options.transforms ?? [`${DSIG}enveloped-signature`], `${p}Transform`);
    const reference = `<${p}Reference URI="${uri}"><${p}Transforms>${transforms}</${p}Transforms><${p}DigestMethod Algorithm="${digest}"/><${p}DigestValue/></${p}Reference>`;
    const signature =
      `<${p}Signature xmlns${prefix === '' ? '' : `:${prefix}`}="${DSIG}"><${p}SignedInfo><${p}CanonicalizationMethod Algorithm="${canonicalization}"/>` +
      `<${p}SignatureMethod Algorithm="${method}"/>${options.references ?? reference}</${p}SignedInfo><${p}SignatureValue/>` +
      `<${p}KeyInfo>${options.keyInfo ?? `<${p}X509Data/>`}</${p}KeyInfo></${p}Signature>`;
    return (
      '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<rdf:RDF xmlns:dcterms="http://purl.org/dc/terms/" ' +
      'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:slterms="http://mp.stratuslab.eu/slterms#" ' +
      `xml:base="http://mp.stratuslab.eu/" xml:lang="en">${options.body ?? BODY}${signature}</rdf:RDF>`
    );
  }

  /** xmlsec1 is another's implementation: what it signs is signed. */
  function sign(document: string, party: Party = alice): Buffer {
    const key = `${pki.path(`${party.name}.key`)},${pki.path(`${party.name}.pem`)}`;
    pki.write('entry.xml', document);
    const args = ['--sign', '--privkey-pem', key, '--id-attr:Id', 'part', '--id-attr:Id', RDF, pki.path('entry.xml')];
    return execFileSync('xmlsec1', args, { cwd: pki.folder, stdio: ['ignore', 'pipe', 'pipe'] });
  }

  const signed = sign(template());
  const edited = (document: Buffer, from: string | RegExp, to: string) => {
    const before = document.toString('utf8');
    const after = before.replace(from, () => to);
    expect(after).not.toBe(before);
    return Buffer.from(after);
  };
  const signatureOf = (document: Buffer) => /<Signature [^]*<\/Signature>/.exec(document.toString())?.[0] ?? '';

  it('of the whole document is proven, and the canonical form without the signature comes out', async () => {
    const judged = await judge(signed, trust);
    if (judged instanceof Failure) throw judged;
    const content = Buffer.from(judged.content).toString();
    expect(content).toContain('<dcterms:title>a &amp; b &lt; "c" é</dcterms:title>');
    expect(content).toContain('<slterms:os>&lt;linux&gt;</slterms:os>');
    expect(content).not.toMatch(/Signature|<!--|\r/);
    expect(judged.signer).toMatchObject({
      kind: 'x509',
      subject: '/C=EU/O=Lab/CN=Alice',
      digest: 'sha256',
      chain: ['/C=EU/O=Lab/CN=Alice', '/CN=Root'],
    });
  });

  it.each<[string, Template]>([
    ['inclusive canonical XML', { canonicalization: C14N }],
    ['exclusive canonical XML', { canonicalization: EXCLUSIVE, transforms: [`${DSIG}enveloped-signature`, EXCLUSIVE] }],
    ['inclusive canonical XML as a transform too', { transforms: [`${DSIG}enveloped-signature`, C14N] }],
    [
      'rsa-sha512',
      {
        method: 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha512',
        digest: 'http://www.w3.org/2001/04/xmlenc#sha512',
      },
    ],
    ['a prefix for the namespace of signatures', { prefix: 'ds' }],
    ['an empty body', { body: '' }],
  ])('with %s is proven', async (_, options) => {
    expect(await verdict(sign(template(options)), trust)).toBe('ok');
  });

  it('whose prefix is declared at the root is proven', async () => {
    const outside = template({ prefix: 'ds' })
      .replace(`<ds:Signature xmlns:ds="${DSIG}">`, '<ds:Signature>')
      .replace('<rdf:RDF ', `<rdf:RDF xmlns:ds="${DSIG}" `);
    expect(await verdict(sign(outside), trust)).toBe('ok');
  });

  it('with SHA-1, as the Marketplace has them, is proven where that is allowed', async () => {
    const old = sign(template({ method: `${DSIG}rsa-sha1`, digest: `${DSIG}sha1` }));
    const oldDigest = sign(template({ digest: `${DSIG}sha1` }));
    const files = [{ name: 'root.0', bytes: root.pem }];
    for (const document of [old, oldDigest]) {
      expect(await verdict(document, trust)).toBe('WeakSignature');
      expect(await verdict(document, trusting(files, { allowSha1: true }))).toBe('ok');
    }
  });

  it('counts only when its certificate is trusted, by its chain or itself, and its signer is an endorser', async () => {
    const other = pki.party({ subject: '/CN=Other' });
    expect(await verdict(signed, trusting([{ name: 'o.0', bytes: other.pem }]))).toBe('UntrustedSigner');
    expect(await verdict(signed, trusting([{ name: 'a.crt', bytes: alice.pem }]))).toBe('ok');
    const endorsers = [{ subject: 'CN=Alice,O=Lab,C=EU', issuer: 'CN=Root' }];
    const files = [{ name: 'root.0', bytes: root.pem }];
    expect(await verdict(signed, trusting(files, { endorsers }))).toBe('ok');
    expect(await verdict(signed, trusting(files, { endorsers: [{ subject: 'CN=Bob', issuer: 'CN=Root' }] }))).toBe(
      'EndorserNotTrusted',
    );
    expect(await verdict(signed, trust, { at: Date.parse('2031-01-01') })).toBe('CertificateExpired');
  });

  it("of somebody who shows another's certificate does not hold", async () => {
    const mallory = pki.party({ subject: '/CN=Mallory', issuer: root, key: 'rsa' });
    const base64 = (party: Party) => party.pem.toString().replaceAll(/-----[^-]+-----|\n/g, '');
    const forged = sign(
      template({ keyInfo: `<X509Data><X509Certificate>${base64(alice)}</X509Certificate></X509Data>` }),
      mallory,
    );
    expect(await verdict(forged, trust)).toBe('SignatureInvalid');
  });

  describe('is refused', () => {
    const part = `<Reference URI="#p"><Transforms><Transform Algorithm="${C14N}"/></Transforms><DigestMethod Algorithm="${SHA256}"/><DigestValue/></Reference>`;
    const whole = `<Reference URI=""><Transforms><Transform Algorithm="${DSIG}enveloped-signature"/></Transforms><DigestMethod Algorithm="${SHA256}"/><DigestValue/></Reference>`;
    const withPart = '<part Id="p">signed</part><rdf:Description>not signed</rdf:Description>';

    it.each<[string, string, () => Buffer]>([
      ['when there is none', 'SignatureMissing', () => edited(signed, /<Signature [^]*<\/Signature>/, '')],
      ['when a letter was changed', 'SignatureInvalid', () => edited(signed, '>a &amp; b', '>A &amp; b')],
      ['when an attribute was changed', 'SignatureInvalid', () => edited(signed, 'b="2"', 'b="3"')],
      ['when xml:base was changed', 'SignatureInvalid', () => edited(signed, 'mp.stratuslab.eu/"', 'mp.example.org/"')],
      [
        'when an element was added',
        'SignatureInvalid',
        () => edited(signed, '</rdf:Description>', '<more/></rdf:Description>'),
      ],
      ['when its digest was changed', 'SignatureInvalid', () => edited(signed, /<DigestValue>./, '<DigestValue>A')],
      [
        'when its value was changed',
        'SignatureInvalid',
        () => edited(signed, /<SignatureValue>\s*[A-Za-z0-9+/]{3}/, '<SignatureValue>AAA'),
      ],
      [
        'when there are two of them',
        'SignerAmbiguous',
        () => edited(signed, '</rdf:RDF>', `${signatureOf(signed)}</rdf:RDF>`),
      ],
      [
        'when it was wrapped into another document',
        'SignatureInvalid',
        () => Buffer.from(`<evil>${signed.toString().replace(/<\?xml[^>]*>/, '')}</evil>`),
      ],
      [
        'when it was lifted below another element',
        'SignatureInvalid',
        () =>
          edited(
            edited(signed, signatureOf(signed), ''),
            '</rdf:Description>',
            `${signatureOf(signed)}</rdf:Description>`,
          ),
      ],
      ['when its root is a signature', 'SignatureInvalid', () => Buffer.from(signatureOf(signed))],
      ['when it covers a part alone', 'SignatureInvalid', () => sign(template({ body: withPart, references: part }))],
      [
        'when it covers the root by its name, which another element may have in another reading',
        'SignatureInvalid',
        () => sign(template({ uri: '#p' }).replace('<rdf:RDF ', '<rdf:RDF Id="p" ')),
      ],
      [
        'when it covers a part as well',
        'SignatureInvalid',
        () => sign(template({ body: withPart, references: whole + part })),
      ],
      [
        'when it covers what an XPath chooses',
        'SignatureInvalid',
        () =>
          sign(
            template({
              references: whole.replace(
                '</Transforms>',
                '<Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"><XPath>true()</XPath></Transform></Transforms>',
              ),
            }),
          ),
      ],
      [
        'when it covers itself, without the enveloped transform',
        'SignatureInvalid',
        () => edited(signed, `${DSIG}enveloped-signature`, C14N),
      ],
      ['when its method is HMAC', 'WeakSignature', () => edited(signed, RSA_SHA256, `${DSIG}hmac-sha1`)],
      ['when its method is unknown', 'WeakSignature', () => edited(signed, RSA_SHA256, 'urn:none')],
      ...['constructor', 'toString', '__proto__'].flatMap((member): [string, string, () => Buffer][] => [
        [`when its method is called ${member}`, 'WeakSignature', () => edited(signed, RSA_SHA256, member)],
        [`when its digest is called ${member}`, 'WeakSignature', () => edited(signed, SHA256, member)],
      ]),
      [
        'when its digest is unknown',
        'WeakSignature',
        () => edited(signed, SHA256, 'http://www.w3.org/2001/04/xmldsig-more#md5'),
      ],
      [
        'when it carries no certificate',
        'SignatureInvalid',
        () => edited(signed, /<X509Data>[^]*<\/X509Data>/, '<KeyName>alice</KeyName>'),
      ],
      [
        'when its certificate is garbage',
        'CertificateInvalid',
        () => edited(signed, /<X509Certificate>[^<]*/, '<X509Certificate>AAAA'),
      ],
      [
        'when it holds an object beside its parts',
        'SignatureInvalid',
        () => edited(signed, '</KeyInfo>', '</KeyInfo><Object/>'),
      ],
      [
        'when the document declares entities',
        'SignatureInvalid',
        () => edited(signed, '<rdf:RDF', '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><rdf:RDF'),
      ],
      ['when the document uses entities', 'SignatureInvalid', () => edited(signed, 'a &amp; b', '&b;')],
      [
        'when the document has a processing instruction',
        'SignatureInvalid',
        () => edited(signed, '<slterms:os>', '<?x y?><slterms:os>'),
      ],
      ['when the document is not well-formed', 'SignatureInvalid', () => edited(signed, '</rdf:RDF>', '')],
      ['when the document says it is in another encoding', 'SignatureInvalid', () => edited(signed, 'UTF-8', 'UTF-16')],
      ['when the document is no UTF-8', 'SignatureInvalid', () => Buffer.from(signed.toString('utf8'), 'latin1')],
      ['when the document holds a NUL', 'SignatureInvalid', () => edited(signed, '>a &amp; b', '>a\0 b')],
      [
        'when the document is nested without end',
        'SignatureInvalid',
        () => edited(signed, '<slterms:os>', `${'<a>'.repeat(5000)}${'</a>'.repeat(5000)}<slterms:os>`),
      ],
      [
        'when the document has elements without end',
        'SignatureInvalid',
        () => edited(signed, '<slterms:os>', `${'<a/>'.repeat(20_000)}<slterms:os>`),
      ],
      [
        'when the document is larger than any entry',
        'TooLarge',
        () => edited(signed, '<slterms:os>', `${' '.repeat(2 ** 20)}<slterms:os>`),
      ],
    ])('%s (%s)', async (_, reason, document) => {
      expect(await verdict(document(), trust)).toBe(reason);
    });
  });

  it('takes no text for signed that was a comment or a processing instruction', async () => {
    const commented = edited(signed, '<!-- a comment -->', '<!-- <dcterms:title>evil</dcterms:title> -->');
    const judged = await judge(commented, trust);
    // Comments are not covered (URI=""), so they may change; they are not in what comes out.
    if (judged instanceof Failure) throw judged;
    expect(Buffer.from(judged.content).toString()).not.toContain('evil');
  });

  it('whichever character is changed, what comes out is what was signed, or nothing', async () => {
    const original = await judge(signed, trust);
    if (original instanceof Failure) throw original;
    await fc.assert(
      fc.asyncProperty(fc.nat(signed.length - 1), fc.integer({ min: 0x20, max: 0x7e }), async (at, character) => {
        const document = Buffer.from(signed);
        document[at] = character;
        const judged = await judge(document, trust);
        if (judged instanceof Failure) expect(judged.reason).not.toBe('InternalError');
        else expect(Buffer.from(judged.content).equals(original.content)).toBe(true);
      }),
      { numRuns: 80 },
    );
  });
});
