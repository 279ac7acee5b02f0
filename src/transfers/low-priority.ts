import type { Algorithm, Digests } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import type { ToHasher } from './protocol.ts';
import { startWorker, type WorkerThread } from './thread.ts';

/** A message for every block would wake a thread that is to sleep. */
const STEP_BYTES = 4 * 1024 * 1024;

/** Further digests of a file that grows. */
export interface FollowingHash {
  readonly digests: Promise<Digests>;
  grown(available: number): void;
  finish(size: number): void;
  stop(): void;
}

/** The transfer thread's handle on the low-priority thread, which is started with the first job. */
export class LowPriority {
  #thread: WorkerThread<ToHasher> | undefined;
  readonly #jobs = new Map<number, { resolve(digests: Digests): void; reject(error: Failure): void }>();
  #next = 0;

  /** Digests of a complete file. */
  digest(path: string, algorithms: readonly Algorithm[], signal: AbortSignal): Promise<Digests> {
    const { job, digests } = this.#start(path, algorithms);
    const abort = () => this.#stop(job);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    return digests.finally(() => signal.removeEventListener('abort', abort));
  }

  /** Digests of a file that is still written, from its beginning. The file is opened now, under this name. */
  follow(path: string, algorithms: readonly Algorithm[]): FollowingHash {
    const { job, digests } = this.#start(path, algorithms, 0);
    digests.catch(() => {}); // whoever waits for it hears of it
    let told = 0;
    return {
      digests,
      grown: (available) => {
        if (available - told < STEP_BYTES) return;
        told = available;
        this.#send({ type: 'grown', job, available, final: false });
      },
      finish: (size) => {
        told = Number.POSITIVE_INFINITY; // whatever grows afterwards, this was the end
        this.#send({ type: 'grown', job, available: size, final: true });
      },
      stop: () => this.#stop(job),
    };
  }

  #start(
    path: string,
    algorithms: readonly Algorithm[],
    available?: number,
  ): { job: number; digests: Promise<Digests> } {
    const job = this.#next++;
    const digests = new Promise<Digests>((resolve, reject) => this.#jobs.set(job, { resolve, reject }));
    this.#thread ??= startWorker('hasher', {
      message: (message) => {
        if (message.type === 'digests') this.#settle(message.job)?.resolve(message.digests);
        else this.#settle(message.job)?.reject(Failure.fromPlain(message.failure));
      },
      died: (failure) => {
        this.#thread = undefined;
        for (const number of this.#jobs.keys()) this.#settle(number)?.reject(failure);
      },
    });
    this.#send({ type: 'hash', job, path, algorithms, ...(available !== undefined && { available }) });
    return { job, digests };
  }

  #stop(job: number): void {
    this.#send({ type: 'abort', job });
    this.#settle(job)?.reject(new Failure('Aborted', 'stopped'));
  }

  #settle(job: number): { resolve(digests: Digests): void; reject(error: Failure): void } | undefined {
    const waiting = this.#jobs.get(job);
    this.#jobs.delete(job);
    return waiting;
  }

  #send(message: ToHasher): void {
    this.#thread?.post(message);
  }
}
