import { describe, expect, it } from 'vitest';
import type { ApiObject } from '../../../src/api/types.ts';
import { unheard } from '../../../src/cli/cluster-place.ts';

const MADE = '2026-01-01T00:00:00Z';
const later = (seconds: number) => Date.parse(MADE) + seconds * 1000;

function image(status: object, annotations: Record<string, string> = {}): Pick<ApiObject, 'metadata' | 'status'> {
  const metadata = {
    name: 'a',
    namespace: 'default',
    uid: 'u',
    generation: 1,
    resourceVersion: '1',
    creationTimestamp: MADE,
    annotations,
  };
  return { metadata, status };
}

describe('what of a cluster nobody has taken up', () => {
  const asked = { 'imageproxy.dev/requestedAt': MADE };
  it.each([
    ['a new object', image({ observedGeneration: -1 }), 5, undefined],
    [
      'an object that is new no more',
      image({ observedGeneration: -1 }),
      31,
      /^No controller has looked at it yet: see/,
    ],
    ['one that was looked at', image({ observedGeneration: 1 }), 3600, undefined],
    ['a new request', image({ observedGeneration: 1 }, asked), 5, undefined],
    [
      'an old request',
      image({ observedGeneration: 1 }, asked),
      31,
      /^What was asked for at 2026[^ ]+ is not answered yet: a look at a site or the reading of a list may take that long, or no controller runs; see/,
    ],
    [
      'an old request after which Flux has asked, and was answered',
      image(
        { observedGeneration: 1, lastHandledReconcileAt: new Date(later(5)).toISOString() },
        { ...asked, 'reconcile.fluxcd.io/requestedAt': new Date(later(5)).toISOString() },
      ),
      60,
      undefined,
    ],
    ['an answered one', image({ observedGeneration: 1, lastHandledReconcileAt: MADE }, asked), 31, undefined],
    [
      'a request that is no date',
      image({ observedGeneration: 1 }, { 'imageproxy.dev/requestedAt': 'now' }),
      31,
      undefined,
    ],
  ])('%s', (_, object, seconds, expected) => {
    const told = unheard(object, later(seconds));
    if (expected === undefined) expect(told).toBeUndefined();
    else expect(told).toMatch(expected);
  });
});
