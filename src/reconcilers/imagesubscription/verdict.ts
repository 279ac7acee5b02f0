import { READY, RECONCILING, STALLED } from '../../api/conditions.ts';
import type { ImageSubscriptionStatus } from '../../api/types.ts';
import { type Look, tellCondition, told, untell } from './look.ts';

/** What the conditions say in the end. `stalled`: only a change helps; `going`: it goes on by itself, or waits for somebody. */
export interface Verdict {
  readonly state: 'Ready' | 'Going' | 'Stalled';
  readonly reason: string;
  readonly message: string;
}

export function conclude(look: Look, { state, reason, message }: Verdict): void {
  look.status.observedGeneration = look.generation;
  const before = told(look, READY);
  tellCondition(look, READY, state === 'Ready', reason, message);
  if (state === 'Going') tellCondition(look, RECONCILING, true, reason, message);
  else untell(look, RECONCILING);
  if (state === 'Stalled') tellCondition(look, STALLED, true, reason, message);
  else untell(look, STALLED);
  refresh(look);
  if (before?.status !== 'True' && state === 'Ready') look.log.info(`subscription is followed: ${message}`);
}

/** Every condition speaks of the generation that was looked at. */
function refresh({ status, generation }: Look): void {
  status.conditions = (status.conditions ?? []).map((condition) =>
    condition.observedGeneration === generation ? condition : { ...condition, observedGeneration: generation },
  );
}

/** The images' own state, apart from the list's: a person may wait for it. */
export function tellImages(look: Look, counts: NonNullable<ImageSubscriptionStatus['counts']>): void {
  const { images = 0, ready = 0, retired = 0, failed = 0 } = counts;
  const wanted = images - retired;
  const words = `${ready} of ${wanted} images are in service${failed > 0 ? `, ${failed} stalled` : ''}`;
  const all = ready >= wanted && failed === 0;
  tellCondition(look, 'ImagesReady', all, all ? 'InService' : failed > 0 ? 'ImagesStalled' : 'ImagesPending', words);
}
