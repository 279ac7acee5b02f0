import { createHash, type Hash } from 'node:crypto';
import { closeSync, constants, openSync, readSync } from 'node:fs';
import type { MessagePort } from 'node:worker_threads';
import type { Algorithm, Digests } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import { PAGE_BYTES, pages } from '../sources/pages.ts';
import type { FromHasher, ToHasher } from './protocol.ts';

const BLOCK_BYTES = 1024 * 1024;

interface Job {
  descriptor: number;
  /** Of the same file, opened with O_DIRECT when that was first asked for; undefined where it cannot be. */
  direct: number | undefined;
  hashes: Map<Algorithm, Hash>;
  position: number;
  /** Bytes that may be read now; undefined: to the end of the file. */
  available: number | undefined;
  /** The same bytes as the file has at `position`, lent for the time being. */
  lent: Uint8Array | undefined;
  final: boolean;
}

/**
 * A thread of its own: digests of files, growing or complete. It reads synchronously, because reading and hashing is
 * all it does, and takes one block of each job in turn, so that none waits for another's end.
 */
export function runHasher(port: MessagePort): void {
  const jobs = new Map<number, Job>();
  const block = pages(BLOCK_BYTES);
  const send = (message: FromHasher) => port.postMessage(message);
  let running = false;

  const end = (number: number) => {
    const job = jobs.get(number);
    if (job === undefined) return;
    jobs.delete(number);
    closeSync(job.descriptor);
    if (job.direct !== undefined) closeSync(job.direct);
  };

  /** Reads into the block; what is beyond `wanted` is to come yet. */
  const read = (job: Job, wanted: number): number => {
    const { descriptor, direct, position } = job;
    if (direct !== undefined && position % PAGE_BYTES === 0) {
      try {
        return Math.min(wanted, readSync(direct, block, 0, BLOCK_BYTES, position));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
      }
    }
    return readSync(descriptor, block, 0, wanted, position);
  };

  const take = (job: Job, bytes: Uint8Array) => {
    for (const hash of job.hashes.values()) hash.update(bytes);
    job.position += bytes.length;
  };

  /** Whether there was something to do. */
  const step = (number: number, job: Job): boolean => {
    if (job.lent !== undefined) {
      take(job, job.lent);
      job.lent = undefined;
      send({ type: 'taken', job: number, position: job.position });
      return true;
    }
    const wanted = job.available === undefined ? BLOCK_BYTES : Math.min(BLOCK_BYTES, job.available - job.position);
    const count = wanted > 0 ? read(job, wanted) : 0;
    if (count > 0) {
      take(job, block.subarray(0, count));
      if (job.position === job.available) send({ type: 'taken', job: number, position: job.position });
      return true;
    }
    if (wanted > 0 && job.available !== undefined) {
      throw new Failure('InternalError', `the file ended at ${job.position}, before its watermark ${job.available}`);
    }
    if (!job.final) return false;
    const digests: Digests = {};
    for (const [algorithm, hash] of job.hashes) digests[algorithm] = hash.digest('hex');
    end(number);
    send({ type: 'digests', job: number, digests });
    return true;
  };

  const round = () => {
    running = false;
    let busy = false;
    for (const [number, job] of jobs) {
      try {
        busy = step(number, job) || busy;
      } catch (error) {
        end(number);
        send({ type: 'failed', job: number, failure: Failure.from(error).toPlain() });
      }
    }
    if (busy) wake();
  };
  const wake = () => {
    if (running) return;
    running = true;
    setImmediate(round); // messages come in between
  };

  port.on('message', (message: ToHasher) => {
    switch (message.type) {
      case 'hash':
        try {
          jobs.set(message.job, {
            descriptor: openSync(message.path, 'r'),
            direct: undefined,
            hashes: new Map(message.algorithms.map((algorithm) => [algorithm, createHash(algorithm)])),
            position: 0,
            available: message.available,
            lent: undefined,
            final: message.available === undefined,
          });
        } catch (error) {
          send({ type: 'failed', job: message.job, failure: Failure.from(error).toPlain() });
        }
        break;
      case 'read': {
        const job = jobs.get(message.job);
        if (job === undefined) break;
        job.available = message.available;
        if (message.direct) job.direct ??= openDirect(job.descriptor);
        else if (job.direct !== undefined) {
          closeSync(job.direct);
          job.direct = undefined;
        }
        break;
      }
      case 'take': {
        const job = jobs.get(message.job);
        if (job !== undefined) job.lent = message.bytes;
        break;
      }
      case 'finish': {
        const job = jobs.get(message.job);
        if (job !== undefined) job.final = true;
        break;
      }
      case 'abort':
        end(message.job);
        break;
    }
    wake();
  });
}

/** The very file that is open, whatever its name is by now. */
function openDirect(descriptor: number): number | undefined {
  try {
    return openSync(`/proc/self/fd/${descriptor}`, constants.O_RDONLY | constants.O_DIRECT);
  } catch {
    return undefined;
  }
}
