import type { ImageSite, ImageSiteStatus, VMImage } from '../../api/types.ts';
import type { Deps } from '../deps.ts';

/** VMImages that have something registered (or begun) at the site. */
export function usersOf(site: ImageSite, deps: Deps): string[] {
  return deps.store
    .list<VMImage>('VMImage')
    .filter(
      (image) =>
        image.status.sites?.some(
          (row) =>
            row.name === site.metadata.name &&
            (row.imageID !== undefined || row.operation !== undefined || (row.previous?.length ?? 0) > 0),
        ) === true,
    )
    .map((image) => `${image.metadata.namespace}/${image.metadata.name}`);
}

export function usersAndAskers(site: ImageSite, deps: Deps): string[] {
  const { name } = site.metadata;
  return deps.store
    .list<VMImage>('VMImage')
    .filter(
      (image) =>
        image.spec.siteSelector !== undefined ||
        image.spec.sites?.some((each) => each.name === name) === true ||
        image.status.sites?.some((row) => row.name === name) === true,
    )
    .map((image) => `${image.metadata.namespace}/${image.metadata.name}`);
}

export function countsOf(site: ImageSite, deps: Deps): NonNullable<ImageSiteStatus['counts']> {
  const counts = { images: 0, registered: 0, failed: 0 };
  for (const image of deps.store.list<VMImage>('VMImage')) {
    const row = image.status.sites?.find((each) => each.name === site.metadata.name);
    if (row === undefined) continue;
    counts.images++;
    if (row.phase === 'Ready' && row.imageID !== undefined) counts.registered++;
    if (row.phase === 'Failed') counts.failed++;
  }
  return counts;
}
