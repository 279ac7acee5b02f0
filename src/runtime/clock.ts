/** Time and chance come in through parameters, so that a test can hold them. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Calls back once after `ms`; the returned function takes that back. Never keeps the process alive by itself. */
  after(ms: number, callback: () => void): () => void;
  /** In [0, 1). */
  random(): number;
}

/** Node clamps longer timeouts to 1 ms, so a far date is reached in steps by whoever asks again. */
const LONGEST_TIMEOUT_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, Math.min(Math.max(ms, 0), LONGEST_TIMEOUT_MS));
    timer.unref();
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
};
