import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { globPattern, regexPattern, UnreadablePattern } from '../../../src/trust/pattern.ts';
import { effortMs } from '../../support/effort.ts';

describe('a glob of cond_subjects', () => {
  it.each([
    ['/C=DE/O=GermanGrid/*', '/C=DE/O=GermanGrid/OU=DESY/CN=x', true],
    ['/C=DE/O=GermanGrid/*', '/C=DE/O=GermanGrid', false],
    ['/O=GermanGrid/OU=*', '/C=DE/O=GermanGrid/OU=DESY', false],
    ['/CN=?', '/CN=a', true],
    ['/CN=?', '/CN=ab', false],
    ['/CN=a.b', '/CN=axb', false],
    ['*', '', true],
    ['', '', true],
    ['', 'x', false],
    ['/CN=(x)+[y]', '/CN=(x)+[y]', true],
    ['/CN=é?', '/CN=é😀', true],
  ])('%s and %s: %s', (glob, text, expected) => {
    expect(globPattern(glob)(text)).toBe(expected);
  });
});

describe('a regular expression of namespaces', () => {
  it.each([
    ['/DC=ch/DC=cern/.*', '/DC=ch/DC=cern/CN=x', true],
    ['/DC=ch/DC=cern/.*', '/DC=chx/DC=cern/CN=x', false],
    ['/DC=ch', '/DC=ch/DC=cern', false],
    ['^/DC=ch$', '/DC=ch', true],
    [String.raw`/CN=a\.b\/c`, '/CN=a.b/c', true],
    [String.raw`/CN=a\.b`, '/CN=axb', false],
    ['/CN=[^/]+', '/CN=a/CN=b', false],
    ['/CN=[A-Za-z0-9._-]+', '/CN=a.b_c-d', true],
    ['/CN=[]x]', '/CN=]', true],
    [String.raw`/CN=[\]\-]+`, '/CN=]-', true],
    ['/(CN|OU)=(?:a|bc)*', '/OU=abca', true],
    ['/CN=a{2,3}', '/CN=aaaa', false],
    ['/CN=a{2,}', '/CN=aaaa', true],
    ['/CN=a{2}', '/CN=aa', true],
    ['/CN=a{x}', '/CN=a{x}', true],
    [String.raw`/CN=\d\w\s\S`, '/CN=1a x', true],
    ['a||b', '', true],
  ])('%s and %s: %s', (regex, text, expected) => {
    expect(regexPattern(regex)(text)).toBe(expected);
  });

  it.each([
    '(?=x)',
    '(?<n>x)',
    String.raw`(a)\1`,
    String.raw`\bx`,
    '(',
    ')',
    '[a',
    'a**',
    '*',
    'a^b',
    'a$b',
    '[b-a]',
    'a{3,2}',
    'a{999}',
    '(((a{256}){256}){256})',
    'x'.repeat(3000),
    '\\',
  ])('%s is not read: its owner permits nothing', (regex) => {
    expect(() => regexPattern(regex)).toThrow(UnreadablePattern);
  });

  it('says what the language of the program says, of all that it can read', () => {
    const atoms = fc.constantFrom('a', 'b', '.', '[ab]', '[^a]', String.raw`\.`, '(a|b)', '(?:ab)', '(a*b|c)');
    const pieces = fc
      .tuple(atoms, fc.constantFrom('', '*', '+', '?', '{2}', '{1,3}', '{0,}'))
      .map(([atom, times]) => atom + times);
    const regexes = fc.array(pieces, { maxLength: 6 }).map((parts) => parts.join(''));
    const texts = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '.'), maxLength: 12 });
    fc.assert(
      fc.property(regexes, texts, (regex, text) => {
        expect(regexPattern(regex)(text)).toBe(new RegExp(`^(?:${regex})$`, 'us').test(text));
      }),
      { numRuns: 1000 },
    );
  });

  it.each(['(a+)+b', '(a|a)*b', '(.*)*x', 'a*a*a*a*a*a*a*a*b'])('%s keeps nobody busy', async (regex) => {
    const matches = regexPattern(regex);
    const took = await effortMs(() => expect(matches('a'.repeat(4096))).toBe(false));
    expect(took).toBeLessThan(5000);
  });
});
