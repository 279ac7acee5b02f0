import type { Algorithm } from '../api/digest.ts';
import type { Reason } from '../api/failure.ts';
import type { Endorser, Signer, Trust } from '../trust/trust.ts';

/**
 * The seam of the room: a published list of images, of whatever format, read into one shape. A reader fetches what it needs, has it
 * proven (`trust/`) before it parses, and parses only what was proven.
 */
export type CatalogFormat = 'HEPiX' | 'Marketplace' | 'Simplestreams' | 'ChecksumFile' | 'ImageProxy';

/**
 * Reads a list.
 * @throws Failure when the list as a whole cannot be taken: unreadable, unsigned, untrusted, expired, from the future. What is wrong
 * with one entry alone is among `skipped`.
 */
export type CatalogReader = (request: ReadRequest) => Promise<Catalog>;

/** `readCatalog` of index.ts: the reader of a format. */
export type ReadCatalog = (format: CatalogFormat, request: ReadRequest) => Promise<Catalog>;

export interface ReadRequest {
  readonly url: string;
  readonly trust: Trust;
  /** The verifier's clock, in milliseconds since the epoch. */
  readonly at: number;
  readonly fetch: FetchDocument;
  readonly signal: AbortSignal;
  /** The documents are those of a list that was accepted before: what is asked is who of its signers is still trusted. */
  readonly accepted?: boolean;
}

/**
 * Brings one document of the list: the list itself, a detached signature, a part that it refers to. Bounded in bytes and time; with
 * `optional` a 404 is undefined. The caller's fetch guards addresses, credentials and redirects.
 */
export type FetchDocument = (
  url: string,
  options: { maxBytes: number; optional?: boolean },
) => Promise<Uint8Array | undefined>;

export interface Catalog {
  readonly list: ListFacts;
  readonly entries: readonly Entry[];
  readonly skipped: readonly Skipped[];
  /** What a person should know although the list is valid: another `hv:uri` than the subscribed one, for instance. */
  readonly warnings: readonly string[];
}

export interface ListFacts {
  readonly format: CatalogFormat;
  /** What the list calls itself, its `dc:identifier` for instance; stays the same for ever. */
  readonly identity?: string;
  readonly title?: string;
  readonly version?: string;
  /** `sha256:hex` of what was read. */
  readonly digest: string;
  /** RFC 3339. */
  readonly createdAt?: string;
  readonly expiresAt?: string;
  /** Undefined for an unsigned list, and where each entry has a signer of its own. */
  readonly signer?: Signer;
}

/** One image of a list. Strings are as the list has them, trimmed, without control characters. */
export interface Entry {
  /** Stays the same from version to version: the image's UUID, the tag or identifier, the product's name. */
  readonly id: string;
  readonly version?: string;
  readonly title?: string;
  readonly description?: string;
  /** http(s) locations, the preferred one first. At least one, but for an image that is `deprecated`: of that there may be none. */
  readonly urls: readonly string[];
  /** Of the file as published, lower case hex. */
  readonly checksums: Readonly<Partial<Record<Algorithm, string>>>;
  /** Of the uncompressed bytes. Of both together there is at least one. */
  readonly contentChecksums: Readonly<Partial<Record<Algorithm, string>>>;
  /** Bytes of the file as published. */
  readonly size?: number;
  /** In the words of a VMImage's spec; undefined: Auto. */
  readonly format?: 'Raw' | 'Qcow2' | 'Vmdk' | 'Vdi' | 'Vhd' | 'Vhdx' | 'Ova';
  readonly compression?: 'None' | 'Gzip' | 'Bzip2' | 'Xz' | 'Zstd';
  /** As Glance calls it: `x86_64`, `aarch64`, … */
  readonly arch?: string;
  readonly os: { readonly name?: string; readonly distro?: string; readonly version?: string };
  readonly minRamMiB?: number;
  readonly minDiskGiB?: number;
  readonly createdAt?: string;
  readonly expiresAt?: string;
  /** Why it should no longer be used, in the publisher's words: the image is to be retired, not to be fetched. */
  readonly deprecated?: string;
  /** Who vouches for this entry where that is not the list's signer. */
  readonly signer?: Signer;
  /** Everything that the list says of it, flat, under the list's own names (`hv:version`, `ad:mpuri`, `dcterms:publisher`). */
  readonly fields: Readonly<Record<string, string>>;
}

/** An entry that lacks what is needed, or is not to be believed: the list goes on without it. */
export interface Skipped {
  /** As far as it can be told; else its place in the list, `#17`. */
  readonly id: string;
  readonly title?: string;
  readonly reason: Reason;
  readonly message: string;
  /**
   * Where each entry has a signature of its own: who has made this one's, as it proves, or `Unproven`. Anybody can write an entry with
   * the id of another's image; what is wrong with it says nothing of that image.
   */
  readonly signer?: Endorser | 'Unproven';
}
