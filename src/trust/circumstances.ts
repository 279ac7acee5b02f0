import type { Toolbox } from '../programs/toolbox.ts';
import type { Chain } from './chain.ts';

/** Under which a document is judged. */
export interface Circumstances {
  /** The verifier's clock, in milliseconds since the epoch: certificates, keys and revocation lists must be valid then. */
  readonly at: number;
  readonly signal: AbortSignal;
  /** A detached signature, published beside the document (`.p7s`, `.asc`, `.gpg`, `.minisig`); undefined: it is within. */
  readonly signature?: Uint8Array | undefined;
  /** Where openssl is; in PATH by default. */
  readonly toolbox?: Toolbox | undefined;
  /**
   * What has become of the chains of one reading, by the certificates that they were made of: a thousand entries of a Marketplace have
   * a handful of signers. Belongs to one trust and one `at`.
   */
  readonly chains?: Map<string, Promise<Chain>> | undefined;
}
