import { timestamp } from '../api/conditions.ts';
import { Failure, type PlainFailure } from '../api/failure.ts';
import type { HttpSourceSpec } from '../sources/source.ts';
import { cleanUrl } from '../sources/url.ts';
import type { Trust } from '../trust/trust.ts';
import { accept, type AcceptedList } from './acceptance.ts';
import type { Catalog, CatalogFormat, ReadCatalog } from './catalog.ts';
import { Documents } from './documents.ts';
import { judgeAgain, type Refusal } from './judging.ts';
import { keep, type KeptList, readKept } from './kept.ts';

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
      readonly stage: Refusal['stage'];
      /** What is kept is as it was, but for the word on its signer. */
      readonly kept: KeptList | undefined;
      /** Why it cannot be told whether what is kept is still vouched for; undefined where that was judged. */
      readonly doubt?: PlainFailure;
    };

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
    if (before === undefined) return { kind: 'Refused', failure: failure.toPlain(), stage, kept: undefined };
    const { kept, doubt } = await judgeAgain(before, { ...task, url }, { failure, stage }, readCatalog, signal);
    const said = doubt === undefined ? {} : { doubt: doubt.toPlain() };
    return { kind: 'Refused', failure: failure.toPlain(), stage, kept, ...said };
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
