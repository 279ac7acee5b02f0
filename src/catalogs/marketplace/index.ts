import { setImmediate } from 'node:timers/promises';
import { Failure } from '../../api/failure.ts';
import {
  endorserOf,
  isSigner,
  type Judged,
  SignerRefused,
  type Verification,
  verifySigned,
} from '../../trust/index.ts';
import type { Endorser, Signer } from '../../trust/trust.ts';
import type { Catalog, Entry, ReadRequest, Skipped } from '../catalog.ts';
import { isDistrust } from '../distrust.ts';
import { Gathering, invalidEntry } from '../gathering.ts';
import { present } from '../present.ts';
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
    const known = knownOf(text, tag, trust);
    const read = await gathering.attempt(known, () => readEntry(text, known, tag, { trust, at, signal, chains }));
    if (read instanceof Failure) refused.push(read);
    else vouched.push(read);
  }
  // One bad answer must not look like a Marketplace from which every image has been taken away.
  if (vouched.length === 0) checkRefused(refused, request);
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
 * both are in it: the revoked endorser is out, and the one beside him is not.
 */
function checkRefused(refused: readonly Failure[], { accepted = false }: ReadRequest): void {
  const unclear = refused.find(({ reason }) => !isDistrust(reason, 'x509'));
  const out = refused.find(({ reason }) => isDistrust(reason, 'x509'));
  if (accepted && unclear !== undefined && out !== undefined) return;
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

async function readEntry(
  text: string,
  known: Known,
  tag: Tag | undefined,
  verification: Verification,
): Promise<Vouched> {
  const { content, signer } = await prove(text, known, tag, verification);
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

/** What is told of an entry that is skipped. */
interface Known {
  id?: string;
  signer?: NonNullable<Skipped['signer']>;
}

/** For people, of what may turn out to be no entry at all. */
function knownOf(text: string, tag: Tag | undefined, { kind }: ReadRequest['trust']): Known {
  const id = tag === undefined ? identifierIn(text) : tagId(tag);
  return present({ id, signer: kind === 'unsigned' ? undefined : ('Unproven' as const) });
}

/** Whose entry it is, and of which image, is what his signature proves, also where his word is not taken. */
async function prove(text: string, known: Known, tag: Tag | undefined, verification: Verification): Promise<Judged> {
  try {
    const judged = await verifySigned(Buffer.from(text), verification);
    if (judged.signer !== undefined) Object.assign(known, proven(judged.content, endorserOf(judged.signer), tag));
    return judged;
  } catch (error) {
    if (error instanceof SignerRefused) Object.assign(known, proven(error.content, error.signer, tag));
    throw error;
  }
}

function proven(content: Uint8Array, signer: Endorser, tag: Tag | undefined): Known {
  const id = tag === undefined ? identifierIn(decode(content)) : tagId(tag);
  // Without a name in what he signed it is of no image.
  return { ...(id === undefined ? {} : { id }), signer: id === undefined ? 'Unproven' : signer };
}

function identifierIn(text: string): string | undefined {
  return /identifier>\s*([\w-]{27})\s*</.exec(text)?.[1];
}
