import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { corrupt, requireInside, requireVirtualSize, u64le, unsafe, type Window } from './window.ts';

/** Virtual Disk Format 5.0 (VMware); where it is silent, what qemu's block/vmdk.c makes of the bytes. */
const SECTOR = 512;
const GD_AT_END = 2 ** 64;
const FLAG_COMPRESSED = 1 << 16;
const MAX_DESCRIPTOR_BYTES = 2 ** 20;
/** 64 TiB in the usual grains of 64 KiB. */
const MAX_GRAIN_TABLES = 2 ** 21;
const DIRECTORY_STEP = 64 * 1024;
const SINGLE_FILE_TYPES = ['monolithicSparse', 'streamOptimized'];

interface SparseHeader {
  capacity: number;
  grainSectors: number;
  descriptorOffset: number;
  descriptorBytes: number;
  directoryOffset: number;
  compressed: boolean;
}

/** `Sparse`: header KDMV; `Cowd`: an ESX extent; `Descriptor`: a text file that names its extents. */
export function vmdkKind(head: Buffer): 'Sparse' | 'Cowd' | 'Descriptor' | undefined {
  const magic = head.toString('latin1', 0, 4);
  if (magic === 'KDMV') return 'Sparse';
  if (magic === 'COWD') return 'Cowd';
  const text = head.toString('latin1', 0, 4096);
  if (/^\s*# *Disk DescriptorFile/i.test(text)) return 'Descriptor';
  // qemu also takes a text that begins with comments and a version line (vmdk_probe).
  return /^(?:[ \t]*(?:#[^\n]*)?\r?\n)*[ \t]*version=\d/.test(text) && /createType/i.test(text)
    ? 'Descriptor'
    : undefined;
}

/**
 * Whether the head alone proves a complete, single-file VMDK: header and descriptor are in it, and no footer follows.
 * @throws Failure UnsafeImage | CorruptImage | NotSupported
 */
export function judgeVmdkHead(head: Buffer): boolean {
  const header = readSparseHeader(head);
  if (header.directoryOffset === GD_AT_END || header.compressed) return false;
  const end = header.descriptorOffset + header.descriptorBytes;
  if (end > head.length) return false;
  judgeDescriptor(head.toString('latin1', header.descriptorOffset, end), header);
  return true;
}

/** Refuses everything but one self-contained sparse extent. Returns the virtual size in bytes. */
export async function examineVmdk(file: Window): Promise<number> {
  const head = await file.read(0, Math.min(file.size, 64 * 1024));
  const kind = vmdkKind(head);
  if (kind === 'Descriptor') throw refuseDescriptor(head.toString('latin1', 0, 16 * 1024));
  if (kind === 'Cowd') {
    throw new Failure(
      'NotSupported',
      'the VMDK file is an ESX extent (COWD), a part of a disk: export the disk as one file (streamOptimized or monolithicSparse)',
    );
  }
  let header = readSparseHeader(head);
  const descriptor = await file.read(header.descriptorOffset, header.descriptorBytes);
  judgeDescriptor(descriptor.toString('latin1'), header);
  if (header.directoryOffset === GD_AT_END) header = await readFooter(file, header);
  await requireGrainTables(file, header);
  return header.capacity * SECTOR;
}

function readSparseHeader(head: Buffer): SparseHeader {
  requireInside(0, SECTOR, head.length, 'the VMDK header');
  const version = head.readUInt32LE(4);
  if (version < 1 || version > 3) throw unsafe(`VMDK version ${version} is unknown; versions 1 to 3 are accepted`);
  // A file that was moved as text has these four bytes changed; VMware put them there to tell.
  if (head.toString('latin1', 73, 77) !== '\n \r\n')
    throw corrupt('the VMDK file was damaged by a transfer in text mode');
  const capacity = u64le(head, 12);
  // With capacity 0 qemu reads the descriptor as if it stood alone, and opens whatever files it names.
  if (capacity === 0) throw unsafe('the VMDK header has capacity 0: its descriptor could name files of the host');
  requireVirtualSize(capacity * SECTOR, 'VMDK');
  const grainSectors = u64le(head, 20);
  if (grainSectors < 1 || grainSectors > 2 ** 17 || (grainSectors & (grainSectors - 1)) !== 0) {
    throw corrupt(`the VMDK grain size of ${grainSectors} sectors is impossible`);
  }
  if (head.readUInt32LE(44) !== 512)
    throw corrupt(`the VMDK grain tables have ${head.readUInt32LE(44)} entries instead of 512`);
  if (head.readUInt16LE(77) > 1) throw unsafe(`the VMDK compression ${head.readUInt16LE(77)} is unknown`);
  const descriptorOffset = u64le(head, 28) * SECTOR;
  const descriptorBytes = u64le(head, 36) * SECTOR;
  if (descriptorOffset === 0 || descriptorBytes === 0) {
    throw oneExtent();
  }
  if (descriptorBytes > MAX_DESCRIPTOR_BYTES)
    throw unsafe(`the VMDK descriptor has ${descriptorBytes} bytes; more than 1 MiB is refused`);
  const directorySector = u64le(head, 56);
  return {
    capacity,
    grainSectors,
    descriptorOffset,
    descriptorBytes,
    directoryOffset: directorySector === GD_AT_END ? GD_AT_END : directorySector * SECTOR,
    compressed: (head.readUInt32LE(8) & FLAG_COMPRESSED) !== 0,
  };
}

/** Each entry of the grain directory is the sector of a table of 512 entries: all must lie in the file. */
async function requireGrainTables(
  file: Window,
  { capacity, grainSectors, directoryOffset }: SparseHeader,
): Promise<void> {
  const tables = Math.ceil(capacity / grainSectors / 512);
  if (tables > MAX_GRAIN_TABLES)
    throw unsafe(`the VMDK grain directory has ${tables} entries; more than ${MAX_GRAIN_TABLES} are refused`);
  requireInside(directoryOffset, tables * 4, file.size, 'the VMDK grain directory');
  for (let first = 0; first < tables; first += DIRECTORY_STEP) {
    const directory = await file.read(directoryOffset + first * 4, Math.min(DIRECTORY_STEP, tables - first) * 4);
    for (let at = 0; at < directory.length; at += 4) {
      const sector = directory.readUInt32LE(at);
      if (sector !== 0) requireInside(sector * SECTOR, 512 * 4, file.size, 'a VMDK grain table');
    }
  }
}

/** streamOptimized: the header is repeated before the last sector, with the directory's place, known only at the end. */
async function readFooter(file: Window, header: SparseHeader): Promise<SparseHeader> {
  requireInside(0, 1024 + SECTOR, file.size, 'the VMDK footer');
  const footerBytes = await file.read(file.size - 1024, SECTOR);
  if (footerBytes.toString('latin1', 0, 4) !== 'KDMV') {
    throw corrupt('the streamOptimized VMDK has no footer at its end: it is cut short');
  }
  const footer = readSparseHeader(footerBytes);
  if (footer.capacity !== header.capacity || footer.grainSectors !== header.grainSectors) {
    throw unsafe('the VMDK footer contradicts the header');
  }
  if (footer.descriptorOffset !== header.descriptorOffset || footer.descriptorBytes !== header.descriptorBytes) {
    throw unsafe('the VMDK footer names another descriptor than the header');
  }
  if (footer.directoryOffset === GD_AT_END) throw corrupt('the VMDK footer does not tell where the grain directory is');
  return footer;
}

/** The descriptor inside a sparse file must describe that file and no other. CVE-2022-47951, CVE-2024-32498 */
function judgeDescriptor(raw: string, header: SparseHeader): void {
  const nul = raw.indexOf('\0');
  const text = nul < 0 ? raw : raw.slice(0, nul);
  // qemu looks for the words anywhere, not by lines: so all of them count, whatever stands before.
  const types = [...text.matchAll(/createType\s*=\s*"?([^"\r\n]*)/gi)].map((match) => match[1] ?? '');
  const [type] = types;
  if (type === undefined) throw oneExtent();
  if (types.length !== 1) throw unsafe(`the VMDK descriptor names ${types.length} types instead of one`);
  if (!SINGLE_FILE_TYPES.includes(type)) throw refuseType(type);
  for (const match of text.matchAll(/parentCID\s*=\s*([0-9a-z]*)/gi)) {
    if ((match[1] ?? '').toLowerCase() !== 'ffffffff') throw refuseParent();
  }
  if (/parentFileNameHint/i.test(text)) throw refuseParent();

  const extents = extentLines(text);
  const [extent] = extents;
  if (extent === undefined || extents.length !== 1)
    throw unsafe(`the VMDK descriptor names ${extents.length} extents; a complete image has one, itself`);
  if (extent.type !== 'SPARSE' || /[/\\:]/.test(extent.file)) throw refuseExtent(extent.file);
  if (extent.sectors !== header.capacity) {
    throw corrupt(`the VMDK descriptor gives ${extent.sectors} sectors, its header ${header.capacity}`);
  }
}

interface Extent {
  sectors: number;
  type: string;
  file: string;
}

function extentLines(text: string): Extent[] {
  const extents: Extent[] = [];
  for (const line of text.split(/[\r\n]+/)) {
    const match = /^\s*(?:RW|RDONLY|NOACCESS)\s+(\d+)\s+(\S+)(?:\s+"([^"]*)")?/i.exec(line);
    if (match !== null)
      extents.push({ sectors: Number(match[1]), type: (match[2] ?? '').toUpperCase(), file: match[3] ?? '' });
  }
  return extents;
}

function refuseDescriptor(text: string): Failure {
  const names = extentLines(text).map((extent) => `"${printable(extent.file, 60)}"`);
  const type = /createType\s*=\s*"?([^"\r\n]*)/i.exec(text)?.[1] ?? 'unknown type';
  const list = names.length === 0 ? 'other files' : names.slice(0, 3).join(', ') + (names.length > 3 ? ', …' : '');
  return unsafe(
    `the VMDK file is only a descriptor (${printable(type, 40)}) that names ${list}: a cloud would read those from its own hosts. ` +
      'Publish the disk as one file (streamOptimized or monolithicSparse)',
  );
}

function oneExtent(): Failure {
  return unsafe(
    'the VMDK file has no descriptor: it is one extent of a split disk. Publish the disk as one file (streamOptimized or monolithicSparse)',
  );
}

function refuseType(type: string): Failure {
  return unsafe(
    `the VMDK type "${printable(type, 40)}" keeps its data in other files; only ${SINGLE_FILE_TYPES.join(' and ')} are complete in one`,
  );
}

function refuseParent(): Failure {
  return unsafe(
    'the VMDK image has a parent disk: a cloud would read that file from its own hosts. Publish a flattened image',
  );
}

function refuseExtent(file: string): Failure {
  return unsafe(
    `the VMDK descriptor names the file "${printable(file, 80)}": a cloud would read it from its own hosts`,
  );
}
