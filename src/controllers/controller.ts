import { Failure } from '../api/failure.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Urgency } from '../runtime/jobs.ts';
import { WorkQueue } from '../runtime/queue.ts';
import type { ObjectKey } from '../stores/store.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';

/** Progress is written at most this often for each object. */
const PROGRESS_INTERVAL_MS = 1000;

/** The work queue of one kind, and what is called for each key of it. */
export class Controller {
  readonly kind: string;
  readonly #queue: WorkQueue;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #metrics: Metrics;
  readonly #reconcile: (key: ObjectKey) => Promise<number | undefined>;
  /** When each key was last handled: progress waits its turn. */
  readonly #handled = new Map<string, number>();

  constructor(
    kind: string,
    deps: { clock: Clock; log: Logger; metrics: Metrics },
    reconcile: (key: ObjectKey) => Promise<number | undefined>,
  ) {
    this.kind = kind;
    this.#clock = deps.clock;
    this.#log = deps.log.child({ controller: kind });
    this.#metrics = deps.metrics;
    this.#queue = new WorkQueue(deps.clock, deps.metrics.queue(kind));
    this.#reconcile = reconcile;
  }

  add(key: string): void {
    this.#queue.add(key);
  }

  /** Once, however often it is said until then. */
  addAfter(key: string, ms: number): void {
    this.#queue.addAfter(key, ms);
  }

  /** A job of the object has something to show. */
  wake(key: string, urgency: Urgency): void {
    if (urgency === 'Now') {
      this.#queue.add(key);
      return;
    }
    const since = this.#clock.now() - (this.#handled.get(key) ?? 0);
    this.#queue.addAfter(key, Math.max(0, PROGRESS_INTERVAL_MS - since));
  }

  forget(key: string): void {
    this.#handled.delete(key);
  }

  /** Nothing waits and nothing is being handled now. */
  get quiet(): boolean {
    return this.#queue.quiet;
  }

  /** Works until the signal fires; resolves when the last reconcile has returned. */
  run(workers: number, signal: AbortSignal): Promise<void> {
    return this.#queue.run(
      workers,
      (key) => this.#handle(key),
      (key, error) => this.#failed(key, error),
      signal,
    );
  }

  async #handle(key: string): Promise<void> {
    const started = this.#clock.now();
    this.#handled.set(key, started);
    try {
      const next = await this.#reconcile(keyFrom(key));
      if (next !== undefined) this.#queue.addAfter(key, Math.max(next, 1));
      this.#metrics.reconciled(this.kind, { seconds: (this.#clock.now() - started) / 1000 });
    } catch (error) {
      const { reason } = Failure.from(error);
      this.#metrics.reconciled(this.kind, { seconds: (this.#clock.now() - started) / 1000, failure: reason });
      throw error;
    }
  }

  /** Something that no step foresaw: told with its cause, and tried again with a back-off. */
  #failed(key: string, error: unknown): void {
    const failure = Failure.from(error);
    // A stop waits for nobody, and is no fault.
    if (failure.reason === 'Aborted') return;
    this.#log.error({ key, reason: failure.reason, err: error }, `reconcile failed: ${failure.message}`);
  }
}

function keyFrom(key: string): ObjectKey {
  const slash = key.indexOf('/');
  return slash < 0 ? { name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}
