import { ANNOTATIONS } from './types.ts';

type Annotations = Readonly<Record<string, string>> | undefined;

/**
 * What was asked for last: a new value is a new request. Of our own annotation and Flux's the later one counts, so that either is
 * heard whoever has asked before. Which of them was not handled yet must not decide: both stay, and would take turns for ever. A value
 * of our own that is no time (any text is allowed) cannot be compared, and counts alone.
 */
export function requestOf(annotations: Annotations): string | undefined {
  const own = annotations?.[ANNOTATIONS.requestedAt];
  const flux = annotations?.[ANNOTATIONS.fluxRequestedAt];
  if (own === undefined || flux === undefined) return own ?? flux;
  return timeOf(flux) > timeOf(own) ? flux : own;
}

/** A request that is later than what stands there, whatever the clocks of those who wrote it: RFC 3339. */
export function requestAfter(annotations: Annotations, now: number): string {
  const standing = timeOf(annotations?.[ANNOTATIONS.fluxRequestedAt] ?? '');
  return new Date(Number.isNaN(standing) ? now : Math.max(now, standing + 1)).toISOString();
}

/** NaN for what is no RFC 3339 time: nothing is later than that, nor earlier. `Date.parse` alone takes "1" for a year. */
function timeOf(text: string): number {
  return /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) : Number.NaN;
}
