import type { Algorithm, Digests } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import { FollowingHash } from './following-hash.ts';
import type { Generation } from './generation.ts';
import type { ToHasher } from './protocol.ts';
import { startWorker, type WorkerThread } from './thread.ts';

/** What hashes beside the transfer thread: one thread for digests that somebody waits for, and one for those that go along with a download. */
export class Hashers {
  readonly #ordinary = new Hasher('hasher');
  readonly #idle = new Hasher('idle-hasher');

  /** Digests of a complete file. */
  async digest(path: string, algorithms: readonly Algorithm[], signal: AbortSignal): Promise<Digests> {
    const { job, digests } = this.#ordinary.start(path, algorithms, () => {});
    const abort = () => this.#ordinary.stop(job);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    try {
      return await digests;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  /** Digests of a file that is still written, from its beginning. The file is opened now, under the name that it has. */
  follow(generation: Generation, algorithms: readonly Algorithm[]): FollowingHash {
    const idle = this.#idle;
    let taken: (position: number) => void = () => {};
    const { job, digests } = idle.start(generation.path, algorithms, (position) => taken(position), 0);
    const following = new FollowingHash(generation, digests, {
      read: (available, direct) => idle.send({ type: 'read', job, available, direct }),
      take: (bytes) => idle.send({ type: 'take', job, bytes }),
      finish: () => idle.send({ type: 'finish', job }),
      stop: () => idle.stop(job),
      again: (signal) => this.digest(generation.path, algorithms, signal),
    });
    taken = (position) => following.taken(position);
    return following;
  }
}

interface Job {
  resolve(digests: Digests): void;
  reject(error: Failure): void;
  /** The thread has come to here, and has nothing to do. */
  taken(position: number): void;
}

/** The transfer thread's handle on a thread that hashes, which is started with the first job and holds the process while it has one. */
class Hasher {
  readonly #role: 'hasher' | 'idle-hasher';
  #thread: WorkerThread<ToHasher> | undefined;
  readonly #jobs = new Map<number, Job>();
  #next = 0;

  constructor(role: 'hasher' | 'idle-hasher') {
    this.#role = role;
  }

  /** `available`: bytes of the file that may be read yet; all of it where that is undefined. */
  start(
    path: string,
    algorithms: readonly Algorithm[],
    taken: Job['taken'],
    available?: number,
  ): { job: number; digests: Promise<Digests> } {
    const job = this.#next++;
    const digests = new Promise<Digests>((resolve, reject) => this.#jobs.set(job, { resolve, reject, taken }));
    this.#thread ??= startWorker(this.#role, {
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
    this.send({ type: 'hash', job, path, algorithms, ...(available !== undefined && { available }) });
    return { job, digests };
  }

  stop(job: number): void {
    this.send({ type: 'abort', job });
    this.#settle(job)?.reject(new Failure('Aborted', 'stopped'));
  }

  send(message: ToHasher): void {
    this.#thread?.post(message);
  }

  #settle(job: number): Job | undefined {
    const waiting = this.#jobs.get(job);
    this.#jobs.delete(job);
    if (this.#jobs.size === 0) this.#thread?.hold(false);
    return waiting;
  }
}
