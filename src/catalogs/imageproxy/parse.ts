import { z } from 'zod';
import type { Entry } from '../catalog.ts';
import { Gathering, type Hint, invalidEntry } from '../gathering.ts';
import { MAX_FIELDS, MAX_TEXT, MAX_TITLE, MAX_URLS, MAX_VERSION } from '../limits.ts';
import { ambiguousItems } from '../json.ts';
import { present } from '../present.ts';
import {
  bytes,
  complaint,
  count,
  date,
  digests,
  isMapping,
  location,
  quotedIdentifier,
  scalars,
  withoutNulls,
  words,
} from '../schema.ts';
import { architecture, system } from '../system.ts';
import { decode, invalidList, plain } from '../text.ts';
import { parseDocument } from './document.ts';

export interface ImageList {
  readonly identity: string;
  readonly title?: string;
  readonly version: string;
  readonly createdAt: string;
  readonly expiresAt?: string;
  readonly entries: readonly Entry[];
  readonly skipped: ReturnType<Gathering['done']>['skipped'];
  readonly warnings: readonly string[];
}

/** Versions and ids as text alone: YAML makes 24.1 of an unquoted 24.10. */
const quotedText = (limit: number) =>
  z
    .string({ error: ({ input }) => (input === undefined ? 'is missing' : 'must be text: put it in quotation marks') })
    .max(limit, { error: `is longer than ${limit} characters` })
    .transform((value) => plain(value, limit))
    .refine((value) => value !== '', { error: 'is empty' });

const Metadata = z.object({
  id: quotedIdentifier,
  title: words(MAX_TITLE).optional(),
  version: quotedText(MAX_VERSION),
  createdAt: date,
  expiresAt: date.optional(),
});

const Checksums = z.strictObject({
  sha512: digests.sha512.optional(),
  sha256: digests.sha256.optional(),
  sha1: digests.sha1.optional(),
  md5: digests.md5.optional(),
});

const FORMATS = ['Raw', 'Qcow2', 'Vmdk', 'Vdi', 'Vhd', 'Vhdx', 'Ova'] as const;
const COMPRESSIONS = ['None', 'Gzip', 'Bzip2', 'Xz', 'Zstd'] as const;
const oneOf = <T extends readonly [string, ...string[]]>(values: T) =>
  z.enum(values, { error: `must be one of ${values.join(', ')}` });

const Image = z.object({
  id: quotedIdentifier,
  version: quotedText(MAX_VERSION).optional(),
  title: words(MAX_TITLE).optional(),
  description: words().optional(),
  urls: z
    .array(location, { error: ({ input }) => (input === undefined ? 'is missing' : 'must be a list of URLs') })
    .min(1, { error: 'must have one URL at least' })
    .max(MAX_URLS, { error: `has more than ${MAX_URLS} URLs` }),
  checksums: Checksums.optional(),
  contentChecksums: Checksums.optional(),
  size: bytes.optional(),
  format: oneOf(FORMATS).optional(),
  compression: oneOf(COMPRESSIONS).optional(),
  arch: words(64).optional(),
  os: z
    .object({ name: words(64).optional(), distro: words(64).optional(), version: quotedText(64).optional() })
    .optional(),
  minRamMiB: count('a number of MiB').optional(),
  minDiskGiB: count('a number of GiB').optional(),
  createdAt: date.optional(),
  expiresAt: date.optional(),
  deprecated: words().optional(),
  fields: z.record(z.string().max(253), words(MAX_TEXT)).optional(),
});

export const API_VERSION = 'imageproxy.dev/v1beta1';
export const KIND = 'ImageList';

/**
 * Reads ImageProxy's own list. Only proven bytes belong here.
 * @throws Failure InvalidList
 */
export function parseImageList(content: Uint8Array): ImageList {
  const document = parseDocument(decode(content));
  const { value } = document;
  if (!isMapping(value)) throw invalidList('it is no map');
  if (value['apiVersion'] !== API_VERSION || value['kind'] !== KIND) {
    throw invalidList(`it must begin with apiVersion: ${API_VERSION} and kind: ${KIND}`);
  }
  const ambiguous = ambiguousItems(document, 'images');
  const said = value['metadata'];
  const metadata = Metadata.safeParse(isMapping(said) ? withoutNulls(said) : {});
  if (!metadata.success) throw invalidList(`metadata: ${complaint(metadata.error)}`);
  const images: unknown = value['images'];
  if (!Array.isArray(images)) throw invalidList('images is missing or no list; images: [] is an empty one');
  const gathering = new Gathering();
  const unknown = new Set<string>();
  gathering.readAll<unknown>(images, ambiguous, hintOf, (image) => readImage(image, unknown));
  const { id, ...facts } = metadata.data;
  return {
    identity: id,
    ...present(facts),
    version: facts.version,
    createdAt: facts.createdAt,
    ...gathering.done(),
    warnings: Array.from(unknown, (key) => `images have the unknown field ${key}, which is ignored`),
  };
}

function hintOf(image: unknown): Hint {
  return isMapping(image) ? { id: image['id'], title: image['title'] } : {};
}

function readImage(image: unknown, unknown: Set<string>): Entry {
  if (!isMapping(image)) throw invalidEntry('it is no map');
  const read = Image.safeParse(withoutNulls(image));
  if (!read.success) throw invalidEntry(complaint(read.error));
  for (const key of Object.keys(image)) {
    if (!Object.hasOwn(Image.shape, key) && unknown.size < 10) unknown.add(plain(key, 60));
  }
  const { checksums = {}, contentChecksums = {}, os, fields, arch, ...facts } = read.data;
  if (Object.keys(checksums).length + Object.keys(contentChecksums).length === 0) {
    throw invalidEntry('checksums is missing: give sha256 or sha512 of the file');
  }
  if (fields !== undefined && Object.keys(fields).length > MAX_FIELDS) {
    throw invalidEntry(`fields has more than ${MAX_FIELDS} keys`);
  }
  return {
    ...present({ ...facts, arch: architecture(arch) }),
    id: facts.id,
    urls: facts.urls,
    checksums: present(checksums),
    contentChecksums: present(contentChecksums),
    os: system(os ?? {}),
    // What the list says in its own words goes before what it says of itself under the same name.
    fields: { ...scalars(fields ?? {}), ...scalars(image) },
  };
}
