import { Failure } from '../api/failure.ts';

/** RFC 9580 §7, taken apart strictly: whatever is not covered by the signature is refused, not skipped. */
export interface ClearsignedText {
  /** The signed text as the signature covers it: unescaped, lines without spaces at their ends, ended by LF. */
  readonly text: string;
  /** The armored signature. */
  readonly signature: string;
}

const BEGIN = '-----BEGIN PGP SIGNED MESSAGE-----';
const SIGNATURE = '-----BEGIN PGP SIGNATURE-----';
const END = '-----END PGP SIGNATURE-----';

/** @throws Failure SignatureMissing | SignatureInvalid */
export function splitClearsigned(bytes: Uint8Array): ClearsignedText {
  const text = decode(bytes);
  if (hasMoreLines(text, MAX_LINES)) {
    throw new Failure('TooLarge', `the clear-signed document has more than ${MAX_LINES} lines`);
  }
  const lines = text.split('\n');
  const begin = lines.findIndex((line) => line.trim() !== '');
  if (begin === -1 || !lines.some((line) => stripped(line) === BEGIN)) {
    throw new Failure(
      'SignatureMissing',
      'the document is not clear-signed, and there is no OpenPGP signature beside it',
    );
  }
  if (stripped(lines[begin] ?? '') !== BEGIN) throw invalid('unsigned text stands before it');
  const blank = lines.findIndex((line, index) => index > begin && stripped(line) === '');
  // Other headers are not signed, and some readers show them as if they were (CVE-2023-41037).
  if (blank === -1 || lines.slice(begin + 1, blank).some((line) => !/^Hash: [A-Za-z0-9, -]+\r?$/.test(line))) {
    throw invalid('it has another header than Hash');
  }
  const start = lines.findIndex((line, index) => index > blank && stripped(line) === SIGNATURE);
  const end = lines.findIndex((line, index) => index > start && stripped(line) === END);
  if (start === -1 || end === -1) throw invalid('its signature is cut off');
  if (lines.slice(end + 1).some((line) => line.trim() !== '')) throw invalid('unsigned text stands after it');
  const signed = lines.slice(blank + 1, start).map((line) => stripped(undash(line)));
  return { text: signed.join('\n'), signature: lines.slice(start, end + 1).join('\n') };
}

/** Each line is a string of its own for a while: a document of line ends only would take a hundred times its size. */
const MAX_LINES = 500_000;

function hasMoreLines(text: string, most: number): boolean {
  let lines = 1;
  for (let at = text.indexOf('\n'); at !== -1 && lines <= most; at = text.indexOf('\n', at + 1)) lines += 1;
  return lines > most;
}

/** §7.1: a line that begins with a dash has `- ` before it; any other dash would be the beginning of something else. */
function undash(line: string): string {
  if (line.startsWith('- ')) return line.slice(2);
  if (line.startsWith('-')) throw invalid('a line of it begins with a dash that is not escaped');
  return line;
}

/** By hand: a pattern that ends with `$` starts anew at each of a million spaces. */
function stripped(line: string): string {
  let end = line.length;
  while (end > 0 && ' \t\r'.includes(line.charAt(end - 1))) end -= 1;
  return line.slice(0, end);
}

/** Bytes that are no UTF-8 would be replaced, so that what is proven is not what came. */
function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new Failure(
      'SignatureInvalid',
      'the document is no UTF-8 text, and there is no OpenPGP signature beside it',
      {
        cause: error,
      },
    );
  }
}

function invalid(fact: string): Failure {
  return new Failure('SignatureInvalid', `the clear-signed document cannot be read: ${fact}`);
}
