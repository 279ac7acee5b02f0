import { createHash } from 'node:crypto';
import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { weaknessOfDigest } from './algorithms.ts';
import { type Certificate, readCertificate } from './certificate.ts';
import { verifyChain } from './chain.ts';
import { endorsedChain, signerOf } from './endorser.ts';
import { NO_SYSTEM_AUTHORITIES, OpenSsl } from './openssl.ts';
import { derBlocks } from './pem.ts';
import { readSignedData, type SignedData, type SignerInfo } from './signed-data.ts';
import { cmsIn, readings, splitMessage, withoutTextHeader } from './smime.ts';
import type { Proven, X509Trust } from './trust.ts';
import type { Circumstances } from './circumstances.ts';

/**
 * S/MIME and CMS: proves that exactly one signer, whose certificate the trust's anchors vouch for at that time, and who is one of
 * its endorsers, signed the content. Takes multipart/signed, application/pkcs7-mime, CMS in PEM or DER, or (`signature`) CMS that is
 * published beside its document. The signer's claim of when he signed is no proof, so everything must hold at `at`.
 * @throws Failure SignatureMissing | SignatureInvalid | SignerAmbiguous | WeakSignature | EndorserNotTrusted | ToolMissing, or what
 * `verifyChain` throws
 */
export async function verifyCms(message: Uint8Array, trust: X509Trust, circumstances: Circumstances): Promise<Proven> {
  const { body, cms } = messageIn(message, circumstances.signature);
  const signedData = readSignedData(cms);
  const signer = onlySigner(signedData);
  checkDigests(signer, trust);
  const covered = coveredBytes(body, signedData, signer);
  return OpenSsl.use(circumstances, async (openssl) => {
    const certificate = await proveSignature(openssl, cms, covered, body !== undefined);
    const extra = readable(signedData.certificates);
    const chain = await endorsedChain(certificate, trust, () =>
      verifyChain(openssl, certificate, extra, trust, circumstances.at),
    );
    return { content: withoutTextHeader(covered), signer: signerOf(chain, signer) };
  });
}

function messageIn(
  message: Uint8Array,
  signature: Uint8Array | undefined,
): { body: Uint8Array | undefined; cms: Uint8Array } {
  if (signature === undefined) return splitMessage(message);
  const cms = cmsIn(signature);
  if (cms === undefined) throw new Failure('SignatureInvalid', 'the detached signature is no CMS in PEM or DER');
  return { body: message, cms };
}

/** Of several signers it is not clear who vouches for what, and which of them a policy means. */
function onlySigner({ signers }: SignedData): SignerInfo {
  const [signer, ...others] = signers;
  if (signer === undefined)
    throw new Failure('SignatureMissing', 'the message has the form of a signed one, but no signer');
  if (others.length > 0) {
    throw new Failure('SignerAmbiguous', `the message has ${signers.length} signers: it must have exactly one`);
  }
  return signer;
}

function checkDigests({ digest, signatureDigest }: SignerInfo, trust: X509Trust): void {
  const weakness = weaknessOfDigest(digest, trust) ?? weaknessOfDigest(signatureDigest, trust);
  if (weakness === undefined) return;
  throw new Failure(
    'WeakSignature',
    `the signature ${weakness}: the publisher must sign with SHA-256 or better; allowSha1: true takes what SHA-1 holds`,
  );
}

/** The very bytes that the signer's digest is of. */
function coveredBytes(body: Uint8Array | undefined, { content }: SignedData, signer: SignerInfo): Uint8Array {
  // With both, readers would disagree on which one is signed.
  if ((body === undefined) === (content === undefined)) {
    throw new Failure(
      'SignatureInvalid',
      body === undefined
        ? 'the signature stands alone: what it signs is missing'
        : 'the detached signature has content of its own',
    );
  }
  for (const reading of content === undefined ? readings(body ?? new Uint8Array()) : [content]) {
    if (createHash(signer.digest).update(reading).digest().equals(signer.messageDigest)) return reading;
  }
  throw new Failure(
    'SignatureInvalid',
    'the document was changed after it was signed: its digest is not the signed one',
  );
}

/** Proves the signature by the certificate that came with it, and returns that. Whether it may sign is asked next. */
async function proveSignature(
  openssl: OpenSsl,
  cms: Uint8Array,
  covered: Uint8Array,
  detached: boolean,
): Promise<Certificate> {
  const [message, certificate, out] = [await openssl.file(cms), await openssl.file(''), await openssl.file('')];
  const exit = await openssl.run(
    'cms',
    '-verify',
    '-noverify',
    '-binary',
    ...NO_SYSTEM_AUTHORITIES,
    '-inform',
    'DER',
    '-in',
    message,
    ...(detached ? ['-content', await openssl.file(covered)] : []),
    '-signer',
    certificate,
    '-out',
    out,
  );
  if (exit.code !== 0) {
    throw new Failure('SignatureInvalid', `the signature does not hold: openssl says ${printable(exit.stderr, 200)}`);
  }
  // What openssl read must be what we read: two readers that differ are how signatures are wrapped.
  if (!Buffer.from(covered).equals(await openssl.read(out))) {
    throw new Failure('SignatureInvalid', 'the signature does not hold: it covers other bytes than it seems to');
  }
  const [der, ...others] = derBlocks(await openssl.read(certificate), 'CERTIFICATE');
  if (der === undefined || others.length > 0) {
    throw new Failure('SignerAmbiguous', 'the signature does not lead to exactly one certificate');
  }
  return requireReadable(der);
}

function requireReadable(der: Uint8Array): Certificate {
  try {
    return readCertificate(der);
  } catch (error) {
    const fact = error instanceof Error ? error.message : String(error);
    throw new Failure('CertificateInvalid', `the signer's certificate cannot be read: ${printable(fact, 120)}`);
  }
}

/** Certificates beside the signer's may help to build its chain; those that cannot be read do not. */
function readable(certificates: readonly Uint8Array[]): Certificate[] {
  return certificates.slice(0, 16).flatMap((der) => {
    try {
      return [readCertificate(der)];
    } catch {
      return [];
    }
  });
}
