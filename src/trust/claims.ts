import { Failure } from '../api/failure.ts';
import { type Certificate, readCertificate } from './certificate.ts';
import { splitClearsigned } from './clearsigned.ts';
import { oneLine } from './name.ts';
import { minisignKeyOf } from './minisign.ts';
import { signingKeysOf } from './openpgp.ts';
import { readSignedData } from './signed-data.ts';
import { cmsIn, splitMessage } from './smime.ts';
import type { Signer, Trust } from './trust.ts';

/** What a document says of its signers, for people who wonder whom they would have to trust. Nothing of it is proven. */
export interface Claims {
  /** Which kind of trust would judge it. */
  readonly kind: Exclude<Trust['kind'], 'unsigned'>;
  readonly signers: readonly Signer[];
}

const MAX_SIGNERS = 16;
const XML_CERTIFICATE = /<(?:\w+:)?X509Certificate>([A-Za-z0-9+/=\s]{1,20000})<\/(?:\w+:)?X509Certificate>/g;

/**
 * Undefined when the document bears no signature, and none is beside it.
 * @throws Failure SignatureInvalid | SignatureMissing when what looks like a signature cannot be read
 */
export async function claimsOf(document: Uint8Array, signature?: Uint8Array): Promise<Claims | undefined> {
  if (signature !== undefined) return detachedClaims(signature);
  const text = Buffer.from(document.buffer, document.byteOffset, document.byteLength).toString('latin1');
  if (text.includes('-----BEGIN PGP SIGNED MESSAGE-----')) return openPgp(splitClearsigned(document).signature);
  if (/^(?:\u00ef\u00bb\u00bf)?\s*</.test(text)) {
    const bodies = new Set(Array.from(text.matchAll(XML_CERTIFICATE), ([, body = '']) => body.replaceAll(/\s/g, '')));
    if (bodies.size === 0) return undefined;
    const signers = [...bodies].slice(0, MAX_SIGNERS).flatMap((body) => certificate(Buffer.from(body, 'base64')));
    return { kind: 'x509', signers: signers.map((each) => signerOf(each)) };
  }
  try {
    return x509(splitMessage(document).cms);
  } catch (error) {
    if (error instanceof Failure && error.reason === 'SignatureMissing') return undefined;
    throw error;
  }
}

async function detachedClaims(signature: Uint8Array): Promise<Claims> {
  const key = minisignKeyOf(signature);
  if (key !== undefined) {
    const name = `minisign key ${key}`;
    return { kind: 'minisign', signers: [{ kind: 'minisign', name, fingerprint: key.toLowerCase() }] };
  }
  const cms = cmsIn(signature);
  return cms === undefined ? openPgp(signature) : x509(cms);
}

async function openPgp(signature: string | Uint8Array): Promise<Claims> {
  const bytes = typeof signature === 'string' ? Buffer.from(signature) : signature;
  return { kind: 'openpgp', signers: await signingKeysOf(bytes) };
}

function x509(cms: Uint8Array): Claims {
  const { certificates, signers } = readSignedData(cms);
  const all = certificates.slice(0, MAX_SIGNERS).flatMap(certificate);
  // Those that issued another of them are there to build the chain.
  const leaves = all.filter((each) => !all.some((other) => other !== each && other.x509.checkIssued(each.x509)));
  const [info] = signers;
  const facts = {
    ...(info === undefined ? {} : { digest: info.digest }),
    ...(info?.signingTime === undefined ? {} : { signedAt: new Date(info.signingTime).toISOString() }),
  };
  return { kind: 'x509', signers: leaves.map((each) => ({ ...signerOf(each), ...facts })) };
}

function certificate(der: Uint8Array): Certificate[] {
  try {
    return [readCertificate(der)];
  } catch {
    return [];
  }
}

function signerOf({ subject, issuer, x509: { validFromDate, validToDate }, fingerprint, emails }: Certificate): Signer {
  return {
    kind: 'x509',
    name: oneLine(subject),
    subject: oneLine(subject),
    issuer: oneLine(issuer),
    emails,
    fingerprint,
    notBefore: validFromDate.toISOString(),
    notAfter: validToDate.toISOString(),
  };
}
