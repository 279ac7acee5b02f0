import type { Reason } from '../api/failure.ts';
import { isTakenOut } from '../trust/index.ts';
import type { Signer, Trust } from '../trust/trust.ts';

/** Why who signed a list, or an entry of it, is certainly trusted no longer. */
export interface Distrust {
  readonly reason: Reason;
  readonly message: string;
}

/**
 * These end the trust in a list that was accepted before, for certain. A CRL that is missing, an authority that is gone from the
 * bundle or a certificate past its date do not: nothing may happen to images because an update of the anchors went wrong.
 */
const DISTRUSTED: readonly Reason[] = ['EndorserNotTrusted', 'CertificateRevoked', 'KeyRevoked'];

/** A key that is no longer named is as certain as an endorser who is not: the keys themselves are what is trusted. */
export function isDistrust(reason: Reason, kind: Trust['kind']): boolean {
  if (DISTRUSTED.includes(reason)) return true;
  return reason === 'UntrustedSigner' && (kind === 'openpgp' || kind === 'minisign');
}

/**
 * A signer who was proven when his list was accepted, and whom the trust has taken out since. His signature need not be proven again
 * for that: the authority that vouched for him is often taken out in the same step.
 */
export function distrustOf(signer: Signer, trust: Trust): Distrust | undefined {
  if (!isTakenOut(signer, trust)) return undefined;
  const who = signer.issuer === undefined ? signer.name : `${signer.name} (issuer ${signer.issuer})`;
  return {
    reason: 'EndorserNotTrusted',
    message:
      trust.kind === signer.kind
        ? `${who} signed it, and is no endorser of spec.trust any more`
        : `${who} signed it (${signer.kind}), and spec.trust is ${trust.kind} now`,
  };
}
