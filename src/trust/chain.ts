import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { weaknessOfDigest, weaknessOfKey } from './algorithms.ts';
import { type Certificate, readCertificates, titleOf } from './certificate.ts';
import { checkRevocation } from './crl.ts';
import { attime, NO_SYSTEM_AUTHORITIES, type OpenSsl } from './openssl.ts';
import { pemBlock } from './pem.ts';
import { checkSigningPolicies } from './signing-policy.ts';
import type { Anchors, X509Trust } from './trust.ts';
import { chainFailure } from './verdict.ts';

/** From the signer up to the anchor that vouches for it. */
export type Chain = readonly [Certificate, ...Certificate[]];

/** Cross-certified authorities have some ways up; a hostile message shall not make us walk thousands. */
const MAX_CHAINS = 8;
const MAX_LINKS = 8;
const MAX_EXTRA = 16;

/**
 * Finds a way from the signer to an anchor that holds at the given time, and returns it. A way is judged by openssl, which is given its
 * certificates alone: so what is judged further (revocation, policies, strength) is what openssl judged.
 *
 * Anchors are self-signed certificates of the trust, and the signer's own certificate where the trust holds that very one (a pin: so
 * can certificates be trusted whose authority is gone). An authority in between helps to build a chain and is no anchor.
 * @throws Failure UntrustedSigner | CertificateInvalid | CertificateExpired | CertificateRevoked | CrlMissing | CrlExpired |
 * CrlInvalid | SigningPolicyViolation | SigningPolicyMissing | WeakSignature; of several ways that fail, what the first lacks
 */
export async function verifyChain(
  openssl: OpenSsl,
  signer: Certificate,
  extra: readonly Certificate[],
  trust: X509Trust,
  at: number,
): Promise<Chain> {
  const anchors = anchorsIn(trust.anchors);
  const chains = chainsOf(signer, extra.slice(0, MAX_EXTRA), anchors);
  // First of all whether anybody vouches for him: of a stranger's certificate, which he may have made himself, nothing else is told.
  if (chains.length === 0) throw noChain(signer);
  checkPurpose(signer);
  checkKey(signer, trust);
  let first: Failure | undefined;
  for (const chain of chains) {
    try {
      await checkChain(openssl, chain, anchors, trust, at);
      return chain;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      first ??= error;
    }
  }
  throw first ?? noChain(signer);
}

async function checkChain(
  openssl: OpenSsl,
  chain: Chain,
  anchors: readonly Certificate[],
  trust: X509Trust,
  at: number,
): Promise<void> {
  await checkPath(openssl, chain, at);
  for (const certificate of chain.slice(0, -1)) checkStrength(certificate, trust);
  for (const authority of chain.slice(1)) {
    checkKey(authority, trust);
    checkAuthority(authority);
  }
  const [pinnedBy] = chain.at(-1)?.selfSigned === true ? [] : issuersOf(chain, anchors);
  await checkRevocation(openssl, chain, trust, at, pinnedBy);
  checkSigningPolicies(chain, trust.anchors, trust.signingPolicy);
}

/** RFC 5280 §6: dates, signatures, basic constraints, path length, name constraints, critical extensions. */
async function checkPath(openssl: OpenSsl, chain: Chain, at: number): Promise<void> {
  const [signer, ...above] = chain;
  const anchor = above.at(-1) ?? signer;
  const between = above.slice(0, -1);
  const bundle = (certificates: readonly Certificate[]) =>
    openssl.file(certificates.map(({ der }) => pemBlock(der, 'CERTIFICATE')).join(''));
  const exit = await openssl.run(
    'verify',
    ...NO_SYSTEM_AUTHORITIES,
    '-trusted',
    await bundle([anchor]),
    ...(between.length === 0 ? [] : ['-untrusted', await bundle(between)]),
    // Only a pinned signer is trusted without being self-signed.
    ...(anchor.selfSigned ? [] : ['-partial_chain']),
    // Purposes are judged here: grid certificates of people and hosts mostly lack emailProtection.
    '-purpose',
    'any',
    ...attime(at),
    await bundle([signer]),
  );
  if (exit.code !== 0) throw chainFailure(exit.stderr, chain);
}

const ANY_PURPOSE = '2.5.29.37.0';
const EMAIL_PROTECTION = '1.3.6.1.5.5.7.3.4';
const CLIENT_AUTHENTICATION = '1.3.6.1.5.5.7.3.2';
const CODE_SIGNING = '1.3.6.1.5.5.7.3.3';
const DOCUMENT_SIGNING = '1.3.6.1.5.5.7.3.36';

/**
 * What people, robots and portals sign lists with: mail certificates, but also grid certificates for client authentication. A
 * certificate for servers alone is not its holder's signature.
 */
const PURPOSES = new Set([ANY_PURPOSE, EMAIL_PROTECTION, CLIENT_AUTHENTICATION, CODE_SIGNING, DOCUMENT_SIGNING]);

function checkPurpose(signer: Certificate): void {
  const { keyUsage } = signer;
  if (keyUsage !== undefined && !keyUsage.has('digitalSignature') && !keyUsage.has('nonRepudiation')) {
    throw new Failure(
      'CertificateInvalid',
      `the certificate of ${titleOf(signer)} is not for signing: its key usage has neither digitalSignature nor nonRepudiation`,
    );
  }
  checkAuthority(signer);
}

/** An authority that is limited to purposes passes its limits on to all below it. */
function checkAuthority({ purposes, ...certificate }: Certificate): void {
  if (purposes === undefined || purposes.some((purpose) => PURPOSES.has(purpose))) return;
  throw new Failure(
    'CertificateInvalid',
    `the certificate of ${titleOf({ purposes, ...certificate })} is not for signing: its extended key usage has none of emailProtection, clientAuth, codeSigning`,
  );
}

/** The authority's signature over the certificate. The anchor's own is not looked at: it is believed because it is there. */
function checkStrength(certificate: Certificate, trust: X509Trust): void {
  const weakness = weaknessOfDigest(certificate.digest, trust);
  if (weakness !== undefined)
    throw weak(`the certificate of ${titleOf(certificate)}, which its authority signed, ${weakness}`);
}

function checkKey(certificate: Certificate, trust: X509Trust): void {
  const weakness = weaknessOfKey(certificate.publicKey, trust);
  if (weakness !== undefined) throw weak(`the certificate of ${titleOf(certificate)} ${weakness}`);
}

function weak(fact: string): Failure {
  return new Failure(
    'WeakSignature',
    `${fact}: the publisher must sign with a better one; allowSha1: true takes what SHA-1 holds`,
  );
}

function noChain(signer: Certificate): Failure {
  const missing = printable(signer.selfSigned ? titleOf(signer) : titleOf({ ...signer, subject: signer.issuer }), 200);
  return new Failure(
    'UntrustedSigner',
    `no trusted authority vouches for ${printable(titleOf(signer), 200)}: the trusted certificates lead from ${missing} to no self-signed one. ` +
      'If you trust it, add its certificate and those above it, up to the root',
  );
}

/** All ways up, the shortest first, at most a handful. */
function chainsOf(signer: Certificate, extra: readonly Certificate[], anchors: readonly Certificate[]): Chain[] {
  if (anchors.some(({ fingerprint }) => fingerprint === signer.fingerprint)) return [[signer]];
  const pool = [...anchors, ...extra];
  const trusted = new Set(anchors.filter(({ selfSigned }) => selfSigned).map(({ fingerprint }) => fingerprint));
  const found: Chain[] = [];
  let open: Chain[] = [[signer]];
  for (let links = 1; links < MAX_LINKS && open.length > 0 && found.length < MAX_CHAINS; links += 1) {
    const longer = open.flatMap((chain) => issuersOf(chain, pool).map((issuer): Chain => [...chain, issuer]));
    found.push(...longer.filter((chain) => trusted.has(chain.at(-1)?.fingerprint ?? '')));
    open = longer.filter((chain) => chain.at(-1)?.selfSigned === false).slice(0, MAX_CHAINS);
  }
  return found.slice(0, MAX_CHAINS);
}

function issuersOf(chain: Chain, pool: readonly Certificate[]): Certificate[] {
  const last = chain.at(-1) ?? chain[0];
  const issuers = pool.filter(
    (each) =>
      !chain.some(({ fingerprint }) => fingerprint === each.fingerprint) &&
      last.x509.checkIssued(each.x509) &&
      last.x509.verify(each.publicKey),
  );
  return [...new Map(issuers.map((each) => [each.fingerprint, each])).values()];
}

/** Anchors are read once, however many documents are judged by them. */
const ANCHORS = new WeakMap<Anchors, Certificate[]>();

function anchorsIn(anchors: Anchors): Certificate[] {
  const known = ANCHORS.get(anchors);
  if (known !== undefined) return known;
  const certificates = readCertificates(anchors.certificates);
  const [file] = anchors.certificates;
  if (certificates.length === 0 && file !== undefined) {
    throw new Failure(
      'InvalidTrust',
      `no certificate can be read in the trusted files (${printable(file.name, 80)} is the first): give PEM or DER`,
    );
  }
  ANCHORS.set(anchors, certificates);
  return certificates;
}
