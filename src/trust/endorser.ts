import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import type { Certificate } from './certificate.ts';
import type { Chain } from './chain.ts';
import { isNamed } from './name-forms.ts';
import { oneLine } from './name.ts';
import type { Endorser, Signer, Trust, X509Trust } from './trust.ts';

/**
 * Whether an endorser, as somebody wrote him in any of the usual forms, is the signer: subject and issuer both. For what a list says
 * of its endorser (`hv:dn`, `hv:ca`) as well as for what a subscription trusts.
 */
export function isSigner(endorser: Endorser, { names }: Signer): boolean {
  return names !== undefined && isNamed(endorser.subject, names.subject) && isNamed(endorser.issuer, names.issuer);
}

/**
 * Whether the trust has taken this signer out by its own words, whatever its certificates say today: it asks for another kind of
 * signature, or does not name him among its endorsers. Keys are what OpenPGP and minisign trust by, so there the signature tells.
 */
export function isTakenOut({ kind, ...signer }: Signer, trust: Trust): boolean {
  if (trust.kind === 'unsigned') return false;
  if (trust.kind !== kind) return true;
  if (trust.kind !== 'x509' || trust.endorsers === undefined) return false;
  return !trust.endorsers.some((endorser) => isSigner(endorser, { kind, ...signer }));
}

/**
 * The chain of a signer who is an endorser as well: that the anchors vouch for somebody does not make him one. An endorser who was taken
 * out of the trust is out also while his chain cannot be judged: while a CRL is missing, or when his certificate has ended. A stranger,
 * whom no anchor vouches for, is a stranger first: his name is what he says himself.
 * @throws Failure EndorserNotTrusted, or what the chain lacks
 */
export async function endorsedChain(
  signer: Certificate,
  trust: X509Trust,
  chain: () => Promise<Chain>,
): Promise<Chain> {
  try {
    const found = await chain();
    requireEndorser(signer, trust);
    return found;
  } catch (error) {
    if (error instanceof Failure && error.reason !== 'UntrustedSigner') requireEndorser(signer, trust);
    throw error;
  }
}

function requireEndorser({ subject, issuer }: Certificate, { endorsers }: X509Trust): void {
  if (endorsers === undefined) return;
  if (endorsers.some((each) => isNamed(each.subject, subject) && isNamed(each.issuer, issuer))) return;
  throw new Failure(
    'EndorserNotTrusted',
    `the signer is no trusted endorser: if you trust him, add subject "${printable(oneLine(subject), 300)}" and issuer "${printable(oneLine(issuer), 300)}"`,
  );
}

/** A signer of X.509 by his two names, in their one-line form; others by the one that they have. */
export function endorserOf({ name, subject = name, issuer = '' }: Signer): Endorser {
  return { subject, issuer };
}

export function signerOf(chain: Chain, facts: { digest: string; signingTime: number | undefined }): Signer {
  const [certificate] = chain;
  const { subject, issuer, x509 } = certificate;
  return {
    kind: 'x509',
    name: oneLine(subject),
    subject: oneLine(subject),
    issuer: oneLine(issuer),
    names: { subject, issuer },
    emails: certificate.emails,
    fingerprint: certificate.fingerprint,
    digest: facts.digest,
    ...(facts.signingTime === undefined ? {} : { signedAt: new Date(facts.signingTime).toISOString() }),
    notBefore: x509.validFromDate.toISOString(),
    notAfter: x509.validToDate.toISOString(),
    chain: chain.map((each) => oneLine(each.subject)),
  };
}
