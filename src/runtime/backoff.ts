import type { Clock } from './clock.ts';

export interface BackoffPolicy {
  baseMs: number;
  maxMs: number;
}

/**
 * The pause before try number `attempts + 1`: doubled each time, bounded, and spread over its upper half, so that a thousand
 * objects that failed together do not come back together.
 */
export function backoffMs(attempts: number, policy: BackoffPolicy, clock: Pick<Clock, 'random'>): number {
  const exponent = Math.min(Math.max(attempts - 1, 0), 40);
  const full = Math.min(policy.maxMs, policy.baseMs * 2 ** exponent);
  return Math.round(full / 2 + (full / 2) * clock.random());
}

/** `ms`, give or take a tenth: periodic looks of many objects drift apart instead of marching in step. */
export function jittered(ms: number, clock: Pick<Clock, 'random'>): number {
  return Math.round(ms * (0.9 + 0.2 * clock.random()));
}
