import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { CatalogFormat } from '../../../src/catalogs/catalog.ts';
import { readCatalog, recognise } from '../../../src/catalogs/index.ts';
import { anchorsOf } from '../../../src/trust/index.ts';
import type { Trust, X509Trust } from '../../../src/trust/trust.ts';
import { PUBLISHED } from '../../support/published.ts';
import { refusal, request } from '../../unit/catalogs/reading.ts';

const URL = 'https://lists.example.org/list';
const at = (date: string) => Date.parse(`${date}T00:00:00Z`);

/**
 * Tests with real, published lists and entries, which are not the repository's to ship; where they are not there, neither are these
 * tests.
 */
export function describePublished(): void {
  if (PUBLISHED === undefined) return;
  const folder = PUBLISHED;
  const file = (name: string) => readFileSync(join(folder, name));
  const read = (format: CatalogFormat, name: string, trust: Trust, date: string) =>
    readCatalog(format, request(URL, { documents: { [URL]: file(name) }, trust, at: at(date) }));
  const anchors = anchorsOf(
    readdirSync(join(folder, 'hepix/trust-anchors')).map((name) => ({
      name,
      bytes: file(`hepix/trust-anchors/${name}`),
    })),
  );
  const x509: X509Trust = {
    kind: 'x509',
    endorsers: undefined,
    anchors,
    crl: 'Ignore',
    signingPolicy: 'IfPresent',
    allowSha1: true,
  };
  const LISTS = 'hepix/lists/';

  describe("CernVM's list of 2013", () => {
    const name = `${LISTS}cern-cernvm-2013-10-13.image.list`;

    it('is read at its own time: disks with what they are, archives skipped', async () => {
      const { list, entries, skipped, warnings } = await read('HEPiX', name, x509, '2013-10-14');
      expect(list).toMatchObject({
        identity: 'e55c1afe-0a62-4d31-a8d7-fb8c825f92a2',
        createdAt: '2013-10-13T21:05:54Z',
        expiresAt: '2014-04-16T00:00:00Z',
        signer: { kind: 'x509', digest: 'sha1', issuer: '/DC=ch/DC=cern/CN=CERN Trusted Certification Authority' },
      });
      expect(entries.length + skipped.length).toBe(30);
      expect(new Set(skipped.map(({ reason }) => reason))).toEqual(new Set(['NotSupported']));
      expect(entries.every(({ checksums, size = 0 }) => checksums.sha512 !== undefined && size > 100_000_000)).toBe(
        true,
      );
      expect(new Set(entries.map(({ format, compression }) => `${format} ${compression}`))).toEqual(
        new Set(['Raw Gzip', 'Vdi Gzip', 'Vhd Gzip']),
      );
      expect(warnings).toHaveLength(1);
    });

    it.each([
      [
        'when its signer is not trusted',
        { ...x509, endorsers: [{ subject: '/CN=somebody', issuer: '/CN=else' }] },
        '2013-10-14',
        /^EndorserNotTrusted: /,
      ],
      ['where SHA-1 is not taken', { ...x509, allowSha1: false }, '2013-10-14', /^WeakSignature: /],
      ["after its certificate's end", x509, '2014-05-01', /^CertificateExpired: /],
      ['where revocation lists are required', { ...x509, crl: 'Require' as const }, '2013-10-14', /^CrlMissing: /],
    ])('is refused %s', async (_, trust, date, expected) => {
      expect(await refusal(read('HEPiX', name, trust, date))).toMatch(expected);
    });
  });

  describe("cloudkeeper's test lists", () => {
    it.each(['cloudkeeper-imagelist01.signed', 'cloudkeeper-imagelist02.signed'])(
      '%s is signed, but not by the endorser that it names',
      async (name) => {
        expect(await refusal(read('HEPiX', LISTS + name, x509, '2020-01-01'))).toMatch(/^EndorserMismatch: /);
      },
    );

    it('the one that was changed after signing is refused', async () => {
      expect(await refusal(read('HEPiX', `${LISTS}cloudkeeper-imagelist_invalid.signed`, x509, '2020-01-01'))).toMatch(
        /^SignatureInvalid: /,
      );
    });

    it('the bare one is read where nobody is asked to vouch', async () => {
      const { entries, skipped } = await read(
        'HEPiX',
        `${LISTS}cloudkeeper-imagelist01.unsigned`,
        { kind: 'unsigned' },
        '2020-01-01',
      );
      expect(skipped).toEqual([]);
      expect(entries.length).toBeGreaterThan(0);
    });
  });

  describe("GridKa's list of 2011", () => {
    it('is of a schema before there was one', async () => {
      const name = `${LISTS}gridka-2011-02-15-expired-signer.image.list`;
      expect(await refusal(read('HEPiX', name, x509, '2011-01-20'))).toMatch(/^InvalidList: .* it is no image list/);
      expect(await refusal(read('HEPiX', name, x509, '2011-02-15'))).toMatch(/^CertificateExpired: /);
    });
  });

  describe("StratusLab's entries", () => {
    const unsigned: Trust = { kind: 'unsigned' };

    it.each(readdirSync(join(folder, 'marketplace')).filter((name) => name.startsWith('invalid-')))(
      '%s is refused',
      async (name) => {
        expect(await refusal(read('Marketplace', `marketplace/${name}`, unsigned, '2014-04-01'))).toMatch(
          /^InvalidEntry: /,
        );
      },
    );

    it.each([
      ['valid-two-locations.xml', ['http://www.example.org/1234', 'http://www.example2.org/5678'], undefined],
      ['valid-full-signature.xml', ['http://example.org/...'], 'security issue with app'],
      ['valid-indate-deprecated-signature.xml', [], 'This is a test of deprecation'],
    ])('%s says where the image is, and whether it is deprecated', async (name, urls, deprecated) => {
      const { entries } = await read('Marketplace', `marketplace/${name}`, unsigned, '2014-04-01');
      expect(entries.map((entry) => [entry.urls, entry.deprecated])).toEqual([[urls, deprecated]]);
    });

    it.each(['valid-minimal.xml', 'valid-minimal-leading-zero-sha1.xml'])('%s has no location', async (name) => {
      expect(await refusal(read('Marketplace', `marketplace/${name}`, unsigned, '2014-04-01'))).toMatch(
        /no slterms:location/,
      );
    });
  });

  describe('every published file', () => {
    it.each([
      ...readdirSync(join(folder, LISTS)).map(
        (name) => [LISTS + name, name.startsWith('gridka') ? undefined : 'HEPiX'] as const,
      ),
      ...readdirSync(join(folder, 'marketplace')).map((name) => [`marketplace/${name}`, 'Marketplace'] as const),
    ])('%s is recognised', (name, format) => {
      expect(recognise(file(name))).toBe(format);
    });
  });
}
