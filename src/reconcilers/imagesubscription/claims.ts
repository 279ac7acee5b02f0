import type { ImageSubscription } from '../../api/types.ts';

/** What decides between two subscriptions of a namespace that offer the same image. */
type Claimant = Pick<ImageSubscription, 'metadata' | 'spec'>;

/**
 * The one that the guid belongs to first: a signed list goes before an unsigned one, then the older subscription, then (both made in
 * the same second) the lower uid. The same order for everyone who looks.
 */
export function byClaim(a: Claimant, b: Claimant): number {
  const [x, y] = [isSigned(a), isSigned(b)];
  if (x !== y) return x ? -1 : 1;
  const [since, other] = [a.metadata.creationTimestamp, b.metadata.creationTimestamp];
  if (since !== other) return since < other ? -1 : 1;
  return a.metadata.uid < b.metadata.uid ? -1 : 1;
}

/** Whether only the uids tell two subscriptions apart: times of creation are whole seconds. */
export function isEven(a: Claimant, b: Claimant): boolean {
  return isSigned(a) === isSigned(b) && a.metadata.creationTimestamp === b.metadata.creationTimestamp;
}

function isSigned({ spec }: Pick<ImageSubscription, 'spec'>): boolean {
  return spec.trust.unsigned === undefined;
}
