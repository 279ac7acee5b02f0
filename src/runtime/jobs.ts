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
  readonly askers: Set<string>;
  readonly abort: AbortController;
  /** Whatever the job shows while it runs; read by `view`. */
  readonly view: unknown;
  /** Woken when the run has ended: who came for the key while it was being ended, and whose leaving ended it. */
  readonly successors: Set<string>;
  readonly discard: ((value: unknown) => void) | undefined;
  done: Promise<void>;
}

/** What a run left; the same for each of its askers. */
interface Ended {
  readonly outcome: Outcome<unknown>;
  readonly view: unknown;
  taken: boolean;
  /** Closes what the outcome holds. */
  discard(): void;
}

export class Jobs {
  /** By key; those that run or wait for their lane. */
  readonly #running = new Map<string, Job>();
  /** By key and asker. Kept apart from the runs: an outcome that somebody has yet to take is nobody else's next try. */
  readonly #ended = new Map<string, Map<string, Ended>>();
  readonly #wake: (asker: string, urgency: Urgency) => void;
  readonly #lanes = new Lanes();
  #closed = false;

  /** `wake` queues an asker (a resource's key) again. */
  constructor(wake: (asker: string, urgency: Urgency) => void) {
    this.#wake = wake;
  }

  /** How many run or wait for their lane. */
  get running(): number {
    return this.#running.size;
  }

  /**
   * Starts the job, or joins the one that runs under this key. `lane` bounds how many run side by side (one cloud's uploads);
   * jobs of a lane start in the order they were asked for. Who has yet to take an outcome of this key starts nothing. `discard` is
   * given a value that nobody took, because all askers have left: it closes what the value holds open.
   */
  start<T, V>(
    key: string,
    asker: string,
    options: { lane?: { name: string; limit: number }; view: V; discard?: (value: T) => void },
    run: (handle: JobHandle, view: V) => Promise<T>,
  ): void {
    if (this.#closed || this.#ended.get(key)?.has(asker) === true) return;
    const running = this.#running.get(key);
    if (running !== undefined) {
      // An aborted run can only fail: it must not be shared, and a second run of the key must not overlap it.
      if (running.abort.signal.aborted) running.successors.add(asker);
      else running.askers.add(asker);
      return;
    }
    const { lane, view } = options;
    const discard = options.discard as Job['discard'];
    const abort = new AbortController();
    const job: Job = { askers: new Set([asker]), abort, view, successors: new Set(), discard, done: Promise.resolve() };
    this.#running.set(key, job);
    const handle: JobHandle = {
      signal: abort.signal,
      changed: (urgency) => {
        for (const each of job.askers) this.#wake(each, urgency);
      },
    };
    job.done = this.#lanes
      .enter(lane, abort.signal, () => run(handle, view))
      .then(
        (value) => this.#end(key, job, { ok: true, value }),
        (error: unknown) => this.#end(key, job, { ok: false, error }),
      );
  }

  #end(key: string, job: Job, outcome: Outcome<unknown>): void {
    this.#running.delete(key);
    const discard = () => {
      if (outcome.ok) job.discard?.(outcome.value);
    };
    const left: Ended = { outcome, view: job.view, taken: false, discard };
    for (const asker of job.askers) {
      const ended = this.#ended.get(key) ?? new Map<string, Ended>();
      this.#ended.set(key, ended.set(asker, left));
    }
    // Where the last asker left while it ran, nobody will come to take the outcome.
    if (job.askers.size === 0) discard();
    for (const each of new Set([...job.askers, ...job.successors])) this.#wake(each, 'Now');
  }

  /** Whether the key runs (or waits for its lane), asked for by anyone. */
  runs(key: string): boolean {
    return this.#running.has(key);
  }

  /** What the job shows of itself while it runs, or until its outcome is taken. */
  view<V>(key: string): V | undefined {
    const shown = this.#running.get(key) ?? this.#ended.get(key)?.values().next().value;
    return shown?.view as V | undefined;
  }

  /** The outcome, once for each asker; undefined while it runs or when there is no such job. */
  take<T>(key: string, asker: string): Outcome<T> | undefined {
    const ended = this.#ended.get(key)?.get(asker);
    if (ended === undefined) return undefined;
    ended.taken = true;
    this.#drop(key, asker);
    return ended.outcome as Outcome<T>;
  }

  /**
   * The asker wants it no longer; the last one to leave ends the job, and is woken when it has ended, for what comes next may
   * have to wait for that. An outcome that was not taken is dropped.
   */
  leave(key: string, asker: string): void {
    this.#drop(key, asker);
    const job = this.#running.get(key);
    if (job === undefined || !job.askers.delete(asker) || job.askers.size > 0) return;
    job.successors.add(asker);
    job.abort.abort();
  }

  /** Leaves every job of this asker whose key is not in `keep`. */
  leaveAll(asker: string, keep: (key: string) => boolean = () => false): void {
    for (const key of [...this.#running.keys(), ...this.#ended.keys()]) if (!keep(key)) this.leave(key, asker);
  }

  /** Ends what runs under such keys at a safe point. Their askers stay, are woken, and find it aborted. */
  abort(keys: (key: string) => boolean): void {
    for (const [key, job] of this.#running) if (keys(key)) job.abort.abort();
  }

  /** Ends all jobs at a safe point; resolves when the last has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    const jobs = [...this.#running.values()];
    for (const job of jobs) job.abort.abort();
    await Promise.all(jobs.map((job) => job.done));
  }

  #drop(key: string, asker: string): void {
    const askers = this.#ended.get(key);
    const mine = askers?.get(asker);
    if (askers === undefined || mine === undefined) return;
    askers.delete(asker);
    if (askers.size === 0) this.#ended.delete(key);
    // Two runs of a key may have left something each.
    if (!mine.taken && ![...askers.values()].includes(mine)) mine.discard();
  }
}

/** Bounded lanes: at most `limit` jobs of a name run, the others wait in the order in which they came. */
class Lanes {
  readonly #lanes = new Map<string, Lane>();

  async enter<T>(
    lane: { name: string; limit: number } | undefined,
    signal: AbortSignal,
    run: () => Promise<T>,
  ): Promise<T> {
    if (lane === undefined) return run();
    const mine = this.#lanes.get(lane.name) ?? new Lane();
    this.#lanes.set(lane.name, mine);
    try {
      await mine.enter(lane.limit, signal);
      try {
        // The turn may have come in the very step in which it was given up.
        signal.throwIfAborted();
        return await run();
      } finally {
        mine.leave();
      }
    } finally {
      if (mine.empty && this.#lanes.get(lane.name) === mine) this.#lanes.delete(lane.name);
    }
  }
}

/**
 * A place is handed over by the one who leaves, in the same step: between a place that is free and a waiter that has been told
 * so, a newcomer could otherwise take it, or the lane be taken for empty and be made a second time.
 */
class Lane {
  #limit = 1;
  #running = 0;
  readonly #waiting = new Set<() => void>();

  get empty(): boolean {
    return this.#running === 0 && this.#waiting.size === 0;
  }

  /** Resolves when the place is the caller's; who waits no longer gives up nobody else's turn. */
  async enter(limit: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    // A limit may be changed while jobs wait: the newest counts.
    this.#limit = limit;
    await new Promise<void>((resolve, reject) => {
      const turn = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        this.#waiting.delete(turn);
        reject(signal.reason);
      };
      this.#waiting.add(turn);
      signal.addEventListener('abort', leave, { once: true });
      this.#admit();
    });
  }

  leave(): void {
    this.#running--;
    this.#admit();
  }

  #admit(): void {
    for (const turn of this.#waiting) {
      if (this.#running >= this.#limit) return;
      this.#waiting.delete(turn);
      this.#running++;
      turn();
    }
  }
}
