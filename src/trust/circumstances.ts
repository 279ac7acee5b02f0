import type { Toolbox } from '../programs/toolbox.ts';

/** Under which a document is judged. */
export interface Circumstances {
  /** The verifier's clock, in milliseconds since the epoch: certificates, keys and revocation lists must be valid then. */
  readonly at: number;
  readonly signal: AbortSignal;
  /** A detached signature, published beside the document (`.p7s`, `.asc`, `.gpg`, `.minisig`); undefined: it is within. */
  readonly signature?: Uint8Array | undefined;
  /** Where openssl is; in PATH by default. */
  readonly toolbox?: Toolbox | undefined;
}
