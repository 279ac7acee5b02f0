import { type Attribute, comparable, ignoresCase, type Name, type RelativeName, sameName, typeNamed } from './name.ts';

/**
 * Distinguished names as people and programs write them, compared with the name that a certificate has. Forms: OpenSSL's one line and
 * Globus' (`/DC=ch/CN=x`), RFC 4514 and 2253 (`CN=x,DC=ch`), and what `openssl x509` prints (`DC = ch, CN = x`).
 */
export function isNamed(written: string, name: Name): boolean {
  // A space at the end may be part of the name, after a backslash.
  const text = written
    .normalize('NFC')
    .replaceAll(/\s+/gu, ' ')
    .replaceAll(/^ |(?<!\\) $/g, '');
  if (name.length === 0 || text.length > MAX_LENGTH) return false;
  return text.startsWith('/') ? isOneLine(text, name) : isListed(text, name);
}

const MAX_LENGTH = 4096;
/** Nobody's name has more; each order is tried. */
const MAX_ATTRIBUTES = 4;

/**
 * The one-line form escapes nothing, so it cannot be taken apart: `/CN=host/a.example.org` is one attribute, `/CN=a/CN=b` may be one
 * or two. So it is walked along the certificate's name, and a value with something like a further attribute in it is never taken:
 * whoever has a certificate of `CN="a/CN=b"` must not pass for `/CN=a/CN=b`.
 */
function isOneLine(text: string, name: Name): boolean {
  let at = 0;
  for (const rdn of name) {
    at = afterRelativeName(text, at, rdn);
    if (at === -1) return false;
  }
  return at === text.length;
}

/** Where the text goes on after this part of the name, in whichever order its attributes are written; -1: it is another. */
function afterRelativeName(text: string, start: number, rdn: RelativeName): number {
  if (rdn.length > MAX_ATTRIBUTES) return -1;
  for (const order of orders(rdn)) {
    let at = start;
    for (const [index, attribute] of order.entries()) {
      at = at === -1 ? -1 : afterAttribute(text, at, attribute, index === 0 ? '/' : '/+');
    }
    if (at !== -1) return at;
  }
  return -1;
}

function afterAttribute(text: string, start: number, attribute: Attribute, separators: string): number {
  const equals = text.indexOf('=', start);
  const separator = text[start];
  if (equals === -1 || separator === undefined || !separators.includes(separator)) return -1;
  if (typeNamed(text.slice(start + 1, equals)) !== attribute.type) return -1;
  return afterValue(text, equals + 1, attribute);
}

function afterValue(text: string, start: number, attribute: Attribute): number {
  const value = comparable(attribute);
  const anyCase = ignoresCase(attribute);
  let at = afterSpace(text, start);
  for (let index = 0; index < value.length; ) {
    const character = codePoint(value, index);
    const length = lengthOf(character, text, at, LIKE_AN_ATTRIBUTE.test(value.slice(index)), anyCase);
    if (length === 0) return -1;
    at += length;
    index += character.length;
  }
  return afterSpace(text, at);
}

const LIKE_AN_ATTRIBUTE = /^[/+][^/+=]*=/;

/** How many characters of the text stand for this one: itself, `\/`, or its bytes as `\xC3\xA9`; 0: it is not there. */
function lengthOf(character: string, text: string, at: number, mustEscape: boolean, anyCase: boolean): number {
  const isAt = (written: string, fold = anyCase) => {
    const found = text.slice(at, at + written.length);
    return found === written || (fold && found.toLowerCase() === written.toLowerCase());
  };
  // First what is unmistakable: a backslash may stand for itself, or begin one of these.
  const hex = Array.from(Buffer.from(character), (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('');
  if (isAt(hex, true)) return hex.length;
  if (/^[^\p{L}\p{N}\s]$/u.test(character) && isAt(`\\${character}`)) return 1 + character.length;
  return !mustEscape && isAt(character) ? character.length : 0;
}

function afterSpace(text: string, at: number): number {
  return text[at] === ' ' ? at + 1 : at;
}

function orders<T>(items: readonly T[]): T[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((item, index) => orders(items.toSpliced(index, 1)).map((rest) => [item, ...rest]));
}

/**
 * The comma form. RFC 4514 begins with the most special part, `openssl x509` with the most general, and both look alike; either order is
 * taken, as no authority names two different holders with the same parts in opposite orders.
 */
function isListed(text: string, name: Name): boolean {
  const written = readListed(text);
  return written !== undefined && (sameName(written, name) || sameName(written.toReversed(), name));
}

/** RFC 4514 §3, with the quoted values and the semicolons of RFC 2253 §4. Undefined: it is no such name. */
function readListed(text: string): Name | undefined {
  const name: Attribute[][] = [];
  let at = 0;
  for (let separator = ','; ; ) {
    const equals = text.indexOf('=', at);
    const type = equals === -1 ? undefined : typeNamed(text.slice(at, equals));
    const read = readValue(text, equals + 1);
    if (type === undefined || read === undefined) return undefined;
    const attribute = { type, value: read.value };
    if (separator === '+') name.at(-1)?.push(attribute);
    else name.push([attribute]);
    if (read.end === text.length) return name;
    separator = text[read.end] ?? '';
    at = read.end + 1;
  }
}

/** A value up to the separator that ends it, unescaped. Spaces around it go when names are compared. */
function readValue(text: string, start: number): { value: string; end: number } | undefined {
  let at = afterSpace(text, start);
  const isHex = text[at] === '#';
  const quoted = text[at] === '"';
  if (quoted) at += 1;
  const bytes: Buffer[] = [];
  while (at < text.length && !(quoted ? '"' : SEPARATORS).includes(text[at] ?? '')) {
    const piece = pieceAt(text, at);
    if (piece === undefined) return undefined;
    bytes.push(piece.bytes);
    at += piece.length;
  }
  if (quoted) {
    if (text[at] !== '"') return undefined;
    at = afterSpace(text, at + 1);
    if (at < text.length && !SEPARATORS.includes(text[at] ?? '')) return undefined;
  }
  const value = Buffer.concat(bytes).toString('utf8');
  return { value: isHex ? value.toLowerCase() : value, end: at };
}

const SEPARATORS = ',;+';

/** One character, or what stands for it: `\,` or a byte as `\C3`. */
function pieceAt(text: string, at: number): { bytes: Buffer; length: number } | undefined {
  const character = codePoint(text, at);
  if (character !== '\\') return { bytes: Buffer.from(character), length: character.length };
  const hex = /^[\da-fA-F]{2}/.exec(text.slice(at + 1, at + 3))?.[0];
  if (hex !== undefined) return { bytes: Buffer.from(hex, 'hex'), length: 3 };
  if (at + 1 >= text.length) return undefined;
  const next = codePoint(text, at + 1);
  return { bytes: Buffer.from(next), length: 1 + next.length };
}

function codePoint(text: string, at: number): string {
  return String.fromCodePoint(text.codePointAt(at) ?? 0);
}
