import { describe, expect, test } from 'vitest';
import type { VMImageStatus } from '../../../src/api/types.ts';
import { Pace } from '../../../src/reconcilers/vmimage/pace.ts';

const at = (percent: number, phase = 'Fetching'): VMImageStatus => ({
  phase,
  progress: { step: 'Fetch', bytes: percent, totalBytes: 100, percent },
  sites: [{ name: 'shelf', phase, progress: { step: 'Fetch', bytes: percent } }],
  summary: { sites: '0/1', progress: `${percent}%` },
});

describe('progress', () => {
  test('alone waits until a second has passed since the last write', () => {
    const pace = new Pace();
    expect(pace.notBefore('a/b', at(1), 5000)).toBeUndefined();
    pace.wrote('a/b', at(1), 5000);
    expect(pace.notBefore('a/b', at(2), 5400)).toBe(6000);
    expect(pace.notBefore('a/b', at(2), 5999)).toBe(6000);
    expect(pace.notBefore('a/b', at(3), 6000)).toBeUndefined();
    expect(pace.notBefore('a/other', at(2), 5400)).toBeUndefined();
  });

  test('goes at once with whatever else has changed', () => {
    const pace = new Pace();
    pace.wrote('a/b', at(1), 5000);
    expect(pace.notBefore('a/b', at(2, 'Verifying'), 5001)).toBeUndefined();
    pace.wrote('a/b', at(2, 'Verifying'), 5001);
    expect(pace.notBefore('a/b', at(3, 'Verifying'), 5002)).toBe(6001);
  });

  test('that has ended is forgotten: what is Ready is written when it differs', () => {
    const pace = new Pace();
    const ready: VMImageStatus = { phase: 'Ready', summary: { sites: '1/1', progress: '100%' } };
    pace.wrote('a/b', at(99), 5000);
    expect(pace.notBefore('a/b', ready, 5001)).toBeUndefined();
    pace.wrote('a/b', ready, 5001);
    expect(pace.notBefore('a/b', ready, 5002)).toBeUndefined();
  });
});
