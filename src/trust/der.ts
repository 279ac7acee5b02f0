/**
 * Just enough of BER to look into certificates, revocation lists and CMS (ITU-T X.690): which algorithms, how many signers, which
 * names. Nothing is proven here; openssl proves. Elements are views of the input, none is copied.
 */
export interface Element {
  /** The identifier octet: class, constructed bit and number. */
  readonly tag: number;
  readonly content: Uint8Array;
  /** With identifier and length. */
  readonly raw: Uint8Array;
}

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** The context-specific, constructed tag [n]. */
export const context = (n: number): number => 0xa0 | n;

/** Bytes that are no BER, or not of the shape that the caller expects. */
export class Malformed extends Error {
  override readonly name = 'Malformed';
}

/** CMS nests about ten levels; indefinite lengths must be walked to be skipped. */
const DEPTH = 32;
const CHILDREN = 100_000;
const CONSTRUCTED = 0x20;

/** The one element that the bytes are. @throws Malformed when anything follows it */
export function only(bytes: Uint8Array): Element {
  const { element, end } = elementAt(bytes, 0, DEPTH);
  if (end !== bytes.length) throw new Malformed('something follows the end');
  return element;
}

/** The members of a constructed element, in order. */
export function members(element: Element, tag?: number): Element[] {
  if (tag !== undefined && element.tag !== tag) throw unexpected(tag, element.tag);
  if ((element.tag & CONSTRUCTED) === 0) throw new Malformed('it has no members');
  const found: Element[] = [];
  for (let at = 0; at < element.content.length; ) {
    const { element: member, end } = elementAt(element.content, at, DEPTH);
    found.push(member);
    if (found.length > CHILDREN) throw new Malformed('it has too many members');
    at = end;
  }
  return found;
}

/** Walks members in the order of an ASN.1 SEQUENCE, optional ones by their tag. */
export class Members {
  readonly #members: readonly Element[];
  #next = 0;

  constructor(element: Element, tag: number = TAG.sequence) {
    this.#members = members(element, tag);
  }

  take(tag?: number): Element {
    const member = this.#members[this.#next];
    if (member === undefined) throw new Malformed('it ends too soon');
    if (tag !== undefined && member.tag !== tag) throw unexpected(tag, member.tag);
    this.#next += 1;
    return member;
  }

  /** The next member if it has one of these tags. */
  optional(...tags: number[]): Element | undefined {
    const member = this.#members[this.#next];
    return member !== undefined && tags.includes(member.tag) ? this.take() : undefined;
  }
}

/** `1.2.840.113549.1.7.2` */
export function oidOf(element: Element): string {
  if (element.tag !== TAG.oid || element.content.length === 0) throw unexpected(TAG.oid, element.tag);
  const arcs: number[] = [];
  let arc = 0;
  for (const [index, byte] of element.content.entries()) {
    arc = arc * 128 + (byte & 0x7f);
    if (arc > Number.MAX_SAFE_INTEGER / 128) throw new Malformed('an object identifier is too large');
    if ((byte & 0x80) === 0) {
      arcs.push(arc);
      arc = 0;
    } else if (index === element.content.length - 1) throw new Malformed('an object identifier is cut short');
  }
  const [first = 0, ...rest] = arcs;
  const root = Math.min(2, Math.floor(first / 40));
  return [root, first - root * 40, ...rest].join('.');
}

/** Content of an OCTET STRING, put together where BER cut it into pieces (as `openssl cms -stream` does). */
export function octetsOf(element: Element, depth = DEPTH): Uint8Array {
  if (element.tag === TAG.octetString) return element.content;
  if (element.tag !== (TAG.octetString | CONSTRUCTED)) throw unexpected(TAG.octetString, element.tag);
  if (depth === 0) throw new Malformed('it is nested too deeply');
  return Buffer.concat(members(element).map((piece) => octetsOf(piece, depth - 1)));
}

/** Whether bit `n` (0 is the first) of a BIT STRING is set. */
export function bit(element: Element, n: number): boolean {
  if (element.tag !== TAG.bitString) throw unexpected(TAG.bitString, element.tag);
  return (((element.content[1 + (n >> 3)] ?? 0) >> (7 - (n & 7))) & 1) === 1;
}

/** Milliseconds since the epoch of a UTCTime or GeneralizedTime, as RFC 5280 §4.1.2.5 restricts them. */
export function timeOf(element: Element): number {
  const text = Buffer.from(element.content).toString('latin1');
  const match = /^(?<year>\d{2}|\d{4})(?<month>\d\d)(?<day>\d\d)(?<hour>\d\d)(?<minute>\d\d)(?<second>\d\d)Z$/.exec(
    text,
  );
  const { year = '', month, day, hour, minute, second } = match?.groups ?? {};
  const short = element.tag === TAG.utcTime;
  if (match === null || year.length !== (short ? 2 : 4)) throw new Malformed('it has a time in an unusual form');
  const full = short ? `${Number(year) >= 50 ? 19 : 20}${year}` : year;
  const time = Date.parse(`${full}-${month}-${day}T${hour}:${minute}:${second}Z`);
  if (Number.isNaN(time)) throw new Malformed('it has a time that does not exist');
  return time;
}

function elementAt(bytes: Uint8Array, start: number, depth: number): { element: Element; end: number } {
  const tag = bytes[start];
  const first = bytes[start + 1];
  if (tag === undefined || first === undefined) throw new Malformed('it is cut short');
  if ((tag & 0x1f) === 0x1f) throw new Malformed('it has an unusual tag');
  if (first === 0x80) return indefinite(bytes, start, depth);
  let at = start + 2;
  let length = first;
  if (first > 0x80) {
    const octets = first & 0x7f;
    if (octets > 4) throw new Malformed('it has an absurd length');
    length = 0;
    for (const end = at + octets; at < end; at += 1) length = length * 256 + (bytes[at] ?? Number.NaN);
  }
  const end = at + length;
  // Also true of the NaN that a length cut short makes.
  if (!(end <= bytes.length)) throw new Malformed('it is cut short');
  return { element: { tag, content: bytes.subarray(at, end), raw: bytes.subarray(start, end) }, end };
}

/** X.690 §8.1.3.6: members until two zero octets. */
function indefinite(bytes: Uint8Array, start: number, depth: number): { element: Element; end: number } {
  const tag = bytes[start] ?? 0;
  if ((tag & CONSTRUCTED) === 0 || depth === 0) throw new Malformed('it is nested too deeply');
  let at = start + 2;
  while (bytes[at] !== 0 || bytes[at + 1] !== 0) at = elementAt(bytes, at, depth - 1).end;
  const content = bytes.subarray(start + 2, at);
  return { element: { tag, content, raw: bytes.subarray(start, at + 2) }, end: at + 2 };
}

function unexpected(expected: number, found: number): Malformed {
  return new Malformed(`tag ${found.toString(16)} stands where ${expected.toString(16)} should`);
}
