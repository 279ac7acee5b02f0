import { createHash } from 'node:crypto';
import { z } from 'zod';
import { ALGORITHMS, type Digests } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Format, Role } from '../../images/format.ts';
import type { CloudRecord, Ownership, RecordState, Registration } from '../cloud.ts';
import type { Image } from './glance.ts';

/** Between our words and Glance's. Pure: nothing here asks anybody. */

/** Properties that tell whose a record is and how far it has come. */
export const MARK = {
  owner: 'imageproxy_owner',
  guid: 'imageproxy_guid',
  claim: 'imageproxy_claim',
  attempt: 'imageproxy_attempt',
  digest: 'imageproxy_digest',
  role: 'imageproxy_role',
  /** `staged`, `published`, `retired`, or `held`: retired while the cloud's own people had it deactivated or hidden. */
  state: 'imageproxy_state',
  /** sha256 of what was sent; set only after Glance's own hash was compared with ours. */
  sent: 'imageproxy_sent_sha256',
  /** What we set ({@link Managed}), so that what we no longer want can go and others' additions stay. */
  managed: 'imageproxy_managed',
} as const;

export type RecordPhase = 'staged' | 'published' | 'retired' | 'held';

const DISK_FORMATS: Readonly<Record<Format, { disk: string; container: string }>> = {
  Raw: { disk: 'raw', container: 'bare' },
  Qcow2: { disk: 'qcow2', container: 'bare' },
  Vmdk: { disk: 'vmdk', container: 'bare' },
  Vdi: { disk: 'vdi', container: 'bare' },
  Vhd: { disk: 'vhd', container: 'bare' },
  Vhdx: { disk: 'vhdx', container: 'bare' },
  Iso: { disk: 'iso', container: 'bare' },
  // The tar holds a VMDK; Glance asks for the format of what is inside.
  Ova: { disk: 'vmdk', container: 'ova' },
};

export const FORMATS_OF_GLANCE = Object.keys(DISK_FORMATS) as Format[];

/** A disk keeps its real format also when it boots from a kernel beside it: Nova looks at `kernel_id`, not at `ami`. */
export function formatsOf(role: Role, format: Format): { disk: string; container: string } {
  if (role === 'Kernel') return { disk: 'aki', container: 'aki' };
  if (role === 'Ramdisk') return { disk: 'ari', container: 'ari' };
  return DISK_FORMATS[format];
}

function formatOf(image: Image): Format | undefined {
  if (image.disk_format === 'aki' || image.disk_format === 'ari') return 'Raw';
  return FORMATS_OF_GLANCE.find((format) => {
    const { disk, container } = DISK_FORMATS[format];
    return disk === image.disk_format && container === image.container_format;
  });
}

/** Core attributes: Glance's create body is flat, and with admin rights `owner` or `visibility` in it are obeyed. */
const CORE = new Set(
  (
    'id name status visibility protected os_hidden owner tags size virtual_size checksum os_hash_algo os_hash_value ' +
    'disk_format container_format min_disk min_ram created_at updated_at file self schema direct_url location locations ' +
    'stores deleted deleted_at is_public members kernel_id ramdisk_id'
  ).split(' '),
);
const RESERVED_PREFIXES = ['imageproxy_', 'os_glance_', 'img_signature'];

/** Whether a free property may have this name. Compared without case: some of Glance's databases do so too. */
export function isReserved(name: string): boolean {
  const lower = name.toLowerCase();
  return CORE.has(lower) || RESERVED_PREFIXES.some((prefix) => lower.startsWith(prefix));
}

/** @throws Failure InvalidSpec for what would set more than a free property, or be refused. */
export function checkRegistration(registration: Registration): void {
  for (const name of Object.keys(registration.properties)) {
    if (name === '' || name.length > 255) {
      throw new Failure('InvalidSpec', 'registration.properties: a name has 1 to 255 characters');
    }
    if (isReserved(name)) {
      throw new Failure('InvalidSpec', `registration.properties.${name}: the name is reserved: choose another`);
    }
  }
  if (registration.members.length > 0 && registration.visibility !== 'Shared') {
    throw new Failure(
      'InvalidSpec',
      `registration.members: only an image with visibility: Shared has members, this one is ${registration.visibility}`,
    );
  }
}

const ARCHITECTURES: Readonly<Record<string, string>> = { amd64: 'x86_64', arm64: 'aarch64', i386: 'i686' };

/** Everything that a published record shall have. */
export interface Desired {
  name: string;
  visibility: string;
  protected: boolean;
  hidden: boolean;
  minDisk: number;
  minRam: number;
  tags: readonly string[];
  members: readonly string[];
  /** Free properties, those of the typed fields among them. A typed field goes before a free property of the same name. */
  properties: Readonly<Record<string, string>>;
}

export function desiredOf(
  registration: Registration,
  role: Role,
  boot: { kernel?: string | undefined; ramdisk?: string | undefined } = {},
): Desired {
  const { architecture, os, firmware } = registration;
  const properties: Record<string, string> = role === 'Disk' ? { ...registration.properties } : {};
  const set = (name: string, value: string | undefined): void => {
    if (value !== undefined) properties[name] = value;
  };
  set('architecture', architecture === undefined ? undefined : (ARCHITECTURES[architecture] ?? architecture));
  if (role === 'Disk') {
    set('os_distro', os?.distro?.toLowerCase());
    set('os_version', os?.version);
    set('os_type', os?.type?.toLowerCase());
    set('hw_firmware_type', firmware?.toLowerCase());
    set('kernel_id', boot.kernel);
    set('ramdisk_id', boot.ramdisk);
  }
  return {
    name: nameOf(registration, role),
    visibility: registration.visibility.toLowerCase(),
    protected: registration.protected,
    hidden: registration.hidden,
    minDisk: role === 'Disk' ? (registration.minDiskGiB ?? 0) : 0,
    minRam: role === 'Disk' ? (registration.minRamMiB ?? 0) : 0,
    tags: [...new Set(registration.tags)],
    members: [...new Set(registration.members)],
    properties,
  };
}

function nameOf(registration: Registration, role: Role): string {
  return role === 'Disk' ? registration.name : `${registration.name}-${role.toLowerCase()}`;
}

/** The body that makes a record: private, hidden, ours. Everything else waits for `publish`. */
export function createBody(part: {
  id: string;
  role: Role;
  format: Format;
  ownership: Ownership;
  registration: Registration;
}): Record<string, unknown> {
  const { disk, container } = formatsOf(part.role, part.format);
  return {
    id: part.id,
    name: nameOf(part.registration, part.role),
    disk_format: disk,
    container_format: container,
    visibility: 'private',
    os_hidden: true,
    [MARK.owner]: part.ownership.owner,
    [MARK.guid]: part.ownership.guid,
    [MARK.claim]: part.ownership.claim,
    [MARK.attempt]: String(part.ownership.attempt),
    [MARK.digest]: part.ownership.sourceDigest,
    [MARK.role]: part.role,
    [MARK.state]: 'staged' satisfies RecordPhase,
  };
}

export function recordOf(image: Image): CloudRecord {
  const sent = property(image, MARK.sent);
  const role = property(image, MARK.role);
  const format = formatOf(image);
  return {
    id: image.id,
    role: role === 'Kernel' || role === 'Ramdisk' ? role : 'Disk',
    name: image.name ?? '',
    owner: property(image, MARK.owner) ?? '',
    guid: property(image, MARK.guid) ?? '',
    claim: property(image, MARK.claim) ?? '',
    attempt: Number(property(image, MARK.attempt) ?? 0) || 0,
    sourceDigest: property(image, MARK.digest) ?? '',
    ...(sent === undefined ? {} : { sentSha256: sent }),
    cloudDigests: digestsOf(image),
    ...(typeof image.size === 'number' ? { size: image.size } : {}),
    ...(format === undefined ? {} : { format }),
    state: stateOf(image.status),
    published: phaseOf(image) === 'published',
    createdAt: image.created_at,
  };
}

export function stateOf(status: string): RecordState {
  switch (status) {
    case 'queued':
      return 'Empty';
    case 'saving':
    case 'uploading':
    case 'importing':
      return 'Uploading';
    case 'active':
      return 'Active';
    case 'deactivated':
      return 'Deactivated';
    case 'deleted':
    case 'pending_delete':
      return 'Deleting';
    default:
      return 'Broken';
  }
}

/** Glance's own hashes. Its md5 `checksum` is told only where there is no better one. */
export function digestsOf(image: Image): Digests {
  const algorithm = ALGORITHMS.find((name) => name === image.os_hash_algo?.toLowerCase());
  if (algorithm !== undefined && typeof image.os_hash_value === 'string') {
    return { [algorithm]: image.os_hash_value.toLowerCase() };
  }
  return typeof image.checksum === 'string' ? { md5: image.checksum.toLowerCase() } : {};
}

export function property(image: Image, name: string): string | undefined {
  const value = image[name];
  return typeof value === 'string' ? value : undefined;
}

export function phaseOf(image: Image): RecordPhase {
  const phase = property(image, MARK.state);
  return phase === 'published' || phase === 'retired' || phase === 'held' ? phase : 'staged';
}

/** What we set at the last publication. Members are kept as short hashes: everybody who sees an image sees its properties. */
const Managed = z.object({
  hidden: z.boolean().default(false),
  properties: z.array(z.string()).max(1000).default([]),
  tags: z.array(z.string()).max(1000).default([]),
  members: z.array(z.string()).max(1000).default([]),
});
export type Managed = z.infer<typeof Managed>;

export function managedOf(image: Image): Managed {
  try {
    const managed = Managed.parse(JSON.parse(property(image, MARK.managed) ?? '{}'));
    // Whoever can write the property must not make us remove what is not a free property.
    const ours = (name: string): boolean => name === 'kernel_id' || name === 'ramdisk_id' || !isReserved(name);
    return { ...managed, properties: managed.properties.filter(ours) };
  } catch {
    return { hidden: false, properties: [], tags: [], members: [] };
  }
}

export function managedText(desired: Desired): string {
  return JSON.stringify({
    hidden: desired.hidden,
    properties: Object.keys(desired.properties).sort(),
    tags: [...desired.tags].sort(),
    members: desired.members.map(memberHash).sort(),
  } satisfies Managed);
}

export function memberHash(member: string): string {
  return createHash('sha256').update(member).digest('hex').slice(0, 16);
}
