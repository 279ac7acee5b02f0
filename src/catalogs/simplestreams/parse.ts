import { z } from 'zod';
import { type Digests } from '../../api/digest.ts';
import type { Failure } from '../../api/failure.ts';
import { below } from '../below.ts';
import type { Entry } from '../catalog.ts';
import { readDate } from '../dates.ts';
import { type Gathering, invalidEntry } from '../gathering.ts';
import { type Json, parseJson } from '../json.ts';
import { MAX_ID, MAX_PARTS, MAX_TITLE } from '../limits.ts';
import { present } from '../present.ts';
import {
  bytes,
  complaint,
  digests,
  identifier,
  isMapping,
  type Mapping,
  scalars,
  withoutNulls,
  words,
} from '../schema.ts';
import { packingOf } from '../suffixes.ts';
import { architecture, system } from '../system.ts';
import { decode, invalidList, plain } from '../text.ts';
import { compareVersions } from '../versions.ts';

/** One document of a stream: an index of others, or products. */
export type Stream = StreamIndex | StreamProducts;

export interface StreamIndex {
  readonly kind: 'index';
  readonly updated?: string;
  readonly parts: readonly StreamPart[];
}

/** A document that has files to download. */
export interface StreamPart {
  readonly path: string;
  /** RFC 3339: when it was made, by the index. */
  readonly updated?: string;
}

export interface StreamProducts {
  readonly kind: 'products';
  readonly identity?: string;
  readonly updated?: string;
  readonly products: Mapping;
  /** Products of which a key is there twice. */
  readonly ambiguous: ReadonlySet<string>;
}

const Head = z.object({ format: z.string(), updated: words(64).optional(), content_id: identifier.optional() });
const Part = z.object({
  path: z.string({ error: 'is missing' }),
  format: words().optional(),
  datatype: words().optional(),
  updated: words(64).optional(),
});
const Product = z.object({
  arch: words(64).optional(),
  os: words(64).optional(),
  release: words(64).optional(),
  release_title: words(64).optional(),
  version: words(64).optional(),
});
const Item = z.object({
  path: z.string({ error: 'is missing' }),
  size: bytes.optional(),
  sha512: digests.sha512.optional(),
  sha256: digests.sha256.optional(),
  md5: digests.md5.optional(),
});

/**
 * What a machine boots as its disk, by the names that streams give such items (or their `ftype`); the first that a version has is
 * taken. Ubuntu's `disk1.img` boots everywhere, `uefi1.img` and `disk-kvm.img` are variants; `disk.qcow2` is what LXD and Incus
 * have; the others of those streams (root.tar.xz, squashfs, vmlinuz) are for containers.
 */
const DISKS = ['disk1.img', 'disk.img', 'uefi1.img', 'disk-kvm.img', 'disk.qcow2', 'qcow2', 'disk.raw', 'vmdk', 'ova'];

/**
 * Reads a document of simplestreams (`index:1.0` or `products:1.0`). Only proven bytes belong here.
 * @throws Failure InvalidList
 */
export function parseStream(content: Uint8Array): Stream {
  const json = parseJson(decode(content));
  if (!isMapping(json.value)) throw invalidList('it is JSON, but no object');
  const head = Head.safeParse(json.value);
  if (!head.success) throw invalidList(complaint(head.error));
  const updated = readDate(head.data.updated ?? '');
  switch (head.data.format) {
    case 'index:1.0':
      return { kind: 'index', ...present({ updated }), parts: readParts(json) };
    case 'products:1.0': {
      const products = json.value['products'];
      if (!isMapping(products)) throw invalidList('its products are missing or no object');
      const identity = head.data.content_id;
      return { kind: 'products', ...present({ identity, updated }), products, ambiguous: ambiguousProducts(json) };
    }
    default:
      throw invalidList(`its format is ${plain(head.data.format, 60)}: index:1.0 and products:1.0 are known`);
  }
}

/** `image-ids` are ids at clouds, and other datatypes are other things: only downloads are followed. */
function readParts({ value, repeated }: Json): StreamPart[] {
  if (repeated[0] !== undefined) throw invalidList(`it has the key ${plain(repeated[0].key, 60)} twice in one object`);
  const index = isMapping(value) ? value['index'] : undefined;
  if (!isMapping(index)) throw invalidList('its index is missing or no object');
  const parts: StreamPart[] = [];
  for (const [name, part] of Object.entries(index)) {
    const read = Part.safeParse(part);
    if (!read.success) throw invalidList(`index ${plain(name, 120)}: ${complaint(read.error)}`);
    const { format = 'products:1.0', datatype = 'image-downloads', path, updated = '' } = read.data;
    if (format === 'products:1.0' && datatype === 'image-downloads')
      parts.push({ path, ...present({ updated: readDate(updated) }) });
  }
  if (parts.length > MAX_PARTS) throw invalidList(`it refers to ${parts.length} documents, of at most ${MAX_PARTS}`);
  return parts;
}

function ambiguousProducts({ repeated }: Json): ReadonlySet<string> {
  return new Set(
    repeated.map(({ path, key }) => {
      const name = path[0] === 'products' ? (path[1] ?? key) : undefined;
      if (typeof name !== 'string') throw invalidList(`it has the key ${plain(key, 60)} twice in one object`);
      return name;
    }),
  );
}

/** How the entries of one products document are to be understood. */
export interface Place {
  /** URL that the paths are relative to. */
  readonly root: string;
  readonly signer?: NonNullable<Entry['signer']>;
  /** Why none of them is taken. */
  readonly refused?: Failure;
}

/**
 * Reads the newest version of each product that has a disk.
 * @returns how many products have none
 */
export function readProducts({ products, ambiguous }: StreamProducts, place: Place, gathering: Gathering): number {
  let diskless = 0;
  for (const [name, product] of Object.entries(products)) {
    const newest = ambiguous.has(name) || !isMapping(product) ? undefined : newestDisk(product);
    if (isMapping(product) && !ambiguous.has(name) && newest === undefined) {
      diskless++;
      continue;
    }
    gathering.read({ id: name }, () => {
      if (ambiguous.has(name)) throw invalidEntry('it has a key twice, and which is meant cannot be told');
      if (!isMapping(product) || newest === undefined) throw invalidEntry('it is no object');
      if (place.refused !== undefined) throw place.refused;
      return readProduct(name, product, newest, place);
    });
  }
  return diskless;
}

interface Disk {
  readonly serial: string;
  readonly version: Mapping;
  readonly item: Mapping;
}

function newestDisk(product: Mapping): Disk | undefined {
  const versions = product['versions'];
  if (!isMapping(versions)) return undefined;
  let newest: Disk | undefined;
  for (const [serial, version] of Object.entries(versions)) {
    if (!isMapping(version) || (newest !== undefined && compareVersions(serial, newest.serial) < 0)) continue;
    const item = diskOf(version['items']);
    if (item !== undefined) newest = { serial, version, item };
  }
  return newest;
}

function diskOf(items: unknown): Mapping | undefined {
  if (!isMapping(items)) return undefined;
  let best: { item: Mapping; rank: number } | undefined;
  for (const [name, item] of Object.entries(items)) {
    if (!isMapping(item)) continue;
    const rank = [name, item['ftype']]
      .map((kind) => (typeof kind === 'string' ? DISKS.indexOf(kind) : -1))
      .find((found) => found !== -1);
    if (rank !== undefined && (best === undefined || rank < best.rank)) best = { item, rank };
  }
  return best?.item;
}

function readProduct(name: string, product: Mapping, { serial, version, item }: Disk, { root, signer }: Place): Entry {
  const id = identifier.safeParse(name);
  if (!id.success) throw invalidEntry(`its name ${complaint(id.error)}`);
  const facts = Product.safeParse(withoutNulls(product));
  if (!facts.success) throw invalidEntry(complaint(facts.error));
  const file = Item.safeParse(withoutNulls(item));
  if (!file.success) throw invalidEntry(`version ${plain(serial, 60)}: ${complaint(file.error)}`);
  const { path, size, sha512, sha256, md5 } = file.data;
  const checksums: Digests = present({ sha512, sha256, md5 });
  if (Object.keys(checksums).length === 0)
    throw invalidEntry(`version ${plain(serial, 60)} has no sha256 for its disk`);
  const place = below(root, path);
  if ('problem' in place) throw invalidEntry(place.problem);
  const { arch, os, release, release_title: releaseTitle } = facts.data;
  const title = [os, releaseTitle ?? facts.data.version ?? release, arch]
    .filter((word) => word !== undefined)
    .join(' ');
  const { format, compression } = packingOf(path);
  return {
    ...present({ size, format, compression, arch: architecture(arch), signer }),
    id: id.data,
    version: plain(serial, MAX_ID),
    title: title === '' ? plain(name, MAX_TITLE) : title,
    urls: [place.url],
    checksums,
    contentChecksums: {},
    os: system({ distro: os, version: facts.data.version ?? release }),
    fields: { ...scalars(product), ...scalars(version), ...scalars(item) },
  };
}
