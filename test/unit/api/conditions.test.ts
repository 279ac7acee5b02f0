import { describe, expect, it } from 'vitest';
import {
  clip,
  findCondition,
  isTrue,
  kstatus,
  MESSAGE_LIMIT,
  removeCondition,
  setCondition,
  timestamp,
} from '../../../src/api/conditions.ts';

const T0 = Date.parse('2026-11-21T12:00:00.750Z');
const ready = { type: 'Ready', status: true, reason: 'Registered', message: 'all 2 sites', observedGeneration: 1 };

describe('setting a condition', () => {
  it('adds it with the time of now, in whole seconds', () => {
    expect(setCondition(undefined, ready, T0)).toEqual([
      { ...ready, status: 'True', lastTransitionTime: '2026-11-21T12:00:00Z' },
    ]);
  });

  it('keeps the time of the last transition while only the words change', () => {
    const before = setCondition(undefined, ready, T0);
    const after = setCondition(before, { ...ready, message: 'all 3 sites', observedGeneration: 2 }, T0 + 60_000);
    expect(after).toEqual([
      { ...ready, status: 'True', message: 'all 3 sites', observedGeneration: 2, lastTransitionTime: timestamp(T0) },
    ]);
    expect(before[0]?.message).toBe('all 2 sites');
  });

  it('takes a new time when the status changes', () => {
    const after = setCondition(setCondition(undefined, ready, T0), { ...ready, status: 'Unknown' }, T0 + 60_000);
    expect(after[0]).toMatchObject({ status: 'Unknown', lastTransitionTime: '2026-11-21T12:01:00Z' });
  });

  it('gives back the very same list when nothing changes, so that nothing is written', () => {
    const before = setCondition(undefined, ready, T0);
    expect(setCondition(before, ready, T0 + 60_000)).toBe(before);
  });

  it('leaves the others in their places', () => {
    const others = setCondition(setCondition(undefined, ready, T0), { ...ready, type: 'Available' }, T0);
    const after = setCondition(others, { ...ready, status: false }, T0);
    expect(after.map(({ type, status }) => `${type}=${status}`)).toEqual(['Ready=False', 'Available=True']);
  });

  it('shortens a message that would not fit, between characters', () => {
    expect(clip('x'.repeat(MESSAGE_LIMIT))).toHaveLength(MESSAGE_LIMIT);
    expect(clip('abc🐧def', 5)).toBe('abc🐧…');
    const long = setCondition(undefined, { ...ready, message: 'x'.repeat(MESSAGE_LIMIT + 1) }, T0);
    expect(long[0]?.message).toMatch(/^x+…$/);
  });

  it('is undone by removing it, and by nothing where it is not there', () => {
    const before = setCondition(undefined, ready, T0);
    expect(removeCondition(before, 'Ready')).toEqual([]);
    expect(removeCondition(before, 'Stalled')).toBe(before);
    expect(findCondition(before, 'Stalled')).toBeUndefined();
    expect(isTrue(before, 'Ready')).toBe(true);
    expect(isTrue(before, 'Stalled')).toBe(false);
  });
});

describe('kstatus', () => {
  const conditions = (types: Record<string, boolean | 'Unknown'>) =>
    Object.entries(types).reduce<ReturnType<typeof setCondition>>(
      (list, [type, status]) =>
        setCondition(list, { type, status, reason: 'R', message: `${type} it is`, observedGeneration: 2 }, T0),
      [],
    );
  const object = (types: Record<string, boolean | 'Unknown'>, observedGeneration = 2) => ({
    metadata: { generation: 2 },
    status: { observedGeneration, conditions: conditions(types) },
  });

  it.each([
    ['Terminating', { ...object({ Ready: true }), metadata: { generation: 2, deletionTimestamp: timestamp(T0) } }],
    ['InProgress', object({ Ready: true }, -1)],
    ['InProgress', object({ Ready: true, Stalled: true }, 1)],
    ['InProgress', object({ Ready: true, Reconciling: true })],
    ['Failed', object({ Ready: false, Stalled: true })],
    ['InProgress', object({ Ready: false })],
    ['InProgress', object({ Ready: 'Unknown' })],
    ['Current', object({ Ready: true, Reconciling: false, Stalled: false })],
    ['Current', object({})],
  ])('is %s of %j', (status, given) => {
    expect(kstatus(given).status).toBe(status);
  });

  it('passes on the message of the condition that decided', () => {
    expect(kstatus(object({ Ready: false, Stalled: true })).message).toBe('Stalled it is');
    expect(kstatus(object({ Ready: false })).message).toBe('Ready it is');
  });
});
