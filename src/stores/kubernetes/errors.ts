import { Failure } from '../../api/failure.ts';
import { ApiError } from '../../runtime/api-error.ts';

const INSTALL_CRDS = 'install ours (kubectl apply --server-side -f crds/)';

/** What a user needs to know of a refused or lost request; `what` says what was tried: `read VMImage default/ubuntu`. */
export function failureOf(error: unknown, what: string): Failure {
  if (error instanceof Failure) return error;
  if (!(error instanceof ApiError)) return connectionFailure(error, what);
  const { status, message, retryAfterMs } = error;
  const options = { cause: error, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
  const fail = (reason: ConstructorParameters<typeof Failure>[0], text: string): Failure =>
    new Failure(reason, `cannot ${what}: ${text}`, options);
  if (message.includes('failed to create typed patch object')) {
    return fail('NotSupported', `${message}; the CRDs of the cluster are older than this program: ${INSTALL_CRDS}`);
  }
  switch (status) {
    case 400:
    case 422:
      return fail('InvalidSpec', message);
    case 401:
      return fail(
        'Unauthorized',
        'the API server does not take our credentials: log in again, or renew the ServiceAccount token',
      );
    case 403:
      // The API server's own words name verb, resource and namespace.
      return fail('Forbidden', `${message}; grant it by a (Cluster)Role, as the chart's`);
    case 404:
      return error.reason === 'NotFound'
        ? fail('NotFound', message)
        : fail('NotFound', `the API server does not know the kind: ${INSTALL_CRDS}`);
    case 409:
      return fail('Conflict', message);
    case 429:
      return fail('TooManyRequests', message);
    default:
      return fail(status >= 500 ? 'ServerError' : 'Rejected', message);
  }
}

function connectionFailure(error: unknown, what: string): Failure {
  const { code, name, message } = error as NodeJS.ErrnoException;
  const options = { cause: error };
  if (name === 'AbortError') return new Failure('Aborted', `stopped before it could ${what}`, options);
  if (
    name === 'TimeoutError' ||
    code === 'UND_ERR_HEADERS_TIMEOUT' ||
    code === 'UND_ERR_BODY_TIMEOUT' ||
    code === 'UND_ERR_CONNECT_TIMEOUT'
  ) {
    return new Failure('Timeout', `cannot ${what}: the API server does not answer`, options);
  }
  return new Failure('NetworkError', `cannot ${what}: no connection to the API server (${code ?? message})`, options);
}
