import { Failure } from '../../api/failure.ts';
import type { VMImage } from '../../api/types.ts';
import type { Round } from './round.ts';

/** How long the right to write must still last when the last bytes of an upload are released. */
const LEASE_MARGIN_MS = 10_000;

/**
 * The last look before bytes become usable: the image is still wanted as it was when the work began, and the right to write is
 * still ours.
 * @throws Failure Aborted
 */
export async function mayStillFinish(round: Round): Promise<void> {
  const { deps, image, namespace } = round;
  const now = deps.store.get<VMImage>('VMImage', { namespace, name: image.metadata.name });
  const stop = (fact: string): never => {
    throw new Failure('Aborted', fact);
  };
  if (now === undefined || now.metadata.uid !== image.metadata.uid) return stop('the VMImage has gone');
  if (now.metadata.deletionTimestamp !== undefined) return stop('the VMImage is being deleted');
  if (now.spec.suspend) return stop('the VMImage is suspended');
  if (now.spec.state === 'Deactivated' && image.spec.state !== 'Deactivated')
    return stop('the VMImage was deactivated');
  if (
    JSON.stringify([now.spec.source, now.spec.checksums]) !== JSON.stringify([image.spec.source, image.spec.checksums])
  ) {
    return stop('the VMImage names other bytes now');
  }
  if (!deps.authority.goodForMs(LEASE_MARGIN_MS))
    return stop('this controller may lose its Lease before the upload ends');
}
