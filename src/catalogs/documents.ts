import { createHash } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../api/failure.ts';
import { type DocumentValidators, fetchDocument, sourceBeside } from '../sources/http/document.ts';
import type { HttpSourceSpec } from '../sources/source.ts';
import { cleanUrl } from '../sources/url.ts';
import type { FetchDocument } from './catalog.ts';

/** Bounds of one reading: an index may refer to many parts. */
const MAX_DOCUMENTS = 256;
const MAX_TOTAL_BYTES = 256 * 2 ** 20;

/** A document of the accepted list, as it lies in the subscription's folder. */
export interface KeptDocument extends DocumentValidators {
  readonly url: string;
  /** Hex, of its bytes; names the file. */
  readonly sha256: string;
}

export interface TakenDocument extends KeptDocument {
  readonly bytes: Uint8Array;
}

export function documentFile(folder: string, sha256: string): string {
  return join(folder, `document-${sha256}`);
}

/**
 * The documents of one reading. What lies in the folder is asked for conditionally, so that a list that has not changed costs its
 * origin one answer without a body.
 */
export class Documents {
  readonly #source: HttpSourceSpec;
  readonly #folder: string;
  readonly #kept: ReadonlyMap<string, KeptDocument>;
  readonly #signal: AbortSignal;
  readonly #taken = new Map<string, TakenDocument>();
  #total = 0;
  /** Why a document could not be brought, the last time that one could not: what is thrown else is about its content. */
  failure: Failure | undefined;

  constructor(source: HttpSourceSpec, folder: string, kept: readonly KeptDocument[], signal: AbortSignal) {
    this.#source = source;
    this.#folder = folder;
    this.#kept = new Map(kept.map((document) => [document.url, document]));
    this.#signal = signal;
  }

  /** Those that were asked for. */
  get taken(): readonly TakenDocument[] {
    return [...this.#taken.values()];
  }

  readonly fetch: FetchDocument = async (url, { maxBytes, optional = false }) => {
    try {
      return await this.#bring(url, maxBytes);
    } catch (error) {
      if (optional && error instanceof Failure && error.reason === 'NotFound') return undefined;
      this.failure = Failure.from(error);
      throw this.failure;
    }
  };

  async #bring(url: string, maxBytes: number): Promise<Uint8Array> {
    const before = this.#taken.get(url);
    if (before !== undefined) return before.bytes;
    const most = Math.min(maxBytes, MAX_TOTAL_BYTES - this.#total);
    if (this.#taken.size >= MAX_DOCUMENTS || most <= 0) {
      throw new Failure(
        'TooLarge',
        `${cleanUrl(url)}: the list has more than ${MAX_DOCUMENTS} parts, or more than ${MAX_TOTAL_BYTES} bytes in all`,
      );
    }
    const known = this.#kept.get(url);
    const bytesBefore = known === undefined ? undefined : await readDocument(this.#folder, known);
    const source = sourceBeside(this.#source, url);
    const fetched = await fetchDocument(
      source,
      { maxBytes: most, ...(known !== undefined && bytesBefore !== undefined && { known }) },
      this.#signal,
    );
    const document =
      fetched === undefined
        ? { ...(known as KeptDocument), bytes: bytesBefore as Uint8Array }
        : { url, sha256: sha256(fetched.bytes), ...fetched.validators, bytes: fetched.bytes };
    this.#total += document.bytes.length;
    this.#taken.set(url, document);
    return document.bytes;
  }
}

/** The documents of the accepted list as they lie there, without asking anybody. */
export function keptDocuments(folder: string, kept: readonly KeptDocument[]): FetchDocument {
  return async (url, { optional = false }) => {
    const known = kept.find((document) => document.url === url);
    const bytes = known === undefined ? undefined : await readDocument(folder, known);
    if (bytes === undefined && !optional) throw new Failure('NotFound', `${cleanUrl(url)}: it is not kept`);
    return bytes;
  };
}

/** Undefined when it is lost or damaged: it is fetched again then, and what is damaged must not be in its way. */
async function readDocument(folder: string, { sha256: digest }: KeptDocument): Promise<Uint8Array | undefined> {
  const path = documentFile(folder, digest);
  try {
    const bytes = await readFile(path);
    if (sha256(bytes) === digest) return bytes;
    await rm(path, { force: true });
    return undefined;
  } catch {
    return undefined;
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
