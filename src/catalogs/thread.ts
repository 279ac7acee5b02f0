import { Worker } from 'node:worker_threads';
import type { Logger } from 'pino';
import { Failure } from '../api/failure.ts';
import type { FromReader, ToReader } from './protocol.ts';
import { LONGEST_MS, type ReadOutcome, type ReadTask } from './reading.ts';

/** Where lists are read: fetched, proven and parsed without holding up the program. */
export interface CatalogReaders {
  /** @throws Failure Aborted | DiskFull | ResourceLimit | InternalError; what is wrong with the list is an outcome */
  read(task: ReadTask, signal: AbortSignal): Promise<ReadOutcome>;
  close(): Promise<void>;
}

/**
 * Bounds of the thread's heap, in MiB: enough for the largest list that is read, so that a list that is made to fill the memory ends
 * this thread and not the program.
 */
const HEAP = { maxOldGenerationSizeMb: 1024 };

/** How long the thread may take to hear that a reading is given up. */
const PATIENCE_MS = 10_000;

/** The handle on the thread. It is started by the first reading, ended by a minute without any, and holds no process. */
export function startCatalogReaders(options: { log?: Logger; idleMs?: number } = {}): CatalogReaders {
  return new ThreadReaders(options.log, options.idleMs ?? 60_000);
}

interface Reading {
  resolve(outcome: ReadOutcome): void;
  reject(failure: Failure): void;
}

class ThreadReaders implements CatalogReaders {
  readonly #log: Logger | undefined;
  readonly #idleMs: number;
  readonly #readings = new Map<number, Reading>();
  #worker: Worker | undefined;
  /** Of the worker: that it is loaded. */
  #loaded = Promise.withResolvers<void>();
  #idle: NodeJS.Timeout | undefined;
  #next = 1;
  #closed = false;

  constructor(log: Logger | undefined, idleMs: number) {
    this.#log = log;
    this.#idleMs = idleMs;
  }

  read(task: ReadTask, signal: AbortSignal): Promise<ReadOutcome> {
    if (signal.aborted || this.#closed) return Promise.reject(new Failure('Aborted', 'stopped'));
    clearTimeout(this.#idle);
    const reading = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<ReadOutcome>();
    this.#worker ??= this.#start();
    this.#post({ type: 'read', reading, task });
    this.#readings.set(reading, { resolve, reject });
    const worker = this.#worker;
    // A thread that is busy with something that does not end hears nothing: it must hold up neither other lists nor a stop.
    let patience = this.#patience(worker, LONGEST_MS + PATIENCE_MS);
    const abort = async () => {
      this.#post({ type: 'abort', reading });
      // While it loads it hears nothing, which on a slow machine takes as long, and is no sign of anything.
      await this.#loaded.promise;
      if (worker !== this.#worker || !this.#readings.has(reading)) return;
      clearTimeout(patience);
      patience = this.#patience(worker, PATIENCE_MS);
    };
    const aborted = () => void abort();
    signal.addEventListener('abort', aborted, { once: true });
    return promise.finally(() => {
      clearTimeout(patience);
      signal.removeEventListener('abort', aborted);
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#idle);
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
    this.#endAll(new Failure('Aborted', 'stopped'));
  }

  #patience(worker: Worker, ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#died(worker, new Error('a reading does not end')), ms).unref();
  }

  #start(): Worker {
    const url = new URL('./worker.ts', import.meta.url);
    const worker = new Worker(url, { name: 'catalogs', resourceLimits: HEAP });
    worker.unref();
    const loaded = Promise.withResolvers<void>();
    this.#loaded = loaded;
    worker.on('message', (message: FromReader) => {
      if (message.type === 'ready') loaded.resolve();
      else this.#received(message);
    });
    worker.on('messageerror', (error) => this.#died(worker, error));
    worker.on('error', (error) => this.#died(worker, error));
    worker.on('exit', (code) => this.#died(worker, new Error(`exit code ${code}`)));
    return worker;
  }

  #received(message: Exclude<FromReader, { type: 'ready' }>): void {
    const reading = this.#take(message.reading);
    if (message.type === 'done') reading?.resolve(message.outcome);
    else reading?.reject(Failure.fromPlain(message.failure));
  }

  #take(number: number): Reading | undefined {
    const reading = this.#readings.get(number);
    this.#readings.delete(number);
    if (this.#readings.size === 0 && this.#worker !== undefined && !this.#closed) {
      // A thread that has parsed a large list keeps its memory: it goes, and takes that with it.
      this.#idle = setTimeout(() => this.#rest(), this.#idleMs);
      this.#idle.unref();
    }
    return reading;
  }

  #rest(): void {
    const worker = this.#worker;
    this.#worker = undefined;
    void worker?.terminate();
  }

  /** All its readings fail with it; the next one starts another. */
  #died(worker: Worker, error: unknown): void {
    if (worker !== this.#worker) return;
    this.#worker = undefined;
    void worker.terminate();
    const memory = error instanceof Error && 'code' in error && error.code === 'ERR_WORKER_OUT_OF_MEMORY';
    const failure = memory
      ? new Failure(
          'ResourceLimit',
          `a list took more than the ${HEAP.maxOldGenerationSizeMb} MiB that its reader may have; publish it in smaller ones`,
          { cause: error },
        )
      : new Failure('InternalError', 'the thread that reads lists has ended; it is started again', { cause: error });
    this.#log?.error({ err: error, readings: this.#readings.size }, failure.message);
    this.#endAll(failure);
  }

  #endAll(failure: Failure): void {
    for (const [number, { reject }] of this.#readings) {
      this.#readings.delete(number);
      reject(failure);
    }
  }

  #post(message: ToReader): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    this.#worker?.postMessage(message);
  }
}
