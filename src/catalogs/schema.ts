import { z } from 'zod';
import { type Algorithm, ALGORITHMS, type Digests, parseDigest } from '../api/digest.ts';
import { readDate } from './dates.ts';
import { MAX_FIELDS, MAX_ID, MAX_TEXT, MAX_URL } from './limits.ts';
import { plain, quoted } from './text.ts';

/**
 * What the lists' schemas are made of. Messages follow the field's name: "hv:size must be …". Schemas are made once: to
 * make one costs more than to read an image with it.
 */

/** Numbers and booleans where text is meant are found in every format: a version 1, a flag true. */
export function words(limit = MAX_TEXT) {
  return z
    .union([z.string(), z.number(), z.boolean()], { error: said('text') })
    .transform((value) => plain(String(value), limit));
}

/** The rule for a VMImage's guid and `approved[].id` (crds/). An id is never mended: two that differ would become one. */
const ID = /^[^\p{C}\s]([^\p{C}]*[^\p{C}\s])?$/u;

function asIdentifier<T extends z.ZodType<string | number>>(schema: T) {
  return schema
    .transform((value: string | number) => String(value).trim())
    .refine((value) => value.length <= MAX_ID && ID.test(value), {
      error: said(`an identifier of at most ${MAX_ID} printable characters`),
    });
}

export const identifier = asIdentifier(z.union([z.string(), z.number()], { error: said('an identifier') }));

/** Where a number would be YAML's reading of something else. */
export const quotedIdentifier = asIdentifier(z.string({ error: said('text in quotation marks') }));

/** A whole number that text may hold too: lists have both. */
export function count(what: string) {
  return z.union([z.number(), z.string()], { error: said(what) }).transform((value, context) => {
    const text = String(value).trim();
    const number = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(number)) return number;
    context.addIssue(`must be ${what}, not ${shown(value)}`);
    return z.NEVER;
  });
}

export const bytes = count('a number of bytes');

/** RFC 3339, in UTC. */
export const date = z.string({ error: said('a date') }).transform((text, context) => {
  const found = readDate(text.trim());
  if (found !== undefined) return found;
  context.addIssue(`must be a date like 2026-01-31T12:00:00Z, not ${quoted(text)}`);
  return z.NEVER;
});

function digest(algorithm: Algorithm) {
  return z.string({ error: said(`a ${algorithm} digest`) }).transform((text, context) => {
    const found = parseDigest(`${algorithm}:${text.trim()}`);
    if (found !== undefined) return found.hex;
    context.addIssue(`must be a ${algorithm} digest in hex, not ${quoted(text)}`);
    return z.NEVER;
  });
}

/** Hex in lower case. */
export const digests = {
  sha512: digest('sha512'),
  sha256: digest('sha256'),
  sha1: digest('sha1'),
  md5: digest('md5'),
} as const satisfies Record<Algorithm, z.ZodType<string>>;

/** The order of the document is of no importance to anybody; the strongest is what people want to see. */
export function strongestFirst(found: Digests): Digests {
  return Object.fromEntries(ALGORITHMS.flatMap((name) => (found[name] === undefined ? [] : [[name, found[name]]])));
}

/** Where a VMImage may take bytes from: http or https. */
export const location = z.string({ error: said('a URL') }).transform((text, context) => {
  const problem = locationProblem(text.trim());
  if (problem === undefined) return text.trim();
  context.addIssue(problem);
  return z.NEVER;
});

/** What is wrong with a URL; undefined when a VMImage can have it (crds/: source.http.urls). */
export function locationProblem(text: string): string | undefined {
  if (text.length > MAX_URL) return `is longer than ${MAX_URL} characters`;
  const url = URL.parse(text);
  if (url === null || /[\s\p{C}]/u.test(text)) return `must be a URL, not ${quoted(text)}`;
  if (!/^https?:$/.test(url.protocol) || !/^https?:\/\/[^/?#]/i.test(text)) {
    return `must be an http or https URL: ${plain(url.protocol, 20)} cannot be fetched`;
  }
  // Not quoted: it is a secret.
  if (url.username !== '' || url.password !== '') return 'holds a user name or password, which everybody could read';
  return undefined;
}

function said(what: string) {
  return ({ input }: { input?: unknown }) =>
    input === undefined ? 'is missing' : `must be ${what}, not ${shown(input)}`;
}

function shown(input: unknown): string {
  if (typeof input === 'string') return quoted(input);
  if (Array.isArray(input)) return 'a list';
  if (typeof input === 'object' && input !== null) return 'an object';
  return plain(String(input), 60);
}

/** A map, of whatever is in it. */
export type Mapping = Readonly<Record<string, unknown>>;

export function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A null says no more than a key that is not there: PHP writes one for the other, and YAML reads one from an empty value. */
export function withoutNulls(object: Mapping): Mapping {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null));
}

/** What zod found, in one line: the first three. */
export function complaint(error: z.ZodError): string {
  const found = error.issues.slice(0, 3).map(({ path, message }) => `${plain(path.join('.'), 120)} ${message}`.trim());
  const rest = error.issues.length - found.length;
  return found.join('; ') + (rest > 0 ? `; and ${rest} more` : '');
}

/**
 * Everything that an object says in text, under its own names. Made with `Object.fromEntries`, which defines and does not assign: a
 * key `__proto__` would be a key; it is left out nevertheless, for those who copy.
 */
export function scalars(object: Mapping, prefix = ''): Record<string, string> {
  const found: [string, string][] = [];
  for (const [key, value] of Object.entries(object)) {
    if (found.length === MAX_FIELDS) break;
    if (key === '__proto__' || key.length > MAX_ID) continue;
    if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') {
      found.push([prefix + plain(key, MAX_ID), plain(String(value))]);
    }
  }
  return Object.fromEntries(found);
}
