/**
 * Background work that reconciles start and look at, never wait for. A job has a key: who asks for a key that runs already shares
 * that run. It ends early when its last asker has left, and its outcome is kept until each asker has taken it.
 */
export interface JobHandle {
  readonly signal: AbortSignal;
  /** There is something new to see in the view: the askers are queued again, at once or (progress) when it suits. */
  changed(urgency: Urgency): void;
}

/** `Now`: a decision depends on it. `Soon`: people like to see it, at most once a second. */
export type Urgency = 'Now' | 'Soon';

export type Outcome<T> = { ok: true; value: T } | { ok: false; error: unknown };

interface Job {
  readonly key: string;
  readonly askers: Set<string>;
  readonly abort: AbortController;
  /** Whatever the job shows while it runs; read by `view`. */
  view: unknown;
  outcome: Outcome<unknown> | undefined;
  /** Came for the key while the job was being ended; they are woken when it has, to start it afresh. */
  readonly successors: Set<string>;
  done: Promise<void>;
}

export class Jobs {
  readonly #jobs = new Map<string, Job>();
  readonly #wake: (asker: string, urgency: Urgency) => void;
  readonly #lanes: Lanes;
  #closed = false;

  /** `wake` queues an asker (a resource's key) again. */
  constructor(wake: (asker: string, urgency: Urgency) => void) {
    this.#wake = wake;
    this.#lanes = new Lanes();
  }

  /** How many run or wait for their lane. */
  get running(): number {
    let count = 0;
    for (const job of this.#jobs.values()) if (job.outcome === undefined) count++;
    return count;
  }

  /**
   * Starts the job, or joins the one that runs under this key. `lane` bounds how many run side by side (one cloud's uploads);
   * jobs of a lane start in the order they were asked for.
   */
  start<T, V>(
    key: string,
    asker: string,
    options: { lane?: { name: string; limit: number }; view: V },
    run: (handle: JobHandle, view: V) => Promise<T>,
  ): void {
    if (this.#closed) return;
    const running = this.#jobs.get(key);
    if (running !== undefined) {
      // An aborted run can only fail: it must not be shared, and a second run of the key must not overlap it.
      if (running.abort.signal.aborted) running.successors.add(asker);
      else running.askers.add(asker);
      return;
    }
    const abort = new AbortController();
    const job: Job = {
      key,
      askers: new Set([asker]),
      abort,
      view: options.view,
      outcome: undefined,
      successors: new Set(),
      done: Promise.resolve(),
    };
    this.#jobs.set(key, job);
    const wakeAll = (urgency: Urgency) => {
      for (const each of job.askers) this.#wake(each, urgency);
    };
    job.done = this.#lanes
      .enter(options.lane, abort.signal, () => run({ signal: abort.signal, changed: wakeAll }, options.view))
      .then(
        (value) => {
          job.outcome = { ok: true, value };
        },
        (error: unknown) => {
          job.outcome = { ok: false, error };
        },
      )
      .then(() => {
        // The last asker left while it ran: nobody will come to take the outcome.
        if (job.askers.size === 0 && this.#jobs.get(key) === job) this.#jobs.delete(key);
        wakeAll('Now');
        for (const each of job.successors) this.#wake(each, 'Now');
      });
  }

  /** Whether the key runs (or waits for its lane), asked for by anyone. */
  runs(key: string): boolean {
    const job = this.#jobs.get(key);
    return job !== undefined && job.outcome === undefined;
  }

  /** What the job shows of itself while it runs or until its outcome is taken. */
  view<V>(key: string): V | undefined {
    return this.#jobs.get(key)?.view as V | undefined;
  }

  /** The outcome, once for each asker; undefined while it runs or when there is no such job. */
  take<T>(key: string, asker: string): Outcome<T> | undefined {
    const job = this.#jobs.get(key);
    if (job?.outcome === undefined || !job.askers.has(asker)) return undefined;
    job.askers.delete(asker);
    if (job.askers.size === 0) this.#jobs.delete(key);
    return job.outcome as Outcome<T>;
  }

  /** The asker wants it no longer; the last one to leave ends the job. */
  leave(key: string, asker: string): void {
    const job = this.#jobs.get(key);
    if (job === undefined || !job.askers.delete(asker) || job.askers.size > 0) return;
    job.abort.abort();
    if (job.outcome !== undefined) this.#jobs.delete(key);
  }

  /** Leaves every job of this asker whose key is not in `keep`. Returns how many of them still have to end. */
  leaveAll(asker: string, keep: (key: string) => boolean = () => false): number {
    let ending = 0;
    for (const job of this.#jobs.values()) {
      if (!job.askers.has(asker) || keep(job.key)) continue;
      this.leave(job.key, asker);
      if (job.outcome === undefined) ending++;
    }
    return ending;
  }

  /** Ends all jobs at a safe point; resolves when the last has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    const jobs = [...this.#jobs.values()];
    for (const job of jobs) job.abort.abort();
    await Promise.all(jobs.map((job) => job.done));
  }
}

/** Bounded lanes: at most `limit` jobs of a name run, the others wait in order. */
class Lanes {
  readonly #lanes = new Map<string, { running: number; limit: number; waiting: (() => void)[] }>();

  async enter<T>(
    lane: { name: string; limit: number } | undefined,
    signal: AbortSignal,
    run: () => Promise<T>,
  ): Promise<T> {
    if (lane === undefined) return run();
    let state = this.#lanes.get(lane.name);
    if (state === undefined) {
      state = { running: 0, limit: lane.limit, waiting: [] };
      this.#lanes.set(lane.name, state);
    }
    state.limit = lane.limit;
    const mine = state;
    while (mine.running >= mine.limit) {
      await new Promise<void>((resolve) => {
        mine.waiting.push(resolve);
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
      if (signal.aborted) {
        // The turn may have been given to this one: pass it on.
        mine.waiting.shift()?.();
        signal.throwIfAborted();
      }
    }
    mine.running++;
    try {
      return await run();
    } finally {
      mine.running--;
      mine.waiting.shift()?.();
      if (mine.running === 0 && mine.waiting.length === 0) this.#lanes.delete(lane.name);
    }
  }
}
