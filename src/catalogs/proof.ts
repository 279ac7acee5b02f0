import { Failure } from '../api/failure.ts';
import { type Judged, verifySigned } from '../trust/index.ts';
import type { ReadRequest } from './catalog.ts';
import { MAX_DOCUMENT_BYTES, MAX_SIGNATURE_BYTES } from './limits.ts';

/** What is needed to bring a document and have it proven. */
type Reading = Pick<ReadRequest, 'trust' | 'at' | 'fetch' | 'signal'>;

/**
 * One document of a list.
 * @throws Failure of the fetch; NotFound
 */
export async function bring(url: string, { fetch, signal }: Pick<Reading, 'fetch' | 'signal'>): Promise<Uint8Array> {
  if (signal.aborted) throw new Failure('Aborted', 'stopped');
  const document = await fetch(url, { maxBytes: MAX_DOCUMENT_BYTES });
  if (document === undefined) throw new Failure('NotFound', 'the list is not there');
  if (document.length > MAX_DOCUMENT_BYTES) {
    throw new Failure('TooLarge', `the list has ${document.length} bytes, of at most ${MAX_DOCUMENT_BYTES}`);
  }
  return document;
}

/**
 * Has a document proven by the kind of signature that the trust speaks of: within it (S/MIME, clear-signed), or in a file beside it
 * under one of the names that publishers use.
 * @throws Failure of the trust room; SignatureMissing
 */
export async function prove(url: string, document: Uint8Array, request: Reading): Promise<Judged> {
  const { trust, at, signal } = request;
  const names = detachedNames(document, trust.kind);
  if (names === undefined) return verifySigned(document, { trust, at, signal });
  for (const { suffix, looksRight } of names) {
    const signature = await bringBeside(beside(url, suffix), request);
    // A server that answers everything with a page of its own has no signature there.
    if (signature === undefined || !looksRight(signature)) continue;
    return verifySigned(document, { trust, at, signal, signature });
  }
  const sought = names.map(({ suffix }) => suffix).join(', ');
  throw new Failure(
    'SignatureMissing',
    `the list has no signature in it, and there is none beside it (its name with ${sought}): subscribe to the signed form, or give trust: unsigned: {}`,
  );
}

/** A signature of any kind beside a document, for who does not know yet whom to trust; undefined when there is none. */
export async function signatureBeside(url: string, reading: Reading): Promise<Uint8Array | undefined> {
  for (const { suffix, looksRight } of [...OPENPGP, ...MINISIGN, ...CMS]) {
    const signature = await bringBeside(beside(url, suffix), reading);
    if (signature !== undefined && looksRight(signature)) return signature;
  }
  return undefined;
}

/** Object stores answer 403 for what is not there, unless one may list the bucket. */
async function bringBeside(url: string, { fetch }: Reading): Promise<Uint8Array | undefined> {
  try {
    return await fetch(url, { maxBytes: MAX_SIGNATURE_BYTES, optional: true });
  } catch (error) {
    if (error instanceof Failure && error.reason === 'Forbidden') return undefined;
    throw error;
  }
}

interface DetachedName {
  readonly suffix: string;
  looksRight(signature: Uint8Array): boolean;
}

const beginsWith = (text: string) => (bytes: Uint8Array) => head(bytes).startsWith(text);
const isOpenPgp = (bytes: Uint8Array) => head(bytes).startsWith('-----BEGIN PGP SIGNATURE') || (bytes[0] ?? 0) >= 0x80;
const isCms = (bytes: Uint8Array) => isDer(bytes) || head(bytes).startsWith('-----BEGIN ');
/** A SEQUENCE of 128 bytes or more. The first byte alone is a `0`, with which a checksum file may begin. */
const isDer = (bytes: Uint8Array) => bytes[0] === 0x30 && (bytes[1] ?? 0) >= 0x80;

const OPENPGP: readonly DetachedName[] = ['.gpg', '.asc', '.sig', '.sign'].map((suffix) => ({
  suffix,
  looksRight: isOpenPgp,
}));
const MINISIGN: readonly DetachedName[] = [{ suffix: '.minisig', looksRight: beginsWith('untrusted comment:') }];
const CMS: readonly DetachedName[] = [{ suffix: '.p7s', looksRight: isCms }];

/** Undefined when the signature is within the document, or none is asked for. */
function detachedNames(document: Uint8Array, kind: Reading['trust']['kind']): readonly DetachedName[] | undefined {
  switch (kind) {
    case 'unsigned':
      return undefined;
    case 'minisign':
      return MINISIGN;
    case 'openpgp':
      return head(document).startsWith('-----BEGIN PGP SIGNED MESSAGE') ? undefined : OPENPGP;
    case 'x509':
      return isEnvelope(document) ? undefined : CMS;
  }
}

/** S/MIME, CMS in PEM or DER. */
function isEnvelope(document: Uint8Array): boolean {
  return isDer(document) || /^(?:-----BEGIN |MIME-Version:|Content-Type:)/i.test(head(document));
}

/** The first characters, without byte order mark and white space. */
function head(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes.subarray(0, 256)).trimStart();
}

/** `…/SHA256SUMS?x=y` and `.gpg`: `…/SHA256SUMS.gpg?x=y`. */
function beside(url: string, suffix: string): string {
  const place = new URL(url);
  place.pathname += suffix;
  return place.href;
}
