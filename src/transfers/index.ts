import type { Logger } from 'pino';
import type { Algorithm, Digests } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import type { FromTransfers, JobKind, Jobs, Note, Question, Task, ToTransfers } from './protocol.ts';
import { startWorker, type WorkerThread } from './thread.ts';
import type {
  FetchListener,
  FetchRequest,
  FetchResult,
  Transfers,
  UploadListener,
  UploadRequest,
  UploadResult,
} from './transfers.ts';

/** How long jobs may take to stop when everything closes; a sync of 64 MiB on a slow disk is the longest of it. */
const CLOSE_MS = 10_000;

export interface TransfersOptions {
  log?: Logger;
}

/** The handle on the transfer thread. It is started at once, so that the first job need not wait for it, and holds the process only while it has a job. */
export function startTransfers(options: TransfersOptions = {}): Transfers {
  return new ThreadTransfers(options.log);
}

interface Job {
  kind: JobKind;
  /** What the caller's listener does; called for each question, whose answer goes back. */
  ask(question: Question): Promise<void>;
  note(note: Note): void;
  settle: { resolve(result: Jobs[JobKind]['result']): void; reject(failure: Failure): void };
}

class ThreadTransfers implements Transfers {
  readonly #log: Logger | undefined;
  readonly #jobs = new Map<number, Job>();
  #thread: WorkerThread<ToTransfers> | undefined;
  #next = 1;
  #closing: Promise<void> | undefined;
  #idle: (() => void) | undefined;

  constructor(log: Logger | undefined) {
    this.#log = log;
    this.#thread = this.#start();
  }

  fetch(request: FetchRequest, listener: FetchListener, signal: AbortSignal): Promise<FetchResult> {
    return this.#run({ kind: 'fetch', request }, signal, {
      ask: async (question) => {
        if (question.kind === 'begin') await listener.onBegin?.(question.begun);
      },
      note: (note) => {
        if (note.kind === 'fetched') listener.onProgress?.(note.progress);
        else if (note.kind === 'proven') listener.onProven?.(note.proof);
      },
    });
  }

  upload(request: UploadRequest, listener: UploadListener, signal: AbortSignal): Promise<UploadResult> {
    return this.#run({ kind: 'upload', request }, signal, {
      ask: async (question) => {
        if (question.kind === 'mayFinish') await listener.mayFinish();
      },
      note: (note) => {
        if (note.kind === 'moved') listener.onProgress?.(note.bytes);
      },
    });
  }

  async copy(
    request: { from: string; to: string },
    listener: { onProgress?(bytes: number): void },
    signal: AbortSignal,
  ): Promise<void> {
    await this.#run({ kind: 'copy', request }, signal, {
      ask: async () => {},
      note: (note) => {
        if (note.kind === 'moved') listener.onProgress?.(note.bytes);
      },
    });
  }

  digest(path: string, algorithms: readonly Algorithm[], signal: AbortSignal): Promise<Digests> {
    return this.#run({ kind: 'digest', request: { path, algorithms } }, signal, {
      ask: async () => {},
      note: () => {},
    });
  }

  /** Stops every job at a safe point, then the threads. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  #run<K extends JobKind>(
    task: Task & { kind: K },
    signal: AbortSignal,
    listener: Pick<Job, 'ask' | 'note'>,
  ): Promise<Jobs[K]['result']> {
    if (signal.aborted || this.#closing !== undefined) return Promise.reject(new Failure('Aborted', 'stopped'));
    const job = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<Jobs[K]['result']>();
    this.#jobs.set(job, { kind: task.kind, ...listener, settle: { resolve, reject } });
    const thread = (this.#thread ??= this.#start());
    thread.hold(true);
    thread.post({ type: 'start', job, ...task });
    // The job is over when the thread says so: then its files are closed.
    const abort = () => this.#post({ type: 'abort', job });
    signal.addEventListener('abort', abort, { once: true });
    return promise.finally(() => signal.removeEventListener('abort', abort));
  }

  #start(): WorkerThread<ToTransfers> {
    const thread = startWorker('transfers', {
      message: (message) => this.#received(message),
      died: (failure) => {
        this.#thread = undefined;
        this.#log?.error({ err: failure.cause, jobs: this.#jobs.size }, failure.message);
        for (const job of this.#jobs.keys()) this.#take(job)?.settle.reject(failure);
      },
    });
    thread.hold(false);
    return thread;
  }

  #received(message: FromTransfers): void {
    switch (message.type) {
      case 'ask':
        void this.#answer(message.job, message.question);
        break;
      case 'note':
        this.#tell(message.job, message.note);
        break;
      case 'done':
        this.#take(message.job)?.settle.resolve(message.result);
        break;
      case 'failed':
        this.#take(message.job)?.settle.reject(Failure.fromPlain(message.failure));
        break;
    }
  }

  async #answer(job: number, question: Question): Promise<void> {
    try {
      await this.#jobs.get(job)?.ask(question);
      this.#post({ type: 'answer', job });
    } catch (error) {
      this.#post({ type: 'answer', job, failure: Failure.from(error).toPlain() });
    }
  }

  /** A listener that throws is a bug of its own; it must not take the other jobs' messages with it. */
  #tell(job: number, note: Note): void {
    try {
      this.#jobs.get(job)?.note(note);
    } catch (error) {
      this.#log?.error({ err: error, kind: this.#jobs.get(job)?.kind }, 'a listener of a transfer threw');
    }
  }

  #take(number: number): Job | undefined {
    const job = this.#jobs.get(number);
    this.#jobs.delete(number);
    if (this.#jobs.size === 0) {
      this.#thread?.hold(false);
      this.#idle?.();
    }
    return job;
  }

  #post(message: ToTransfers): void {
    this.#thread?.post(message);
  }

  async #close(): Promise<void> {
    for (const job of this.#jobs.keys()) this.#post({ type: 'abort', job });
    if (this.#jobs.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, CLOSE_MS);
        this.#idle = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    await this.#thread?.terminate();
    this.#thread = undefined;
    for (const job of this.#jobs.keys()) this.#take(job)?.settle.reject(new Failure('Aborted', 'stopped'));
  }
}
