import { createHash } from 'node:crypto';
import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { MAX_DOCUMENT_BYTES, MAX_TEXT } from './limits.ts';

/**
 * The text of a document, without its byte order mark.
 * @throws Failure InvalidList, TooLarge
 */
export function decode(bytes: Uint8Array): string {
  if (bytes.length > MAX_DOCUMENT_BYTES) {
    throw new Failure('TooLarge', `the list has ${bytes.length} bytes, of at most ${MAX_DOCUMENT_BYTES}`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw invalidList('it is not UTF-8 text');
  }
}

/** One line without control characters and bidirectional overrides, clipped: as messages, titles and labels may show it. */
export function plain(text: string, limit = MAX_TEXT): string {
  return printable(text, limit).toWellFormed();
}

/** In quotation marks, short, for messages. */
export function quoted(text: string): string {
  return `"${plain(text, 60)}"`;
}

export function invalidList(fact: string): Failure {
  return new Failure('InvalidList', `the list cannot be read: ${fact}`);
}

/** `sha256:hex` of a document, or of several in the order in which they were read. */
export function digestOf(...documents: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const document of documents) hash.update(document);
  return `sha256:${hash.digest('hex')}`;
}
