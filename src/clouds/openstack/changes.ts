import type { Image, PatchOperation } from './glance.ts';
import { type Desired, managedOf, property } from './mapping.ts';

/** What lies between a record as it is and as it shall be, as steps of a JSON patch. None when there is nothing to do. */
export function changesOf(
  image: Image,
  target: Omit<Desired, 'members'> & { marks: Readonly<Record<string, string>> },
): PatchOperation[] {
  const operations: PatchOperation[] = [];
  const replace = (path: string, is: unknown, shall: unknown): void => {
    if (is !== shall) operations.push({ op: 'replace', path, value: shall });
  };
  const wanted = { ...target.properties, ...target.marks };
  for (const [name, value] of Object.entries(wanted)) {
    const is = image[name];
    // A property that is there as null (kernel_id) counts as there: Glance refuses to add it, and to replace one that is not.
    if (is !== value)
      operations.push({ op: Object.hasOwn(image, name) ? 'replace' : 'add', path: pointer(name), value });
  }
  const managed = managedOf(image);
  for (const name of managed.properties) {
    if (!Object.hasOwn(wanted, name) && property(image, name) !== undefined) {
      operations.push({ op: 'remove', path: pointer(name) });
    }
  }
  const tags = [...new Set([...image.tags.filter((tag) => !managed.tags.includes(tag)), ...target.tags])];
  if (tags.length !== image.tags.length || tags.some((tag) => !image.tags.includes(tag))) {
    operations.push({ op: 'replace', path: '/tags', value: tags });
  }
  replace('/name', image.name ?? '', target.name);
  replace('/min_disk', image.min_disk, target.minDisk);
  replace('/min_ram', image.min_ram, target.minRam);
  replace('/protected', image.protected, target.protected);
  replace('/visibility', image.visibility, target.visibility);
  // The last step: what comes out of hiding is complete.
  replace('/os_hidden', image.os_hidden, target.hidden);
  return operations;
}

const FIELDS: Readonly<Record<string, string>> = {
  '/name': 'name',
  '/min_disk': 'minDiskGiB',
  '/min_ram': 'minRamMiB',
  '/protected': 'protected',
  '/visibility': 'visibility',
  '/os_hidden': 'hidden',
  '/tags': 'tags',
};

/** The registration's name of what a step changes: `visibility`, `properties.hw_disk_bus`. */
export function fieldOf({ path }: PatchOperation): string {
  return FIELDS[path] ?? `properties.${path.slice(1).replaceAll('~1', '/').replaceAll('~0', '~')}`;
}

/** RFC 6901: a slash in a property's name must not be taken for a step down. */
export function pointer(name: string): string {
  return `/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;
}
