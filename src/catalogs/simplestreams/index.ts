import { Failure } from '../../api/failure.ts';
import { cleanUrl } from '../../sources/url.ts';
import type { Signer } from '../../trust/trust.ts';
import { below, folderOf } from '../below.ts';
import type { Catalog, ReadRequest } from '../catalog.ts';
import { checkDates } from '../dates.ts';
import { isDistrust } from '../distrust.ts';
import { Gathering } from '../gathering.ts';
import { present } from '../present.ts';
import { bring, prove } from '../proof.ts';
import { digestOf, invalidList } from '../text.ts';
import { parseStream, readProducts, type Stream, type StreamPart } from './parse.ts';

interface Proof {
  readonly url: string;
  readonly document: Uint8Array;
  readonly stream: Stream;
  readonly signer?: Signer;
  /** Of a kept part: why nobody vouches for it any more. */
  readonly refused?: Failure;
}

/**
 * Reads a simplestreams index and all that it refers to, or one products document. Every document is proven by itself: an index that
 * is signed says nothing of the bytes behind its paths.
 * @throws Failure of the fetch and the trust room; InvalidList, ListFromFuture, SourceChanged
 */
export async function readSimplestreams(request: ReadRequest): Promise<Catalog> {
  const first = await read(request.url, request);
  const root = rootOf(request.url);
  const parts = first.stream.kind === 'products' ? [first] : await readParts(first.stream.parts, root, request);
  const gathering = new Gathering();
  let diskless = 0;
  for (const { stream, signer, refused } of parts) {
    if (stream.kind !== 'products') throw invalidList('its index refers to another index');
    checkDates(present({ createdAt: stream.updated }), request.at);
    // Only where another key than the list's vouches for these products.
    const own = signer !== undefined && signer.fingerprint !== first.signer?.fingerprint ? signer : undefined;
    diskless += readProducts(stream, present({ root, signer: own, refused }), gathering);
  }
  const doubts = parts.flatMap(({ refused }) => refused ?? []);
  if (doubts[0] !== undefined && !doubts.some(({ reason }) => isDistrust(reason, request.trust.kind))) throw doubts[0];
  const list = {
    format: 'Simplestreams' as const,
    ...present({
      identity: first.stream.kind === 'products' ? first.stream.identity : undefined,
      createdAt: first.stream.updated,
      signer: first.signer,
    }),
    digest: digestOf(...new Set([first, ...parts].map(({ document }) => document))),
  };
  checkDates(list, request.at);
  return {
    list,
    ...gathering.done(),
    warnings: diskless === 0 ? [] : [`products without a disk image, which are left out: ${diskless}`],
  };
}

async function read(url: string, request: ReadRequest): Promise<Proof> {
  const document = await bring(url, request);
  const { content, signer } = await prove(url, document, request);
  return { url, document, stream: parseStream(content), ...present({ signer }) };
}

/**
 * A part of the list that was accepted. Another key than the index's may have signed it, and be out now: then its own products have
 * lost who vouched for them, and the others have not. Which these are, the bytes tell that were proven then.
 */
async function readKept(url: string, request: ReadRequest): Promise<Proof> {
  try {
    return await read(url, request);
  } catch (error) {
    if (!(error instanceof Failure) || error.failureClass !== 'VerificationFailed') throw error;
    return { ...(await read(url, { ...request, trust: { kind: 'unsigned' } })), refused: error };
  }
}

async function readParts(parts: readonly StreamPart[], root: string, request: ReadRequest): Promise<Proof[]> {
  const found: Proof[] = [];
  for (const { path, updated } of parts) {
    const place = below(root, path);
    if ('problem' in place) throw invalidList(`index: ${place.problem}`);
    const proof = request.accepted === true ? await readKept(place.url, request) : await read(place.url, request);
    if (updated !== undefined) checkAge(proof, updated);
    found.push(proof);
  }
  return found;
}

/** Each document is signed by itself, so an old one can be put beside a new index: then the index tells. */
function checkAge({ url, stream }: Proof, expected: string): void {
  if (stream.updated !== undefined && Date.parse(stream.updated) >= Date.parse(expected)) return;
  throw new Failure(
    'SourceChanged',
    `${cleanUrl(url)} ${stream.updated === undefined ? 'does not say when it was updated' : `is of ${stream.updated}`}, but the index speaks of one of ${expected}: the mirror is being updated, or serves old documents`,
  );
}

/** What paths are relative to: the folder that holds `streams/`, as the mirrors have it; without one the list's own. */
function rootOf(url: string): string {
  const folder = new URL(folderOf(url));
  const streams = folder.pathname.lastIndexOf('/streams/');
  if (streams !== -1) folder.pathname = folder.pathname.slice(0, streams + 1);
  return folder.href;
}
