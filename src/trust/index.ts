import { Failure } from '../api/failure.ts';
import type { Circumstances } from './circumstances.ts';
import { verifyCms } from './cms.ts';
import { contentOf } from './envelope.ts';
import { verifyMinisign } from './minisign.ts';
import { verifyClearsigned, verifyDetached } from './openpgp.ts';
import type { Proven, Trust } from './trust.ts';
import { verifyXmlSignature } from './xml-signature.ts';

export { anchorsOf } from './anchors.ts';
export { type Claims, claimsOf } from './claims.ts';
export { endorserOf, isSigner, isTakenOut } from './endorser.ts';
export { SignerRefused } from './signer-refused.ts';

export interface Verification extends Circumstances {
  readonly trust: Trust;
}

/** What may be parsed, and who vouches for it: nobody where the trust is `unsigned`. */
export type Judged = Proven | { readonly content: Uint8Array; readonly signer?: undefined };

/** A list of 10,000 images has about 12 MiB. */
const MAX_BYTES = 32 * 2 ** 20;

/**
 * The one way into the room: proves a document by whatever signature its kind of trust speaks of. X.509: an XML signature in an XML
 * document, else S/MIME or CMS. OpenPGP: clear-signed, or detached. minisign: detached. Unsigned: the document, out of its envelope
 * if it has one, with nothing proven.
 * @throws Failure a reason of the group "Nobody whose word is taken vouches for the bytes" of api/failure.ts; CrlMissing |
 * CrlExpired | CrlInvalid | SigningPolicyMissing | ToolMissing (may heal by itself: touch nothing); InvalidTrust; TooLarge; Aborted
 */
export async function verifySigned(document: Uint8Array, verification: Verification): Promise<Judged> {
  const { trust, at, signature } = verification;
  if (document.length > MAX_BYTES) {
    throw new Failure('TooLarge', `the document has ${document.length} bytes; at most ${MAX_BYTES} are judged`);
  }
  switch (trust.kind) {
    case 'unsigned':
      return { content: contentOf(document) };
    case 'x509':
      return signature === undefined && isXml(document)
        ? verifyXmlSignature(document, trust, verification)
        : verifyCms(document, trust, verification);
    case 'openpgp':
      return signature === undefined
        ? verifyClearsigned(document, trust, at)
        : verifyDetached(document, signature, trust, at);
    case 'minisign':
      return verifyMinisign(document, signature, trust);
  }
}

/** No S/MIME, CMS or JSON begins like that. */
function isXml(document: Uint8Array): boolean {
  return /^(?:\u00ef\u00bb\u00bf)?\s*</.test(Buffer.from(document.subarray(0, 256)).toString('latin1'));
}
