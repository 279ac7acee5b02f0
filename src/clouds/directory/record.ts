import { stat } from 'node:fs/promises';
import { z } from 'zod';
import { Failure } from '../../api/failure.ts';
import { FORMATS, type Format, ROLES, type Role } from '../../images/format.ts';
import type { CloudRecord, Registration } from '../cloud.ts';
import { LAYOUT, type Site } from './site.ts';

const PHASES = ['staging', 'staged', 'published', 'retired'] as const;
export type Phase = (typeof PHASES)[number];

const Text = z.string();
const RegistrationShape = z.object({
  name: Text,
  visibility: z.enum(['Private', 'Shared', 'Community', 'Public']),
  members: z.array(Text),
  protected: z.boolean(),
  hidden: z.boolean(),
  tags: z.array(Text),
  properties: z.record(Text, Text),
  architecture: Text.optional(),
  os: z.object({ distro: Text.optional(), version: Text.optional(), type: Text.optional() }).optional(),
  minDiskGiB: z.number().optional(),
  minRamMiB: z.number().optional(),
  firmware: Text.optional(),
});

const Shape = z.object({
  id: Text,
  role: z.enum(ROLES),
  phase: z.enum(PHASES),
  /** Name of the data's file, the same in whichever folder it stands. */
  file: Text,
  format: z.enum(FORMATS),
  size: z.number(),
  virtualSize: z.number().optional(),
  /** Of the file, read back after it was written; with the modification time (ms) that it then had. */
  sha256: Text.optional(),
  modified: z.number().optional(),
  ownership: z.object({ owner: Text, guid: Text, claim: Text, sourceDigest: Text, attempt: z.number() }),
  registration: RegistrationShape,
  /** On a published disk: the parts that it boots from. */
  boot: z.object({ Kernel: Text.optional(), Ramdisk: Text.optional() }).default({}),
  createdAt: Text,
  registeredAt: Text.optional(),
});
/** What a site knows of one part, kept in `.records/<id>.json`. */
export type PartRecord = Omit<z.infer<typeof Shape>, 'registration'> & { registration: Registration };

/** @throws SyntaxError or ZodError when it is damaged */
export function parseRecord(text: string): PartRecord {
  return Shape.parse(JSON.parse(text)) as PartRecord;
}

const EXTENSIONS = {
  Raw: 'raw',
  Qcow2: 'qcow2',
  Vmdk: 'vmdk',
  Vdi: 'vdi',
  Vhd: 'vhd',
  Vhdx: 'vhdx',
  Iso: 'iso',
  Ova: 'ova',
} as const satisfies Record<Format, string>;

/** `<id>.qcow2`, `<id>.kernel`: flat, because a libvirt pool lists the files of one folder and no deeper. */
export function fileName(id: string, role: Role, format: Format): string {
  // Ids come from us, but they become names of files: nothing that could step out of the folder.
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(id)) throw new Failure('InvalidSpec', `${id} cannot be a file's name`);
  return `${id}.${role === 'Disk' ? EXTENSIONS[format] : role.toLowerCase()}`;
}

export interface Located {
  path: string;
  size: number;
  modified: number;
}

/** Where the data of a record stands when it has this phase. */
export function placeOf(site: Site, record: PartRecord, phase: Phase = record.phase): string {
  if (phase === 'published') return site.in(record.file);
  return site.in(phase === 'retired' ? LAYOUT.retired : LAYOUT.staging, record.file);
}

/**
 * Where it stands in truth: between the move of a file and the note of it a crash may come. Undefined when somebody took the
 * file away.
 */
export async function locate(site: Site, record: PartRecord): Promise<Located | undefined> {
  for (const phase of new Set<Phase>([record.phase, 'published', 'staged', 'retired'])) {
    const path = placeOf(site, record, phase);
    const info = await stat(path).catch(() => undefined);
    if (info?.isFile() === true) return { path, size: info.size, modified: info.mtimeMs };
  }
  return undefined;
}

/** Whether the file is the one whose hash was taken. */
export function untouched(record: PartRecord, located: Located): boolean {
  return located.size === record.size && located.modified === record.modified;
}

export function cloudRecordOf(record: PartRecord, located: Located | undefined): CloudRecord {
  const { ownership, sha256 } = record;
  const complete = record.phase !== 'staging';
  const proven = sha256 !== undefined && located !== undefined && untouched(record, located);
  return {
    id: record.id,
    role: record.role,
    name: record.registration.name,
    ...ownership,
    ...(sha256 !== undefined && complete ? { sentSha256: sha256 } : {}),
    cloudDigests: proven ? { sha256 } : {},
    ...(located === undefined ? {} : { size: located.size }),
    format: record.format,
    state: complete
      ? record.phase === 'retired'
        ? 'Deactivated'
        : 'Active'
      : located === undefined
        ? 'Empty'
        : 'Uploading',
    published: record.phase === 'published',
    createdAt: record.createdAt,
  };
}
