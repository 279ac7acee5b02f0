import { findCondition, kstatus, READY, RECONCILING } from '../api/conditions.ts';
import { REASONS } from '../api/failure.ts';
import type { ApiObject, Condition } from '../api/types.ts';

/** Waits for room: they may be long, and the message says what the room is taken by. */
export const WAITS_FOR_ROOM: readonly (string | undefined)[] = ['CacheFull', 'DiskFull'];

/** Waits that end by themselves as the work goes on. */
const PASSING: readonly (string | undefined)[] = [
  'SiteNotReady',
  'NoControllerForSite',
  'CacheInUse',
  ...WAITS_FOR_ROOM,
];

/** What stays as it is until a person has looked and decides. Anything else that is missing may be on its way. */
const DECISIONS: readonly (string | undefined)[] = [
  'MassLoss',
  'Lost',
  'LossLimit',
  'IdentityChanged',
  'HeldByCloud',
  'ConfirmationRequired',
];

/** Nothing that a command does will end it. */
export function needsSomebody(reason: string | undefined): boolean {
  const known = Object.entries(REASONS).find(([name]) => name === reason);
  return known?.[1] === 'Waiting' && !PASSING.includes(reason);
}

type Told = Pick<ApiObject, 'metadata'> & { status?: { observedGeneration?: number; conditions?: Condition[] } };

/**
 * Looked at, and waiting for what only a person can do: nobody here can say for how long. (A site that is being probed goes on telling
 * what was before.)
 */
export function isForSomebody({ metadata, status }: Told): boolean {
  return (
    status?.observedGeneration === metadata.generation &&
    kstatus({ metadata, status }).status === 'InProgress' &&
    findCondition(status.conditions, RECONCILING)?.reason !== 'Probing' &&
    needsSomebody(findCondition(status.conditions, READY)?.reason)
  );
}

/** The same, for a person's decision: what is only missing may be applied in this very moment, and is waited for. */
export function isForDecision(object: Told): boolean {
  return isForSomebody(object) && DECISIONS.includes(findCondition(object.status?.conditions, READY)?.reason);
}
