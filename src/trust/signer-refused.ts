import { Failure } from '../api/failure.ts';
import { oneLine } from './name.ts';
import type { Certificate } from './certificate.ts';
import type { Endorser } from './trust.ts';

/**
 * The signature holds, but the word of who made it is not taken. Nothing of the content may be believed: it only tells what it was that
 * he signed. His names are those of his certificate, which he may have made himself where the reason is UntrustedSigner or WeakSignature.
 */
export class SignerRefused extends Failure {
  readonly content: Uint8Array;
  readonly signer: Endorser;

  constructor({ reason, message, cause }: Failure, content: Uint8Array, { subject, issuer }: Certificate) {
    super(reason, message, { cause });
    this.content = content;
    this.signer = { subject: oneLine(subject), issuer: oneLine(issuer) };
  }
}
