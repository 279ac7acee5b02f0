import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import type { Certificate } from './certificate.ts';
import type { Chain } from './chain.ts';
import { isNamed } from './name-forms.ts';
import { oneLine } from './name.ts';
import type { Endorser, Signer, X509Trust } from './trust.ts';

/**
 * Whether an endorser, as somebody wrote him in any of the usual forms, is the signer: subject and issuer both. For what a list says
 * of its endorser (`hv:dn`, `hv:ca`) as well as for what a subscription trusts.
 */
export function isSigner(endorser: Endorser, { names }: Signer): boolean {
  return names !== undefined && isNamed(endorser.subject, names.subject) && isNamed(endorser.issuer, names.issuer);
}

/**
 * That the anchors vouch for somebody does not make him an endorser. Asked before the chain is: an endorser who was taken out of the
 * trust is out, even while a CRL is missing or his certificate has ended.
 * @throws Failure EndorserNotTrusted
 */
export function requireEndorser({ subject, issuer }: Certificate, { endorsers }: X509Trust): void {
  if (endorsers === undefined) return;
  if (endorsers.some((each) => isNamed(each.subject, subject) && isNamed(each.issuer, issuer))) return;
  throw new Failure(
    'EndorserNotTrusted',
    `the signer is no trusted endorser: if you trust him, add subject "${printable(oneLine(subject), 300)}" and issuer "${printable(oneLine(issuer), 300)}"`,
  );
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
