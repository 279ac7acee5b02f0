import { describe, expect, it } from 'vitest';
import { anchorsOf } from '../../../src/trust/index.ts';

const pem = (label: string) => Buffer.from(`# a comment\n-----BEGIN ${label}-----\nMAA=\n-----END ${label}-----\n`);
const der = Buffer.from([0x30, 0]);

describe('the files of a directory of trust anchors', () => {
  const file = (name: string, bytes: Uint8Array = Buffer.from('text\n')) => ({ name, bytes });
  const names = (files: readonly { name: string }[]) => files.map(({ name }) => name);

  it('are sorted by what they hold, and what is none of these is left out', () => {
    const anchors = anchorsOf([
      file('a.0', pem('CERTIFICATE')),
      file('a.r0', pem('X509 CRL')),
      file('a.signing_policy'),
      file('a.namespaces'),
      file('a.info'),
      file('a.crl_url'),
      file('b.crt', der),
      file('b.r0', der),
      file('c.pem', pem('CERTIFICATE')),
      file('c.crl', der),
      file('key.pem', pem('PRIVATE KEY')),
      file('empty.0', Buffer.alloc(0)),
    ]);
    expect(names(anchors.certificates)).toEqual(['a.0', 'b.crt', 'c.pem']);
    expect(names(anchors.crls)).toEqual(['a.r0', 'b.r0', 'c.crl']);
    expect(names(anchors.policies)).toEqual(['a.signing_policy', 'a.namespaces']);
  });

  it('may be one bundle that holds certificates and revocation lists', () => {
    const bundle = file('ca.crt', Buffer.concat([pem('CERTIFICATE'), pem('X509 CRL')]));
    const { certificates, crls, policies } = anchorsOf([bundle]);
    expect({ certificates, crls, policies }).toEqual({ certificates: [bundle], crls: [bundle], policies: [] });
  });
});
