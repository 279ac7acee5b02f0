import { Failure } from '../api/failure.ts';
import { splitClearsigned } from './clearsigned.ts';
import { readSignedData } from './signed-data.ts';
import { splitMessage, withoutTextHeader } from './smime.ts';

/** Clear-signed; CMS in PEM; S/MIME's headers, of which one of these comes first; CMS in DER, which is never below 128 bytes. */
const ENVELOPE =
  /^(?:\u00ef\u00bb\u00bf)?(?:\s*-----BEGIN |MIME-Version:|Content-[\w-]+:|To:|From:|Subject:|\x30[\x80-\x84])/i;

/**
 * What is in the envelope of a signed document, with nothing proven: for those who have said that nobody need vouch for it. A document
 * without an envelope, and one whose envelope cannot be opened, is given back as it is.
 */
export function contentOf(document: Uint8Array): Uint8Array {
  const head = Buffer.from(document.subarray(0, 256)).toString('latin1');
  if (!ENVELOPE.test(head)) return document;
  try {
    if (head.includes('-----BEGIN PGP SIGNED MESSAGE')) return Buffer.from(splitClearsigned(document).text);
    const { body, cms } = splitMessage(document);
    return withoutTextHeader(body ?? readSignedData(cms).content ?? document);
  } catch (error) {
    if (error instanceof Failure) return document;
    throw error;
  }
}
