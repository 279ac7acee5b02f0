import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { isSigner } from '../../../src/trust/index.ts';
import type { X509Trust } from '../../../src/trust/trust.ts';
import { PUBLISHED, published, publishedFolder } from '../../support/published.ts';
import { judge, trusting } from './judging.ts';

/** Tests with what others have published; where that is not there, neither are these tests. */
export function describePublished(): void {
  if (PUBLISHED === undefined) return;

  describe('published HEPiX lists', () => {
    const anchors = publishedFolder('hepix/trust-anchors');
    const CERN = 'cern-cernvm-2013-10-13.image.list';
    const GRIDKA = 'gridka-2011-02-15-expired-signer.image.list';

    it.each<[string, string, string, Partial<X509Trust>]>([
      [CERN, '2013-10-14', 'ok', { allowSha1: true }],
      [CERN, '2013-10-14', 'ok', { allowSha1: true, signingPolicy: 'Require' }],
      [CERN, '2013-10-14', 'WeakSignature', {}],
      [CERN, '2013-10-14', 'CrlMissing', { allowSha1: true, crl: 'Require' }],
      [CERN, '2014-05-01', 'CertificateExpired', { allowSha1: true }],
      [GRIDKA, '2011-01-20', 'ok', { allowSha1: true }],
      [GRIDKA, '2011-01-20', 'ok', { allowSha1: true, signingPolicy: 'Require' }],
      [GRIDKA, '2011-02-15', 'CertificateExpired', { allowSha1: true }],
      ['cloudkeeper-imagelist01.signed', '2020-01-01', 'ok', {}],
      ['cloudkeeper-imagelist02.signed', '2020-01-01', 'ok', {}],
      ['cloudkeeper-imagelist01.signed', '2029-01-01', 'CertificateExpired', {}],
      ['cloudkeeper-imagelist01.unsigned', '2020-01-01', 'SignatureMissing', {}],
      ['cloudkeeper-imagelist_invalid.signed', '2018-01-01', 'SignatureInvalid', {}],
    ])('%s at %s: %s %o', async (file, at, reason, rules) => {
      const judged = await judge(published(`hepix/lists/${file}`), trusting(anchors, rules), { at: Date.parse(at) });
      expect(judged instanceof Failure ? judged.reason : 'ok').toBe(reason);
      if (!(judged instanceof Failure)) expect(JSON.parse(Buffer.from(judged.content).toString())).toBeTypeOf('object');
    });

    it.each([
      [CERN, '2013-10-14', true],
      ['cloudkeeper-imagelist01.signed', '2020-01-01', false],
    ])('%s at %s names its signer as its endorser: %s', async (file, at, same) => {
      const trust = trusting(anchors, { allowSha1: true });
      const judged = await judge(published(`hepix/lists/${file}`), trust, { at: Date.parse(at) });
      if (judged instanceof Failure) throw judged;
      const { signer } = judged;
      if (signer === undefined) throw new Error('nobody signed it');
      const text = Buffer.from(judged.content).toString();
      const value = (key: string) => new RegExp(`"${key}"\\s*:\\s*"([^"]*)"`).exec(text)?.[1] ?? '';
      expect(isSigner({ subject: value('hv:dn'), issuer: value('hv:ca') }, signer)).toBe(same);
    });

    it('are left by any change to what they say', async () => {
      const list = published(`hepix/lists/${CERN}`);
      const changed = Buffer.from(list.toString('latin1').replace('4083adb6', '5083adb6'), 'latin1');
      const trust = trusting(anchors, { allowSha1: true });
      const judged = await judge(changed, trust, { at: Date.parse('2013-10-14') });
      expect(judged).toMatchObject({ reason: 'SignatureInvalid' });
    });
  });

  describe('published Marketplace entries', () => {
    const entries = publishedFolder('marketplace');
    const certificates = (text: string) =>
      Array.from(text.matchAll(/<X509Certificate>([^<]*)/g), (match, index) => ({
        name: `${index}.crt`,
        bytes: Buffer.from(match[1] ?? '', 'base64'),
      }));
    const signed = entries.filter(
      ({ name, bytes }) => name.startsWith('valid-') && Buffer.from(bytes).includes('<X509Certificate>'),
    );

    it.each(signed.map(({ name, bytes }) => [name, Buffer.from(bytes)] as const))(
      '%s holds at the date of its endorsement, by its own certificate, and nothing of it is changed in vain',
      async (_, bytes) => {
        const text = bytes.toString();
        const at = Date.parse(/<created[^>]*>([^<]*)/.exec(text)?.[1] ?? '2011-06-01T00:00:00Z');
        const trust = trusting(certificates(text), { allowSha1: true });
        const judged = await judge(bytes, trust, { at });
        if (judged instanceof Failure) throw judged;
        const { signer } = judged;
        if (signer === undefined) throw new Error('nobody signed it');
        const content = Buffer.from(judged.content).toString();
        expect(content).toContain('<slreq:bytes>');
        const value = (tag: string) => new RegExp(`<${tag}[^>]*>([^<]*)<`).exec(content)?.[1] ?? '';
        if (value('subject') !== '') {
          expect(isSigner({ subject: value('subject'), issuer: value('issuer') }, signer)).toBe(true);
        }
        const changed = Buffer.from(text.replace('<slreq:bytes>', '<slreq:bytes>1'));
        expect(await judge(changed, trust, { at })).toMatchObject({ reason: 'SignatureInvalid' });
        expect(await judge(bytes, trusting(certificates(text)), { at })).toMatchObject({ reason: 'WeakSignature' });
        expect(await judge(bytes, trust, { at: Date.parse('2026-01-01') })).toMatchObject({
          reason: 'CertificateExpired',
        });
      },
    );

    it('with several signatures are refused, and without one too', async () => {
      const several = published('marketplace/partial-multiple-signatures.xml');
      const trust = trusting(certificates(several.toString()), { allowSha1: true });
      const at = Date.parse('2011-06-01');
      expect(await judge(several, trust, { at })).toMatchObject({ reason: 'SignerAmbiguous' });
      expect(await judge(published('marketplace/valid-minimal.xml'), trust, { at })).toMatchObject({
        reason: 'SignatureMissing',
      });
    });
  });
}
