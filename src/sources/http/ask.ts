import { Failure } from '../../api/failure.ts';
import { NetworkGuard } from '../network.ts';
import type { HttpSourceSpec } from '../source.ts';
import { failureOfStatus } from './answers.ts';
import { type Answer, exchange } from './exchange.ts';
import { openHeaders, secretHeaders } from './headers.ts';
import { Redirects } from './redirects.ts';

/** Answers that only a request with this header can get, and that are none of failure. */
const EXPECTED: Readonly<Record<number, readonly string[]>> = {
  304: ['if-none-match', 'if-modified-since'],
  416: ['range'],
};

/**
 * One GET through redirects, to a 200, a 206, or what the conditions that were sent along can lead to (304, 416). Conditions go with
 * every hop.
 * @throws Failure for every other answer
 */
export async function ask(
  spec: HttpSourceSpec,
  conditions: Record<string, string>,
  signal: AbortSignal,
): Promise<Answer> {
  const guard = new NetworkGuard(spec.network);
  const open = { 'user-agent': 'imageproxy', accept: '*/*', ...openHeaders(spec.headers) };
  const secret = {
    ...secretHeaders(spec.secretHeaders ?? {}),
    ...(spec.authorization !== undefined && { authorization: spec.authorization }),
  };
  const redirects = new Redirects(spec.url);
  for (;;) {
    const { url, trusted } = redirects.hop;
    const { ca, cert, key } = spec.tls ?? {};
    // A client certificate is a credential as well: it does not follow to another origin.
    const identity = trusted && cert !== undefined && key !== undefined ? { cert, key } : {};
    const answer = await exchange(
      {
        url,
        headers: { ...open, ...(trusted ? secret : {}), ...conditions },
        tls: { ...identity, ...(ca !== undefined && { ca }) },
        guard,
        timeouts: spec.timeouts,
      },
      signal,
    );
    try {
      if (redirects.follow(answer.status, answer.headers.location)) {
        answer.discard();
        continue;
      }
      const { status } = answer;
      const expected = EXPECTED[status]?.some((header) => conditions[header] !== undefined) === true;
      if (status !== 200 && status !== 206 && !expected) {
        throw failureOfStatus(status, answer.headers, answer.where, Date.now());
      }
      const encoding = answer.headers['content-encoding'];
      if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
        throw new Failure(
          'NotSupported',
          `${answer.where}: the origin sends the file with Content-Encoding ${JSON.stringify(encoding.slice(0, 32))}, so its bytes are not those that were published; turn that off there`,
        );
      }
      return answer;
    } catch (error) {
      answer.discard();
      throw error;
    }
  }
}
