import { describe, expect, test } from 'vitest';
import { readinessOf } from '../../../src/cli/readiness.ts';
import type { Kind, Resource } from '../../../src/stores/store.ts';

const object = (name: string, status: 'True' | 'False' | undefined, reason = 'Ready') => ({
  metadata: { name },
  status: status === undefined ? {} : { conditions: [{ type: 'Ready', status, reason }] },
});
const OBJECTS: Partial<Record<Kind, object[]>> = {
  VMImage: [object('a', 'True'), object('b', 'False', 'DigestMismatch'), object('new', undefined)],
  ImageSite: [object('east', 'True', 'Probed'), object('west', 'False', 'Unauthorized')],
};
const store = { list: <T extends Resource>(kind: Kind) => (OBJECTS[kind] ?? []) as unknown as readonly T[] };
const toldOf = (duties: { summarizes: boolean; serves: (site: string) => boolean }) =>
  [...readinessOf(store, duties)].map(({ kind, name, ready, reason }) => `${kind} ${name} ${ready} ${reason}`);

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
});
