import { Failure } from '../api/failure.ts';
import { derBlocks } from './pem.ts';

/**
 * Takes a signed message apart. By hand, since what mail libraries would do differs in what counts: HEPiX lists have MIME headers that
 * end in LF before a body that ends in CRLF, and their signed part has no headers of its own, its first byte is `{`.
 */
export interface SignedMessage {
  /** The first part of multipart/signed, as it stands; undefined: the content is within the CMS. */
  readonly body: Uint8Array | undefined;
  /** CMS or PKCS #7 in DER (or BER). */
  readonly cms: Uint8Array;
}

const PEM_LABELS = ['CMS', 'PKCS7', 'PKCS #7 SIGNED DATA'] as const;
const HEADER_BYTES = 64 * 2 ** 10;

/** multipart/signed, application/pkcs7-mime, CMS in PEM or DER. @throws Failure SignatureMissing | SignatureInvalid | SignerAmbiguous */
export function splitMessage(message: Uint8Array): SignedMessage {
  const bytes = withoutMark(Buffer.from(message.buffer, message.byteOffset, message.byteLength));
  const cms = cmsIn(bytes);
  if (cms !== undefined) return { body: undefined, cms };
  const head = readHeaders(bytes);
  const contentType = head?.headers.get('content-type');
  if (head === undefined || contentType === undefined) throw unsigned();
  const { headers, end } = head;
  const { type, parameters } = readContentType(contentType);
  if (type === 'multipart/signed') return splitMultipart(bytes.subarray(end), parameters);
  if (/^application\/(?:x-)?pkcs7-mime$/.test(type)) {
    return { body: undefined, cms: decode(bytes.subarray(end), headers.get('content-transfer-encoding')) };
  }
  throw unsigned();
}

/** CMS that stands alone, in PEM or DER: a whole message, or a signature beside its document. */
export function cmsIn(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes[0] === 0x30) return bytes;
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.byteLength, HEADER_BYTES)).toString('latin1');
  const label = PEM_LABELS.find((each) => new RegExp(`^\\s*-----BEGIN ${each}-----`).test(head));
  return label === undefined ? undefined : derBlocks(bytes, label)[0];
}

/**
 * What the signature may cover: the body with every line end made CRLF, as S/MIME wants it (RFC 8551 §3.1.1), or as it stands, from
 * signers that were told to leave it alone (`-binary`).
 */
export function* readings(body: Uint8Array): Generator<Uint8Array> {
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  const canonical = withCrlf(text);
  yield canonical;
  if (!canonical.equals(text)) yield text;
}

/** `openssl -text` signs a text part with its header. The document begins after the blank line. */
export function withoutTextHeader(content: Uint8Array): Uint8Array {
  const bytes = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  if (!/^Content-Type: text\/plain\b/i.test(bytes.toString('latin1', 0, 32))) return content;
  const blank = bytes.indexOf('\r\n\r\n');
  return blank === -1 ? content : bytes.subarray(blank + 4);
}

/** A lone LF becomes CRLF. One allocation and two plain loops, however short the lines are: half of 32 MiB may be line ends. */
function withCrlf(text: Buffer): Buffer {
  let lone = 0;
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === LF && (at === 0 || text[at - 1] !== CR)) lone += 1;
  }
  if (lone === 0) return text;
  const canonical = Buffer.allocUnsafe(text.length + lone);
  for (let at = 0, to = 0; at < text.length; at += 1, to += 1) {
    const byte = text[at] ?? 0;
    if (byte === LF && (at === 0 || text[at - 1] !== CR)) {
      canonical[to] = CR;
      to += 1;
    }
    canonical[to] = byte;
  }
  return canonical;
}

const CR = 0x0d;
const LF = 0x0a;

function withoutMark(bytes: Buffer): Buffer {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
}

/** RFC 5322 §2.2: names in lower case; continued lines joined. `end` is where the body begins. Undefined: there are none. */
function readHeaders(bytes: Buffer): { headers: Map<string, string>; end: number } | undefined {
  const head = bytes.toString('latin1', 0, HEADER_BYTES);
  const blank = /\r?\n\r?\n/.exec(head);
  if (blank === null || !/^[\x21-\x39\x3b-\x7e]+:/.test(head)) return undefined;
  const headers = new Map<string, string>();
  for (const line of head
    .slice(0, blank.index)
    .replaceAll(/\r?\n[ \t]+/g, ' ')
    .split(/\r?\n/)) {
    const { name, value = '' } = /^(?<name>[\x21-\x39\x3b-\x7e]+):[ \t]*(?<value>[^\0]*)$/.exec(line)?.groups ?? {};
    if (name === undefined) throw damaged('its header has a line that is none');
    // Two readers would choose different ones.
    if (headers.has(name.toLowerCase())) throw damaged(`its header has ${name} twice`);
    headers.set(name.toLowerCase(), value);
  }
  return { headers, end: blank.index + blank[0].length };
}

/** RFC 2045 §5.1. `micalg` and `protocol` are what the sender says; the signature itself decides. */
function readContentType(header: string): { type: string; parameters: Map<string, string> } {
  const parameters = new Map<string, string>();
  for (const { groups } of header.matchAll(
    /;\s*(?<name>[\w-]+)=(?:"(?<quoted>(?:[^"\\]|\\.)*)"|(?<token>[^\s;"]+))/g,
  )) {
    const { name = '', quoted, token = '' } = groups ?? {};
    parameters.set(name.toLowerCase(), quoted?.replaceAll(/\\(.)/g, '$1') ?? token);
  }
  return { type: (/^[^\s;]+/.exec(header)?.[0] ?? '').toLowerCase(), parameters };
}

/** RFC 1847 §2.1: exactly two parts, what is signed and the signature. */
function splitMultipart(bytes: Buffer, parameters: ReadonlyMap<string, string>): SignedMessage {
  const boundary = parameters.get('boundary') ?? '';
  if (!/^[\x20-\x7e]{1,70}$/.test(boundary)) throw damaged('its boundary is missing or unusual');
  const delimiters = delimitersIn(bytes, boundary);
  const [open, middle, close] = delimiters;
  if (delimiters.length > 3) {
    throw new Failure('SignerAmbiguous', 'the message has more parts than a text and its signature');
  }
  if (open === undefined || middle === undefined || close === undefined || !close.last || middle.last || open.last) {
    throw damaged('it has not the two parts of a signed message: is it cut short?');
  }
  if (bytes.subarray(close.end).some((byte) => !' \t\r\n'.includes(String.fromCharCode(byte)))) {
    throw damaged('something follows its end');
  }
  const part = bytes.subarray(middle.end, close.start);
  const { headers, end } = readHeaders(part) ?? { headers: new Map<string, string>(), end: 0 };
  const { type } = readContentType(headers.get('content-type') ?? '');
  if (!/^application\/(?:x-)?pkcs7-signature$/.test(type)) throw damaged('its second part is no S/MIME signature');
  return {
    body: bytes.subarray(open.end, middle.start),
    cms: decode(part.subarray(end), headers.get('content-transfer-encoding')),
  };
}

interface Delimiter {
  /** Where the line break before it begins: that belongs to the delimiter, not to the part (RFC 2046 §5.1.1). */
  readonly start: number;
  /** After its own line break. */
  readonly end: number;
  readonly last: boolean;
}

/** RFC 2046 §5.1.1: no line of a part may begin like a delimiter. */
function delimitersIn(bytes: Buffer, boundary: string): Delimiter[] {
  const found: Delimiter[] = [];
  const dashes = Buffer.from(`--${boundary}`, 'latin1');
  const lineOfIt = Buffer.concat([Buffer.of(LF), dashes]);
  const next = (from: number) => {
    const at = bytes.indexOf(lineOfIt, from);
    return at === -1 ? -1 : at + 1;
  };
  let at = bytes.subarray(0, dashes.length).equals(dashes) ? 0 : next(0);
  while (at !== -1 && found.length < 5) {
    const lineEnd = bytes.indexOf(LF, at);
    const end = lineEnd === -1 ? bytes.length : lineEnd + 1;
    const closing = /^(?<dashes>--)?[ \t]*\r?\n?$/.exec(
      bytes.toString('latin1', at + dashes.length, Math.min(end, at + 1000)),
    );
    if (closing === null) throw damaged('a line of it begins like its boundary');
    const start = at - (at === 0 ? 0 : bytes[at - 2] === CR ? 2 : 1);
    found.push({ start, end, last: closing.groups?.['dashes'] !== undefined });
    // This delimiter may end with the line end that the next one begins with.
    at = lineEnd === -1 ? -1 : next(lineEnd);
  }
  return found;
}

function decode(bytes: Buffer, encoding = 'base64'): Uint8Array {
  if (/^(?:binary|8bit)$/i.test(encoding.trim())) return bytes;
  const text = bytes.toString('latin1').replaceAll(/[ \t\r\n]+/g, '');
  if (!/^base64$/i.test(encoding.trim()) || !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) throw damaged('it is not in base64');
  return Buffer.from(text, 'base64');
}

function unsigned(): Failure {
  return new Failure(
    'SignatureMissing',
    'the document is not signed: neither S/MIME (multipart/signed, application/pkcs7-mime) nor CMS in PEM or DER',
  );
}

function damaged(fact: string): Failure {
  return new Failure('SignatureInvalid', `the signed message cannot be read: ${fact}`);
}
