import { Failure } from '../../api/failure.ts';
import { cleanUrl } from '../../sources/url.ts';
import { isSigner } from '../../trust/index.ts';
import type { Signer } from '../../trust/trust.ts';
import type { Catalog, ReadRequest } from '../catalog.ts';
import { checkDates } from '../dates.ts';
import { bring, prove } from '../proof.ts';
import { digestOf, plain } from '../text.ts';
import { type HepixEndorser, type HepixList, parseHepix } from './parse.ts';

/**
 * Reads an image list of HEPiX, EGI's AppDB or vmcaster: JSON in S/MIME.
 * @throws Failure of the fetch and the trust room; InvalidList, EndorserMismatch, ListFromFuture, ListExpired
 */
export async function readHepix(request: ReadRequest): Promise<Catalog> {
  const document = await bring(request.url, request);
  const { content, signer } = await prove(request.url, document, request);
  const list = parseHepix(content);
  if (signer !== undefined) checkEndorser(list.endorsers, signer);
  checkDates(list, request.at);
  return {
    list: {
      format: 'HEPiX',
      identity: list.identity,
      ...(list.title === undefined ? {} : { title: list.title }),
      version: list.version,
      digest: digestOf(document),
      createdAt: list.createdAt,
      expiresAt: list.expiresAt,
      ...(signer === undefined ? {} : { signer }),
    },
    entries: list.entries,
    skipped: list.skipped,
    warnings: [...list.warnings, ...elsewhere(list, request.url)],
  };
}

/**
 * The list names its endorser by his certificate, and he must be who signed it (vmcatcher's error 12): else one of a CA's many users
 * could sign a list in the name of another. A list of several endorsers is signed by one of them.
 */
function checkEndorser(endorsers: readonly HepixEndorser[], signer: Signer): void {
  // What an OpenPGP or a minisign key is called cannot be compared with distinguished names: that key itself is trusted.
  if (signer.kind !== 'x509' || endorsers.some((endorser) => isSigner(endorser, signer))) return;
  const [named] = endorsers;
  throw new Failure(
    'EndorserMismatch',
    named === undefined
      ? `the list names no endorser (hv:endorser), and was signed by ${plain(signer.name, 300)}: its publisher must name him`
      : `the list says that ${plain(named.subject, 300)} (issuer ${plain(named.issuer, 300)}) endorses it, but ${plain(signer.name, 300)} (issuer ${plain(signer.issuer ?? 'unknown', 300)}) signed it: ask its publisher`,
  );
}

/** A list that has moved says so in `hv:uri`. It is no fault: mirrors are as good, the signature is the same. */
function elsewhere({ uri }: HepixList, subscribed: string): string[] {
  if (uri === undefined || uri === '' || place(uri) === place(subscribed)) return [];
  return [`the list says that it is at ${cleanUrl(uri)}, another place than the one that was read`];
}

/** Without scheme, credentials and query: the same list with and without TLS or token. */
function place(url: string): string {
  const parsed = URL.parse(url);
  return parsed === null ? '' : `${parsed.host}${parsed.pathname}`;
}
