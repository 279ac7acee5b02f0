import type { IncomingHttpHeaders } from 'node:http';
import { Failure, type Reason } from '../../api/failure.ts';
import type { Validators } from '../../cache/cache.ts';

/** A pause that the other side asks for is believed up to an hour. */
export const MAX_RETRY_AFTER_MS = 3_600_000;

export interface ContentRange {
  /** First and last byte, inclusive; undefined in the answer to an unsatisfiable range (`bytes * /1234`). */
  range?: { start: number; end: number };
  /** Undefined where the origin says `*`. */
  total?: number;
}

/** `Content-Range` of RFC 9110 §14.4, for bytes. Undefined for anything that contradicts itself. */
export function parseContentRange(value: string | undefined): ContentRange | undefined {
  const match = /^bytes (?:(\d{1,16})-(\d{1,16})|\*)\/(?:(\d{1,16})|\*)$/i.exec(value?.trim() ?? '');
  if (match === null) return undefined;
  const [, first, last, size] = match;
  const total = size === undefined ? undefined : Number(size);
  if (first === undefined || last === undefined) return total === undefined ? undefined : { total };
  const [start, end] = [Number(first), Number(last)];
  if (end < start || (total !== undefined && end >= total)) return undefined;
  return { range: { start, end }, ...(total !== undefined && { total }) };
}

/** `Retry-After` of RFC 9110 §10.2.3: seconds or an HTTP date. In milliseconds from `now`; undefined for anything else. */
export function parseRetryAfter(value: string | undefined, now: number): number | undefined {
  const text = value?.trim() ?? '';
  const ms = /^\d{1,12}$/.test(text) ? Number(text) * 1000 : dateOf(text) - now;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS);
}

const IMF_FIXDATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/;

/** The one date format that senders may generate (RFC 9110 §5.6.7); NaN for others. */
function dateOf(text: string): number {
  return IMF_FIXDATE.test(text) ? Date.parse(text) : Number.NaN;
}

/** `Content-Length`; undefined when absent. The parser has refused two that differ. @throws Failure LengthMismatch */
export function contentLength(headers: IncomingHttpHeaders, where: string): number | undefined {
  const text = headers['content-length'];
  if (text === undefined || headers['transfer-encoding'] !== undefined) return undefined;
  if (!/^\d{1,16}$/.test(text)) {
    throw new Failure('LengthMismatch', `${where}: the origin's Content-Length is no number`);
  }
  return Number(text);
}

/**
 * What identifies this state of the file. Only strong validators are kept: bytes of two fetches may be joined only where they
 * cannot differ (RFC 9110 §8.8.1, §13.1.5). A Last-Modified is strong when it is at least a second older than the answer (§8.8.2.2).
 */
export function validatorsOf(headers: IncomingHttpHeaders, totalBytes: number | undefined): Validators {
  const { etag, 'last-modified': lastModified = '', date = '' } = headers;
  const strongDate = dateOf(date) - dateOf(lastModified) >= 1000;
  return {
    ...(etag !== undefined && /^"[\x21\x23-\x7e\x80-\xff]*"$/.test(etag) && { etag }),
    ...(strongDate && { lastModified }),
    ...(totalBytes !== undefined && { totalBytes }),
  };
}

/** The validator to send in If-Range; undefined where the rest of a file cannot be asked for safely. */
export function ifRange(validators: Validators): string | undefined {
  return validators.etag ?? validators.lastModified;
}

/** Any final status that is not a body to take. @param where the URL, cleaned. */
export function failureOfStatus(status: number, headers: IncomingHttpHeaders, where: string, now: number): Failure {
  const [reason, cure] = meaning(status);
  const retryAfterMs = parseRetryAfter(headers['retry-after'], now);
  return new Failure(reason, `${where}: the origin answered ${status}${cure}`, {
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  });
}

function meaning(status: number): [Reason, string] {
  switch (status) {
    case 401:
      return ['Unauthorized', ' (unauthorized); give credentials in secretRef, or correct them'];
    case 403:
      return ['Forbidden', ' (forbidden); check the credentials in secretRef, or whether a signed URL has expired'];
    case 404:
    case 410:
      return ['NotFound', '; the file is not there: correct the URL'];
    case 429:
      return ['TooManyRequests', ' (too many requests)'];
    case 408:
    case 425:
      return ['ServerError', ''];
    default:
      break;
  }
  if (status >= 400 && status < 500) return ['InvalidSpec', '; it does not accept such a request: correct the URL'];
  return ['ServerError', ''];
}
