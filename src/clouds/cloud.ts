import type { Logger } from 'pino';
import type { Algorithm, Digests } from '../api/digest.ts';
import type { Format, Role } from '../images/format.ts';
import type { Transfers } from '../transfers/transfers.ts';

/**
 * Where images go. Every cloud has this shape; the reconcilers know no other. A cloud knows nothing of resources: it is given
 * plain values, and tells plain facts or a Failure. Adding a cloud is a folder here and a line in `clouds/index.ts`.
 *
 * A part (disk, kernel, ramdisk) is one record in the cloud. A record is made private and hidden ("staged"), filled, compared
 * with the cloud's own hash, and only then published.
 */
export interface Cloud {
  readonly traits: CloudTraits;

  /** Proves that endpoint and credentials work, and says who we are there. @throws Failure */
  probe(signal: AbortSignal): Promise<Probe>;

  /** All records in our own project that carry this owner and guid, hidden ones too. */
  find(ownership: Pick<Ownership, 'owner' | 'guid'>, signal: AbortSignal): Promise<CloudRecord[]>;
  /**
   * One record of our own project by id; undefined when there is none (or it is another project's). Tells the hash also where `find`
   * would have to read the whole image for it.
   */
  get(id: string, signal: AbortSignal): Promise<CloudRecord | undefined>;
  /** Ids of every record of this instance (any owner hash given) that the cloud holds now: to tell one loss from the loss of all. */
  census(signal: AbortSignal): Promise<Set<string>>;

  /**
   * Makes the record `part.id` (or goes on with it where an earlier try left it), sends the bytes, and compares the cloud's hash
   * with ours. The record stays private and hidden. Safe to call again after a crash at any point.
   * @throws Failure IdTaken when the cloud will never give this id to us, or a finished image of other bytes or another claim has it,
   * which may be in service: the caller counts the attempt up.
   */
  stage(part: StagePart, signal: AbortSignal): Promise<CloudRecord>;

  /** Changes the claim of a record of ours to another VMImage of the same owner and guid (adoption, hand-over). */
  claim(id: string, ownership: Ownership, signal: AbortSignal): Promise<void>;

  /** Makes the records what the registration says: names, properties, visibility, members; the disk last. Idempotent; also repairs drift. @throws Failure Gone */
  publish(image: PublishImage, signal: AbortSignal): Promise<void>;

  /** What differs between the records and the registration, by field name, and what the cloud's admin did to them. Changes nothing. */
  look(image: PublishImage, signal: AbortSignal): Promise<Look>;

  /** Out of service but kept: deactivated and hidden. Idempotent; a record that has gone is fine. */
  retire(parts: readonly PartRef[], signal: AbortSignal): Promise<void>;
  /** The reverse of retire, after the cloud's hash was compared with `digests`. What was retired stays unpublished. @throws Failure Gone | CloudDigestMismatch */
  reactivate(parts: readonly PartRef[], signal: AbortSignal): Promise<void>;
  /** Removes records, protected ones too (they are ours). Idempotent. */
  remove(parts: readonly PartRef[], signal: AbortSignal): Promise<void>;

  close(): Promise<void>;
}

export interface CloudTraits {
  /** Formats that the cloud can hold, before the site's own `acceptedFormats`. */
  formats: readonly Format[];
  /** The hash that the cloud computes itself over what it was sent; undefined when it computes none. */
  digest: Algorithm | undefined;
  /** Whether an unfinished upload can be used by nobody, so that it may start before the proof. */
  mayFollow: boolean;
  /** Whether the client chooses the record's id (Glance): it must be stored before the record is made. */
  clientChosenIds: boolean;
}

export interface Probe {
  /** One line that stays the same as long as this is the same place and account, e.g. `https://nova/v3 region=RegionOne project=4f…`. */
  identity: string;
  /** What people call it: project name, region, version. */
  details: Record<string, string>;
  version?: string;
  /** URLs of the APIs that this site is reached by: no source may reach their host and port. Empty for a site without network. */
  endpoints: readonly string[];
}

/** Who a record belongs to; written on it when it is made (`imageproxy_owner`, `_guid`, `_claim`, `_attempt`, `_digest`). */
export interface Ownership {
  /** Hash of the instance's name and the namespace. */
  owner: string;
  guid: string;
  /** The VMImage's uid. */
  claim: string;
  /** Strongest declared digest of the part as published, `alg:hex`. */
  sourceDigest: string;
  attempt: number;
}

export type RecordState =
  /** Made, no bytes yet. */
  | 'Empty'
  /** Bytes are arriving, or were when the cloud died (`saving` for ever). */
  | 'Uploading'
  /** Complete. */
  | 'Active'
  | 'Deactivated'
  /** Going away. */
  | 'Deleting'
  /** The cloud calls it unusable. */
  | 'Broken';

export interface CloudRecord {
  id: string;
  role: Role;
  name: string;
  owner: string;
  guid: string;
  claim: string;
  attempt: number;
  sourceDigest: string;
  /** sha256 of what was sent, set before the record became usable; absent on a half-made one. */
  sentSha256?: string;
  /** The cloud's own hash of what it holds. */
  cloudDigests: Digests;
  size?: number;
  format?: Format;
  state: RecordState;
  published: boolean;
  createdAt: string;
}

export interface PartRef {
  id: string;
  role: Role;
  /** What the bytes are known to be; compared before a reactivation. */
  digests?: Digests;
}

/** `spec.registration`, merged from image and site, with defaults filled in. */
export interface Registration {
  name: string;
  visibility: 'Private' | 'Shared' | 'Community' | 'Public';
  members: readonly string[];
  protected: boolean;
  hidden: boolean;
  tags: readonly string[];
  properties: Readonly<Record<string, string>>;
  architecture?: string;
  os?: { distro?: string; version?: string; type?: string };
  minDiskGiB?: number;
  minRamMiB?: number;
  firmware?: string;
}

export interface StagePart {
  /** The id that the client chose (from `deriveId`), where the cloud lets it; else a token for idempotence. */
  id: string;
  role: Role;
  ownership: Ownership;
  registration: Registration;
  format: Format;
  virtualSize?: number;
  /** The bytes; they may still be growing. */
  bytes: PartBytes;
  onProgress?(bytes: number, totalBytes: number): void;
}

export interface PartBytes {
  path: string;
  size: number;
  follow?: { directory: string; generation: number };
  /** Resolves when every declared digest is proven and the upload may finish; rejects when it may not. Called again before the tail. */
  mayFinish(): Promise<void>;
  /** A digest of exactly these bytes; computed when it is not known yet. */
  digest(algorithm: Algorithm): Promise<string>;
}

export interface PublishImage {
  parts: readonly PartRef[];
  ownership: Pick<Ownership, 'owner' | 'guid' | 'claim'>;
  registration: Registration;
}

export interface Look {
  /** Ids that are not there any more. */
  gone: string[];
  /** Fields of ours that differ: `name`, `properties.hw_disk_bus`, `visibility`, … */
  changed: string[];
  /** What the cloud's own people did to the current image; not ours to undo. */
  held?: 'Deactivated' | 'Hidden';
  /** The cloud's hash is not the one we proved: the record is not our image. */
  tampered?: string;
  /** What people should know and we cannot change: a member that has not accepted. */
  notes?: string[];
}

/** What a cloud is opened with; a `secret` holds decoded values of the site's Secret. */
export interface CloudContext {
  site: string;
  secret: ReadonlyMap<string, Uint8Array> | undefined;
  /** PEM certificates of the site's `caRef`: trusted for its endpoint instead of the public authorities. */
  ca?: string;
  /**
   * `Probe.identity` as recorded at the first good probe. Where it is given, a folder without its marker is an unmounted volume
   * (SiteNotReady) and not a new site.
   */
  knownIdentity?: string;
  transfers: Transfers;
  log: Logger;
  /** Milliseconds since the epoch. */
  now(): number;
}
