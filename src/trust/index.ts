import { Failure } from '../api/failure.ts';
import type { Toolbox } from '../programs/toolbox.ts';
import type { Endorser, Proven, Signer, Trust } from './trust.ts';

export { anchorsOf } from './anchors.ts';

export interface Verification {
  readonly trust: Trust;
  /** The verifier's clock, in milliseconds since the epoch: certificates, keys and revocation lists must be valid then. */
  readonly at: number;
  readonly signal: AbortSignal;
  /** A detached signature, published beside the document (`.p7s`, `.asc`, `.gpg`, `.minisig`); undefined: it is within. */
  readonly signature?: Uint8Array | undefined;
  /** Where openssl is; in PATH by default. */
  readonly toolbox?: Toolbox;
}

/** What may be parsed, and who vouches for it: nobody where the trust is `unsigned`. */
export type Judged = Proven | { readonly content: Uint8Array; readonly signer?: undefined };

/**
 * The one way into the room: proves a document by whatever signature its kind of trust speaks of. X.509: an XML signature in an XML
 * document, else S/MIME or CMS. OpenPGP: clear-signed, or detached. minisign: detached. Unsigned: the document, out of its envelope
 * if it has one, with nothing proven.
 * @throws Failure a reason of the group "Nobody whose word is taken vouches for the bytes" of api/failure.ts; CrlMissing |
 * CrlExpired | CrlInvalid | SigningPolicyMissing | ToolMissing (may heal by itself: touch nothing); InvalidTrust; TooLarge; Aborted
 */
export async function verifySigned(document: Uint8Array, { trust }: Verification): Promise<Judged> {
  if (trust.kind === 'unsigned') return { content: document };
  throw new Failure('NotSupported', `signatures of kind ${trust.kind} are not verified by this version`);
}

/** Whether an endorser, as somebody wrote him in any of the usual forms, is the signer: subject and issuer both. */
export function isSigner(endorser: Endorser, signer: Signer): boolean {
  return endorser.subject === signer.subject && endorser.issuer === signer.issuer;
}
