import { createHash, type Hash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { setPriority } from 'node:os';
import type { MessagePort } from 'node:worker_threads';
import type { Algorithm, Digests } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import type { FromHasher, ToHasher } from './protocol.ts';

const BLOCK_BYTES = 1024 * 1024;
/** The weakest: these digests wait for nobody's processor time, and nobody waits for theirs who is not waiting for the bytes anyway. */
const NICE = 19;

interface Job {
  descriptor: number;
  hashes: Map<Algorithm, Hash>;
  position: number;
  /** Bytes that may be read; undefined: to the end of the file. */
  available: number | undefined;
  final: boolean;
}

/**
 * The low-priority thread: further digests of files, growing or complete. It reads synchronously, because reading and hashing is
 * all it does, and takes one block of each job in turn, so that none waits for another's end.
 */
export function runHasher(port: MessagePort): void {
  try {
    setPriority(NICE); // on Linux, of the calling thread alone
  } catch {
    // Not allowed here: the digests are the same.
  }
  const jobs = new Map<number, Job>();
  const block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  const send = (message: FromHasher) => port.postMessage(message);
  let running = false;

  const end = (number: number) => {
    const job = jobs.get(number);
    if (job === undefined) return;
    jobs.delete(number);
    closeSync(job.descriptor);
  };

  /** Whether there was something to do. */
  const step = (number: number, job: Job): boolean => {
    const wanted = job.available === undefined ? BLOCK_BYTES : Math.min(BLOCK_BYTES, job.available - job.position);
    const count = wanted > 0 ? readSync(job.descriptor, block, 0, wanted, job.position) : 0;
    if (count > 0) {
      for (const hash of job.hashes.values()) hash.update(block.subarray(0, count));
      job.position += count;
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
            hashes: new Map(message.algorithms.map((algorithm) => [algorithm, createHash(algorithm)])),
            position: 0,
            available: message.available,
            final: message.available === undefined,
          });
        } catch (error) {
          send({ type: 'failed', job: message.job, failure: Failure.from(error).toPlain() });
        }
        break;
      case 'grown': {
        const job = jobs.get(message.job);
        if (job !== undefined) {
          job.available = message.available;
          job.final = message.final;
        }
        break;
      }
      case 'abort':
        end(message.job);
        break;
    }
    wake();
  });
}
