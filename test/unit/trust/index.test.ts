import { describe, expect, it } from 'vitest';
import { isSigner, verifySigned } from '../../../src/trust/index.ts';

describe('an unsigned document', () => {
  it('is taken as it is where nobody needs to vouch for it, and no signer is made up', async () => {
    const content = Buffer.from('{}');
    const { signal } = new AbortController();
    expect(await verifySigned(content, { trust: { kind: 'unsigned' }, at: 0, signal })).toEqual({ content });
  });
});

describe('an endorser', () => {
  it('is the signer when subject and issuer both are', () => {
    const named = (value: string) => [[{ type: '2.5.4.3', value }]];
    const names = { subject: named('a'), issuer: named('ca') };
    const signer = { kind: 'x509', name: '/CN=a', names, fingerprint: '' } as const;
    expect(isSigner({ subject: '/CN=a', issuer: '/CN=ca' }, signer)).toBe(true);
    expect(isSigner({ subject: '/CN=a', issuer: '/CN=other' }, signer)).toBe(false);
    expect(isSigner({ subject: '/CN=other', issuer: '/CN=ca' }, signer)).toBe(false);
  });
});
