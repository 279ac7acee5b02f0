import { Failure, type Reason } from '../api/failure.ts';
import { cleanUrl } from '../sources/url.ts';
import { endorserOf } from '../trust/index.ts';
import type { Trust } from '../trust/trust.ts';
import type { CatalogFormat, FetchDocument, ReadCatalog, Skipped } from './catalog.ts';
import { type Distrust, distrustOf, isDistrust } from './distrust.ts';
import { keptDocuments } from './documents.ts';
import { keepJudged, type KeptEntries, type KeptList, readEntries, writeHead } from './kept.ts';

/** What became of the kept list when it was judged by the trust of today. */
export interface Judgement {
  /** As it was, but for the word on its signers. */
  readonly kept: KeptList;
  /** Why it cannot be told whether anybody trusted still vouches for it. */
  readonly doubt?: Failure;
}

/** What the kept list is judged by. */
interface Judging {
  readonly format: CatalogFormat;
  readonly url: string;
  readonly trust: Trust;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** Where it is kept. */
  readonly folder: string;
}

/** Why the list that was read now did not take its place. */
export interface Refusal {
  readonly failure: Failure;
  /** Whether the bytes could not be brought, or were brought and not accepted. */
  readonly stage: 'Fetch' | 'Verify';
}

/**
 * Whether the list that is kept is still vouched for, by what was proven of it when it was accepted, and by its own bytes: what
 * somebody else serves in its place says nothing about it.
 */
export async function judgeAgain(
  before: KeptList,
  { format, url, trust, at, folder }: Judging,
  refusal: Refusal,
  readCatalog: ReadCatalog,
  signal: AbortSignal,
): Promise<Judgement> {
  if (before.list.format !== format || before.url !== cleanUrl(url)) return { kept: before };
  const { signer } = before.list;
  const takenOut = signer === undefined ? undefined : distrustOf(signer, trust);
  if (takenOut !== undefined) return { kept: await keepDistrust(folder, before, takenOut) };
  const entries = await signedAlone(folder, before);
  const out = entries === undefined ? [] : takenOutOf(entries, trust);
  const fetch: FetchDocument = keptDocuments(folder, before.documents);
  try {
    const catalog = await readCatalog(format, { url, trust, at, fetch, signal, accepted: true });
    const { distrust: _, ...trusted } = before;
    // Those whose signer is out are among the skipped now, and those whose signer is trusted again among the entries.
    return { kept: await keepJudged(folder, trusted, withOut(catalog, out)) };
  } catch (error) {
    if (signal.aborted) throw new Failure('Aborted', 'stopped');
    const failure = Failure.from(error);
    const { reason, message } = failure;
    if (isDistrust(reason, trust.kind)) return { kept: await keepDistrust(folder, before, { reason, message }) };
    // Past its date, the signature is good nevertheless.
    if (reason === 'ListExpired') return { kept: await keepDistrust(folder, before, undefined) };
    if (isUnsignedNow(before, reason, refusal, trust)) return { kept: await keepDistrust(folder, before, UNSIGNED) };
    if (entries === undefined || out.length === 0) return { kept: before, doubt: failure };
    const ids = new Set(out.map(({ id }) => id));
    const left = { ...entries, entries: entries.entries.filter(({ id }) => !ids.has(id)) };
    return { kept: await keepJudged(folder, before, withOut(left, out)), doubt: failure };
  }
}

/** With those that are out among the skipped. Where another endorser is believed about the same image, his entry stays. */
function withOut({ entries, skipped }: KeptEntries, out: readonly Skipped[]): KeptEntries {
  const said = new Set(skipped.map(wordOf));
  return { entries, skipped: [...skipped, ...out.filter((each) => !said.has(wordOf(each)))] };
}

function wordOf({ id, reason, signer }: Skipped): string {
  return JSON.stringify([id, reason, signer]);
}

async function keepDistrust(folder: string, before: KeptList, distrust: Distrust | undefined): Promise<KeptList> {
  if (distrust?.message === before.distrust?.message) return before;
  const { distrust: _, ...rest } = before;
  return writeHead(folder, distrust === undefined ? rest : { ...rest, distrust });
}

/** The entries of a list in which each was proven by a signature of its own. */
async function signedAlone(folder: string, before: KeptList): Promise<KeptEntries | undefined> {
  return before.list.format === 'Marketplace' ? readEntries(folder, before) : undefined;
}

function takenOutOf({ entries }: KeptEntries, trust: Trust): Skipped[] {
  return entries.flatMap(({ id, title, signer }) => {
    const distrust = signer === undefined ? undefined : distrustOf(signer, trust);
    if (distrust === undefined || signer === undefined) return [];
    return [{ id, ...(title === undefined ? {} : { title }), ...distrust, signer: endorserOf(signer) }];
  });
}

const UNSIGNED: Distrust = {
  reason: 'SignatureMissing',
  message: 'nobody has signed it, and spec.trust is not unsigned any more',
};

/**
 * The list was accepted when nobody was asked to vouch for it, and nobody who is trusted now does: neither for its bytes, nor for what
 * was served today. A list that could not be fetched may have got a signature beside it, which was not kept: nothing is certain then.
 */
function isUnsignedNow({ list }: KeptList, reason: Reason, { failure, stage }: Refusal, trust: Trust): boolean {
  if (list.signer !== undefined || list.format === 'Marketplace' || reason !== 'SignatureMissing') return false;
  return stage === 'Verify' && (failure.reason === 'SignatureMissing' || isDistrust(failure.reason, trust.kind));
}
