import { z } from 'zod';
import { ALGORITHMS, type Digests } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Entry } from '../catalog.ts';
import { Gathering, type Hint, invalidEntry } from '../gathering.ts';
import { ambiguousItems, parseJson } from '../json.ts';
import { MAX_TITLE, MAX_VERSION } from '../limits.ts';
import { present } from '../present.ts';
import {
  bytes,
  complaint,
  date,
  digests,
  identifier,
  isMapping,
  location,
  type Mapping,
  scalars,
  withoutNulls,
  words,
} from '../schema.ts';
import { agreed, packingOf, pathOf } from '../suffixes.ts';
import { architecture, system } from '../system.ts';
import { decode, invalidList, plain } from '../text.ts';
import { readRam } from './ram.ts';

/** What a HEPiX list says of itself. */
export interface HepixList {
  readonly identity: string;
  readonly title?: string;
  readonly version: string;
  readonly createdAt: string;
  readonly expiresAt: string;
  readonly endorsers: readonly HepixEndorser[];
  /** Where its publisher says that it is found. */
  readonly uri?: string;
  readonly entries: ReturnType<Gathering['done']>['entries'];
  readonly skipped: ReturnType<Gathering['done']>['skipped'];
  readonly warnings: readonly string[];
}

/** Distinguished names in OpenSSL's one-line form. */
export interface HepixEndorser {
  readonly subject: string;
  readonly issuer: string;
}

const Endorser = z.object({ 'hv:x509': z.object({ 'hv:dn': words(), 'hv:ca': words() }) });

/**
 * What decides about the list. The describing keys (`dc:description`, `dc:source`, `hv:uri`) may be missing, although the format has
 * them as required: nothing here depends on them.
 */
const List = z.object({
  'dc:identifier': identifier,
  'dc:title': words(MAX_TITLE).optional(),
  'dc:date:created': date,
  'dc:date:expires': date,
  'hv:version': words(MAX_VERSION),
  'hv:uri': words().optional(),
});

const Image = z.object({
  'dc:identifier': identifier,
  'hv:uri': location,
  'hv:version': words(MAX_VERSION),
  'hv:size': bytes,
  'dc:title': words(MAX_TITLE).optional(),
  'dc:description': words().optional(),
  'hv:format': words(64).optional(),
  'sl:arch': words(64).optional(),
  'sl:os': words(64).optional(),
  'sl:osname': words(64).optional(),
  'sl:osversion': words(64).optional(),
  'dc:date:created': date.optional(),
  'dc:date:expires': date.optional(),
});

const PREFIX = 'sl:checksum:';
/** Said once for all images, and needed with each: the virtual organisation, the appliance. */
const INHERITED = ['ad:vo', 'ad:swid'];

/**
 * Reads the JSON of an image list (HEPiX; also AppDB's, vmcaster's and CernVM's). Only proven bytes belong here.
 * @throws Failure InvalidList
 */
export function parseHepix(content: Uint8Array): HepixList {
  const json = parseJson(decode(content));
  const { list, wrapped } = listIn(json.value);
  const images = list['hv:images'];
  if (!Array.isArray(images)) throw invalidList('its hv:images is missing or no list');
  const ambiguous = ambiguousItems(json, ...(wrapped ? ['hv:imagelist'] : []), 'hv:images');
  const read = List.safeParse(withoutNulls(list));
  if (!read.success) throw invalidList(complaint(read.error));
  const inherited = scalars(Object.fromEntries(INHERITED.map((key) => [key, list[key]])));
  const gathering = new Gathering();
  gathering.readAll(images.map(unwrapped), ambiguous, hintOf, (image) => readImage(image, inherited));
  const facts = read.data;
  return {
    ...present({ title: facts['dc:title'], uri: facts['hv:uri'] }),
    identity: facts['dc:identifier'],
    version: facts['hv:version'],
    createdAt: facts['dc:date:created'],
    expiresAt: facts['dc:date:expires'],
    endorsers: readEndorsers(list['hv:endorser']),
    ...gathering.done(),
    warnings: wrapped ? [] : ['the list has no hv:imagelist around it, as the oldest lists'],
  };
}

function listIn(value: unknown): { list: Mapping; wrapped: boolean } {
  if (!isMapping(value)) throw invalidList('it is JSON, but no object');
  const inner = value['hv:imagelist'];
  if (inner === undefined) {
    if ('hv:images' in value) return { list: value, wrapped: false };
    throw invalidList('it is no image list: it has neither hv:imagelist nor hv:images');
  }
  if (!isMapping(inner)) throw invalidList('its hv:imagelist is no object');
  return { list: inner, wrapped: true };
}

function unwrapped(item: unknown): unknown {
  return isMapping(item) && 'hv:image' in item ? item['hv:image'] : item;
}

function hintOf(image: unknown): Hint {
  return isMapping(image) ? { id: image['dc:identifier'], title: image['dc:title'] } : {};
}

/** One endorser, or vmcaster's array of several. None at all is for the caller to judge: an unsigned list needs none. */
function readEndorsers(value: unknown): HepixEndorser[] {
  if (value === undefined || value === null) return [];
  return (Array.isArray(value) ? value : [value]).map((each: unknown, index) => {
    const read = Endorser.safeParse(each);
    if (!read.success) throw invalidList(`hv:endorser ${index + 1}: ${complaint(read.error)}`);
    const { 'hv:dn': subject, 'hv:ca': issuer } = read.data['hv:x509'];
    return { subject, issuer };
  });
}

function readImage(image: unknown, inherited: Readonly<Record<string, string>>): Entry {
  if (!isMapping(image)) throw invalidEntry('it is no object');
  const read = Image.safeParse(withoutNulls(image));
  if (!read.success) throw invalidEntry(complaint(read.error));
  const facts = read.data;
  return {
    ...present({
      title: facts['dc:title'],
      description: facts['dc:description'],
      arch: architecture(facts['sl:arch']),
      minRamMiB: readRam(image['hv:ram_minimum']),
      createdAt: facts['dc:date:created'],
      expiresAt: facts['dc:date:expires'],
    }),
    id: facts['dc:identifier'],
    version: facts['hv:version'],
    urls: [facts['hv:uri']],
    checksums: readChecksums(image),
    contentChecksums: {},
    size: facts['hv:size'],
    ...readPacking(facts['hv:format'], facts['hv:uri']),
    os: system({ name: facts['sl:os'], distro: facts['sl:osname'], version: facts['sl:osversion'] }),
    fields: { ...inherited, ...scalars(image) },
  };
}

/** `sl:checksum:sha512` is the format's own; sha256 is as good, and what proves less is for the VMImage's rules to refuse. */
function readChecksums(image: Mapping): Digests {
  const found: Digests = {};
  for (const algorithm of ALGORITHMS) {
    const value = image[PREFIX + algorithm];
    if (value === undefined) continue;
    const read = digests[algorithm].safeParse(value);
    if (!read.success) throw invalidEntry(`${PREFIX}${algorithm} ${complaint(read.error)}`);
    found[algorithm] = read.data;
  }
  if (Object.keys(found).length === 0) throw invalidEntry(`${PREFIX}sha512 is missing`);
  return found;
}

/**
 * `hv:format` is an open word (`QCOW2`, `ova`, `vdi.gz`), and CernVM's lists have none: then the location's name tells. The
 * compression is told by either.
 */
function readPacking(format: string | undefined, uri: string): Pick<Entry, 'format' | 'compression'> {
  const said = packingOf(format === undefined ? '' : `.${format.trim()}`);
  const named = packingOf(pathOf(uri));
  const archive = said.image ? undefined : (said.archive ?? (named.image ? undefined : named.archive));
  if (archive !== undefined) {
    throw new Failure(
      'NotSupported',
      `it is a ${plain(archive, 20)}, an archive of files: no machine boots it as a disk`,
    );
  }
  return agreed(said, named);
}
