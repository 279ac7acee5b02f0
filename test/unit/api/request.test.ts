import { describe, expect, it, test } from 'vitest';
import { isAnswered, requestAfter, requestOf } from '../../../src/api/request.ts';

const OWN = 'imageproxy.dev/requestedAt';
const FLUX = 'reconcile.fluxcd.io/requestedAt';
const both = (own: string | undefined, flux: string | undefined) => ({
  ...(own === undefined ? {} : { [OWN]: own }),
  ...(flux === undefined ? {} : { [FLUX]: flux }),
});
const EARLY = '2026-11-21T12:00:00.5Z';
const LATE = '2026-11-21T12:00:01.123456789Z';

describe('what was asked for last', () => {
  test.each<[string | undefined, string | undefined, string | undefined]>([
    [undefined, undefined, undefined],
    [EARLY, undefined, EARLY],
    [undefined, EARLY, EARLY],
    [EARLY, LATE, LATE],
    [LATE, EARLY, LATE],
    // As times, not as texts: 13:00 in Zürich is 12:00 in Greenwich.
    ['2026-11-21T13:00:00+01:00', LATE, LATE],
    // What is no time cannot be compared: our own counts, and every change of it is a request.
    ['please', LATE, 'please'],
    ['1', LATE, '1'],
    [EARLY, 'please', EARLY],
    [EARLY, EARLY, EARLY],
  ])('own %j, Flux %j: %j', (own, flux, expected) => {
    expect(requestOf(both(own, flux))).toBe(expected);
  });

  it('is nothing where there are no annotations', () => {
    expect(requestOf(undefined)).toBeUndefined();
  });
});

describe('a new request', () => {
  const now = Date.parse('2026-11-21T12:00:00Z');

  test.each<[string, string | undefined]>([
    ['nobody has asked', undefined],
    ['Flux has asked before', '2026-11-21T11:00:00Z'],
    ['the clock of Flux is ahead', '2026-11-21T12:34:56.789123Z'],
    ['Flux has said no time', 'now'],
  ])('is the last one where %s', (_, flux) => {
    const own = requestAfter(both(undefined, flux), undefined, now);
    expect(Date.parse(own)).toBeGreaterThanOrEqual(now);
    expect(requestOf(both(own, flux))).toBe(own);
  });

  it('is later than what somebody with a clock ahead has asked for, and than what was handled', () => {
    const ahead = '2026-11-21T12:34:56.789Z';
    const next = '2026-11-21T12:34:56.790Z';
    expect(requestAfter(both(ahead, undefined), undefined, now)).toBe(next);
    expect(requestAfter(undefined, ahead, now)).toBe(next);
    expect(isAnswered(next, ahead)).toBe(false);
  });
});

describe('who has asked', () => {
  test.each<[boolean, string, string, string | undefined]>([
    [false, 'nothing was handled', EARLY, undefined],
    [false, 'one before was handled', LATE, EARLY],
    [true, 'it was handled', EARLY, EARLY],
    [true, 'somebody else has asked later, and that was handled', EARLY, LATE],
    [true, 'what is no time was handled', 'please', 'please'],
    [false, 'what is no time was handled, which may have come before', EARLY, 'please'],
    [false, 'a time was handled, and it is none', 'please', LATE],
  ])('has the answer (%j) where %s', (answered, _, request, handled) => {
    expect(isAnswered(request, handled)).toBe(answered);
  });
});
