import { Failure } from '../../../src/api/failure.ts';
import type { Catalog, CatalogFormat, ReadRequest } from '../../../src/catalogs/catalog.ts';
import { readCatalog } from '../../../src/catalogs/index.ts';
import type { Trust } from '../../../src/trust/trust.ts';

export const NOW = Date.parse('2026-11-21T12:00:00Z');
export const SHA512 = 'ab'.repeat(64);
export const SHA256 = 'cd'.repeat(32);

export interface Site {
  /** By URL; a function to count or to fail. */
  readonly documents: Readonly<Record<string, string | Uint8Array>>;
  readonly trust?: Trust;
  readonly at?: number;
  readonly signal?: AbortSignal;
}

/** A request whose documents lie in memory, and what was asked for. */
export function request(url: string, { documents, trust = { kind: 'unsigned' }, at = NOW, signal }: Site) {
  const asked: string[] = [];
  const made: ReadRequest = {
    url,
    trust,
    at,
    signal: signal ?? new AbortController().signal,
    fetch: (place, { optional }) => {
      asked.push(place);
      const found = documents[place];
      if (found !== undefined) return Promise.resolve(typeof found === 'string' ? Buffer.from(found) : found);
      if (optional === true) return Promise.resolve(undefined);
      return Promise.reject(new Failure('NotFound', `${place} answered 404`));
    },
  };
  return { ...made, asked };
}

/** One document, unsigned. */
export function read(format: CatalogFormat, document: string | Uint8Array, url = 'https://lists.example.org/list') {
  return readCatalog(format, request(url, { documents: { [url]: document } }));
}

/** The reason and the message of a refused list. */
export async function refusal(reading: Promise<Catalog>): Promise<string> {
  try {
    return `accepted: ${JSON.stringify(await reading)}`;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    return `${error.reason}: ${error.message}`;
  }
}

/** The one entry of a list of one. */
export async function one(reading: Promise<Catalog>) {
  const { entries, skipped } = await reading;
  const [entry] = entries;
  if (entry === undefined || entries.length > 1)
    throw new Error(`not one entry: ${JSON.stringify({ entries, skipped })}`);
  return entry;
}

/** Why the one image of a list is skipped. */
export async function skipped(reading: Promise<Catalog>): Promise<string> {
  const catalog = await reading;
  return (
    catalog.skipped.map(({ id, reason, message }) => `${id} ${reason}: ${message}`).join('\n') || 'none is skipped'
  );
}
