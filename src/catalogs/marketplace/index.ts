import { setImmediate } from 'node:timers/promises';
import { Failure } from '../../api/failure.ts';
import { isSigner, type Verification, verifySigned } from '../../trust/index.ts';
import type { Signer } from '../../trust/trust.ts';
import type { Catalog, Entry, ReadRequest } from '../catalog.ts';
import { isDistrust } from '../distrust.ts';
import { Gathering, invalidEntry } from '../gathering.ts';
import { bring } from '../proof.ts';
import { decode, digestOf, plain } from '../text.ts';
import { isTagged, oneEach, preferred, type Tag, tagId, tagOf, type Vouched } from './choice.ts';
import { type Endorsement, parseEntry } from './parse.ts';
import { splitEntries } from './xml.ts';

/**
 * Reads a StratusLab Marketplace: `/metadata` with its queries, one entry, or a tag. Nobody signs the list; each entry is proven by
 * its own XML signature, and one that is not to be believed is skipped.
 * @throws Failure of the fetch; InvalidTrust; InvalidList; why no entry can be believed, when none can
 */
export async function readMarketplace(request: ReadRequest): Promise<Catalog> {
  const { trust, at, signal } = request;
  if (trust.kind !== 'x509' && trust.kind !== 'unsigned') {
    throw new Failure(
      'InvalidTrust',
      'entries of a Marketplace have XML signatures: give trust.x509 (or trust: unsigned: {})',
    );
  }
  const document = await bring(request.url, request);
  const texts = splitEntries(decode(document));
  const tag = tagOf(request.url);
  const gathering = new Gathering();
  const chains: Verification['chains'] = new Map();
  const vouched: Vouched[] = [];
  const refused: Failure[] = [];
  for (const text of texts) {
    // Between two entries the event loop has its turn: each is a signature.
    await setImmediate();
    if (signal.aborted) throw new Failure('Aborted', 'stopped');
    const read = await gathering.attempt(hintOf(text), () => readEntry(text, tag, { trust, at, signal, chains }));
    if (read instanceof Failure) refused.push(read);
    else vouched.push(read);
  }
  // One bad answer must not look like a Marketplace from which every image has been taken away.
  if (vouched.length === 0) checkRefused(refused, request, tag);
  const each = oneEach(vouched, at);
  const chosen = tag === undefined ? each : tagged(each, tag, at);
  for (const entry of chosen) gathering.read({}, () => entryOf(entry));
  const endorsedAt = tag === undefined ? undefined : newestOf(vouched);
  return {
    list: {
      format: 'Marketplace',
      ...(tag === undefined ? {} : { identity: tagId(tag), title: `${tag.tag} of ${tag.email}` }),
      digest: digestOf(document),
      ...(endorsedAt === undefined ? {} : { createdAt: endorsedAt }),
    },
    ...gathering.done(),
    warnings: [],
  };
}

/**
 * No entry can be believed. Strangers' entries are in every answer, and are none of a trusted endorser's: as the failure of the whole
 * list that word would be about those who only miss a CRL, so another comes first. A kept answer is told entry by entry instead where
 * both are in it: the revoked endorser is out, and the one beside him is not. Not under a tag: there an image has another id.
 */
function checkRefused(refused: readonly Failure[], { accepted = false }: ReadRequest, tag: Tag | undefined): void {
  const unclear = refused.find(({ reason }) => !isDistrust(reason, 'x509'));
  const out = refused.find(({ reason }) => isDistrust(reason, 'x509'));
  if (accepted && tag === undefined && unclear !== undefined && out !== undefined) return;
  const failure = unclear ?? out;
  if (failure !== undefined) throw failure;
}

/** An entry that is deprecated or has ended counts too: once its endorser has said so, an answer without it is an old one. */
function newestOf(vouched: readonly Vouched[]): string | undefined {
  const [first, ...others] = vouched.map(({ endorsedAt }) => endorsedAt);
  return others.reduce(
    (newest, each) => (newest !== undefined && Date.parse(each) > Date.parse(newest) ? each : newest),
    first,
  );
}

async function readEntry(text: string, tag: Tag | undefined, verification: Verification): Promise<Vouched> {
  const { content, signer } = await verifySigned(Buffer.from(text), verification);
  const endorsement = parseEntry(content);
  if (signer !== undefined) checkEndorser(endorsement, signer);
  if (tag !== undefined && !isTagged(endorsement, tag)) {
    throw invalidEntry(
      `it is not what ${plain(tag.email, 120)} calls ${plain(tag.tag, 120)}: its endorser is ${plain(endorsement.email, 120)}, its dcterms:alternative ${endorsement.tags.map((name) => plain(name, 60)).join(', ') || 'missing'}`,
    );
  }
  return signer === undefined ? endorsement : { ...endorsement, signer };
}

/** What the entry says of its endorser must be what his certificate says; an address is compared where the certificate has one. */
function checkEndorser({ endorser, email }: Endorsement, signer: Signer): void {
  if (!isSigner(endorser, signer)) {
    throw new Failure(
      'EndorserMismatch',
      `the entry says that ${plain(endorser.subject, 300)} (issuer ${plain(endorser.issuer, 300)}) endorses it, but ${plain(signer.name, 300)} (issuer ${plain(signer.issuer ?? 'unknown', 300)}) signed it`,
    );
  }
  const emails = signer.emails ?? [];
  if (emails.length > 0 && !emails.some((each) => each.toLowerCase() === email.toLowerCase())) {
    throw new Failure(
      'EndorserMismatch',
      `the entry gives ${plain(email, 120)} as its endorser's address, his certificate ${plain(emails.join(', '), 300)}`,
    );
  }
}

function tagged(vouched: readonly Vouched[], tag: Tag, at: number): Vouched[] {
  if (vouched.length === 0) return [];
  const chosen = preferred(vouched, at);
  const fields = { ...chosen.entry.fields, 'dcterms:alternative': tag.tag };
  return [{ ...chosen, entry: { ...chosen.entry, id: tagId(tag), fields } }];
}

function entryOf({ entry, signer }: Vouched): Entry {
  return signer === undefined ? entry : { ...entry, signer };
}

/** For people, of what may turn out to be no entry at all. */
function hintOf(text: string): { id?: string } {
  const id = /identifier>\s*([\w-]{27})\s*</.exec(text)?.[1];
  return id === undefined ? {} : { id };
}
