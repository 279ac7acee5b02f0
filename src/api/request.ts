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

/**
 * A request that is later than what was asked for and what was handled before, whatever the clocks of those who wrote that: RFC 3339.
 * @param handled `status.lastHandledReconcileAt`
 */
export function requestAfter(annotations: Annotations, handled: string | undefined, now: number): string {
  const standing = [annotations?.[ANNOTATIONS.requestedAt], annotations?.[ANNOTATIONS.fluxRequestedAt], handled];
  const next = standing.map((each) => timeOf(each ?? '') + 1).filter((at) => !Number.isNaN(at));
  return new Date(Math.max(now, ...next)).toISOString();
}

/**
 * Whether who made this request has the answer: it was handled, or a later one, which takes its place when others ask meanwhile. What is
 * no time is answered by itself alone.
 * @param handled `lastHandledReconcileAt` of a status, or of a row
 */
export function isAnswered(request: string, handled: string | undefined): boolean {
  return handled === request || timeOf(handled ?? '') >= timeOf(request);
}

/** NaN for what is no RFC 3339 time: nothing is later than that, nor earlier. `Date.parse` alone takes "1" for a year. */
function timeOf(text: string): number {
  return /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) : Number.NaN;
}
