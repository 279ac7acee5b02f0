import type { Clock } from '../runtime/clock.ts';
import type { KubernetesStore } from '../stores/kubernetes/index.ts';
import type { Health } from '../telemetry/health.ts';

/** The API server is heard every minute, by a bookmark at the least. */
const SILENCE_MS = 15 * 60_000;
const LOOK_MS = 60_000;
/** A clock that was set forward looks like silence until the next bookmark. */
const DEAF_LOOKS = 3;

/**
 * Alive as long as a restart would not help. An API server that is down is no reason: downloads would be cut, and nobody is helped.
 * But when it answers a connection made for the question, and our own have not heard from it for a quarter of an hour, then they
 * hang in a way that nothing else has caught.
 */
export function watchHearing(
  health: Health,
  store: Pick<KubernetesStore, 'lastContact' | 'answers'>,
  clock: Clock,
  signal: AbortSignal,
): void {
  let deafLooks = 0;
  const look = async (): Promise<void> => {
    const silent = clock.now() - store.lastContact > SILENCE_MS;
    deafLooks = silent && (await store.answers()) ? deafLooks + 1 : 0;
    if (!signal.aborted) clock.after(LOOK_MS, () => void look());
  };
  clock.after(LOOK_MS, () => void look());
  health.live('api server', () =>
    deafLooks < DEAF_LOOKS
      ? undefined
      : `it answers, but our watches have not heard from it for ${SILENCE_MS / 60_000} minutes`,
  );
}
