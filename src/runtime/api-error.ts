import type { FieldNote } from '../api/verdict.ts';

/** An answer of a Kubernetes API server that says no, or the ERROR event of a watch: a `v1.Status`, as far as it told one. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  /** HTTP status. */
  readonly status: number;
  /** `NotFound`, `Conflict`, `Expired`, …: CamelCase words of apimachinery; empty when something before the API server answered. */
  readonly reason: string;
  /** The pause that the server asked for (Retry-After), in milliseconds. */
  readonly retryAfterMs: number | undefined;
  /** The single faults of a refused object, by field; empty where the server told none. */
  readonly causes: readonly FieldNote[];

  constructor(
    status: number,
    reason: string,
    message: string,
    retryAfterMs?: number,
    causes: readonly FieldNote[] = [],
  ) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
    this.causes = causes;
  }

  /** From a `v1.Status`; anything else is told by its beginning. */
  static from(status: number, body: unknown, retryAfterMs?: number): ApiError {
    const told = isStatus(body) ? body : undefined;
    const message = told?.message ?? (typeof body === 'string' && body !== '' ? body.slice(0, 300).trim() : undefined);
    return new ApiError(
      told?.code ?? status,
      told?.reason ?? '',
      message ?? `the API server answered ${status}`,
      retryAfterMs ?? secondsToMs(told?.details?.retryAfterSeconds),
      (told?.details?.causes ?? []).map((cause) => ({ path: cause.field ?? '', message: cause.message ?? '' })),
    );
  }
}

/** The resourceVersion is older than what the server remembers: only a new list helps. */
export function isExpired(error: unknown): boolean {
  return error instanceof ApiError && (error.status === 410 || error.reason === 'Expired' || error.reason === 'Gone');
}

/**
 * The server's history ends before our resourceVersion: its etcd was restored from a backup, or another cluster answers at this
 * address. Waiting does not help; a new list does (kubernetes/kubernetes#91073).
 */
export function isFromTheFuture(error: unknown): boolean {
  return error instanceof ApiError && error.message.includes('Too large resource version');
}

interface Status {
  kind: 'Status';
  code?: number;
  reason?: string;
  message?: string;
  details?: { retryAfterSeconds?: number; causes?: { field?: string; message?: string }[] };
}

function isStatus(body: unknown): body is Status {
  return typeof body === 'object' && body !== null && 'kind' in body && body.kind === 'Status';
}

function secondsToMs(seconds: number | undefined): number | undefined {
  return seconds === undefined || seconds <= 0 ? undefined : seconds * 1000;
}
