import type { ImageSubscription } from '../../api/types.ts';
import type { Entry } from '../../catalogs/catalog.ts';
import { glob } from '../vmimage/targets.ts';
import { type Choice, expressionOf } from './expression.ts';

export type Select = NonNullable<ImageSubscription['spec']['select']>;
type EntryList = NonNullable<Select['include']>;
type Requirement = NonNullable<Select['matchFields']>[number];

/**
 * Which entries are taken, planned once for all of them. What it costs, its author decides: it runs in a thread (selections.ts).
 * @throws Failure InvalidSpec for an expression that cannot be evaluated
 */
export function selectionOf(select: Select): (entry: Entry) => Choice {
  const { include, exclude, matchFields, expression } = select;
  const [included, excluded] = [include, exclude].map((list) => (list === undefined ? undefined : listOf(list)));
  const chosen =
    expression === undefined
      ? (entry: Entry) => (matchFields ?? []).every((requirement) => fulfils(entry, requirement))
      : expressionOf(expression);
  return (entry) => {
    if (excluded?.(entry) === true || included?.(entry) === false) return false;
    return chosen(entry);
  };
}

/** Whether a white or black list names the entry, by any of its members. */
function listOf({ ids = [], endorsers = [], checksums = [] }: EntryList): (entry: Entry) => boolean {
  const sums = new Set(checksums.map((sum) => sum.toLowerCase()));
  const plainIds = new Set(ids);
  const globs = ids.filter((id) => /[*?]/.test(id));
  return (entry) => {
    const { id, signer } = entry;
    if (plainIds.has(id) || globs.some((pattern) => glob(pattern, id))) return true;
    const names = [signer?.subject, signer?.name].filter((name) => name !== undefined);
    if (names.some((name) => endorsers.some((pattern) => glob(pattern, name)))) return true;
    return [...Object.values(entry.checksums), ...Object.values(entry.contentChecksums)].some((sum) => sums.has(sum));
  };
}

function fulfils(entry: Entry, { key, operator, values = [] }: Requirement): boolean {
  const value = fieldOf(entry, key);
  switch (operator) {
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
    case 'In':
      return value !== undefined && values.some((pattern) => glob(pattern, value));
    // As in Kubernetes' label selectors, what is not there is not in.
    case 'NotIn':
      return value === undefined || !values.some((pattern) => glob(pattern, value));
  }
}

/**
 * A field by its name in the list (`ad:vo`), or by ours: `id`, `version`, `title`, `arch`, `os.distro`, `checksums.sha512`, `endorser`.
 * Undefined where it is absent or empty.
 */
function fieldOf(entry: Entry, key: string): string | undefined {
  const [head = '', tail] = key.split('.', 2);
  const own = OWN[head];
  const value = own === undefined ? undefined : own(entry, tail);
  const found = value ?? (Object.hasOwn(entry.fields, key) ? entry.fields[key] : undefined);
  return found === undefined || found === '' ? undefined : String(found);
}

type Reader = (entry: Entry, member: string | undefined) => string | number | undefined;

const plain =
  (field: keyof Entry): Reader =>
  (entry, member) =>
    member === undefined ? (entry[field] as string | number | undefined) : undefined;

const within =
  (field: 'os' | 'checksums' | 'contentChecksums'): Reader =>
  (entry, member) =>
    member !== undefined && Object.hasOwn(entry[field], member)
      ? (entry[field] as Readonly<Record<string, string>>)[member]
      : undefined;

const OWN: Readonly<Record<string, Reader>> = Object.assign(Object.create(null) as Record<string, Reader>, {
  ...Object.fromEntries(
    (
      [
        'id',
        'version',
        'title',
        'description',
        'format',
        'compression',
        'arch',
        'size',
        'minRamMiB',
        'minDiskGiB',
        'createdAt',
        'expiresAt',
        'deprecated',
      ] as const
    ).map((field) => [field, plain(field)]),
  ),
  os: within('os'),
  checksums: within('checksums'),
  contentChecksums: within('contentChecksums'),
  endorser: (entry: Entry) => entry.signer?.subject ?? entry.signer?.name,
});
