import { Failure } from '../api/failure.ts';
import { type Claims, claimsOf } from '../trust/index.ts';
import type { Trust } from '../trust/trust.ts';
import type { Catalog, CatalogFormat, ReadRequest } from './catalog.ts';
import { checkDates } from './dates.ts';
import { readCatalog } from './index.ts';
import { bring, prove, signatureBeside } from './proof.ts';
import { recognise } from './recognise.ts';
import { invalidList } from './text.ts';

/** A list as it is, and every reason for which it would be refused. */
export interface Inspection {
  readonly format: CatalogFormat | undefined;
  /** What it says; nothing of it is proven where there are faults. Undefined when it cannot be read at all. */
  readonly catalog: Catalog | undefined;
  /** Who it says has signed it, where that was not proven. */
  readonly claims: Claims | undefined;
  /** None: it is valid, and trusted. */
  readonly faults: readonly Failure[];
}

export interface InspectRequest extends Omit<ReadRequest, 'trust'> {
  /** Undefined: whatever it looks like. */
  readonly format: CatalogFormat | undefined;
  /** Undefined: nobody is trusted, and the list is shown to find out who would have to be. */
  readonly trust: Trust | undefined;
}

/**
 * Looks at a list as a subscription would, and beyond the first fault.
 * @throws Failure when its documents cannot be brought
 */
export async function inspect(request: InspectRequest): Promise<Inspection> {
  const document = await bring(request.url, request);
  const format = request.format ?? recognise(document);
  const claims = await tolerant(() => claimedIn(document, request));
  const claimed = claims instanceof Failure ? undefined : claims;
  const proof = await tolerant(() => proofOf(document, format, claimed, request));
  if (proof !== undefined && !(proof instanceof Failure)) {
    return { format, catalog: proof, claims: undefined, faults: entriesFault(proof) };
  }
  const faults: Failure[] = [];
  add(faults, proof);
  add(faults, claims);
  if (format === undefined)
    add(faults, invalidList('it is of no known kind (HEPiX, Marketplace, Simplestreams, ChecksumFile, ImageProxy)'));
  const catalog = await tolerant(() => unproven(format, request));
  add(faults, catalog);
  if (catalog === undefined || catalog instanceof Failure)
    return { format, catalog: undefined, claims: claimed, faults };
  add(faults, await tolerant(async () => checkDates(catalog.list, request.at)));
  return { format, catalog, claims: claimed, faults };
}

/** The list as a subscription would take it. Of a document of no known kind only the signature is judged. */
async function proofOf(
  document: Uint8Array,
  format: CatalogFormat | undefined,
  claims: Claims | undefined,
  request: InspectRequest,
): Promise<Catalog | undefined> {
  const trust = request.trust ?? nobodyOf(claims);
  if (trust === undefined) throw nobodyTrusted(claims);
  if (format !== undefined) return await readCatalog(format, { ...request, trust });
  await prove(request.url, document, { ...request, trust });
  return undefined;
}

async function unproven(format: CatalogFormat | undefined, request: InspectRequest): Promise<Catalog | undefined> {
  if (format === undefined) return undefined;
  return await readCatalog(format, { ...request, trust: { kind: 'unsigned' }, at: WHENEVER });
}

/** No date is before it or after it, so none is judged. */
const WHENEVER = Number.NaN;

async function claimedIn(document: Uint8Array, request: InspectRequest): Promise<Claims | undefined> {
  const within = await claimsOf(document);
  if (within !== undefined) return within;
  const beside = await signatureBeside(request.url, { ...request, trust: { kind: 'unsigned' } });
  return beside === undefined ? undefined : claimsOf(document, beside);
}

/** With no authority at all, an X.509 signature is still judged up to where trust begins. */
function nobodyOf(claims: Claims | undefined): Trust | undefined {
  if (claims?.kind !== 'x509') return undefined;
  const anchors = { certificates: [], crls: [], policies: [] };
  return { kind: 'x509', endorsers: undefined, anchors, crl: 'IfPresent', signingPolicy: 'IfPresent', allowSha1: true };
}

function nobodyTrusted(claims: Claims | undefined): Failure {
  if (claims === undefined)
    return new Failure(
      'SignatureMissing',
      'the list is not signed, and no signature is beside it: nobody vouches for it',
    );
  return new Failure('UntrustedSigner', 'the list is signed, and nobody is trusted here: say whose word you take');
}

/** Of a list whose entries are signed one by one, what is wrong with the first is what is wrong when none is left. */
function entriesFault({ entries, skipped: [first] }: Catalog): Failure[] {
  return entries.length === 0 && first !== undefined
    ? [new Failure(first.reason, `${first.id}: ${first.message}`)]
    : [];
}

/** One fault of a kind: what is found again, without the proof or without the dates, is the same. */
function add(faults: Failure[], found: unknown): void {
  if (found instanceof Failure && !faults.some(({ reason }) => reason === found.reason)) faults.push(found);
}

/** What is wrong with the list is an answer; what keeps us from looking at it is not. */
async function tolerant<T>(look: () => Promise<T>): Promise<T | Failure> {
  try {
    return await look();
  } catch (error) {
    const failure = Failure.from(error);
    if (failure.reason === 'Aborted' || failure.reason === 'ToolMissing' || failure.reason === 'InternalError')
      throw error;
    return failure;
  }
}
