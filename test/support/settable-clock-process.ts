import { isMainThread } from 'node:worker_threads';

/**
 * Preloaded into a program of a test (NODE_OPTIONS=--import): at SIGUSR2 its clock is a day ahead, at the next one a day behind. The
 * machine's own clock is left alone, and so is the monotonic one.
 */
const DAY_MS = 86_400_000;

if (isMainThread) {
  const now = Date.now;
  let days = 0;
  Date.now = () => now() + days * DAY_MS;
  process.on('SIGUSR2', () => {
    days = days === 1 ? -1 : 1;
  });
}
