/**
 * Every way in which work can fail, in one list. A failure's reason decides its class, and the class decides what happens next
 * (docs/concepts.md, "When something fails"):
 *
 * - `InvalidSpec`, `VerificationFailed`, `UnsafeImage`, `Unauthorized`: Stalled. Nothing is tried again until an input changes.
 * - `Transient`: tried again, with exponential back-off and jitter.
 * - `Waiting`: a named thing is missing; looked at again when it appears.
 */
export const REASONS = {
  // What the user wrote cannot work.
  InvalidSpec: 'InvalidSpec',
  ChecksumRequired: 'InvalidSpec',
  WeakChecksum: 'InvalidSpec',
  ChecksumConflict: 'InvalidSpec',
  FormatMismatch: 'InvalidSpec',
  FormatNotAccepted: 'InvalidSpec',
  GuidInUse: 'InvalidSpec',
  NameInUse: 'InvalidSpec',
  LimitExceeded: 'InvalidSpec',
  SourceForbidden: 'InvalidSpec',
  AddressForbidden: 'InvalidSpec',
  InvalidMetafile: 'InvalidSpec',
  InvalidSecret: 'InvalidSpec',
  SecretHostsMissing: 'InvalidSpec',
  NotFound: 'InvalidSpec',
  TooLarge: 'InvalidSpec',
  RedirectLoop: 'InvalidSpec',
  NotAnImage: 'InvalidSpec',
  NotSupported: 'InvalidSpec',
  Rejected: 'InvalidSpec',
  InvalidTrust: 'InvalidSpec',
  InvalidList: 'InvalidSpec',
  InvalidEntry: 'InvalidSpec',
  DuplicateEntry: 'InvalidSpec',

  // The bytes are not what was promised.
  DigestMismatch: 'VerificationFailed',
  LengthMismatch: 'VerificationFailed',
  CloudDigestMismatch: 'VerificationFailed',
  Tampered: 'VerificationFailed',

  // Nobody whose word is taken vouches for the bytes.
  SignatureMissing: 'VerificationFailed',
  SignatureInvalid: 'VerificationFailed',
  SignerAmbiguous: 'VerificationFailed',
  UntrustedSigner: 'VerificationFailed',
  EndorserNotTrusted: 'VerificationFailed',
  EndorserMismatch: 'VerificationFailed',
  CertificateInvalid: 'VerificationFailed',
  CertificateExpired: 'VerificationFailed',
  CertificateRevoked: 'VerificationFailed',
  SigningPolicyViolation: 'VerificationFailed',
  KeyExpired: 'VerificationFailed',
  KeyRevoked: 'VerificationFailed',
  WeakSignature: 'VerificationFailed',

  // The list is valid, but must not take the place of the accepted one.
  ListRollback: 'VerificationFailed',
  ListIdentityChanged: 'VerificationFailed',

  // The bytes are what was promised, but must not be booted or converted.
  UnsafeImage: 'UnsafeImage',
  CorruptImage: 'UnsafeImage',

  // Credentials are refused.
  Unauthorized: 'Unauthorized',
  Forbidden: 'Unauthorized',
  TlsFailed: 'Unauthorized',

  // It may work next time.
  NetworkError: 'Transient',
  Timeout: 'Transient',
  Stalled: 'Transient',
  Truncated: 'Transient',
  ServerError: 'Transient',
  TooManyRequests: 'Transient',
  SourceChanged: 'Transient',
  Conflict: 'Transient',
  Gone: 'Transient',
  IdTaken: 'Transient',
  UploadCut: 'Transient',
  ToolFailed: 'Transient',
  ToolRunnerUnavailable: 'Transient',
  ResourceLimit: 'Transient',
  Aborted: 'Transient',
  InternalError: 'Transient',

  // A named thing is missing.
  SecretNotFound: 'Waiting',
  ConfigMapNotFound: 'Waiting',
  SiteNotFound: 'Waiting',
  SiteNotReady: 'Waiting',
  NamespaceNotAllowed: 'Waiting',
  NoControllerForSite: 'Waiting',
  CacheFull: 'Waiting',
  CacheInUse: 'Waiting',
  DiskFull: 'Waiting',
  QuotaExceeded: 'Waiting',
  ToolMissing: 'Waiting',
  CrlMissing: 'Waiting',
  CrlExpired: 'Waiting',
  CrlInvalid: 'Waiting',
  SigningPolicyMissing: 'Waiting',
  ClaimedByOther: 'Waiting',
  IdentityChanged: 'Waiting',
  MassLoss: 'Waiting',
  HeldByCloud: 'Waiting',
  Lost: 'Waiting',
  LossLimit: 'Waiting',
  ConfirmationRequired: 'Waiting',
  ListExpired: 'Waiting',
  ListFromFuture: 'Waiting',
} as const satisfies Record<string, FailureClass>;

export type FailureClass =
  | 'InvalidSpec'
  | 'VerificationFailed'
  | 'UnsafeImage'
  | 'Unauthorized'
  | 'Transient'
  | 'Waiting';

export type Reason = keyof typeof REASONS;

export interface FailureOptions {
  /** What lies beneath; logged, never shown in status. */
  cause?: unknown;
  /** The other side asked for this pause (Retry-After), in milliseconds. */
  retryAfterMs?: number;
}

/**
 * A failure that a user can read: the message names what failed, where, and what to do about it. It never holds a secret,
 * nor a URL with credentials or a query string (`sources/url.ts` cleans those).
 */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly reason: Reason;
  readonly retryAfterMs: number | undefined;

  constructor(reason: Reason, message: string, options: FailureOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.retryAfterMs = options.retryAfterMs;
  }

  get failureClass(): FailureClass {
    return REASONS[this.reason];
  }

  /** Failures cross the border of worker threads as plain objects. */
  toPlain(): PlainFailure {
    const plain: PlainFailure = { reason: this.reason, message: this.message };
    if (this.retryAfterMs !== undefined) plain.retryAfterMs = this.retryAfterMs;
    return plain;
  }

  static fromPlain(plain: PlainFailure): Failure {
    return new Failure(
      plain.reason,
      plain.message,
      plain.retryAfterMs === undefined ? {} : { retryAfterMs: plain.retryAfterMs },
    );
  }

  /** Anything thrown, as a Failure: our own as they are, the file system's full disk by its name, the rest as InternalError. */
  static from(error: unknown): Failure {
    if (error instanceof Failure) return error;
    if (error instanceof Error) {
      if (error.name === 'AbortError') return new Failure('Aborted', 'stopped', { cause: error });
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'ENOSPC' || code === 'EDQUOT') {
        return new Failure('DiskFull', `the disk is full (${code}): free space on the volume, or give it more`, {
          cause: error,
        });
      }
      return new Failure('InternalError', error.message, { cause: error });
    }
    return new Failure('InternalError', String(error));
  }
}

export interface PlainFailure {
  reason: Reason;
  message: string;
  retryAfterMs?: number;
}
