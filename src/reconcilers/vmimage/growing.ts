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

/**
 * Keeps a reservation ahead of a file whose size nobody knows beforehand (what comes out of a compressed one): a bomb runs into
 * the quota, not into the disk's end. What counts is blocks on the disk, for honest disks are mostly holes.
 *
 * `besideBytes` stay in the cache all the while (the compressed file): what can never fit beside them is TooLarge, and not a wait
 * without end for others to make room.
 *
 * @returns a signal that fires, with the cache's Failure, when there is no more space; `stop` ends the watch
 */
export function keepAhead(
  reservation: Reservation,
  path: string,
  clock: Clock,
  { quotaBytes, besideBytes }: { quotaBytes: number; besideBytes: number },
): { signal: AbortSignal; stop(): void } {
  const abort = new AbortController();
  let cancel = () => {};
  let stopped = false;
  let granted = reservation.bytes;
  const step = spaceStep(quotaBytes);
  const look = async (): Promise<void> => {
    const taken = await stat(path).then(
      (found) => found.blocks * 512,
      () => 0,
    );
    if (granted - taken < Math.min(step, granted) / 2) {
      const most = quotaBytes - besideBytes;
      if (taken > most) {
        throw new Failure(
          'TooLarge',
          `what comes out of the compressed file has more than the ${Math.max(0, most)} bytes that the whole cache may hold beside it: give the cache more (--cache-quota)`,
        );
      }
      // The last step before the bound is what is left up to it.
      const wanted = Math.max(taken, Math.min(Math.max(granted, taken) + step, most));
      if (wanted > granted) await reservation.resize(wanted);
      granted = Math.max(granted, wanted);
    }
    if (!stopped) cancel = clock.after(LOOK_MS, next);
  };
  const next = () => void look().catch((error: unknown) => abort.abort(error));
  cancel = clock.after(LOOK_MS, next);
  return {
    signal: abort.signal,
    stop: () => {
      stopped = true;
      cancel();
    },
  };
}
