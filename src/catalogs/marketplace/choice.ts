import { Failure } from '../../api/failure.ts';
import type { Signer } from '../../trust/trust.ts';
import type { Entry } from '../catalog.ts';
import { identifier } from '../schema.ts';
import type { Endorsement } from './parse.ts';

/** An entry whose signature was proven, or for which none was asked. */
export interface Vouched extends Endorsement {
  readonly signer?: Signer;
}

/** What a subscription to a tag follows: the newest image that an endorser gave this name. */
export interface Tag {
  readonly email: string;
  readonly tag: string;
}

/**
 * `/tag/EMAIL/TAG` and `/metadata/EMAIL?tag=TAG` of a Marketplace; undefined for all other URLs.
 * @throws Failure InvalidSpec for a tag that cannot be an entry's id
 */
export function tagOf(url: string): Tag | undefined {
  const tag = tagIn(url);
  if (tag === undefined || identifier.safeParse(tagId(tag)).data === tagId(tag)) return tag;
  throw new Failure('InvalidSpec', 'spec.url: the tag must have printable characters, at most 253 with the address');
}

function tagIn(url: string): Tag | undefined {
  const { pathname, searchParams } = new URL(url);
  const parts = pathname
    .split('/')
    .filter((part) => part !== '')
    .map(decoded);
  const [section, email, last] = parts.slice(-3);
  if (section === 'tag' && email !== undefined && last !== undefined && email.includes('@'))
    return { email, tag: last };
  const tag = searchParams.get('tag') ?? '';
  const owner = parts.at(-1) ?? '';
  return tag !== '' && owner.includes('@') ? { email: owner, tag } : undefined;
}

/** The entry's id stays the same while the images under the tag change: that is what a tag is for. */
export function tagId({ email, tag }: Tag): string {
  return `${email}/${tag}`;
}

/** The tag is in what was signed: without this a server could answer with any other image that the endorser ever signed. */
export function isTagged({ email, tags }: Endorsement, tag: Tag): boolean {
  return email.toLowerCase() === tag.email.toLowerCase() && tags.includes(tag.tag);
}

/**
 * One entry for each image. Of an endorser's entries about it the newest counts, the older ones are history. Of several endorsers one
 * who still stands by the image, and among those the newest word.
 */
export function oneEach(vouched: readonly Vouched[], at: number): Vouched[] {
  const byEndorser = new Map<string, Vouched>();
  for (const each of vouched) {
    const key = JSON.stringify([each.entry.id, each.endorser.subject, each.endorser.issuer, each.email]);
    const other = byEndorser.get(key);
    if (other === undefined || isNewer(each, other)) byEndorser.set(key, each);
  }
  const byImage = new Map<string, Vouched[]>();
  for (const each of byEndorser.values()) {
    const others = byImage.get(each.entry.id);
    if (others === undefined) byImage.set(each.entry.id, [each]);
    else others.push(each);
  }
  return Array.from(byImage.values(), (endorsements) => {
    const chosen = preferred(endorsements, at);
    const emails = endorsements.map(({ email }) => email).join(', ');
    return { ...chosen, entry: { ...chosen.entry, fields: { ...chosen.entry.fields, 'slreq:endorsers': emails } } };
  });
}

/** @throws RangeError for an empty list */
export function preferred(vouched: readonly Vouched[], at: number): Vouched {
  const good = vouched.filter(({ entry }) => stands(entry, at));
  return (good.length > 0 ? good : vouched).reduce((best, each) => (isNewer(each, best) ? each : best));
}

function stands(entry: Entry, at: number): boolean {
  return entry.deprecated === undefined && (entry.expiresAt === undefined || Date.parse(entry.expiresAt) > at);
}

function isNewer(a: Endorsement, b: Endorsement): boolean {
  return Date.parse(a.endorsedAt) > Date.parse(b.endorsedAt);
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
