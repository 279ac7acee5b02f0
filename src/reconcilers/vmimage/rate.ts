import type { Clock } from '../../runtime/clock.ts';

/** Who sends nothing for so long has no speed, however fast it was: nothing tells of bytes that do not come. */
const SILENT_MS = 3000;

/** Bytes per second of a stream, smoothed over some seconds. */
export class Rate {
  readonly #clock: Clock;
  #since: number;
  #bytes = 0;
  #rate = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#since = clock.now();
  }

  /** Another stream begins, where so many bytes are here already. */
  reset(bytes: number): void {
    this.#since = this.#clock.now();
    this.#bytes = bytes;
    this.#rate = 0;
  }

  /** So many bytes are here now. */
  note(bytes: number): void {
    const now = this.#clock.now();
    const seconds = (now - this.#since) / 1000;
    // The first is waited for: an upload may begin with it.
    if (seconds < (this.#rate === 0 ? 0.025 : 0.2)) return;
    const latest = (bytes - this.#bytes) / seconds;
    this.#rate = this.bytesPerSecond === 0 ? latest : 0.7 * this.#rate + 0.3 * latest;
    this.#since = now;
    this.#bytes = bytes;
  }

  /** 0 while it is not known. */
  get bytesPerSecond(): number {
    return this.#clock.now() - this.#since > SILENT_MS ? 0 : Math.round(this.#rate);
  }
}
