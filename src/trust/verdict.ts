import { Failure, type Reason } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { type Certificate, titleOf } from './certificate.ts';

/**
 * What `openssl verify` says, in our words. Its codes are those of X509_STORE_CTX_get_error(3) and do not change. They only choose the
 * reason: that a chain is refused is told by the exit code.
 */
interface Verdict {
  readonly code: number;
  /** 0 is the signer. */
  readonly depth: number;
  readonly text: string;
}

const REASON_OF_CODE: ReadonlyMap<number, Reason> = new Map([
  ...codes('UntrustedSigner', 2, 6, 7, 18, 19, 20, 21, 22, 27, 28, 29),
  ...codes('CertificateExpired', 9, 10),
  ...codes('CertificateRevoked', 23),
  ...codes('WeakSignature', 66, 67, 68),
  ...codes('CrlMissing', 3),
  ...codes('CrlExpired', 12),
  ...codes('CrlInvalid', 5, 8, 11, 15, 16, 33, 35, 36, 44, 54),
]);

function codes(reason: Reason, ...numbers: number[]): [number, Reason][] {
  return numbers.map((number) => [number, reason]);
}

/** Why a chain does not hold. Whatever is not listed above is wrong with a certificate itself. */
export function chainFailure(stderr: string, chain: readonly Certificate[]): Failure {
  const { code, depth, text } = verdictIn(stderr);
  const reason = REASON_OF_CODE.get(code) ?? 'CertificateInvalid';
  const certificate = chain[depth] ?? chain[0];
  const who = certificate === undefined ? 'the signer' : printable(titleOf(certificate), 200);
  if (reason !== 'CertificateExpired' || certificate === undefined) {
    return new Failure(reason, `the certificate of ${who} does not hold: ${text}`);
  }
  const { validFromDate, validToDate } = certificate.x509;
  const period = `it is valid from ${validFromDate.toISOString()} to ${validToDate.toISOString()}`;
  return new Failure(reason, `the certificate of ${who} does not hold: ${text}; ${period}`);
}

/** Why the revocation of a certificate cannot be told, or that it is revoked. */
export function revocationFailure(stderr: string, certificate: Certificate, issuer: Certificate): Failure {
  const { code, text } = verdictIn(stderr);
  const reason = REASON_OF_CODE.get(code) ?? 'CrlInvalid';
  const authority = printable(titleOf(issuer), 200);
  if (reason === 'CertificateRevoked') {
    return new Failure(reason, `${authority} has revoked the certificate of ${printable(titleOf(certificate), 200)}`);
  }
  return new Failure(
    reason,
    `the revocation list of ${authority} cannot be used: ${text}: bring a fresh one (fetch-crl)`,
  );
}

function verdictIn(stderr: string): Verdict {
  const found =
    /error (?<code>\d+) at (?<depth>\d+) depth lookup: ?(?<text>[^\n]*?)(?= error \S+: verification failed|$)/.exec(
      stderr,
    );
  const { code = '1', depth = '0', text = 'openssl refuses it' } = found?.groups ?? {};
  return { code: Number(code), depth: Number(depth), text: printable(text, 160) };
}
