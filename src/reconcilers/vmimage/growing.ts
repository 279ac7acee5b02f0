import { stat } from 'node:fs/promises';
import type { Reservation } from '../../cache/cache.ts';
import type { Clock } from '../../runtime/clock.ts';

const GiB = 2 ** 30;
const LOOK_MS = 250;

/**
 * Keeps a reservation ahead of a file whose size nobody knows beforehand (what comes out of a compressed one): a bomb runs into
 * the quota, not into the disk's end. What counts is blocks on the disk, for honest disks are mostly holes.
 *
 * @returns a signal that fires, with the cache's Failure, when there is no more space; `stop` ends the watch
 */
export function keepAhead(reservation: Reservation, path: string, clock: Clock): { signal: AbortSignal; stop(): void } {
  const abort = new AbortController();
  let cancel = () => {};
  let stopped = false;
  let granted = reservation.bytes;
  const look = async (): Promise<void> => {
    const taken = await stat(path).then(
      (found) => found.blocks * 512,
      () => 0,
    );
    if (granted - taken < Math.min(GiB, granted) / 2) {
      await reservation.resize(granted + GiB);
      granted += GiB;
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
