import type { Validators } from '../cache/cache.ts';

/**
 * Where bytes come from. Sources run in the transfer thread, so what opens one is plain data. Adding a source is a folder here,
 * a member of `SourceSpec`, and a line in `sources/index.ts`.
 */
export type SourceSpec = HttpSourceSpec | FileSourceSpec;

export interface HttpSourceSpec {
  kind: 'http';
  url: string;
  /** Allowed request headers of the user's own (never authorization). */
  headers: Record<string, string>;
  /** Goes only to the origin of `url`; dropped at the first redirect to another. */
  authorization?: string;
  /** Further secret headers, with the same rule. */
  secretHeaders?: Record<string, string>;
  tls?: { ca?: string; cert?: string; key?: string };
  network: NetworkPolicy;
  timeouts: { connectMs: number; headersMs: number; stallMs: number };
}

/** A file below a root that the operator configured; never a path of a tenant's choice. */
export interface FileSourceSpec {
  kind: 'file';
  root: string;
  path: string;
}

/** Addresses that sources may reach beside the public Internet, in CIDR notation (`--allow-network`). */
export interface NetworkPolicy {
  allow: readonly string[];
  /** URLs of APIs whose host and port stay closed whatever `allow` says: the sites' own, the API server's. */
  closed?: readonly string[];
}

/**
 * The receiving end of a download. Bytes may come in any order (a parallel engine, BitTorrent); what follows the file (hash,
 * upload) reads up to the contiguous watermark.
 */
export interface Sink {
  /** The generation at hand, if an earlier run left one: ask the origin for the rest of exactly this. */
  readonly resume: { offset: number; validators: Validators; source: string } | undefined;
  /** Called once, before the first byte: the origin's word on what it sends, and where it starts. An offset of 0 is a new generation. */
  begin(opened: { source: string; validators: Validators; offset: number; contentType?: string }): Promise<void>;
  /**
   * Resolves when the sink can take more. The buffer may be used again after that, unless it is `Lent`: then somebody reads it still,
   * nobody knows for how long. @throws Failure TooLarge | DiskFull
   */
  write(offset: number, bytes: Uint8Array): Promise<void | 'Lent'>;
}

/**
 * Fetches everything from one place, once; resolves when the last byte is written. Retries and mirrors are the caller's.
 * @throws Failure with a reason of `api/failure.ts`; the message names scheme, host and path.
 */
export type Fetch<S extends SourceSpec> = (spec: S, sink: Sink, signal: AbortSignal) => Promise<void>;
