import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cleanUrl } from '../../../src/sources/url.ts';

describe('a cleaned URL', () => {
  it('keeps scheme, host, port and path', () => {
    expect(cleanUrl('https://images.example.org:8443/a/b.qcow2')).toBe('https://images.example.org:8443/a/b.qcow2');
  });

  it('has neither credentials nor the words of the query, and still tells two queries apart', () => {
    const one = cleanUrl('https://user:hunter2@s3.example.org/b/a.img?X-Amz-Signature=abcdef&X-Amz-Expires=60');
    const two = cleanUrl('https://s3.example.org/b/a.img?X-Amz-Signature=abcdee&X-Amz-Expires=60');
    expect(one).toMatch(/^https:\/\/s3\.example\.org\/b\/a\.img\?…[0-9a-f]{8}$/);
    expect(two).not.toBe(one);
  });

  it('never throws, and never shows what is no URL', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const cleaned = cleanUrl(text);
        expect(cleaned === '(no URL)' || cleaned.includes('://')).toBe(true);
      }),
    );
    expect(cleanUrl('user:secret')).toBe('(no URL)');
  });

  it('never shows any part of user info or query', () => {
    const secret = fc.stringMatching(/^[A-Za-z0-9]{12,24}$/);
    fc.assert(
      fc.property(secret, secret, secret, (user, password, value) => {
        const cleaned = cleanUrl(`http://${user}:${password}@h/p?sig=${value}#${value}`);
        for (const part of [user, password, value]) expect(cleaned).not.toContain(part);
      }),
    );
  });
});
