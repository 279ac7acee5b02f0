import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { only } from '../../../src/trust/der.ts';
import { isNamed } from '../../../src/trust/name-forms.ts';
import { type Name, nameOf, oneLine } from '../../../src/trust/name.ts';

const OID = {
  CN: '2.5.4.3',
  C: '2.5.4.6',
  O: '2.5.4.10',
  OU: '2.5.4.11',
  DC: '0.9.2342.19200300.100.1.25',
  UID: '0.9.2342.19200300.100.1.1',
  emailAddress: '1.2.840.113549.1.9.1',
} as const;
type Type = keyof typeof OID;

const name = (...parts: [Type, string][]): Name => parts.map(([type, value]) => [{ type: OID[type], value }]);

const CERN = name(['DC', 'ch'], ['DC', 'cern'], ['OU', 'Organic Units'], ['CN', '379010'], ['CN', 'A Person']);

describe('a distinguished name', () => {
  it.each([
    '/DC=ch/DC=cern/OU=Organic Units/CN=379010/CN=A Person',
    'CN=A Person,CN=379010,OU=Organic Units,DC=cern,DC=ch',
    'CN=A Person, CN=379010, OU=Organic Units, DC=cern, DC=ch',
    'DC = ch, DC = cern, OU = Organic Units, CN = 379010, CN = A Person',
    'DC=ch, DC=cern, OU=Organic Units, CN=379010, CN=A Person',
    'CN="A Person",CN=379010;OU="Organic Units";DC=cern;DC=ch',
    'cn=A Person,cn=379010,ou=Organic Units,dc=CERN,dc=CH',
    '2.5.4.3=A Person,OID.2.5.4.3=379010,OU=Organic Units,DC=cern,DC=ch',
    '  /DC=ch/DC=cern/OU=Organic  Units/CN=379010/CN=A Person  ',
    '/dc=CH/dc=CERN/ou=Organic Units/cn=379010/commonName=A Person',
  ])('is known as %s', (written) => {
    expect(isNamed(written, CERN)).toBe(true);
  });

  it.each([
    '',
    '/',
    '=',
    '/DC=ch/DC=cern/OU=Organic Units/CN=379010',
    '/DC=ch/DC=cern/OU=Organic Units/CN=379010/CN=A Person/CN=proxy',
    '/DC=ch/DC=cern/OU=Organic Units/CN=379010/CN=A Perso',
    '/DC=ch/DC=cern/OU=Organic Units/CN=379010/CN=a person',
    '/DC=ch/DC=cern/OU=Organic Units/CN=A Person/CN=379010',
    '/DC=ch/DC=cern/O=Organic Units/CN=379010/CN=A Person',
    'CN=A Person,CN=379010,OU=Organic Units,DC=cern',
    'CN=A Person,CN=379010,OU=Organic Units,DC=cern,DC=ch,',
    'CN=A Person,CN=379010,OU="Organic Units,DC=cern,DC=ch',
    'A Person,CN=379010,OU=Organic Units,DC=cern,DC=ch',
    `/${'A'.repeat(5000)}`,
  ])('is not %s', (written) => {
    expect(isNamed(written, CERN)).toBe(false);
  });

  it('that is empty is nobody', () => {
    expect(isNamed('', [])).toBe(false);
    expect(isNamed('/', [])).toBe(false);
  });

  it.each(['emailAddress', 'E', 'Email', 'EMAILADDRESS', 'email', '1.2.840.113549.1.9.1'])(
    'has its address under %s',
    (type) => {
      const robot = name(['O', 'x'], ['emailAddress', 'A.B@example.org']);
      expect(isNamed(`/O=x/${type}=a.b@EXAMPLE.org`, robot)).toBe(true);
      expect(isNamed(`${type}=A.B@example.org,O=x`, robot)).toBe(true);
    },
  );

  it.each(['UID', 'userId', 'USERID'])('has its user id under %s', (type) => {
    expect(isNamed(`/O=x/${type}=u`, name(['O', 'x'], ['UID', 'u']))).toBe(true);
  });

  it('of several attributes in one part is known in any order of them', () => {
    const both: Name = [
      [{ type: OID.O, value: 'x' }],
      [
        { type: OID.CN, value: 'a' },
        { type: OID.UID, value: 'b' },
      ],
    ];
    for (const written of [
      '/O=x/CN=a+UID=b',
      '/O=x/UID=b+CN=a',
      '/O=x/CN=a/UID=b',
      'UID=b+CN=a,O=x',
      'O = x, CN = a + UID = b',
    ]) {
      expect(isNamed(written, both)).toBe(true);
    }
    expect(isNamed('/O=x+CN=a/UID=b', both)).toBe(false);
    expect(isNamed('CN=a,UID=b,O=x', both)).toBe(false);
  });

  it('keeps the slash of hosts and robots in the one-line form', () => {
    const host = name(['O', 'x'], ['CN', 'host/a.example.org']);
    expect(oneLine(host)).toBe('/O=x/CN=host/a.example.org');
    expect(isNamed('/O=x/CN=host/a.example.org', host)).toBe(true);
    expect(isNamed('/O=x/CN=host\\/a.example.org', host)).toBe(true);
  });

  it('with a value that looks like further parts is never taken for one that has these parts', () => {
    const forged = name(['O', 'x'], ['CN', 'a/CN=b']);
    const real = name(['O', 'x'], ['CN', 'a'], ['CN', 'b']);
    expect(isNamed('/O=x/CN=a/CN=b', real)).toBe(true);
    expect(isNamed('/O=x/CN=a/CN=b', forged)).toBe(false);
    expect(oneLine(forged)).toBe('/O=x/CN=a\\x2FCN=b');
    expect(isNamed('CN=a/CN=b,O=x', forged)).toBe(true);
    expect(isNamed('CN=a/CN=b,O=x', real)).toBe(false);
    const plus = name(['O', 'x'], ['CN', 'a+UID=b']);
    expect(isNamed('/O=x/CN=a+UID=b', plus)).toBe(false);
  });

  it('of other letters is known by them, by their bytes, and by either way to compose them', () => {
    const other = name(['O', 'Universit\u00e9'], ['CN', 'Zo\u00eb, "Z"']);
    for (const written of [
      '/O=Universit\u00e9/CN=Zo\u00eb, "Z"',
      '/O=Universit\\xC3\\xA9/CN=Zo\\xC3\\xAB, "Z"',
      '/O=Universite\u0301/CN=Zoe\u0308, "Z"',
      'CN=Zo\\C3\\AB\\, \\"Z\\",O=Universit\\c3\\a9',
      'O = Universit\u00e9, CN = "Zo\u00eb, \\"Z\\""',
    ]) {
      expect(isNamed(written, other), written).toBe(true);
    }
  });

  it('with control characters shows them as their bytes', () => {
    expect(oneLine(name(['CN', 'a\n\u202eb\0']))).toBe('/CN=a\\x0A\\xE2\\x80\\xAEb\\x00');
  });
});

/** What people and hosts are called, and what an attacker would like to be called. */
const values = fc
  .oneof(
    fc.string({ minLength: 1, maxLength: 12 }),
    fc.string({ unit: fc.constantFrom(...Array.from('/+=,;"\\# aAéß<>CN')), minLength: 1, maxLength: 12 }),
  )
  .filter((value) => value.trim() !== '');
const names = fc.array(fc.tuple(fc.constantFrom(...(Object.keys(OID) as Type[])), values), {
  minLength: 1,
  maxLength: 5,
});

/** RFC 4514 §2.4. */
const escaped = (value: string) =>
  value
    .replaceAll(/["+,;<>\\#=]/g, String.raw`\$&`)
    .replace(/^ /, '\\ ')
    .replace(/ $/, '\\ ');

describe('any name', () => {
  it('is known by its one-line form, by RFC 4514, and by what openssl prints', () => {
    fc.assert(
      fc.property(names, (parts) => {
        const it = name(...parts);
        const list = parts.map(([type, value]) => `${type}=${escaped(value)}`);
        expect(isNamed(oneLine(it), it)).toBe(true);
        expect(isNamed(list.toReversed().join(','), it)).toBe(true);
        expect(isNamed(list.join(', '), it)).toBe(true);
      }),
    );
  });

  it('has a one-line form of its own: two different names are never known by the same', () => {
    const folded = (parts: [Type, string][]) =>
      JSON.stringify(
        parts.map(([type, value]) => {
          const text = value.normalize('NFC').replaceAll(/\s+/gu, ' ').trim();
          return [type, type === 'DC' || type === 'emailAddress' ? text.toLowerCase() : text];
        }),
      );
    fc.assert(
      fc.property(names, names, (one, other) => {
        fc.pre(folded(one) !== folded(other));
        expect(isNamed(oneLine(name(...one)), name(...other))).toBe(false);
      }),
    );
  });

  it('is compared with anything in a moment and without an error', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...Array.from('/+=,;"\\# CND\u00e9x2F')), maxLength: 200 }),
        names,
        (written, parts) => {
          expect(typeof isNamed(written, name(...parts))).toBe('boolean');
        },
      ),
    );
  });
});

describe('names in certificates', () => {
  const tlv = (tag: number, ...parts: Uint8Array[]) => {
    const content = Buffer.concat(parts);
    return Buffer.concat([Buffer.from([tag, content.length]), content]);
  };
  const commonName = (tag: number, value: Uint8Array) =>
    tlv(0x30, tlv(0x31, tlv(0x30, tlv(6, Buffer.from([0x55, 4, 3])), tlv(tag, value))));

  it.each<[string, number, Buffer, string]>([
    ['UTF-8', 0x0c, Buffer.from('Zoë'), 'Zoë'],
    ['printable', 0x13, Buffer.from('Zoe'), 'Zoe'],
    ['teletex', 0x14, Buffer.from('Zoë', 'latin1'), 'Zoë'],
    ['BMP', 0x1e, Buffer.from('Zoë', 'utf16le').swap16(), 'Zoë'],
    ['universal', 0x1c, Buffer.from([0, 1, 0xf6, 0]), '😀'],
    ['a number', 2, Buffer.from([5]), '#020105'],
  ])('are read from %s', (_, tag, bytes, expected) => {
    expect(nameOf(only(commonName(tag, bytes)))).toEqual([[{ type: OID.CN, value: expected }]]);
  });
});
