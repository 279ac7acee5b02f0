import { Failure } from '../../api/failure.ts';
import type { ImageSite, VMImage } from '../../api/types.ts';
import { LEASE_MARGIN_MS } from '../deps.ts';
import { hashOf } from './identity.ts';
import type { SiteWork } from './operations.ts';
import { admits, checkLimits, targetsOf } from './targets.ts';

/**
 * The last look before bytes become complete at a site: the same bytes are still wanted there as when the work began, and the
 * right to write is still ours.
 * @throws Failure Aborted
 */
export async function mayStillFinish(work: SiteWork): Promise<void> {
  takesUploads(reread(work));
}

/**
 * The last look before an image becomes visible. An edited registration stops it too: the record is complete by now, so that the
 * next round finds it and publishes it as it is wanted then.
 * @throws Failure Aborted | LimitExceeded
 */
export async function mayStillPublish(work: SiteWork): Promise<void> {
  takesUploads(reread(work));
  await mayStillServe(work);
}

/**
 * The last look before what is at the site already comes back into service, or is registered as it was edited. A site that is being
 * deleted takes only nothing new.
 * @throws Failure Aborted | LimitExceeded
 */
export async function mayStillServe(work: SiteWork): Promise<void> {
  const { image, registration, site } = reread(work);
  if (hashOf(registration) !== hashOf(work.registration)) stop('its registration was edited');
  checkLimits(image, registration, site);
}

function takesUploads({ site }: { site: ImageSite }): void {
  if (site.metadata.deletionTimestamp !== undefined) stop(`ImageSite ${site.metadata.name} is being deleted`);
}

function reread({ round, row }: SiteWork) {
  const { deps, namespace } = round;
  const { name, uid } = round.image.metadata;
  const image = deps.store.get<VMImage>('VMImage', { namespace, name });
  if (image === undefined || image.metadata.uid !== uid) return stop('the VMImage has gone');
  if (image.metadata.deletionTimestamp !== undefined) return stop('the VMImage is being deleted');
  if (image.spec.suspend) return stop('the VMImage is suspended');
  if (image.spec.state === 'Deactivated') return stop('the VMImage was deactivated');
  if (bytesOf(image) !== bytesOf(round.image)) return stop('the VMImage names other bytes now');
  const target = targetsOf(image, deps.store).find((each) => each.name === row.name);
  const site: ImageSite | undefined = target?.site;
  if (!deps.duties.serves(row.name)) return stop(`${row.name} is served by another controller now`);
  if (target === undefined || site === undefined) return stop(`${row.name} is not asked for any more`);
  if (site.spec.suspend || site.spec.abandoned) return stop(`ImageSite ${row.name} is suspended or abandoned`);
  if (!admits(site, image)) return stop(`ImageSite ${row.name} admits the namespace no longer`);
  if (!deps.authority.goodForMs(LEASE_MARGIN_MS))
    return stop('this controller may lose its Lease before the upload ends');
  return { image, site, registration: target.registration };
}

/** All that decides which bytes are wanted, and what they must be. */
function bytesOf({ spec }: VMImage): string {
  const { source, checksums, contentChecksums, compression, format, kernel, ramdisk, verification } = spec;
  return hashOf([source, checksums, contentChecksums, compression, format, kernel, ramdisk, verification]);
}

function stop(fact: string): never {
  throw new Failure('Aborted', fact);
}
