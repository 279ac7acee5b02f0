import { Failure } from '../../api/failure.ts';

/** Token of RFC 9110 §5.6.2. */
const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
/** Visible ASCII, space and tab: no CR or LF, which would end the header. */
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/** What a user may set in `source.http.headers`. Names that carry a secret belong in a Secret, where status and logs never show them. */
const OPEN = /^(user-agent|accept|accept-language|x-[a-z0-9-]+)$/;
const SECRET = /auth|token|key|secret|passw|cookie|session|credential|signature/;
/** `X-` names that proxies and frameworks believe more than the request itself. */
const TRUSTED = /^x-(forwarded|real-ip|original|rewrite|http-method|method-override|host|client-ip|cluster)/;

/** What shapes the request itself and is ours alone, also when it comes from a Secret. */
const OURS =
  /^(host|connection|content-length|transfer-encoding|te|trailer|upgrade|expect|range|if-.*|accept-encoding|keep-alive|proxy-.*)$/;

/**
 * The user's headers, names in lower case.
 * @throws Failure InvalidSpec naming the header, never its value.
 */
export function openHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  return checked(headers, (name) => {
    if (SECRET.test(name)) return 'it looks like a credential: put it into the Secret of secretRef';
    if (!OPEN.test(name) || TRUSTED.test(name)) {
      return 'only User-Agent, Accept, Accept-Language and X-… may be set (no X-Forwarded-… and its kind)';
    }
    return undefined;
  });
}

/** Headers out of a Secret: any, but those that shape the request. @throws Failure InvalidSecret */
export function secretHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  return checked(
    headers,
    (name) => (OURS.test(name) ? 'it shapes the request itself and cannot be set' : undefined),
    'InvalidSecret',
  );
}

function checked(
  headers: Readonly<Record<string, string>>,
  objection: (name: string) => string | undefined,
  reason: 'InvalidSpec' | 'InvalidSecret' = 'InvalidSpec',
): Record<string, string> {
  const result: Record<string, string> = {};
  for (const [given, value] of Object.entries(headers)) {
    const name = given.toLowerCase();
    const problem = NAME.test(name) ? objection(name) : 'that is no header name';
    if (problem !== undefined) throw new Failure(reason, `header ${JSON.stringify(given.slice(0, 64))}: ${problem}`);
    if (!VALUE.test(value)) {
      throw new Failure(
        reason,
        `header ${JSON.stringify(given)}: its value has a line break or another control character`,
      );
    }
    result[name] = value;
  }
  return result;
}
