import { Failure, type Reason } from '../../api/failure.ts';

/** What a service answered instead of what was asked. */
export interface ErrorAnswer {
  status: number;
  headers: Readonly<Record<string, string>>;
  body: string;
}

const MAX_TEXT = 300;

/**
 * An HTTP error as a Failure. `what` says who was asked to do what: `Glance at https://… could not make the image`.
 * `now` (milliseconds) turns a Retry-After date into a pause.
 */
export function failureOf(what: string, answer: ErrorAnswer, now: number): Failure {
  const text = shortText(answer.body);
  const { reason, cure } = classify(answer.status, text);
  const retryAfterMs = retryAfter(answer.headers['retry-after'], now);
  const detail = text === '' ? '' : `: ${text}`;
  return new Failure(
    reason,
    `${what}: HTTP ${answer.status}${detail}${cure === '' ? '' : ` (${cure})`}`,
    retryAfterMs === undefined ? {} : { retryAfterMs },
  );
}

function classify(status: number, text: string): { reason: Reason; cure: string } {
  switch (status) {
    case 400:
    case 415:
    case 422:
      return { reason: 'Rejected', cure: '' };
    case 401:
      return { reason: 'Unauthorized', cure: "check the credentials in the site's Secret" };
    case 403:
      return { reason: 'Forbidden', cure: "the site's account may not do this: ask the cloud's admin for the role" };
    case 404:
      return { reason: 'NotFound', cure: '' };
    case 408:
      return { reason: 'Timeout', cure: '' };
    case 409:
    case 410:
      return { reason: 'Conflict', cure: '' };
    case 413:
      // One status for two facts: Glance's image_size_cap, which no waiting helps, and a project's storage quota. The framework puts
      // "the body of your request was too large" before both.
      return /image is too large|image larger than/i.test(text)
        ? { reason: 'TooLarge', cure: 'the image is larger than this cloud allows' }
        : { reason: 'QuotaExceeded', cure: "remove images of the project or ask the cloud's admin for more quota" };
    case 429:
      return { reason: 'TooManyRequests', cure: '' };
    default:
      return { reason: 'ServerError', cure: '' };
  }
}

/** Retry-After: seconds, or a date (RFC 9110, section 10.2.3); in milliseconds, a day at most. */
export function retryAfter(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined;
  const pause = /^\d{1,9}$/.test(value.trim()) ? Number(value) * 1000 : Date.parse(value) - now;
  return Number.isFinite(pause) ? Math.min(Math.max(pause, 0), 86_400_000) : undefined;
}

const Entities: Readonly<Record<string, string>> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  '#39': "'",
  '#x27': "'",
  nbsp: ' ',
};

/**
 * A readable line out of an error's body. Keystone answers JSON with `error.message`, Glance HTML whose heading repeats the status,
 * a proxy in front of them anything at all.
 */
export function shortText(body: string): string {
  const fromJson = messageOf(body);
  const text =
    fromJson ??
    body
      .slice(0, 16_384)
      .replace(/<(title|h1|style|script)\b[^<]*<\/\1>/gi, ' ')
      .replace(/<[^<>]*>/g, ' ')
      .replace(/&([a-z]{2,4}|#\w{2,4});/gi, (whole, name: string) => Entities[name.toLowerCase()] ?? whole);
  // Control characters would break the one line of a table that shows the message.
  const line = text.replace(/[\s\p{Cc}]+/gu, ' ').trim();
  return line.length > MAX_TEXT ? `${line.slice(0, MAX_TEXT - 1)}…` : line;
}

function messageOf(body: string): string | undefined {
  if (!body.trimStart().startsWith('{')) return undefined;
  try {
    const parsed = JSON.parse(body) as { error?: { message?: unknown }; message?: unknown } | null;
    const message = parsed?.error?.message ?? parsed?.message;
    return typeof message === 'string' ? message : undefined;
  } catch {
    return undefined;
  }
}
