import { expect } from 'vitest';
import { findCondition, type KStatusObject, kstatus, READY, RECONCILING, STALLED } from '../../src/api/conditions.ts';

const REASON = /^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$/;
const RFC3339 = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/;

/**
 * What kstatus, Flux and `kubectl wait` rely on in the status of an object that a controller has looked at
 * (https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus, "Conditions"; metav1.Condition): any kind of ours.
 */
export function expectKstatus(object: KStatusObject): void {
  const { metadata, status } = object;
  const conditions = status?.conditions ?? [];
  const types = conditions.map((each) => each.type);
  expect(new Set(types).size, `no condition stands twice: ${types.join(', ')}`).toBe(types.length);
  for (const each of conditions) {
    const where = `${each.type}=${each.status}`;
    expect(['True', 'False', 'Unknown'], where).toContain(each.status);
    expect(each.reason, `${where}: the reason is one CamelCase word`).toMatch(REASON);
    expect(each.reason.length, where).toBeLessThanOrEqual(1024);
    expect(each.message.length, where).toBeLessThanOrEqual(32_768);
    expect(each.lastTransitionTime, where).toMatch(RFC3339);
    expect(each.observedGeneration, `${where} says which generation it speaks of`).toBe(status?.observedGeneration);
  }
  expect(status?.observedGeneration, 'observedGeneration is set').toBeDefined();
  expect(status?.observedGeneration, 'no generation is observed before it is there').toBeLessThanOrEqual(
    metadata.generation,
  );

  const [ready, reconciling, stalled] = [READY, RECONCILING, STALLED].map((type) => findCondition(conditions, type));
  expect(ready, 'Ready is always there').toBeDefined();
  // Abnormal-true conditions are absent, not False, when they do not hold.
  if (reconciling !== undefined) expect(reconciling.status, 'Reconciling is True or absent').toBe('True');
  if (stalled !== undefined) expect(stalled.status, 'Stalled is True or absent').toBe('True');
  expect(reconciling !== undefined && stalled !== undefined, 'Reconciling and Stalled exclude each other').toBe(false);
  if (ready?.status === 'True') {
    expect(reconciling, 'what is Ready is not Reconciling').toBeUndefined();
    expect(stalled, 'what is Ready is not Stalled').toBeUndefined();
  } else {
    expect(reconciling ?? stalled, 'what is not Ready says whether it goes on or is Stalled').toBeDefined();
  }
  if (stalled !== undefined) expect(ready?.status, 'what is Stalled is not Ready').toBe('False');

  if (metadata.deletionTimestamp !== undefined || status?.observedGeneration !== metadata.generation) return;
  const expected = ready?.status === 'True' ? 'Current' : stalled === undefined ? 'InProgress' : 'Failed';
  expect(kstatus(object).status, 'kstatus reads it as it is meant').toBe(expected);
}
