import type { Digests } from '../../api/digest.ts';
import type { Endorser } from '../../trust/trust.ts';
import type { Entry } from '../catalog.ts';
import { readDate } from '../dates.ts';
import { invalidEntry } from '../gathering.ts';
import { MAX_FIELDS, MAX_TITLE, MAX_URLS, MAX_VERSION } from '../limits.ts';
import { present } from '../present.ts';
import { bytes, complaint, digests, locationProblem, strongestFirst } from '../schema.ts';
import { agreed, packingOf, pathOf } from '../suffixes.ts';
import { architecture, system } from '../system.ts';
import { decode, plain, quoted } from '../text.ts';
import { fortyDigits, identifierOf } from './identifier.ts';
import { type Element, readTree } from './xml.ts';

/** One entry: what an endorser says of an image, at a time. */
export interface Endorsement {
  /** Under the identifier of the image. */
  readonly entry: Entry;
  readonly email: string;
  /** As the entry says; whether they are the signer's is for the caller to compare. */
  readonly endorser: Endorser;
  /** RFC 3339. */
  readonly endorsedAt: string;
  readonly tags: readonly string[];
}

const BASE = 'http://mp.stratuslab.eu/';
const ALGORITHMS = { MD5: 'md5', 'SHA-1': 'sha1', 'SHA-256': 'sha256', 'SHA-512': 'sha512' } as const;
/**
 * Reads one entry of a StratusLab Marketplace. Only proven bytes belong here.
 * @throws Failure InvalidEntry
 */
export function parseEntry(content: Uint8Array): Endorsement {
  const root = readTree(decode(content), invalidEntry);
  if (root.name !== 'rdf:RDF') throw invalidEntry(`it begins with <${plain(root.name, 60)}>, not with rdf:RDF`);
  const base = root.attributes.get('xml:base');
  // Relative names, and with them `rdf:about="#…"`, would be of another Marketplace.
  if (base !== BASE) throw invalidEntry(`its xml:base must be ${BASE}, not ${quoted(base ?? '')}`);
  const description = only(root, 'rdf:Description');
  const identifier = readIdentifier(description);
  const contentChecksums = readChecksums(description, identifier);
  const endorsement = only(description, 'slreq:endorsement');
  const endorser = only(endorsement, 'slreq:endorser');
  const email = text(endorser, 'slreq:email');
  if (!/^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+$/.test(email))
    throw invalidEntry(`slreq:email ${quoted(email)} is no address`);
  const endorsedAt = readTime(text(endorsement, 'dcterms:created'), 'dcterms:created of slreq:endorsement');
  const said = { subject: text(endorser, 'slreq:subject'), issuer: text(endorser, 'slreq:issuer') };
  return {
    entry: readImage(description, identifier, contentChecksums, {
      'slreq:email': email,
      'slreq:subject': plain(said.subject),
      'slreq:issuer': plain(said.issuer),
      'slreq:endorsement': endorsedAt,
    }),
    email,
    endorser: said,
    endorsedAt,
    tags: all(description, 'dcterms:alternative'),
  };
}

function readImage(
  description: Element,
  identifier: string,
  contentChecksums: Digests,
  endorsed: Readonly<Record<string, string>>,
): Entry {
  const deprecated = maybe(description, 'slterms:deprecated');
  const valid = maybe(description, 'dcterms:valid');
  const created = maybe(description, 'dcterms:created');
  const urls = readLocations(description, deprecated !== undefined);
  const words = [maybe(description, 'dcterms:format'), maybe(description, 'dcterms:compression')];
  const said = packingOf(['', ...words.filter((word) => word !== undefined)].join('.'));
  const named = packingOf(pathOf(urls[0] ?? ''));
  const size = bytes.safeParse(text(description, 'slreq:bytes'));
  if (!size.success) throw invalidEntry(`slreq:bytes ${complaint(size.error)}`);
  return {
    ...present({
      id: identifier,
      version: clipped(maybe(description, 'slterms:version'), MAX_VERSION),
      title: clipped(maybe(description, 'dcterms:title') ?? maybe(description, 'dcterms:description'), MAX_TITLE),
      description: clipped(maybe(description, 'dcterms:description')),
      // slreq:bytes is of the image uncompressed: of the file only where that is the same.
      size: (said.compression ?? named.compression) === undefined ? size.data : undefined,
      arch: architecture(maybe(description, 'slterms:os-arch')),
      createdAt: created === undefined ? undefined : readTime(created, 'dcterms:created'),
      expiresAt: valid === undefined ? undefined : readTime(valid, 'dcterms:valid'),
      deprecated: deprecated === undefined ? undefined : plain(deprecated) || 'no reason is given',
    }),
    ...agreed(said, named),
    urls,
    checksums: {},
    contentChecksums,
    os: system({
      name: maybe(description, 'slterms:os'),
      distro: maybe(description, 'slterms:os'),
      version: maybe(description, 'slterms:os-version'),
    }),
    fields: { ...fieldsOf(description), ...endorsed },
  };
}

/** The image is named by its SHA-1, three times over: where one differs, the entry speaks of another image than it seems to. */
function readIdentifier(description: Element): string {
  const identifier = text(description, 'dcterms:identifier');
  if (!/^[A-Za-z0-9_-]{27}$/.test(identifier))
    throw invalidEntry(`dcterms:identifier ${quoted(identifier)} is not of 27 characters A-Z a-z 0-9 _ -`);
  const about = description.attributes.get('rdf:about') ?? '';
  if (about !== `#${identifier}`)
    throw invalidEntry(`rdf:about ${quoted(about)} is not its dcterms:identifier ${identifier}`);
  return identifier;
}

function readChecksums(description: Element, identifier: string): Digests {
  const found: Digests = {};
  for (const checksum of description.children.filter(({ name }) => name === 'slreq:checksum')) {
    const name = text(checksum, 'slreq:algorithm').toUpperCase();
    const algorithm = Object.hasOwn(ALGORITHMS, name) ? ALGORITHMS[name as keyof typeof ALGORITHMS] : undefined;
    if (algorithm === undefined) continue;
    const value = text(checksum, 'slreq:value').toLowerCase();
    const read = digests[algorithm].safeParse(algorithm === 'sha1' ? fortyDigits(value) : value);
    if (!read.success) throw invalidEntry(`its checksum ${name} ${complaint(read.error)}`);
    if (found[algorithm] !== undefined && found[algorithm] !== read.data)
      throw invalidEntry(`it has two checksums ${name} that differ`);
    found[algorithm] = read.data;
  }
  if (found.sha1 === undefined)
    throw invalidEntry('it has no slreq:checksum with the algorithm SHA-1, which its identifier is made of');
  const made = identifierOf(found.sha1);
  if (made !== identifier)
    throw invalidEntry(`its identifier ${identifier} is not that of its SHA-1, which is ${made}`);
  return strongestFirst(found);
}

/** In order of preference. `pdisk:` and the like are a StratusLab site's own, and ftp is no source of a VMImage. */
function readLocations(description: Element, deprecated: boolean): string[] {
  const given = all(description, 'slterms:location');
  const usable = given.filter((url) => locationProblem(url) === undefined).slice(0, MAX_URLS);
  if (usable.length > 0 || deprecated) return usable;
  const problem =
    given[0] === undefined ? 'it has none' : `the first, ${quoted(given[0])}, ${locationProblem(given[0])}`;
  throw invalidEntry(`it has no slterms:location with http or https: ${problem}`);
}

function readTime(value: string, name: string): string {
  const found = readDate(value);
  if (found === undefined) throw invalidEntry(`${name} must be a date like 2026-01-31T12:00:00Z, not ${quoted(value)}`);
  return found;
}

/** The direct children that hold text; several of one name in one line. */
function fieldsOf(description: Element): Record<string, string> {
  const found = new Map<string, string>();
  for (const { name, text: value, attributes } of description.children) {
    const said = plain(value === '' ? (attributes.get('rdf:resource') ?? '') : value);
    if (said === '' || name === '__proto__') continue;
    const before = found.get(name);
    if (before === undefined && found.size === MAX_FIELDS) break;
    found.set(plain(name, 253), before === undefined ? said : plain(`${before}, ${said}`));
  }
  return Object.fromEntries(found);
}

function only(parent: Element, name: string): Element {
  const [first, second] = parent.children.filter((child) => child.name === name);
  if (first === undefined) throw invalidEntry(`${parent.name} has no ${name}`);
  if (second !== undefined) throw invalidEntry(`${parent.name} has more than one ${name}`);
  return first;
}

function text(parent: Element, name: string): string {
  const value = only(parent, name).text;
  if (value === '') throw invalidEntry(`${name} is empty`);
  return value;
}

/** Undefined where there is none; an empty element is one where it means something by itself (`deprecated`). */
function maybe(parent: Element, name: string): string | undefined {
  const value = parent.children.some((child) => child.name === name) ? only(parent, name).text : undefined;
  return value === '' && name !== 'slterms:deprecated' ? undefined : value;
}

function all(parent: Element, name: string): string[] {
  return parent.children
    .filter((child) => child.name === name)
    .map((child) => (child.text === '' ? (child.attributes.get('rdf:resource') ?? '') : child.text))
    .filter((value) => value !== '');
}

const clipped = (value: string | undefined, limit?: number): string | undefined =>
  value === undefined ? undefined : plain(value, limit);
