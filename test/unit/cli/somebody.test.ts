import { describe, expect, test } from 'vitest';
import type { ApiObject } from '../../../src/api/types.ts';
import { isForDecision, isForSomebody } from '../../../src/cli/somebody.ts';

interface Told {
  observedGeneration?: number;
  ready?: 'True' | 'False';
  /** Reason of the condition Reconciling; undefined: there is none. */
  reconciling?: string;
  stalled?: boolean;
}

function object(kind: ApiObject['kind'], reason: string, told: Told = {}): ApiObject {
  const { observedGeneration = 2, ready = 'False', reconciling = 'Pending', stalled = false } = told;
  const condition = { observedGeneration, lastTransitionTime: '2026-01-01T00:00:00Z', message: 'as it is' };
  return {
    kind,
    metadata: { name: 'a', generation: 2 },
    status: {
      observedGeneration,
      conditions: [
        { ...condition, type: 'Ready', status: ready, reason },
        stalled
          ? { ...condition, type: 'Stalled', status: 'True', reason }
          : { ...condition, type: 'Reconciling', status: 'True', reason: reconciling },
      ],
    },
  } as unknown as ApiObject;
}

describe.each(['VMImage', 'ImageSubscription', 'ImageSite'] as const)('a %s that waits', (kind) => {
  test.each(['MassLoss', 'Lost', 'LossLimit', 'IdentityChanged', 'HeldByCloud', 'ConfirmationRequired'])(
    'is for a person to decide: %s',
    (reason) => {
      expect(isForSomebody(object(kind, reason))).toBe(true);
      expect(isForDecision(object(kind, reason))).toBe(true);
    },
  );

  test.each(['SecretNotFound', 'SiteNotFound', 'QuotaExceeded', 'ListExpired', 'CrlMissing'])(
    'is for somebody, and may be on its way: %s',
    (reason) => {
      expect(isForSomebody(object(kind, reason))).toBe(true);
      expect(isForDecision(object(kind, reason))).toBe(false);
    },
  );

  test.each(['SiteNotReady', 'CacheFull', 'DiskFull', 'NetworkError', 'Reading', 'Fetching', 'toString'])(
    'may go on by itself: %s',
    (reason) => {
      expect(isForSomebody(object(kind, reason))).toBe(false);
    },
  );

  test.each<[string, Told]>([
    ['of a generation that was not looked at yet', { observedGeneration: 1 }],
    ['that is stalled', { stalled: true }],
    ['that is being probed', { reconciling: 'Probing' }],
  ])('is not told from what is said of one %s', (_, told) => {
    expect(isForSomebody(object(kind, 'IdentityChanged', told))).toBe(false);
  });
});
