import type { CatalogFormat } from './catalog.ts';
import { API_VERSION, KIND } from './imageproxy/parse.ts';

/** Where a checksum file is looked for: its first lines. */
const HEAD_BYTES = 64 * 1024;
const CHECKSUM_LINE = /^(?:\\?[0-9a-f]{32,128}[ \t]+\*?\S|[A-Z0-9-]{3,20} ?\([^)]*\) ?= ?[0-9a-f]{32,128}\r?$)/im;
/** Of an opaque S/MIME message or a CMS in PEM: lines of base64. */
const BASE64_LINE = /^[A-Za-z0-9+/]{40,76}={0,2}\r?$/gm;

/**
 * Which kind of list a document is, whatever it is wrapped in; undefined for what is none. A guess by what only such lists say, for
 * people who have a file and do not know: nothing is proven, nothing is checked.
 */
export function recognise(bytes: Uint8Array): CatalogFormat | undefined {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const known = byWords(buffer) ?? byWords(unpacked(buffer));
  if (known !== undefined) return known;
  return CHECKSUM_LINE.test(buffer.toString('latin1', 0, HEAD_BYTES)) ? 'ChecksumFile' : undefined;
}

function byWords(bytes: Buffer): CatalogFormat | undefined {
  if (bytes.includes('"hv:imagelist"') || bytes.includes('"hv:images"')) return 'HEPiX';
  if (bytes.includes('http://mp.stratuslab.eu/slreq#')) return 'Marketplace';
  if (bytes.includes('"products:1.0"') || bytes.includes('"index:1.0"')) return 'Simplestreams';
  return bytes.includes(API_VERSION) && bytes.includes(KIND) ? 'ImageProxy' : undefined;
}

function unpacked(bytes: Buffer): Buffer {
  const lines = bytes.toString('latin1').match(BASE64_LINE) ?? [];
  return Buffer.from(lines.join(''), 'base64');
}
