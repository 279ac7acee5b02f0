import { Failure } from '../../api/failure.ts';
import { cleanUrl } from '../url.ts';

export const MAX_REDIRECTS = 10;
const FOLLOWED = new Set([301, 302, 303, 307, 308]);

/** One hop of a chain of redirects: where to ask, and whether what is secret may still be sent. */
export interface Hop {
  url: URL;
  /** Once the origin (scheme, host, port) has changed it stays false, also when a later hop comes back. */
  trusted: boolean;
}

/**
 * Follows redirects by our own rules, because the client's are too kind: the number is bounded, a loop ends at its first
 * repetition, https never turns into http, and credentials never reach another origin.
 */
export class Redirects {
  readonly #seen = new Set<string>();
  #hop: Hop;

  /** @throws Failure InvalidSpec when the URL is not http(s), or has credentials in it. */
  constructor(text: string) {
    const url = URL.parse(text);
    if (url === null || !isHttp(url)) {
      throw new Failure('InvalidSpec', `${cleanUrl(text)}: a source URL starts with http:// or https://`);
    }
    if (url.username !== '' || url.password !== '') {
      throw new Failure(
        'InvalidSpec',
        `${cleanUrl(url)}: credentials belong in the Secret of secretRef, not in the URL`,
      );
    }
    url.hash = '';
    this.#hop = { url, trusted: true };
    this.#seen.add(url.href);
  }

  get hop(): Hop {
    return this.#hop;
  }

  /** Whether the answer is a redirect, in which case `hop` is now where it leads. @throws Failure */
  follow(status: number, location: string | undefined): boolean {
    if (!FOLLOWED.has(status)) return false;
    const from = this.#hop;
    const where = cleanUrl(from.url);
    if (location === undefined) {
      throw new Failure('ServerError', `${where}: the origin answered ${status} without saying where to go`);
    }
    const url = URL.parse(location, from.url.href);
    if (url === null || !isHttp(url)) {
      throw new Failure('InvalidSpec', `${where}: redirects to something that is not http(s): give the final URL`);
    }
    if (from.url.protocol === 'https:' && url.protocol === 'http:') {
      throw new Failure(
        'InvalidSpec',
        `${where}: redirects from https to http (${cleanUrl(url)}), which is not followed`,
      );
    }
    url.username = '';
    url.password = '';
    url.hash = '';
    if (this.#seen.has(url.href)) throw new Failure('RedirectLoop', `${where}: redirects in a circle`);
    if (this.#seen.size > MAX_REDIRECTS) {
      throw new Failure('RedirectLoop', `${where}: more than ${MAX_REDIRECTS} redirects`);
    }
    this.#seen.add(url.href);
    this.#hop = { url, trusted: from.trusted && url.origin === from.url.origin };
    return true;
  }
}

function isHttp(url: URL): boolean {
  return url.protocol === 'http:' || url.protocol === 'https:';
}
