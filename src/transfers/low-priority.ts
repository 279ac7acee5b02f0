import type { Algorithm, Digests } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import { FollowingHash } from './following-hash.ts';
import type { Generation } from './generation.ts';
import type { ToHasher } from './protocol.ts';
import { startWorker, type WorkerThread } from './thread.ts';

interface Job {
  resolve(digests: Digests): void;
  reject(error: Failure): void;
  /** The thread has come to here, and has nothing to do. */
  taken(position: number): void;
}

/** The transfer thread's handle on the low-priority thread, which is started with the first job and holds the process while it has one. */
export class LowPriority {
  #thread: WorkerThread<ToHasher> | undefined;
  readonly #jobs = new Map<number, Job>();
  #next = 0;

  /** Digests of a complete file. */
  digest(path: string, algorithms: readonly Algorithm[], signal: AbortSignal): Promise<Digests> {
    const { job, digests } = this.#start(path, algorithms, () => {});
    const abort = () => this.#stop(job);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    return digests.finally(() => signal.removeEventListener('abort', abort));
  }

  /** Digests of a file that is still written, from its beginning. The file is opened now, under the name that it has. */
  follow(generation: Generation, algorithms: readonly Algorithm[]): FollowingHash {
    let taken: (position: number) => void = () => {};
    const { job, digests } = this.#start(generation.path, algorithms, (position) => taken(position), 0);
    const following = new FollowingHash(generation, digests, {
      read: (available, direct) => this.#send({ type: 'read', job, available, direct }),
      take: (bytes) => this.#send({ type: 'take', job, bytes }),
      finish: () => this.#send({ type: 'finish', job }),
      stop: () => this.#stop(job),
    });
    taken = (position) => following.taken(position);
    return following;
  }

  #start(
    path: string,
    algorithms: readonly Algorithm[],
    taken: Job['taken'],
    available?: number,
  ): { job: number; digests: Promise<Digests> } {
    const job = this.#next++;
    const digests = new Promise<Digests>((resolve, reject) => this.#jobs.set(job, { resolve, reject, taken }));
    this.#thread ??= startWorker('hasher', {
      message: (message) => {
        switch (message.type) {
          case 'taken':
            this.#jobs.get(message.job)?.taken(message.position);
            break;
          case 'digests':
            this.#settle(message.job)?.resolve(message.digests);
            break;
          case 'failed':
            this.#settle(message.job)?.reject(Failure.fromPlain(message.failure));
            break;
        }
      },
      died: (failure) => {
        this.#thread = undefined;
        for (const number of this.#jobs.keys()) this.#settle(number)?.reject(failure);
      },
    });
    this.#thread.hold(true);
    this.#send({ type: 'hash', job, path, algorithms, ...(available !== undefined && { available }) });
    return { job, digests };
  }

  #stop(job: number): void {
    this.#send({ type: 'abort', job });
    this.#settle(job)?.reject(new Failure('Aborted', 'stopped'));
  }

  #settle(job: number): Job | undefined {
    const waiting = this.#jobs.get(job);
    this.#jobs.delete(job);
    if (this.#jobs.size === 0) this.#thread?.hold(false);
    return waiting;
  }

  #send(message: ToHasher): void {
    this.#thread?.post(message);
  }
}
