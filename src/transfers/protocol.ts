import type { Algorithm, Digests } from '../api/digest.ts';
import type { PlainFailure } from '../api/failure.ts';
import type { FetchListener, FetchRequest, FetchResult, UploadRequest, UploadResult } from './transfers.ts';

/**
 * Everything that crosses between the main thread, the transfer thread and the hashers. A job has a number, chosen by
 * who asks. Functions, signals and errors do not cross: their messages are here.
 */

export type Begun = Parameters<NonNullable<FetchListener['onBegin']>>[0];
export type FetchProgress = Parameters<NonNullable<FetchListener['onProgress']>>[0];
export type Proof = Parameters<NonNullable<FetchListener['onProven']>>[0];

/** The kinds of job and what each ends with. */
export interface Jobs {
  fetch: { request: FetchRequest; result: FetchResult };
  upload: { request: UploadRequest; result: UploadResult };
  copy: { request: { from: string; to: string }; result: undefined };
  digest: { request: { path: string; algorithms: readonly Algorithm[] }; result: Digests };
}

export type JobKind = keyof Jobs;

/** What a job asks of the main thread. Answered by `answer` with the same number. */
export type Question = { kind: 'begin'; begun: Begun } | { kind: 'mayFinish' };

export type Note =
  | { kind: 'fetched'; progress: FetchProgress }
  | { kind: 'proven'; proof: Proof }
  | { kind: 'moved'; bytes: number };

export type Task = { [K in JobKind]: { kind: K; request: Jobs[K]['request'] } }[JobKind];

export type ToTransfers =
  | ({ type: 'start'; job: number } & Task)
  | { type: 'abort'; job: number }
  /** The listener's answer: yes, or the failure that it threw. */
  | { type: 'answer'; job: number; failure?: PlainFailure };

export type FromTransfers =
  | { type: 'ask'; job: number; question: Question }
  | { type: 'note'; job: number; note: Note }
  | { type: 'done'; job: number; result: Jobs[JobKind]['result'] }
  | { type: 'failed'; job: number; failure: PlainFailure };

export type ToHasher =
  /** Reads up to `available`; to the end of the file where that is undefined. */
  | { type: 'hash'; job: number; path: string; algorithms: readonly Algorithm[]; available?: number }
  /** The file may be read so far; `direct`: these bytes went to the disk past the kernel's memory. Answered by `taken`. */
  | { type: 'read'; job: number; available: number; direct: boolean }
  /** The bytes where it stands, in shared memory that is lent until it answers `taken`. */
  | { type: 'take'; job: number; bytes: Uint8Array }
  /** What it has had was all. */
  | { type: 'finish'; job: number }
  /** Answered by nothing: what was lent may be in use until the thread has come to this message. */
  | { type: 'abort'; job: number };

export type FromHasher =
  | { type: 'taken'; job: number; position: number }
  | { type: 'digests'; job: number; digests: Digests }
  | { type: 'failed'; job: number; failure: PlainFailure };

/** The threads that `worker.ts` can become, and what each understands and says. */
export interface Threads {
  transfers: { to: ToTransfers; from: FromTransfers };
  /** For digests that are waited for. */
  hasher: { to: ToHasher; from: FromHasher };
  /** For those that go along with a download. */
  'idle-hasher': { to: ToHasher; from: FromHasher };
}

export type Role = keyof Threads;
