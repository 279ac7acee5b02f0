/** Bytes per second, smoothed over some seconds. */
export class Rate {
  #since: number;
  #bytes = 0;
  #rate = 0;

  constructor(now: number) {
    this.#since = now;
  }

  reset(now: number, bytes: number): void {
    this.#since = now;
    this.#bytes = bytes;
    this.#rate = 0;
  }

  at(now: number, bytes: number): number {
    const seconds = (now - this.#since) / 1000;
    // The first is waited for: an upload may begin with it.
    if (seconds < (this.#rate === 0 ? 0.1 : 0.2)) return Math.round(this.#rate);
    const latest = (bytes - this.#bytes) / seconds;
    this.#rate = this.#rate === 0 ? latest : 0.7 * this.#rate + 0.3 * latest;
    this.#since = now;
    this.#bytes = bytes;
    return Math.round(this.#rate);
  }
}
