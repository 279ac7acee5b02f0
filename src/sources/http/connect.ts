import { X509Certificate } from 'node:crypto';
import { connect as connectTcp, type LookupFunction, isIP, type OnReadOpts, type Socket } from 'node:net';
import { connect as connectTls, getCACertificates } from 'node:tls';
import { Failure } from '../../api/failure.ts';
import { networkFailure } from './failures.ts';

export interface TlsIdentity {
  /** PEM; trusted beside the system's authorities, so that a redirect to a public host goes on working. */
  ca?: string;
  cert?: string;
  key?: string;
  /** Accepts any certificate. For a cloud whose admin asked for it; sources cannot. */
  insecure?: boolean;
}

export interface ConnectOptions {
  url: URL;
  /** How messages name the URL (cleaned). */
  where: string;
  tls?: TlsIdentity;
  connectMs: number;
  lookup?: LookupFunction;
  /** Lends the socket memory to read into (see receiver.ts). */
  onread?: OnReadOpts;
}

/**
 * Opens one connection, TLS included. Every exchange has its own: an image's body is large, so a pool would save nothing, and a
 * pooled connection would outlive the network policy and the credentials that it was opened under.
 * @throws Failure NetworkError | Timeout | TlsFailed | AddressForbidden | Aborted
 */
export function connect(options: ConnectOptions, signal: AbortSignal): Promise<Socket> {
  const { url, where, tls, connectMs } = options;
  const secure = url.protocol === 'https:';
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const port = url.port === '' ? (secure ? 443 : 80) : Number(url.port);
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(aborted());
    let socket: Socket;
    const base = {
      host,
      port,
      noDelay: true,
      ...(options.lookup && { lookup: options.lookup }),
      ...(options.onread && { onread: options.onread }),
    };
    try {
      socket = secure
        ? connectTls({
            ...base,
            ...(isIP(host) === 0 && { servername: host }),
            ALPNProtocols: ['http/1.1'],
            rejectUnauthorized: tls?.insecure !== true,
            ...(tls?.ca !== undefined && { ca: [...getCACertificates('default'), ...certificates(tls.ca, where)] }),
            ...(tls?.cert !== undefined && { cert: tls.cert }),
            ...(tls?.key !== undefined && { key: tls.key }),
          })
        : connectTcp(base);
    } catch (error) {
      return reject(networkFailure(error, where)); // a CA, certificate or key that is no PEM
    }
    const settle = (error?: Error) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      socket.off(secure ? 'secureConnect' : 'connect', connected);
      socket.off('error', failed);
      if (error === undefined) return resolve(socket);
      socket.on('error', () => {}); // a second error of a socket that is going away
      socket.destroy();
      reject(error);
    };
    const connected = () => settle();
    const failed = (error: Error) => settle(networkFailure(error, where));
    const abort = () => settle(aborted());
    const timer = setTimeout(
      () =>
        settle(
          new Failure('Timeout', `${where}: no connection within ${seconds(connectMs)}; is the host up and reachable?`),
        ),
      connectMs,
    );
    socket.once(secure ? 'secureConnect' : 'connect', connected);
    socket.once('error', failed);
    signal.addEventListener('abort', abort, { once: true });
  });
}

/** OpenSSL passes over what it cannot read, and the user would look for the fault elsewhere. */
function certificates(pem: string, where: string): string[] {
  const found = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    if (found.length === 0) throw new Error('no certificate');
    return found.map((certificate) => new X509Certificate(certificate).toString());
  } catch (error) {
    throw new Failure('TlsFailed', `${where}: what caRef names is not a CA certificate in PEM`, { cause: error });
  }
}

export const aborted = (): Failure => new Failure('Aborted', 'stopped');

/** `1500` as `1.5 s`. */
export function seconds(ms: number): string {
  return `${ms / 1000} s`;
}
