import { stat } from 'node:fs/promises';
import { Failure } from '../../api/failure.ts';
import type { Reservation } from '../../cache/cache.ts';
import type { Clock } from '../../runtime/clock.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const LOOK_MS = 250;

/** Space for what nobody knows the size of is taken in such steps: a GiB, and less where the whole cache is small. */
export function spaceStep(quotaBytes: number): number {
  return Math.max(MiB, Math.min(GiB, Math.floor(quotaBytes / 8)));
}

/** What a growing file may not have: there is so much in all, and this stays beside it. */
interface Bounds {
  quotaBytes: number;
  besideBytes: number;
}

/** What the file takes on the disk, in bytes; none where it is not there. Honest disks are mostly holes. */
export async function allocatedBytes(path: string): Promise<number> {
  return stat(path).then(
    (found) => found.blocks * 512,
    () => 0,
  );
}

/**
 * What is asked for at first: no more than can be had beside what stays, for that would be waited for without end.
 * @throws Failure TooLarge when nothing can be had
 */
export function firstBid(bytes: number, { quotaBytes, besideBytes }: Bounds): number {
  const most = quotaBytes - besideBytes;
  if (most <= 0) throw tooLarge(most);
  return Math.min(bytes, most);
}

/**
 * Keeps a reservation ahead of files whose size nobody knows beforehand (what comes out of a compressed one, and the archive on the
 * way to it): a bomb runs into the quota, not into the disk's end. What counts is blocks on the disk.
 *
 * `besideBytes` stay in the cache all the while (the compressed file): what can never fit beside them is TooLarge, and not a wait
 * without end for others to make room.
 *
 * @returns a signal that fires, with the cache's Failure, when there is no more space; `complete` ends the watch when all is written,
 * and fails unless there is space for all of it, or when its signal fires; `stop` just ends the watch
 */
export function keepAhead(
  reservation: Reservation,
  paths: readonly string[],
  clock: Clock,
  { quotaBytes, besideBytes }: Bounds,
): { signal: AbortSignal; complete(signal: AbortSignal): Promise<void>; stop(): void } {
  const abort = new AbortController();
  let cancel = () => {};
  let stopped = false;
  let granted = reservation.bytes;
  const step = spaceStep(quotaBytes);
  const most = quotaBytes - besideBytes;
  const taken = async (): Promise<number> => {
    const bytes = (await Promise.all(paths.map(allocatedBytes))).reduce((sum, each) => sum + each, 0);
    if (bytes > granted && bytes > most) throw tooLarge(most);
    return bytes;
  };
  const grow = async (bytes: number): Promise<void> => {
    if (bytes > granted) await reservation.resize(bytes);
    granted = Math.max(granted, bytes);
  };
  const look = async (): Promise<void> => {
    const bytes = await taken();
    // The last step before the bound is what is left up to it.
    if (granted - bytes < Math.min(step, granted) / 2)
      await grow(Math.max(bytes, Math.min(Math.max(granted, bytes) + step, most)));
    if (!stopped) cancel = clock.after(LOOK_MS, next);
  };
  let looking = Promise.resolve();
  const next = () => {
    looking = look().catch((error: unknown) => abort.abort(error));
  };
  const stop = () => {
    stopped = true;
    cancel();
  };
  cancel = clock.after(LOOK_MS, next);
  return {
    signal: abort.signal,
    async complete(signal) {
      stop();
      signal.throwIfAborted();
      // Whoever waits for more is let go by the end of its reservation; nothing is written in it any more.
      const release = () => reservation.release();
      signal.addEventListener('abort', release);
      try {
        await looking;
        abort.signal.throwIfAborted();
        // What was written since the last look, or all of it where there was none.
        await grow(await taken());
      } finally {
        signal.removeEventListener('abort', release);
      }
    },
    stop,
  };
}

function tooLarge(most: number): Failure {
  return new Failure(
    'TooLarge',
    `what comes out of the compressed file has more than the ${Math.max(0, most)} bytes that the whole cache may hold beside it: give the cache more (--cache-quota)`,
  );
}
