import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { signatureDigestOf, weaknessOfDigest } from './algorithms.ts';
import { type Certificate, titleOf } from './certificate.ts';
import { Members, only, TAG, timeOf } from './der.ts';
import { type Name, nameOf, oneLine, sameName } from './name.ts';
import { attime, NO_SYSTEM_AUTHORITIES, type OpenSsl } from './openssl.ts';
import { derBlocks, pemBlock } from './pem.ts';
import type { Anchors, X509Trust } from './trust.ts';
import { revocationFailure } from './verdict.ts';

/**
 * Revocation of the whole chain: each certificate below the anchor by a list of its own issuer. `Require` wants one for each link,
 * `IfPresent` uses those that there are; either refuses one that is expired, forged, damaged or from the future, since who can
 * withhold the fresh list would else choose what is revoked. Nothing revokes a self-signed anchor but its removal from the trust. A
 * pinned signer can be revoked by `pinnedBy`, its issuer, where that is known.
 * @throws Failure CrlMissing | CrlExpired | CrlInvalid | CertificateRevoked | WeakSignature
 */
export async function checkRevocation(
  openssl: OpenSsl,
  chain: readonly Certificate[],
  trust: X509Trust,
  at: number,
  pinnedBy?: Certificate,
): Promise<void> {
  if (trust.crl === 'Ignore') return;
  const lists = crlsIn(trust.anchors);
  for (const [index, certificate] of chain.entries()) {
    const issuer = chain[index + 1] ?? pinnedBy;
    if (issuer === undefined && certificate.selfSigned) return;
    const ofIssuer = lists.crls.filter((crl) => sameName(crl.issuer, certificate.issuer));
    if (issuer !== undefined && ofIssuer.length > 0) await checkLink(openssl, certificate, issuer, ofIssuer, trust, at);
    else if (trust.crl === 'Require' || lists.damaged.length > 0 || ofIssuer.length > 0) {
      throw missing(certificate, lists.damaged[0]);
    }
  }
}

async function checkLink(
  openssl: OpenSsl,
  certificate: Certificate,
  issuer: Certificate,
  crls: readonly Crl[],
  trust: X509Trust,
  at: number,
): Promise<void> {
  const strong = crls.filter(({ digest }) => weaknessOfDigest(digest, trust) === undefined);
  if (strong.length === 0) {
    throw new Failure(
      'WeakSignature',
      `the revocation list of ${titleOf(issuer)} ${weaknessOfDigest(crls[0]?.digest ?? '', trust) ?? ''}: ` +
        'bring one with a better signature; allowSha1: true takes what SHA-1 holds',
    );
  }
  const exit = await openssl.run(
    'verify',
    ...NO_SYSTEM_AUTHORITIES,
    // One link at a time: the chain holds already, and an answer about a link cannot be lost among those of others.
    '-partial_chain',
    '-trusted',
    await openssl.file(pemBlock(issuer.der, 'CERTIFICATE')),
    '-crl_check',
    '-CRLfile',
    await openssl.file(strong.map(({ der }) => pemBlock(der, 'X509 CRL')).join('')),
    '-purpose',
    'any',
    ...attime(at),
    await openssl.file(pemBlock(certificate.der, 'CERTIFICATE')),
  );
  if (exit.code !== 0) throw revocationFailure(exit.stderr, certificate, issuer);
}

interface Crl {
  readonly der: Uint8Array;
  readonly issuer: Name;
  readonly digest: string;
}

interface Crls {
  readonly crls: readonly Crl[];
  /** Files that hold something else than they should. */
  readonly damaged: readonly string[];
}

const READ = new WeakMap<Anchors, Crls>();

function crlsIn(anchors: Anchors): Crls {
  const known = READ.get(anchors);
  if (known !== undefined) return known;
  const crls: Crl[] = [];
  const damaged: string[] = [];
  for (const { name, bytes } of anchors.crls) {
    const blocks = derBlocks(bytes, 'X509 CRL');
    if (blocks.length === 0) damaged.push(name);
    for (const der of blocks) {
      try {
        crls.push(readCrl(der));
      } catch {
        damaged.push(name);
      }
    }
  }
  const read = { crls, damaged };
  READ.set(anchors, read);
  return read;
}

/** RFC 5280 §5.1, up to the dates. */
function readCrl(der: Uint8Array): Crl {
  const fields = new Members(new Members(only(der)).take(TAG.sequence));
  fields.optional(TAG.integer);
  const digest = signatureDigestOf(fields.take(TAG.sequence)) ?? 'no digest';
  const issuer = nameOf(fields.take(TAG.sequence));
  timeOf(fields.take());
  // §5.1.2.5 demands nextUpdate. Without it a list would be fresh for ever.
  timeOf(fields.take());
  return { der, issuer, digest };
}

function missing({ issuer }: Certificate, damaged: string | undefined): Failure {
  const authority = printable(oneLine(issuer), 200);
  if (damaged !== undefined) {
    return new Failure(
      'CrlInvalid',
      `there is no revocation list of ${authority} that can be read, and ${printable(damaged, 80)} is none: bring it again (fetch-crl)`,
    );
  }
  return new Failure(
    'CrlMissing',
    `there is no revocation list of ${authority} (with its certificate) among the trusted ones: bring it (fetch-crl), or set crl: IfPresent`,
  );
}
