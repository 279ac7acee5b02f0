import type { Entry } from './catalog.ts';
import { present } from './present.ts';

/** What a name says of a file: `x.vdi.gz`, or HEPiX's `vdi.gz`. Undefined where it says nothing: the bytes will (Auto). */
export interface Packing {
  readonly format?: NonNullable<Entry['format']>;
  readonly compression?: NonNullable<Entry['compression']>;
  /** A tar or cpio of files, not of a disk: a machine cannot boot it. */
  readonly archive?: string;
  /** Whether the name is that of a disk image at all. */
  readonly image: boolean;
}

const COMPRESSIONS: Readonly<Record<string, NonNullable<Entry['compression']>>> = {
  gz: 'Gzip',
  gzip: 'Gzip',
  bz2: 'Bzip2',
  bzip2: 'Bzip2',
  xz: 'Xz',
  zst: 'Zstd',
  zstd: 'Zstd',
};

const FORMATS: Readonly<Record<string, NonNullable<Entry['format']> | undefined>> = {
  raw: 'Raw',
  // CernVM: a raw disk, a raw file system.
  hdd: 'Raw',
  ext2: 'Raw',
  ext3: 'Raw',
  ext4: 'Raw',
  qcow: 'Qcow2',
  qcow2: 'Qcow2',
  vmdk: 'Vmdk',
  vdi: 'Vdi',
  vhd: 'Vhd',
  // Microsoft Virtual PC, where VHD comes from.
  vpc: 'Vhd',
  vhdx: 'Vhdx',
  ova: 'Ova',
  // Ubuntu's .img is qcow2, Raspberry Pi's is raw; an ISO is a disk too. Their bytes tell.
  img: undefined,
  iso: undefined,
};

const ARCHIVES = new Set(['tar', 'cpio', 'zip', 'tgz', 'tbz2', 'txz']);

/** @param name a file name, a URL's path, or the suffixes alone; upper and lower case are the same */
export function packingOf(name: string): Packing {
  const suffixes = name
    .slice(name.lastIndexOf('/') + 1)
    .toLowerCase()
    .split('.');
  const last = suffixes.at(-1) ?? '';
  const compression = Object.hasOwn(COMPRESSIONS, last) ? COMPRESSIONS[last] : undefined;
  const inner = (compression === undefined ? last : suffixes.at(-2)) ?? '';
  const known = Object.hasOwn(FORMATS, inner);
  const format = known ? FORMATS[inner] : undefined;
  return {
    ...(format === undefined ? {} : { format }),
    ...(compression === undefined ? {} : { compression }),
    ...(ARCHIVES.has(inner) ? { archive: suffixes.slice(suffixes.lastIndexOf(inner)).join('.') } : {}),
    image: known,
  };
}

/**
 * What a list says of a file's packing beside what its name says. Where they contradict each other (`raw` at `x.qcow.gz`, in real
 * Marketplace entries) neither is taken: the bytes tell.
 */
export function agreed(said: Packing, named: Packing): Pick<Packing, 'format' | 'compression'> {
  const one = <T>(a: T | undefined, b: T | undefined): T | undefined =>
    a !== undefined && b !== undefined && a !== b ? undefined : (a ?? b);
  return present({ format: one(said.format, named.format), compression: one(said.compression, named.compression) });
}

/** The path of a URL, decoded, for {@link packingOf}: a query is no part of the file's name. */
export function pathOf(url: string): string {
  const path = URL.parse(url)?.pathname ?? '';
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}
