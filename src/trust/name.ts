import { type Element, Malformed, members, oidOf, TAG } from './der.ts';

/** A distinguished name as the certificate has it: from the root of the tree down. */
export type Name = readonly RelativeName[];

/** Mostly one attribute; several stand for `CN=x+UID=y`. */
export type RelativeName = readonly Attribute[];

export interface Attribute {
  /** Dotted object identifier. */
  readonly type: string;
  /** Text; for what is no string `#` and the DER in hex, as RFC 4514 writes it. */
  readonly value: string;
}

const EMAIL = '1.2.840.113549.1.9.1';
const DOMAIN_COMPONENT = '0.9.2342.19200300.100.1.25';

/**
 * How OpenSSL, Java, Globus, RFC 2253 and RFC 4514 call the attributes that names of people, hosts and authorities are made of. The
 * first is how we write it.
 */
const TYPES: Readonly<Record<string, readonly string[]>> = {
  '2.5.4.3': ['CN', 'commonName'],
  '2.5.4.4': ['SN', 'surname'],
  '2.5.4.5': ['serialNumber'],
  '2.5.4.6': ['C', 'countryName'],
  '2.5.4.7': ['L', 'localityName'],
  '2.5.4.8': ['ST', 'S', 'SP', 'stateOrProvinceName'],
  '2.5.4.9': ['street', 'streetAddress'],
  '2.5.4.10': ['O', 'organizationName'],
  '2.5.4.11': ['OU', 'organizationalUnitName'],
  '2.5.4.12': ['title', 'T'],
  '2.5.4.13': ['description'],
  '2.5.4.15': ['businessCategory'],
  '2.5.4.17': ['postalCode'],
  '2.5.4.41': ['name'],
  '2.5.4.42': ['GN', 'givenName', 'G'],
  '2.5.4.43': ['initials'],
  '2.5.4.46': ['dnQualifier', 'DNQ'],
  '2.5.4.65': ['pseudonym'],
  '2.5.4.97': ['organizationIdentifier'],
  [DOMAIN_COMPONENT]: ['DC', 'domainComponent'],
  '0.9.2342.19200300.100.1.1': ['UID', 'userId'],
  [EMAIL]: ['emailAddress', 'E', 'Email', 'EMAIL', 'MAIL'],
};

const OIDS = new Map(
  Object.entries(TYPES).flatMap(([oid, names]) => names.map((name) => [name.toLowerCase(), oid] as const)),
);

/** The object identifier of an attribute's name, itself where it is one (`2.5.4.3`, `OID.2.5.4.3`). */
export function typeNamed(written: string): string | undefined {
  const name = written.trim().toLowerCase();
  const dotted = /^(?:oid\.)?(?<oid>\d+(?:\.\d+)+)$/.exec(name)?.groups?.['oid'];
  return dotted ?? OIDS.get(name);
}

/** X.501 Name: RDNSequence. */
export function nameOf(element: Element): Name {
  return members(element, TAG.sequence).map((rdn) =>
    members(rdn, TAG.set).map((pair) => {
      const [type, value, ...more] = members(pair, TAG.sequence);
      if (type === undefined || value === undefined || more.length > 0) throw new Malformed('it has a damaged name');
      return { type: oidOf(type), value: textOf(value) };
    }),
  );
}

/** `/DC=ch/DC=cern/CN=x`, the form of grid tools. What is not printable, or ambiguous, becomes `\xHH`. */
export function oneLine(name: Name): string {
  return name
    .map((rdn) => `/${rdn.map(({ type, value }) => `${TYPES[type]?.[0] ?? type}=${visible(value)}`).join('+')}`)
    .join('');
}

/** Addresses in the name. */
export function emailsIn(name: Name): string[] {
  return name.flat().flatMap(({ type, value }) => (type === EMAIL ? [value] : []));
}

/**
 * What is compared of an attribute's value: RFC 5280 §7.1 without its folding of case, which no authority's practice needs, except in
 * the two kinds that name hosts and mailboxes.
 */
export function comparable(attribute: Attribute): string {
  const folded = attribute.value.normalize('NFC').replaceAll(/\s+/gu, ' ').trim();
  return ignoresCase(attribute) ? folded.toLowerCase() : folded;
}

export function ignoresCase({ type }: Attribute): boolean {
  return type === DOMAIN_COMPONENT || type === EMAIL;
}

/** One and the same name, whatever string types it is encoded with. */
export function sameName(one: Name, other: Name): boolean {
  return one.length === other.length && one.every((rdn, index) => sameRelativeName(rdn, other[index] ?? []));
}

function sameRelativeName(one: RelativeName, other: RelativeName): boolean {
  const keys = (rdn: RelativeName) => rdn.map((each) => `${each.type}=${comparable(each)}`).sort();
  const [left, right] = [keys(one), keys(other)];
  return left.length === right.length && left.every((key, index) => key === right[index]);
}

/** Also hides a slash that would look like the beginning of a further attribute. */
function visible(value: string): string {
  return value.replaceAll(/[\p{C}\\]|[/+](?=[^/+=]*=)/gu, (character) =>
    Array.from(Buffer.from(character), (byte) => `\\x${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
  );
}

function textOf({ tag, content, raw }: Element): string {
  const bytes = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  switch (tag) {
    case 0x0c: // UTF8String
    case 0x12: // NumericString
    case 0x13: // PrintableString
    case 0x16: // IA5String
    case 0x1a: // VisibleString
      return bytes.toString('utf8');
    case 0x14: // TeletexString: everybody writes Latin-1 into it
      return bytes.toString('latin1');
    case 0x1e: // BMPString, big-endian
      if (bytes.length % 2 !== 0) break;
      return Buffer.from(bytes).swap16().toString('utf16le');
    case 0x1c: // UniversalString
      if (bytes.length % 4 !== 0) break;
      return String.fromCodePoint(...codePoints(bytes));
  }
  return `#${Buffer.from(raw).toString('hex')}`;
}

function codePoints(bytes: Buffer): number[] {
  return Array.from({ length: bytes.length / 4 }, (_, index) => {
    const point = bytes.readUInt32BE(index * 4);
    if (point > 0x10ffff) throw new Malformed('it has a name in no alphabet');
    return point;
  });
}
