import { Worker } from 'node:worker_threads';
import type { Logger } from 'pino';
import { Failure, type PlainFailure } from '../../api/failure.ts';
import type { Entry, ListFacts } from '../../catalogs/catalog.ts';
import type { Choice } from './expression.ts';
import type { Select } from './select.ts';

/**
 * Where selections are evaluated: a tenant writes them, and what one costs nobody can tell before. In a thread of its own it holds
 * up nothing but other selections, and those for a bounded time.
 */
export interface Selections {
  /** A selection to be asked for the entries of one list, some at a time. `signer` vouches for those that have none of their own. */
  begin(select: Select, signer: ListFacts['signer']): Selection;
  close(): Promise<void>;
}

export interface Selection {
  /**
   * A choice for each entry, in their order.
   * @throws Failure InvalidSpec when it cannot be evaluated, or costs too much; Aborted | InternalError
   */
  choose(entries: readonly Entry[]): Promise<readonly Choice[]>;
}

/** What crosses to the thread: one question at a time. Without `asked` it is of the selection that was asked last. */
export interface ToSelector {
  readonly asked?: { readonly select: Select; readonly signer: ListFacts['signer'] };
  readonly entries: readonly Entry[];
}

/** `Chosen` comes in parts, so that a thread that is slow is told from one that does not end. */
export type FromSelector =
  | { readonly type: 'Ready' }
  | { readonly type: 'Chosen'; readonly choices: readonly Choice[]; readonly cpuMs: number }
  | { readonly type: 'Failed'; readonly failure: PlainFailure };

export interface SelectionBounds {
  /** Of one entry: so long the thread may say nothing, in milliseconds. An honest selection takes some microseconds. */
  readonly entryMs: number;
  /** Processor time of all entries together, in milliseconds. */
  readonly allMs: number;
  /** Without a question for so long, the thread goes, in milliseconds. */
  readonly idleMs: number;
  /** Memory of the thread, in MiB. */
  readonly heapMiB: number;
}

const BOUNDS: SelectionBounds = { entryMs: 5000, allMs: 20_000, idleMs: 60_000, heapMiB: 256 };

/**
 * The time of an entry is counted in so many pieces. One in which nothing ran, neither here nor in the thread (a machine that slept, a
 * container that was paused), is one of them, however long it was: blamed on the selection, it would be refused until somebody edits it.
 */
const PIECES = 10;

/** The handle on the thread. It is started by the first question, holds no process, and a stop waits for no answer. */
export function startSelections(
  options: { log?: Logger; signal?: AbortSignal; bounds?: Partial<SelectionBounds> } = {},
): Selections {
  const selections = new ThreadSelections(options.log, { ...BOUNDS, ...options.bounds });
  options.signal?.addEventListener('abort', () => void selections.close(), { once: true });
  return selections;
}

interface Question {
  readonly asked: NonNullable<ToSelector['asked']>;
  readonly entries: readonly Entry[];
  readonly choices: Choice[];
  /** What the selection has cost so far; shared by all of its questions. */
  readonly spent: { cpuMs: number };
  resolve(choices: readonly Choice[]): void;
  reject(failure: Failure): void;
}

interface Thread {
  readonly worker: Worker;
  ready: boolean;
  asked?: Question['asked'];
}

class ThreadSelections implements Selections {
  readonly #log: Logger | undefined;
  readonly #bounds: SelectionBounds;
  /** The first one is with the thread. Turns are taken question by question, so that a long list lets the others in between. */
  readonly #questions: Question[] = [];
  #thread: Thread | undefined;
  #deadline: NodeJS.Timeout | undefined;
  #idle: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(log: Logger | undefined, bounds: SelectionBounds) {
    this.#log = log;
    this.#bounds = bounds;
  }

  begin(select: Select, signer: ListFacts['signer']): Selection {
    const asked = { select, signer };
    const spent = { cpuMs: 0 };
    return { choose: (entries) => this.#ask(asked, entries, spent) };
  }

  async close(): Promise<void> {
    this.#closed = true;
    const worker = this.#thread?.worker;
    this.#leaveThread();
    for (const { reject } of this.#questions.splice(0)) reject(new Failure('Aborted', 'stopped'));
    await worker?.terminate();
  }

  #ask(asked: Question['asked'], entries: readonly Entry[], spent: Question['spent']): Promise<readonly Choice[]> {
    if (this.#closed) return Promise.reject(new Failure('Aborted', 'stopped'));
    const { promise, resolve, reject } = Promise.withResolvers<readonly Choice[]>();
    this.#questions.push({ asked, entries, choices: [], spent, resolve, reject });
    if (this.#questions.length === 1) this.#next();
    return promise;
  }

  #next(): void {
    this.#rest();
    const [question] = this.#questions;
    if (question === undefined) {
      this.#idle = setTimeout(() => this.#endThread(), this.#bounds.idleMs).unref();
      return;
    }
    const thread = (this.#thread ??= this.#start());
    // Loading it is not the selection's fault, on however slow a machine.
    if (!thread.ready) return;
    const { asked, entries } = question;
    const message: ToSelector = { ...(thread.asked === asked ? {} : { asked }), entries };
    thread.asked = asked;
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    thread.worker.postMessage(message);
    this.#wait();
  }

  #wait(): void {
    this.#rest();
    this.#countDown(PIECES);
  }

  #countDown(left: number): void {
    const deadline = setTimeout(() => {
      // Where the program itself was held up meanwhile, the answer lies there, and is heard before this has its turn.
      setImmediate(() => {
        if (this.#deadline !== deadline) return;
        if (left > 1) this.#countDown(left - 1);
        else this.#giveUp();
      });
    }, this.#bounds.entryMs / PIECES).unref();
    this.#deadline = deadline;
  }

  #rest(): void {
    clearTimeout(this.#deadline);
    clearTimeout(this.#idle);
    this.#deadline = undefined;
  }

  #start(): Thread {
    const worker = new Worker(new URL('./selection-worker.ts', import.meta.url), {
      name: 'selections',
      resourceLimits: { maxOldGenerationSizeMb: this.#bounds.heapMiB, maxYoungGenerationSizeMb: 16 },
    });
    worker.unref();
    worker.on('message', (message: FromSelector) => this.#received(worker, message));
    worker.on('messageerror', (error) => this.#died(worker, error));
    worker.on('error', (error) => this.#died(worker, error));
    worker.on('exit', (code) => this.#died(worker, new Error(`exit code ${code}`)));
    return { worker, ready: false };
  }

  #received(worker: Worker, message: FromSelector): void {
    if (worker !== this.#thread?.worker) return;
    if (message.type === 'Ready') {
      this.#thread.ready = true;
      this.#next();
      return;
    }
    const [question] = this.#questions;
    if (question === undefined) return;
    if (message.type === 'Failed') {
      delete this.#thread.asked;
      this.#settle(({ reject }) => reject(Failure.fromPlain(message.failure)));
      return;
    }
    question.choices.push(...message.choices);
    question.spent.cpuMs += message.cpuMs;
    if (question.spent.cpuMs > this.#bounds.allMs) this.#giveUp();
    else if (question.choices.length < question.entries.length) this.#wait();
    else this.#settle(({ resolve, choices }) => resolve(choices));
  }

  /** The first question has its answer; the next one has its turn. */
  #settle(answer: (question: Question) => void): void {
    const question = this.#questions.shift();
    if (question !== undefined) answer(question);
    this.#next();
  }

  /** Nothing but its end stops a thread that computes. */
  #giveUp(): void {
    const { entryMs, allMs } = this.#bounds;
    this.#endThread();
    this.#settle(({ reject }) =>
      reject(
        new Failure(
          'InvalidSpec',
          `spec.select: it takes too long (more than ${entryMs / 1000} s for an entry, or ${allMs / 1000} s for all so far); make its patterns or its expression simpler: fewer loops, shorter patterns, smaller counts in them`,
        ),
      ),
    );
  }

  #died(worker: Worker, error: unknown): void {
    if (worker !== this.#thread?.worker) return;
    this.#endThread();
    const memory = error instanceof Error && 'code' in error && error.code === 'ERR_WORKER_OUT_OF_MEMORY';
    if (!memory)
      this.#log?.error({ err: error }, 'the thread that evaluates selections has ended; it is started again');
    this.#settle(({ reject }) =>
      reject(
        memory
          ? new Failure(
              'InvalidSpec',
              `spec.select: it takes too much memory (more than ${this.#bounds.heapMiB} MiB); make its patterns or its expression simpler: shorter patterns, smaller counts in them`,
              { cause: error },
            )
          : new Failure('InternalError', 'the thread that evaluates selections has ended', { cause: error }),
      ),
    );
  }

  #endThread(): void {
    const worker = this.#thread?.worker;
    this.#leaveThread();
    void worker?.terminate();
  }

  #leaveThread(): void {
    this.#rest();
    this.#thread = undefined;
  }
}
