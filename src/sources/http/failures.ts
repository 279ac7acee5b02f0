import { Failure } from '../../api/failure.ts';

/**
 * What a socket, OpenSSL or the HTTP parser threw, as a Failure. The message names the URL (cleaned by the caller) and the error's
 * code; the error's own text is left out where it could quote what the other side sent.
 */
export function networkFailure(error: unknown, where: string): Failure {
  if (error instanceof Failure) return error;
  const code = codeOf(error);
  const options = { cause: error };
  if (TLS_CODES.test(code)) {
    return new Failure('TlsFailed', `${where}: TLS failed (${code}): ${tlsCure(code)}`, options);
  }
  if (/CONTENT_LENGTH/.test(code)) {
    return new Failure('LengthMismatch', `${where}: the origin's Content-Length is not usable (${code})`, options);
  }
  if (code.startsWith('HPE_')) {
    return new Failure('ServerError', `${where}: the answer is not valid HTTP (${code})`, options);
  }
  const meaning = MEANINGS[code];
  return new Failure('NetworkError', `${where}: ${meaning ?? 'the connection failed'} (${code})`, options);
}

const MEANINGS: Partial<Record<string, string>> = {
  ENOTFOUND: 'the host name does not exist',
  EAI_AGAIN: 'the host name could not be resolved now',
  ECONNREFUSED: 'nothing listens there',
  ECONNRESET: 'the connection was reset',
  EPIPE: 'the connection was closed',
  ETIMEDOUT: 'the connection timed out',
  EHOSTUNREACH: 'the host cannot be reached',
  ENETUNREACH: 'the network cannot be reached',
};

/** X.509 verification codes as Node names them, certificate name mismatch, and OpenSSL's protocol errors. */
const TLS_CODES =
  /^(ERR_SSL_|ERR_TLS_|ERR_OSSL_|EPROTO$|CERT_|CRL_|DEPTH_ZERO_SELF_SIGNED_CERT$|SELF_SIGNED_CERT_IN_CHAIN$|UNABLE_TO_|INVALID_(CA|PURPOSE)$|HOSTNAME_MISMATCH$|PATH_LENGTH_EXCEEDED$|ERROR_IN_CERT_)/;

function tlsCure(code: string): string {
  if (/SELF_SIGNED|UNABLE_TO_(GET_ISSUER|VERIFY)/.test(code)) {
    return 'the certificate comes from an authority that is not known here; name its CA certificate in caRef';
  }
  if (code === 'CERT_HAS_EXPIRED') return 'the certificate has expired; its owner must renew it';
  if (code === 'CERT_NOT_YET_VALID') return 'the certificate is not valid yet; compare the clocks';
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return 'the certificate is for another host name; correct the URL';
  if (/ERR_OSSL|PEM/.test(code)) return 'the CA, certificate or key given in caRef or secretRef is not valid PEM';
  if (/WRONG_VERSION_NUMBER|PACKET_LENGTH/.test(code)) return 'this port does not speak TLS; is it http?';
  if (/CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|BAD_CERTIFICATE/.test(code)) {
    return 'the server refused the handshake; it may want a client certificate (tls.crt and tls.key in secretRef)';
  }
  return 'check the certificate of the server, and caRef';
}

function codeOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return error instanceof Error ? error.name : 'unknown';
}
