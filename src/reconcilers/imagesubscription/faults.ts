import type { Reason } from '../../api/failure.ts';
import { ANNOTATIONS, type ImageSubscription, type VMImage } from '../../api/types.ts';
import type { Skipped } from '../../catalogs/catalog.ts';
import { isDistrust } from '../../catalogs/distrust.ts';
import type { Trust } from '../../trust/trust.ts';

/** Why there is no entry for an image: who vouched for it is out, or something is wrong that he can mend. */
export type Fault = 'Distrust' | 'Defect';

/** Judged before anybody has vouched for the signer's certificate: he may have made it himself, under any name. */
const OF_ANYBODY: readonly Reason[] = ['UntrustedSigner', 'WeakSignature'];

/**
 * What the skipped entries of an id say of its image. Where entries are signed one by one, only those of the endorser from whom the image
 * was taken count: what others have written of it, who may never have been trusted, neither ends the trust in it nor keeps it.
 * Of several entries of his, one that may be in order tomorrow keeps it, but not one that somebody may have made in his name.
 */
export function faultsOf(
  skipped: readonly Skipped[],
  { trust }: Pick<ImageSubscription['spec'], 'trust'>,
): (id: string, image: VMImage) => Fault | undefined {
  const kind = kindOf(trust);
  const byId = Map.groupBy(skipped, ({ id }) => id);
  return (id, image) => {
    const own = (byId.get(id) ?? []).filter(({ signer }) => signer === undefined || isFrom(image, signer));
    if (own.length === 0) return undefined;
    const certain = own.filter(({ reason, signer }) => signer === undefined || !OF_ANYBODY.includes(reason));
    return certain.length > 0 && certain.every(({ reason }) => isDistrust(reason, kind)) ? 'Distrust' : 'Defect';
  };
}

function isFrom({ metadata: { annotations = {} } }: VMImage, signer: NonNullable<Skipped['signer']>): boolean {
  if (signer === 'Unproven') return false;
  return (
    annotations[ANNOTATIONS.endorser] === signer.subject && annotations[ANNOTATIONS.endorserIssuer] === signer.issuer
  );
}

function kindOf({ x509, openpgp, minisign }: ImageSubscription['spec']['trust']): Trust['kind'] {
  if (x509 !== undefined) return 'x509';
  if (openpgp !== undefined) return 'openpgp';
  return minisign === undefined ? 'unsigned' : 'minisign';
}
