import { clear, departing, isTakenOut, leaveUnwanted, isInService, withdraw } from './leave.ts';
import { holdsAnything } from './named.ts';
import { lookAgain, type Round } from './round.ts';
import { rowOf, tell } from './rows.ts';
import type { Target } from './targets.ts';

/** Whether the image is to be out of service, and why. */
export function endOf(round: Round): 'Deactivated' | 'Expired' | undefined {
  const { spec } = round.image;
  if (spec.state === 'Deactivated') return 'Deactivated';
  if (spec.expiresAt === undefined) return undefined;
  const at = Date.parse(spec.expiresAt);
  if (at > round.now) {
    lookAgain(round, at);
    return undefined;
  }
  return spec.onExpiry === 'Retain' ? undefined : 'Expired';
}

/** Out of service everywhere, or removed, as the end says. */
export function withdrawAll(round: Round, targets: readonly Target[], end: 'Deactivated' | 'Expired'): void {
  const { image, deps } = round;
  deps.jobs.leaveAll(round.key, (key) => key.startsWith('site/'));
  const remove = end === 'Expired' && image.spec.onExpiry === 'Delete';
  for (const target of targets) {
    const row = rowOf(round, target.name);
    const inputsHash = `${end}/${image.spec.onExpiry}`;
    if (!remove) withdraw(round, target, row, end, inputsHash);
    else if ((isTakenOut(row) && !holdsAnything(row)) || clear(round, target, row, inputsHash)) {
      row.observedGeneration = round.generation;
      tell(row, end, end, 'nothing of it is left here since it expired');
    }
  }
  // The switch for an image with a hole in it reaches every place where it is, also those that nothing asks for any more.
  const unasked = round.status.sites.filter(
    (row) => isInService(row) && !targets.some((target) => target.name === row.name),
  );
  const leaving = unasked.map((row) => departing(round, row));
  for (const target of leaving) withdraw(round, target, rowOf(round, target.name), end, end);
  leaveUnwanted(round, [...targets, ...leaving], true);
  deps.cache.unpinAll(image.metadata.uid);
}
