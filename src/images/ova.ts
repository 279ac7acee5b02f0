import { Failure } from '../api/failure.ts';
import type { Format } from './format.ts';
import { readOvf } from './ovf.ts';
import { HEAD_BYTES, recognise, TAIL_BYTES } from './recognise.ts';
import { listTar, type Segment, type TarMember } from './tar.ts';
import { printable } from '../api/printable.ts';
import { corrupt, subWindow, unsafe, type Window } from './window.ts';

const MAX_OVF_BYTES = 2 ** 20;

/** The one disk of an appliance: a span of the archive, so that nothing has to be unpacked to look into it or to convert it. */
export interface OvaDisk {
  name: string;
  format: Exclude<Format, 'Ova' | 'Iso'>;
  offset: number;
  size: number;
}

/** @throws Failure UnsafeImage | CorruptImage | NotSupported | NotAnImage */
export async function findOvaDisk(file: Window): Promise<OvaDisk> {
  const members = await listTar(file);
  const names = new Set<string>();
  for (const member of members) requirePlainMember(member, names);

  const descriptors = members.filter((member) => /\.ovf$/i.test(member.name));
  const [descriptor] = descriptors;
  if (descriptor === undefined || descriptors.length > 1)
    throw corrupt(`the OVA archive has ${descriptors.length} OVF descriptors instead of one`);
  if (descriptor.size > MAX_OVF_BYTES)
    throw unsafe(`the OVF descriptor has ${descriptor.size} bytes; more than 1 MiB is refused`);
  const { files } = readOvf((await file.read(span(descriptor).offset, descriptor.size)).toString('utf8'));
  for (const href of files) {
    if (!names.has(href))
      throw unsafe(`the OVF descriptor refers to "${printable(href)}", which is not in the archive`);
  }

  const disks: OvaDisk[] = [];
  for (const member of members) {
    if (/\.(ovf|mf|cert)$/i.test(member.name)) continue;
    const format = await memberFormat(file, member);
    if (format !== undefined) disks.push({ name: member.name, format, offset: span(member).offset, size: member.size });
  }
  const [disk] = disks;
  if (disk === undefined) throw new Failure('NotAnImage', 'the OVA archive holds no disk');
  if (disks.length > 1) {
    const list = disks.map((each) => `"${printable(each.name, 60)}"`).join(', ');
    throw new Failure(
      'NotSupported',
      `the OVA archive holds ${disks.length} disks (${list}); an image is one disk: export them one by one`,
    );
  }
  return disk;
}

function requirePlainMember(member: TarMember, seen: Set<string>): void {
  const shown = printable(member.name);
  if (member.type === 'Directory')
    throw unsafe(`the OVA archive has a folder ("${shown}"); only plain files are allowed`);
  if (member.type !== 'File')
    throw unsafe(`the OVA archive's member "${shown}" is a link or a device; only plain files are allowed`);
  if (member.sparse) throw unsafe(`the OVA archive's member "${shown}" is sparse, which appliances never are`);
  if (member.name === '' || member.name.includes('/') || member.name.includes('\\') || member.name === '..') {
    throw unsafe(`the OVA archive's member "${shown}" has a path; only plain names are allowed`);
  }
  if (seen.has(member.name)) throw unsafe(`the OVA archive has the member "${shown}" twice`);
  seen.add(member.name);
}

async function memberFormat(file: Window, member: TarMember): Promise<OvaDisk['format'] | undefined> {
  const window = subWindow(file, span(member).offset, member.size);
  const head = await window.read(0, Math.min(HEAD_BYTES, window.size));
  const tail = await window.read(Math.max(0, window.size - TAIL_BYTES), Math.min(TAIL_BYTES, window.size));
  const { format, compression } = recognise(head, tail);
  const namedDisk = /\.(vmdk|vhdx?|vdi|qcow2|img|raw)$/i.test(member.name);
  if (compression !== 'None' && namedDisk) {
    throw new Failure(
      'NotSupported',
      `the disk "${printable(member.name)}" in the OVA archive is compressed with ${compression}: export it without`,
    );
  }
  if (format !== undefined && format !== 'Unknown' && format !== 'Ova' && format !== 'Iso') return format;
  // An ISO is a CD that travels along; anything else that calls itself a disk would be guessed at by others.
  if (namedDisk) throw corrupt(`the disk "${printable(member.name)}" in the OVA archive has no known disk format`);
  return undefined;
}

function span(member: TarMember): Segment {
  return member.segments[0] ?? { offset: 0, length: 0, at: 0 };
}
