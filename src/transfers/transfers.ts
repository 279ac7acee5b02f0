import type { Algorithm, Digests } from '../api/digest.ts';
import type { Validators } from '../cache/cache.ts';
import type { SourceSpec } from '../sources/source.ts';

/**
 * Bytes in motion. All downloads, their primary hashes and all uploads run in one worker thread; one more, made when first
 * needed and at the lowest priority, computes further hashes. The main thread holds this handle.
 */
export interface Transfers {
  /**
   * Downloads into a generation of a partial file, hashing in the same pass. Rejects with the source's Failure; the partial and
   * its journal stay, so that the next call goes on from there.
   */
  fetch(request: FetchRequest, listener: FetchListener, signal: AbortSignal): Promise<FetchResult>;

  /**
   * Sends a file with PUT and a Content-Length. With `follow` the file may still be growing: the upload reads up to its watermark,
   * and its last `holdBackBytes` wait for `mayFinish`. When the signal fires or `mayFinish` rejects, the connection is cut before
   * the last byte, so the receiver never holds a complete body.
   */
  upload(request: UploadRequest, listener: UploadListener, signal: AbortSignal): Promise<UploadResult>;

  /** Copies a file (reflink where the file system can; holes stay holes), then fsyncs it. On failure nothing is left at `to`. */
  copy(
    request: { from: string; to: string },
    listener: { onProgress?(bytes: number): void },
    signal: AbortSignal,
  ): Promise<void>;

  /** Digests of a complete file, computed by the low-priority thread. */
  digest(path: string, algorithms: readonly Algorithm[], signal: AbortSignal): Promise<Digests>;

  close(): Promise<void>;
}

export interface FetchRequest {
  source: SourceSpec;
  /** Folder for the generations of this partial: `<directory>/<generation>.part`. It exists. */
  directory: string;
  /** What an earlier run left. */
  resume?: { generation: number; watermark: number; validators: Validators; source: string };
  /** First number that may be used for a new generation. */
  nextGeneration: number;
  /** What the bytes must be; all are computed and compared. */
  declared: Digests;
  /** Further digests wanted of the same bytes (our own sha256 name, a cloud's sha512): computed at low priority. */
  also: readonly Algorithm[];
  /** A body, declared or real, that is larger fails with TooLarge. */
  maxBytes: number;
  /** Whose bound that is and what helps, for the message: `that ImageSite shelf takes: raise its …`. */
  bound?: string;
}

export interface FetchListener {
  /** The origin has answered; no byte is written before this resolves (space is reserved here). `generation` names the file. */
  onBegin?(begun: {
    generation: number;
    path: string;
    source: string;
    validators: Validators;
    offset: number;
    contentType?: string;
  }): Promise<void>;
  /**
   * Every declared digest is computed and agrees: an upload that follows this generation may send its tail. The fetch itself goes on
   * until `also` is known and everything is durable. Not called when nothing was declared.
   */
  onProven?(proof: { generation: number; size: number; digests: Digests }): void;
  /** Four times a second, and once when the first 128 KiB are here. `durable` has been fdatasynced (every 64 MiB). */
  onProgress?(progress: { bytes: number; durable: number; totalBytes?: number }): void;
}

export interface FetchResult {
  generation: number;
  path: string;
  size: number;
  digests: Digests;
  validators: Validators;
  source: string;
  /** Whether all bytes came in this one call, from zero: only then a mismatch is the origin's word and not a power cut's. */
  fromZero: boolean;
}
/* A digest that disagrees rejects with DigestMismatch when `fromZero`, else with SourceChanged (fetch again from zero). */

export interface UploadRequest {
  url: string;
  headers: Record<string, string>;
  tls?: { ca?: string; insecure?: boolean };
  path: string;
  totalBytes: number;
  /** The file is a partial that `fetch` is still writing; ends with that generation. */
  follow?: { directory: string; generation: number };
  holdBackBytes: number;
  /** No bytes taken by the receiver for this long: UploadCut. */
  stallMs: number;
}

export interface UploadListener {
  /** Everything but the tail is sent. Resolves when the proof is complete; rejects when it failed. */
  mayFinish(): Promise<void>;
  onProgress?(bytes: number): void;
}

export interface UploadResult {
  status: number;
  headers: Record<string, string>;
  /** At most 64 KiB. */
  body: string;
}
