import type { Reason } from '../api/failure.ts';
import type { Trust } from '../trust/trust.ts';

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
