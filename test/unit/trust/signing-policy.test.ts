import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readPolicy } from '../../../src/trust/signing-policy.ts';

const read = (name: string, text: string) => readPolicy({ name, bytes: Buffer.from(text) });
/** Issuer, permission, and which of the subjects are covered. */
const summary = (name: string, text: string, subjects: readonly string[] = []) =>
  read(name, text).map(({ issuer, permit, subjects: patterns }) => [
    issuer,
    permit,
    subjects.filter((subject) => patterns.some((matches) => matches(subject))),
  ]);

describe('a .signing_policy', () => {
  it.each<[string, string, string[], unknown[]]>([
    [
      'of several globs, with comments',
      `# EACL $Id$\n#\n access_id_CA  X509   '/C=DE/O=G/CN=CA' # the CA\npos_rights    globus CA:sign\ncond_subjects globus '"/C=DE/O=G/*" "/O=G/OU=*"'\n`,
      ['/C=DE/O=G/CN=x', '/O=G/OU=y', '/C=FR/O=G/CN=x'],
      [['/C=DE/O=G/CN=CA', true, ['/C=DE/O=G/CN=x', '/O=G/OU=y']]],
    ],
    [
      'of several authorities',
      `access_id_CA X509 '/CN=A'\npos_rights globus CA:sign\ncond_subjects globus '"/O=a/*"'\n\naccess_id_CA X509 '/CN=B'\npos_rights globus CA:sign\ncond_subjects globus '"/O=b/*"'\n`,
      ['/O=a/CN=x', '/O=b/CN=x'],
      [
        ['/CN=A', true, ['/O=a/CN=x']],
        ['/CN=B', true, ['/O=b/CN=x']],
      ],
    ],
    [
      'with one pattern in double quotes',
      `access_id_CA X509 "/CN=A"\r\npos_rights globus CA:sign\r\ncond_subjects globus "/O=a/*"\r\n`,
      ['/O=a/CN=x'],
      [['/CN=A', true, ['/O=a/CN=x']]],
    ],
    [
      'that denies',
      `access_id_CA X509 '/CN=A'\nneg_rights globus CA:sign\ncond_subjects globus '"*"'\n`,
      ['/O=a'],
      [['/CN=A', false, ['/O=a']]],
    ],
    [
      'whose addresses are written as Globus does',
      `access_id_CA X509 '/CN=A'\npos_rights globus CA:sign\ncond_subjects globus '"/O=a/Email=x@y" "/O=a/USERID=u" "/O=a/E=z@y"'\n`,
      ['/O=a/emailAddress=x@y', '/O=a/UID=u', '/O=a/emailAddress=z@y'],
      [['/CN=A', true, ['/O=a/emailAddress=x@y', '/O=a/UID=u', '/O=a/emailAddress=z@y']]],
    ],
    [
      'with other rights',
      `access_id_CA X509 '/CN=A'\npos_rights globus other:right\ncond_subjects globus '"*"'\n`,
      [],
      [],
    ],
    [
      'of another kind of authority',
      `access_id_CA KERBEROS 'x'\npos_rights globus CA:sign\ncond_subjects globus '"*"'\n`,
      [],
      [],
    ],
    ['of a user', `access_id_USER X509 '/CN=A'\npos_rights globus CA:sign\ncond_subjects globus '"*"'\n`, [], []],
    ['without an authority', `pos_rights globus CA:sign\ncond_subjects globus '"*"'\n`, [], []],
    ['that is empty', '', [], []],
  ])('%s', (_, text, subjects, expected) => {
    expect(summary('a.signing_policy', text, subjects)).toEqual(expected);
  });
});

describe('a .namespaces', () => {
  it.each<[string, string, string[], unknown[]]>([
    [
      'with continued lines and several authorities',
      '#NAMESPACES-VERSION: 1.0\n#\nTO Issuer "/CN=A" \\\n  PERMIT Subject "/O=a/.*"\n\nTO Issuer "/CN=B" \\  \n\tPERMIT Subject "/O=b/CN=[^/]+"\n',
      ['/O=a/CN=x', '/O=b/CN=x', '/O=b/CN=x/CN=y'],
      [
        ['/CN=A', true, ['/O=a/CN=x']],
        ['/CN=B', true, ['/O=b/CN=x']],
      ],
    ],
    [
      'of itself',
      'TO Issuer "SELF" PERMIT Subject "/O=a/.*"\nTO Issuer SELF DENY Subject "/O=a/CN=b"',
      [],
      [
        ['SELF', true, []],
        ['SELF', false, []],
      ],
    ],
    ['that permits what nobody can read', 'TO Issuer "/CN=A" PERMIT Subject "(?=x)"', ['x'], [['/CN=A', true, []]]],
    ['that denies what nobody can read', 'TO Issuer "/CN=A" DENY Subject "(?=x)"', ['x'], [['/CN=A', false, ['x']]]],
    ['with a line that is none', 'TO Issuer "/CN=A" ALLOW Subject "x"\nnonsense', [], []],
  ])('%s', (_, text, subjects, expected) => {
    expect(summary('a.namespaces', text, subjects)).toEqual(expected);
  });
});

it('a policy of any text is read without an error', () => {
  const words = fc.constantFrom(
    'access_id_CA',
    'X509',
    "'/CN=A'",
    'pos_rights',
    'globus',
    'CA:sign',
    'cond_subjects',
    `'"*"'`,
    'TO',
    'Issuer',
    '"SELF"',
    'PERMIT',
    'Subject',
    '"("',
    '\\',
    '\n',
    '#',
    ' ',
  );
  fc.assert(
    fc.property(
      fc.array(words, { maxLength: 40 }),
      fc.constantFrom('a.signing_policy', 'a.namespaces'),
      (parts, name) => {
        expect(Array.isArray(read(name, parts.join(' ')))).toBe(true);
      },
    ),
  );
});
