/**
 * What may be logged. A secret must not reach a log line because somebody logged a whole options object, a Secret, or an error
 * that quotes a URL. Keys are judged by name at every depth, strings by what they hold.
 */

export const REDACTED = '[redacted]';

/** Deeper structure is cut, not followed: a log line is not a dump, and a cycle must end. */
const MAX_DEPTH = 6;
/** Entries shown of one object or array. */
const MAX_ENTRIES = 50;

/** Names are compared without case and punctuation: `X-Auth-Token`, `x_auth_token` and `xAuthToken` are one. */
const SECRET_NAMES: ReadonlySet<string> = new Set([
  'apikey',
  'cloudsyaml',
  'cookie',
  'credential',
  'credentials',
  'kubeconfig',
  'passphrase',
  'passwd',
  'privatekey',
  'pwd',
  'secretheaders',
  'secretkey',
  'secretaccesskey',
  'setcookie',
  'stringdata',
]);
/** `clientSecret`, `adminPassword`, `x-subject-token`; but not `secretRef`, which only names a Secret. */
const SECRET_ENDINGS = ['password', 'secret', 'secrets', 'token', 'tokens', 'authorization', 'accesskey'];

/** Whether a field of this name holds a secret, whatever its value looks like. */
export function isSecretName(name: string): boolean {
  const plain = name.toLowerCase().replaceAll(/[^a-z0-9]/g, '');
  return SECRET_NAMES.has(plain) || SECRET_ENDINGS.some((ending) => plain.endsWith(ending));
}

/** `scheme://user:password@host/path?query`; the authority's `@` is looked for up to the first slash, quote or space. */
const URL_IN_TEXT = /([a-z][a-z0-9+.-]{0,20}:\/\/)(?:[^\s/@"'\\?#<>]*@)*([^\s?#"'\\<>]*)(\?[^\s#"'\\<>]*)?/gi;
/** Sixteen characters: `Basic authentication` is prose. */
const AUTHORIZATION_IN_TEXT = /\b(Bearer|Basic)\s+[\w+/.~-]{16,}=*/gi;
/** In a log line a line break is the two characters `\n`. */
const PRIVATE_KEY_IN_TEXT = /-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*?(?:-----END [A-Z ]*PRIVATE KEY-----|(?="|$))/g;

/** Takes user information and query strings out of URLs, and credentials and private keys out of any text. */
export function redactText(text: string): string {
  let clean = text;
  if (clean.includes('://')) {
    clean = clean.replace(URL_IN_TEXT, (_all, scheme: string, rest: string, query: string | undefined) =>
      query === undefined ? scheme + rest : `${scheme}${rest}?${REDACTED}`,
    );
  }
  clean = clean.replace(AUTHORIZATION_IN_TEXT, `$1 ${REDACTED}`);
  if (clean.includes('PRIVATE KEY-----')) clean = clean.replace(PRIVATE_KEY_IN_TEXT, REDACTED);
  return clean;
}

/** A plain copy of a value that may be written to the log: no secrets, no bytes, no cycles, bounded in depth and width. */
export function redact(value: unknown, depth = 0): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return typeof value === 'function' ? undefined : value;
  if (value instanceof Uint8Array) return `[${value.byteLength} bytes]`;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString();
  if (value instanceof URL) return redactText(value.href);
  if (depth >= MAX_DEPTH) return Array.isArray(value) ? '[…]' : '{…}';
  if (value instanceof Error) return redactError(value, depth);
  if (Array.isArray(value) || value instanceof Set) {
    const items = Array.from(value as Iterable<unknown>);
    const shown = items.slice(0, MAX_ENTRIES).map((item) => redact(item, depth + 1));
    return items.length > MAX_ENTRIES ? [...shown, `… ${items.length - MAX_ENTRIES} more`] : shown;
  }
  const entries: [string, unknown][] =
    value instanceof Map
      ? Array.from(value as Map<unknown, unknown>, ([key, item]) => [String(key), item])
      : Object.entries(value);
  return redactEntries(entries, depth, isSecretResource(value));
}

function redactEntries(entries: [string, unknown][], depth: number, ofSecret: boolean): Record<string, unknown> {
  const plain: Record<string, unknown> = {};
  for (const [key, item] of entries.slice(0, MAX_ENTRIES)) {
    const hidden = isSecretName(key) || (ofSecret && key === 'data');
    // Absence is worth knowing ("no token was sent") and no secret.
    plain[key] = hidden && item !== undefined && item !== null ? REDACTED : redact(item, depth + 1);
  }
  if (entries.length > MAX_ENTRIES) plain['…'] = `${entries.length - MAX_ENTRIES} more`;
  return plain;
}

/** Kubernetes' Secret keeps its values under any name at all, so `data` goes as a whole. */
function isSecretResource(value: object): boolean {
  return 'kind' in value && value.kind === 'Secret';
}

function redactError(error: Error, depth: number): Record<string, unknown> {
  const { name, message, stack, cause } = error;
  const plain: Record<string, unknown> = { type: name, message, stack };
  Object.assign(
    plain,
    redactEntries(
      Object.entries(error).filter(([key]) => key !== 'name' && key !== 'stack'),
      depth,
      false,
    ),
  );
  if (cause !== undefined) plain['cause'] = redact(cause, depth + 1);
  return plain;
}
