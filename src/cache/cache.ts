import type { Digests } from '../api/digest.ts';
import type { Compression, Format } from '../images/format.ts';

/**
 * The content-addressed store on the volume. One process writes it (an exclusive lock that dies with the process). Blobs are
 * named by sha256, enter only when verified (written under `partial/`, fsynced, renamed, mode 0444), and are pinned while in use.
 */

/** Who may use a blob: everybody, or one namespace with one set of credentials (a hash; never the credentials). */
export type Scope = 'public' | { namespace: string; credentials: string };

export interface Blob {
  /** Hex sha256: the blob's name. */
  sha256: string;
  /** Every digest known of it. */
  digests: Digests;
  path: string;
  size: number;
  /** What `recognise` and `inspect` found, kept so that nothing is looked into twice. */
  compression?: Compression;
  format?: Format;
  virtualSize?: number;
  /** Cleaned name of where it came from (scheme, host, path). */
  source?: string;
  fetchedAt: string;
}

export type BlobFacts = Omit<Blob, 'path' | 'sha256'>;

/** Opaque to the cache: what tells one state of a remote file from another (ETag, Last-Modified, length). */
export interface Validators {
  etag?: string;
  lastModified?: string;
  totalBytes?: number;
}

/** What is known of a fetch that was cut. A generation is one inode; below `watermark` its bytes are on the disk. */
export interface PartialRecord {
  key: string;
  generation: number;
  path: string;
  /** The URL (cleaned) whose representation this is; another mirror is another generation. */
  source: string;
  validators: Validators;
  /** Contiguous bytes known to be durable. */
  watermark: number;
}

/** Space set aside before the first byte. First come, first served; ends with `release`. */
export interface Reservation {
  /** What is still set aside: a file that is admitted takes its share out of here and into the blobs. */
  readonly bytes: number;
  /**
   * Asks for more (or gives back). When there is no room it waits for younger reservations to end; the youngest of all waits for
   * nobody and is refused, so that two that grow cannot hold each other up. Who is refused releases, keeps its partial, and asks
   * again from the start.
   * @throws Failure CacheFull when others hold it; TooLarge when the whole cache could not; DiskFull when the volume lacks it;
   * Aborted when it was released meanwhile.
   */
  resize(bytes: number): Promise<void>;
  /** This file is written inside the reservation: what it takes on the disk is not counted a second time. */
  cover(path: string): void;
  /** Ends it. May be called again. */
  release(): void;
}

export interface CacheStats {
  /** Blobs, in bytes of the disk (a sparse file counts what it takes). */
  bytes: number;
  /** Partials that nobody is writing now, in bytes of the disk. */
  partialBytes: number;
  quotaBytes: number;
  /** Set aside by reservations, each as a whole: what is written inside of one counts already, and is no blob yet. */
  reservedBytes: number;
  /** Bytes of blobs in use, which are not evicted. */
  pinnedBytes: number;
  blobs: number;
  /** Blobs evicted since the start. */
  evictions: number;
}

export interface Cache {
  /**
   * The blob that has these digests (equal as `sameBytes` says), if this scope may use it. A hit whose file has changed size,
   * mtime or inode is dropped, not served. Counts as a use (LRU).
   */
  find(digests: Digests, scope: Scope): Promise<Blob | undefined>;
  get(sha256: string): Promise<Blob | undefined>;

  /**
   * Takes a verified file into the cache: fsync, rename, index. `scope` widens: a blob known to one namespace that is now fetched
   * publicly becomes public. The file is consumed. Idempotent.
   */
  admit(path: string, sha256: string, facts: BlobFacts, scope: Scope): Promise<Blob>;
  /** Adds what was found later (another digest, format, virtual size). */
  annotate(sha256: string, facts: Partial<BlobFacts>): Promise<void>;
  /** Lets another scope use a blob that it has proven to be able to fetch (its own download had the same bytes). */
  grant(sha256: string, scope: Scope): Promise<void>;

  /** Result of a transform (decompression, conversion), by source blob and transform id. Scope follows the source blob. */
  findTransform(sha256: string, transformId: string): Promise<Blob | undefined>;
  /** These blobs and all that was made of them, and of that. One that is not there may be among them. */
  withResults(sources: readonly string[]): string[];
  admitTransform(
    sha256: string,
    transformId: string,
    path: string,
    resultSha256: string,
    facts: BlobFacts,
  ): Promise<Blob>;

  /**
   * A blob with at least one pin is never evicted. A holder names who (a resource's uid); pins live as long as the process. May be
   * called before the blob is there. False when it is not: it was evicted since it was found, or is still to come.
   */
  pin(sha256: string, holder: string): boolean;
  unpinAll(holder: string): void;
  /** Drops a blob now (a scrub found it damaged). */
  drop(sha256: string): Promise<void>;

  /**
   * Sets space aside, evicting unpinned blobs, least recently used first. `partial` is the key of the partial that is written
   * inside the reservation; what an earlier run left of it is part of `bytes`.
   *
   * First come, first served: after CacheFull the holder keeps a place in the queue, and nobody behind it is served before it,
   * until it has been served, gives up, or has not asked for 10 minutes. Who holds a reservation already does not queue.
   * @throws Failure TooLarge when it can never fit the quota; CacheFull when others hold the space now; DiskFull when the
   * volume itself lacks it. Each message tells bytes wanted, bytes there, and the cure.
   */
  reserve(bytes: number, holder: string, partial?: string): Promise<Reservation>;
  /** The holder waits no longer: its place in the queue goes to the next. */
  giveUp(holder: string): void;
  /**
   * Whether this holder, who was refused with CacheFull and keeps a place, would be served now: it is its turn, and what it asked for
   * fits. So that of all those that `onSpace` wakes only one asks again. `kept` are blobs that stay though nobody pins them now: what
   * is to be made of them, or used with them, cannot have their room.
   */
  isRoomFor(holder: string, kept?: Iterable<string>): boolean;
  /** False where what this holder waits for and these blobs are more than the whole cache may hold: it would wait without end. */
  couldFit(holder: string, kept: Iterable<string>): boolean;
  /** Calls back when space may have become free; for those who wait after CacheFull. Returns the way to end it. */
  onSpace(listener: () => void): () => void;

  /** A path inside the volume for a new temporary file; what is left there is removed at the next start. */
  scratch(suffix: string): string;

  partial(key: string): PartialRecord | undefined;
  /** Folder for this partial's generations, made if need be, and the first number free for a new one: never one used before. */
  partialDirectory(key: string): Promise<{ directory: string; nextGeneration: number }>;
  /**
   * Journals a new generation (a new inode, made by whoever writes it) and removes the older one's file. `generation` is the number
   * that the writer has chosen, `nextGeneration` or later; without it the cache chooses.
   */
  newPartial(key: string, source: string, validators: Validators, generation?: number): Promise<PartialRecord>;
  /** Journals a watermark that has been fdatasynced. */
  recordWatermark(key: string, generation: number, watermark: number): void;
  dropPartial(key: string): Promise<void>;

  stats(): CacheStats;
  /**
   * Hashes again the blob whose last proof is the oldest, slowly, and drops it when it is damaged. Undefined when every blob was
   * proven in the last 7 days.
   */
  scrubNext(signal: AbortSignal): Promise<{ sha256: string; intact: boolean } | undefined>;
  /** Keeps what is on the volume and lets go of the lock. */
  close(): Promise<void>;
}
