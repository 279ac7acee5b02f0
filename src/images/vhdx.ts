import { corrupt, requireInside, requireVirtualSize, u64le, unsafe, type Window } from './window.ts';

/** [MS-VHDX] Virtual Hard Disk v2 (VHDX) File Format. */
const KIB64 = 64 * 1024;
const HEADER_OFFSETS = [KIB64, 2 * KIB64];
const REGION_OFFSETS = [3 * KIB64, 4 * KIB64];
const GUID = {
  bat: '2dc27766-f623-4200-9d64-115e9bfd4a08',
  metadata: '8b7ca206-4790-4b9a-b8fe-575f050f886e',
  fileParameters: 'caa16737-fa36-4d43-b3b6-33f0aa44e76b',
  diskSize: '2fa54224-cd1b-4876-b211-5dbed83bf4b8',
  logicalSector: '8141bf1d-a96f-4709-ba47-f233a8faab5f',
  physicalSector: 'cda348c7-445d-4471-9cc9-e9885251c556',
  page83: 'beca12ab-b2e6-4523-93ef-c309e000c746',
  parentLocator: 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c',
} as const;
const KNOWN_ITEMS: readonly string[] = Object.values(GUID);

export function isVhdx(head: Buffer): boolean {
  return head.toString('latin1', 0, 8) === 'vhdxfile';
}

interface Span {
  offset: number;
  length: number;
}

/** Returns the virtual size in bytes. Refused: a parent, a log that must be replayed, whatever is required and unknown. */
export async function examineVhdx(file: Window): Promise<number> {
  await readCurrentHeader(file);
  const regions = await readRegions(file);
  const bat = regions.get(GUID.bat);
  const metadata = regions.get(GUID.metadata);
  if (bat === undefined || metadata === undefined)
    throw corrupt('the VHDX region table names no block table or no metadata');
  requireInside(bat.offset, bat.length, file.size, 'the VHDX block table');
  requireInside(metadata.offset, metadata.length, file.size, 'the VHDX metadata');

  const items = await readItems(file, metadata);
  if (items.has(GUID.parentLocator)) throw hasParent();
  const parameters = await readItem(file, metadata, items.get(GUID.fileParameters), 8, 'file parameters');
  if ((parameters.readUInt32LE(4) & 2) !== 0) throw hasParent();
  const blockBytes = parameters.readUInt32LE(0);
  if (blockBytes < 2 ** 20 || blockBytes > 2 ** 28 || (blockBytes & (blockBytes - 1)) !== 0) {
    throw corrupt(`the VHDX block size of ${blockBytes} bytes is impossible`);
  }
  const size = await readItem(file, metadata, items.get(GUID.diskSize), 8, 'virtual disk size');
  const virtualSize = requireVirtualSize(u64le(size, 0), 'VHDX');
  if (Math.ceil(virtualSize / blockBytes) * 8 > bat.length)
    throw corrupt('the VHDX block table is too small for the disk');
  return virtualSize;
}

/** Two copies of the header take turns; the valid one with the higher sequence number counts. */
async function readCurrentHeader(file: Window): Promise<void> {
  let current: Buffer | undefined;
  for (const offset of HEADER_OFFSETS) {
    const header = await file.read(offset, 4096);
    if (header.toString('latin1', 0, 4) !== 'head' || !checksumHolds(header)) continue;
    if (current === undefined || header.readBigUInt64LE(8) > current.readBigUInt64LE(8)) current = header;
  }
  if (current === undefined) throw corrupt('neither header of the VHDX image is valid');
  if (current.readUInt16LE(66) !== 1)
    throw unsafe(`VHDX version ${current.readUInt16LE(66)} is unknown; version 1 is accepted`);
  if (current.subarray(48, 64).some((byte) => byte !== 0)) {
    throw unsafe(
      'the VHDX image was not closed properly (its log is not empty): open and close it once in Hyper-V, and publish it again',
    );
  }
}

async function readRegions(file: Window): Promise<Map<string, Span>> {
  for (const offset of REGION_OFFSETS) {
    const table = await file.read(offset, KIB64);
    if (table.toString('latin1', 0, 4) !== 'regi' || !checksumHolds(table)) continue;
    const count = table.readUInt32LE(8);
    if (count > 2047) throw corrupt(`the VHDX region table has ${count} entries; 2047 are possible`);
    const regions = new Map<string, Span>();
    for (let at = 16; at < 16 + count * 32; at += 32) {
      const guid = readGuid(table, at);
      const required = (table.readUInt32LE(at + 28) & 1) !== 0;
      if (required && guid !== GUID.bat && guid !== GUID.metadata)
        throw unsafe(`the VHDX image needs the unknown region ${guid}`);
      if (regions.has(guid)) throw corrupt(`the VHDX region ${guid} is named twice`);
      regions.set(guid, { offset: u64le(table, at + 16), length: table.readUInt32LE(at + 24) });
    }
    return regions;
  }
  throw corrupt('neither region table of the VHDX image is valid');
}

async function readItems(file: Window, metadata: Span): Promise<Map<string, Span>> {
  const table = await file.read(metadata.offset, KIB64);
  if (table.toString('latin1', 0, 8) !== 'metadata')
    throw corrupt('the VHDX metadata table is not where its region says');
  const count = table.readUInt16LE(10);
  if (count > 2047) throw corrupt(`the VHDX metadata table has ${count} entries; 2047 are possible`);
  const items = new Map<string, Span>();
  for (let at = 32; at < 32 + count * 32; at += 32) {
    const guid = readGuid(table, at);
    const required = (table.readUInt32LE(at + 24) & 4) !== 0;
    if (required && !KNOWN_ITEMS.includes(guid)) throw unsafe(`the VHDX image needs the unknown metadata item ${guid}`);
    if (items.has(guid)) throw corrupt(`the VHDX metadata item ${guid} is named twice`);
    items.set(guid, { offset: table.readUInt32LE(at + 16), length: table.readUInt32LE(at + 20) });
  }
  return items;
}

async function readItem(
  file: Window,
  metadata: Span,
  item: Span | undefined,
  length: number,
  what: string,
): Promise<Buffer> {
  if (item === undefined || item.length < length) throw corrupt(`the VHDX metadata lack the ${what}`);
  requireInside(item.offset, length, metadata.length, `the VHDX ${what}`);
  return file.read(metadata.offset + item.offset, length);
}

function hasParent() {
  return unsafe(
    'the VHDX image is a differencing disk: it is of no use without its parent. Publish a merged image (Merge-VHD)',
  );
}

/** GUIDs lie on disk with their first three groups in little-endian order. */
function readGuid(bytes: Buffer, offset: number): string {
  const hex = (start: number, end: number) => bytes.toString('hex', offset + start, offset + end);
  const first = bytes.readUInt32LE(offset).toString(16).padStart(8, '0');
  const second = bytes
    .readUInt16LE(offset + 4)
    .toString(16)
    .padStart(4, '0');
  const third = bytes
    .readUInt16LE(offset + 6)
    .toString(16)
    .padStart(4, '0');
  return `${first}-${second}-${third}-${hex(8, 10)}-${hex(10, 16)}`;
}

function checksumHolds(bytes: Buffer): boolean {
  const stored = bytes.readUInt32LE(4);
  const zeroed = Buffer.from(bytes);
  zeroed.writeUInt32LE(0, 4);
  return crc32c(zeroed) === stored;
}

const CRC32C_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

/** CRC-32C (Castagnoli, RFC 3720 appendix B.4); node:zlib has only the other CRC-32. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (CRC32C_TABLE[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
