import type { IncomingHttpHeaders } from 'node:http';
import { Failure } from '../../api/failure.ts';
import type { HttpSourceSpec, Sink } from '../source.ts';
import { ask } from './ask.ts';
import { type Answer, receive } from './exchange.ts';

/** What an origin calls the state of a document. Weak ones serve as well: a document is taken whole, never joined. */
export interface DocumentValidators {
  etag?: string;
  lastModified?: string;
}

export interface FetchedDocument {
  bytes: Uint8Array;
  validators: DocumentValidators;
}

const MAX_VALIDATOR = 1024;

/**
 * Brings a whole document into memory, in one request and its redirects; undefined when it is as `known` says.
 * @param maxBytes bound of the document; more is refused, before it is read where the origin announces it
 * @throws Failure TooLarge, or as a source's fetch does
 */
export async function fetchDocument(
  spec: HttpSourceSpec,
  { maxBytes, known = {} }: { maxBytes: number; known?: DocumentValidators },
  signal: AbortSignal,
): Promise<FetchedDocument | undefined> {
  const conditions = {
    ...(known.etag !== undefined && { 'if-none-match': known.etag }),
    ...(known.lastModified !== undefined && { 'if-modified-since': known.lastModified }),
  };
  const answer = await ask(spec, conditions, signal);
  try {
    if (answer.status === 304) return undefined;
    if (answer.status !== 200) {
      throw new Failure(
        'ServerError',
        `${answer.where}: the origin answered ${answer.status} to a request for the whole document`,
      );
    }
    const bytes = await wholeBody(answer, maxBytes);
    return { bytes, validators: validatorsIn(answer.headers) };
  } finally {
    answer.discard();
  }
}

/** The source of another document of the same list. Credentials go to the origin of the list alone, wherever its parts may lie. */
export function sourceBeside(list: HttpSourceSpec, url: string): HttpSourceSpec {
  if (URL.parse(url)?.origin === URL.parse(list.url)?.origin) return { ...list, url };
  const { authorization: _, secretHeaders: __, tls, ...open } = list;
  return { ...open, url, ...(tls?.ca !== undefined && { tls: { ca: tls.ca } }) };
}

async function wholeBody(answer: Answer, maxBytes: number): Promise<Uint8Array> {
  const tooLarge = () =>
    new Failure(
      'TooLarge',
      `${answer.where}: the document is larger than the ${maxBytes} bytes that are read of one; is this the right URL?`,
    );
  if ((answer.length ?? 0) > maxBytes) throw tooLarge();
  const pieces: Uint8Array[] = [];
  let received = 0;
  const sink: Sink = {
    resume: undefined,
    begin: async () => {},
    async write(_offset, bytes) {
      received += bytes.length;
      if (received > maxBytes) throw tooLarge();
      pieces.push(Uint8Array.from(bytes));
    },
  };
  await receive(answer, sink, 0);
  return Buffer.concat(pieces);
}

function validatorsIn({ etag, 'last-modified': lastModified }: IncomingHttpHeaders): DocumentValidators {
  const usable = (value: string | undefined) => value !== undefined && value.length <= MAX_VALIDATOR;
  return {
    ...(usable(etag) && etag !== undefined && { etag }),
    ...(usable(lastModified) && lastModified !== undefined && { lastModified }),
  };
}
