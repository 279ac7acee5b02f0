import { timestamp } from '../api/conditions.ts';
import { Failure, type PlainFailure } from '../api/failure.ts';
import type { HttpSourceSpec } from '../sources/source.ts';
import { cleanUrl } from '../sources/url.ts';
import type { Trust } from '../trust/trust.ts';
import { accept, type AcceptedList } from './acceptance.ts';
import type { Catalog, CatalogFormat, FetchDocument, ReadRequest } from './catalog.ts';
import { isDistrust } from './distrust.ts';
import { Documents, keptDocuments } from './documents.ts';
import { type Distrust, keep, keepJudged, type KeptList, readKept, writeHead } from './kept.ts';

/** One look at a list: plain data, for it goes to a thread. */
export interface ReadTask {
  readonly format: CatalogFormat;
  /** Where the list is, and with which credentials. */
  readonly source: HttpSourceSpec;
  readonly trust: Trust;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** Where the accepted list is kept. */
  readonly folder: string;
  /** The list that was accepted last, also where the folder is lost. */
  readonly accepted: AcceptedList | undefined;
  readonly rollback: 'Refuse' | 'Accept';
  /** Names all that decides how the list is read and judged; kept with it. */
  readonly inputs?: string;
}

export type ReadOutcome =
  | { readonly kind: 'Accepted'; readonly kept: KeptList; readonly fresh: boolean }
  | {
      readonly kind: 'Refused';
      readonly failure: PlainFailure;
      /** Whether the bytes could not be brought, or were brought and not accepted. */
      readonly stage: 'Fetch' | 'Verify';
      /** What is kept is as it was, but for the word on its signer. */
      readonly kept: KeptList | undefined;
    };

export type ReadCatalog = (format: CatalogFormat, request: ReadRequest) => Promise<Catalog>;

/** A slow origin must not hold a place among the readers for ever. */
export const LONGEST_MS = 10 * 60_000;

/** Fetches, proves, parses and judges a list, and keeps it when it is accepted. @throws Failure Aborted | DiskFull | InternalError */
export async function readList(task: ReadTask, readCatalog: ReadCatalog, signal: AbortSignal): Promise<ReadOutcome> {
  const { format, source, trust, at, folder, accepted, rollback } = task;
  const { url } = source;
  const before = await readKept(folder);
  const bounded = AbortSignal.any([signal, AbortSignal.timeout(LONGEST_MS)]);
  const documents = new Documents(source, folder, before?.documents ?? [], bounded);
  let catalog: Catalog;
  let warnings: string[];
  try {
    catalog = await readCatalog(format, { url, trust, at, fetch: documents.fetch, signal: bounded });
    warnings = [...catalog.warnings, ...accept(catalog.list, accepted, { url, format, rollback })];
  } catch (error) {
    if (signal.aborted) throw new Failure('Aborted', 'stopped');
    const failure = bounded.aborted
      ? new Failure('Timeout', `${cleanUrl(url)}: the list was not read within ${LONGEST_MS / 60_000} minutes`)
      : Failure.from(error);
    const stage = failure === documents.failure || bounded.aborted ? 'Fetch' : 'Verify';
    const kept = before === undefined ? undefined : await judgeAgain(before, task, readCatalog, signal);
    return { kind: 'Refused', failure: failure.toPlain(), stage, kept };
  }
  const fresh = accepted?.digest !== catalog.list.digest;
  const acceptedAt = fresh || before === undefined ? timestamp(at) : before.acceptedAt;
  const head = {
    warnings,
    url: cleanUrl(url),
    acceptedAt,
    ...(task.inputs === undefined ? {} : { inputs: task.inputs }),
  };
  const kept = await keep(folder, catalog, head, documents.taken);
  return { kind: 'Accepted', kept, fresh };
}

/**
 * Whether the signer of the list that is kept is still trusted, by its own bytes: what somebody else serves in its place says nothing
 * about it.
 */
async function judgeAgain(
  before: KeptList,
  { format, source, trust, at, folder }: ReadTask,
  readCatalog: ReadCatalog,
  signal: AbortSignal,
): Promise<KeptList> {
  const { distrust: _, ...rest } = before;
  if (before.list.format !== format || before.url !== cleanUrl(source.url)) return before;
  const fetch: FetchDocument = keptDocuments(folder, before.documents);
  let distrust: Distrust | undefined;
  try {
    const catalog = await readCatalog(format, { url: source.url, trust, at, fetch, signal, accepted: true });
    // Each entry of some formats has a signer of its own: those that are out are among the skipped now.
    const out = catalog.skipped.some(({ reason }) => isDistrust(reason, trust.kind));
    if (out) return await keepJudged(folder, rest, catalog);
  } catch (error) {
    const { reason, message } = Failure.from(error);
    if (isDistrust(reason, trust.kind)) distrust = { reason, message };
    // Something that says nothing of the signer leaves it at what was known; past its date, the signature is good nevertheless.
    else if (reason !== 'ListExpired') return before;
  }
  if (distrust?.message === before.distrust?.message) return before;
  return writeHead(folder, distrust === undefined ? rest : { ...rest, distrust });
}
