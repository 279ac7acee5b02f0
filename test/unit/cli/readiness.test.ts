import { describe, expect, test } from 'vitest';
import { readinessOf } from '../../../src/cli/readiness.ts';
import type { Kind, Resource } from '../../../src/stores/store.ts';

const object = (name: string, status: 'True' | 'False' | undefined, reason = 'Ready') => ({
  metadata: { name },
  spec: {},
  status: status === undefined ? {} : { conditions: [{ type: 'Ready', status, reason }] },
});
const suspended = (name: string, status: 'True' | 'False', reason: string) => ({
  ...object(name, status, reason),
  spec: { suspend: true },
});
const OBJECTS: Partial<Record<Kind, object[]>> = {
  VMImage: [object('a', 'True'), object('b', 'False', 'DigestMismatch'), object('new', undefined)],
  ImageSite: [object('east', 'True', 'Probed'), object('west', 'False', 'Unauthorized')],
};
const storeOf = (objects: Partial<Record<Kind, object[]>>) => ({
  list: <T extends Resource>(kind: Kind) => (objects[kind] ?? []) as unknown as readonly T[],
});
const toldOf = (duties: { summarizes: boolean; serves: (site: string) => boolean }, objects = OBJECTS) =>
  [...readinessOf(storeOf(objects), duties)].map(
    ({ kind, name, ready, reason }) => `${kind} ${name} ${ready} ${reason}`,
  );

describe('what metrics tell of readiness', () => {
  test('is the condition Ready of all objects, also of those that nobody has looked at yet', () => {
    expect(toldOf({ summarizes: true, serves: () => true })).toEqual([
      'VMImage a True Ready',
      'VMImage b False DigestMismatch',
      'VMImage new Unknown ',
      'ImageSite east True Probed',
      'ImageSite west False Unauthorized',
    ]);
  });

  test('is of several controllers told by one each', () => {
    expect(toldOf({ summarizes: false, serves: (site) => site === 'west' })).toEqual([
      'ImageSite west False Unauthorized',
    ]);
  });

  // Its conditions stay as they were; an alert on them would speak until somebody resumed it.
  test('is of whatever is suspended that it is, whatever its condition said before', () => {
    const objects = {
      VMImage: [suspended('resting', 'True', 'Registered')],
      ImageSite: [suspended('away', 'False', 'Suspended')],
      ImageSubscription: [
        suspended('paused', 'False', 'SignatureInvalid'),
        // Its deletion is worked on, and may wait for a person.
        {
          ...suspended('leaving', 'False', 'ConfirmationRequired'),
          metadata: { name: 'leaving', deletionTimestamp: '2026-11-22T00:00:00Z' },
        },
      ],
    };
    expect(toldOf({ summarizes: true, serves: () => true }, objects)).toEqual([
      'VMImage resting True Suspended',
      'ImageSite away False Suspended',
      'ImageSubscription paused False Suspended',
      'ImageSubscription leaving False ConfirmationRequired',
    ]);
  });
});
