const INTERVAL_MS = 250;

/** Calls four times a second while a job runs, and once more at its end. */
export class Ticker {
  readonly #tick: () => void;
  readonly #timer: NodeJS.Timeout;

  constructor(tick: () => void) {
    this.#tick = tick;
    this.#timer = setInterval(tick, INTERVAL_MS);
  }

  /** Out of turn: something has come that somebody waits for. */
  now(): void {
    this.#tick();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#tick();
  }
}
