import { printable } from '../api/printable.ts';
import { corrupt, requireInside, requireVirtualSize, u64be, unsafe, type Window } from './window.ts';

/** https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.rst */
const MAGIC = 0x514649fb;
const INCOMPATIBLE = { dirty: 1, corrupt: 2, dataFile: 4, compressionType: 8, extendedL2: 16 } as const;
const KNOWN_INCOMPATIBLE = 31n;
const EXTENSION = { end: 0, dataFile: 0x44415441 } as const;
/** qemu's own bounds (QCOW_MAX_L1_SIZE, QCOW_MAX_REFTABLE_SIZE). */
const MAX_L1_BYTES = 32 * 2 ** 20;
const MAX_REFCOUNT_TABLE_BYTES = 8 * 2 ** 20;
/** The format allows 65536; each is listed by `qemu-img info`, so a bound keeps its answer small. */
const MAX_SNAPSHOTS = 1024;
const L1_STEP = 64 * 1024;

interface Qcow2Header {
  virtualSize: number;
  clusterSize: number;
  l1Offset: number;
  l1Entries: number;
  refcountOffset: number;
  refcountBytes: number;
  snapshots: number;
  snapshotsOffset: number;
}

export function isQcow2(head: Buffer): boolean {
  return head.length >= 4 && head.readUInt32BE(0) === MAGIC;
}

/**
 * The header of qcow2 v2 and v3, from the head of the file alone: everything that could make a host open another file, or ask
 * for a key, stands in it. A dirty image (not closed properly; only its reference counts are stale) is accepted: its data are
 * whole and every qemu opens it. A corrupt one is refused.
 * @throws Failure UnsafeImage | CorruptImage
 */
export function readQcow2Header(head: Buffer): Qcow2Header {
  requireInside(0, 72, head.length, 'the qcow2 header');
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3)
    throw unsafe(`qcow2 version ${version} is unknown; versions 2 and 3 are accepted`);
  refuseBackingFile(head);

  const method = head.readUInt32BE(32);
  if (method !== 0) {
    const name = method === 1 ? 'AES' : method === 2 ? 'LUKS' : `method ${method}`;
    throw unsafe(
      `the qcow2 image is encrypted (${name}): no cloud could boot it without its key; publish it decrypted`,
    );
  }
  const clusterBits = head.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) {
    throw corrupt(`the qcow2 header gives clusters of 2^${clusterBits} bytes; 2^9 to 2^21 are possible`);
  }
  const clusterSize = 2 ** clusterBits;
  const extendedL2 = version === 3 && readVersion3(head, clusterSize);
  if (extendedL2 && clusterBits < 14)
    throw corrupt('the qcow2 header has extended L2 entries with clusters below 16 KiB');

  const virtualSize = requireVirtualSize(u64be(head, 24), 'qcow2');
  const l1Entries = head.readUInt32BE(36);
  const bytesPerL1Entry = clusterSize * (clusterSize / (extendedL2 ? 16 : 8));
  if (l1Entries * 8 > MAX_L1_BYTES)
    throw corrupt(`the qcow2 L1 table has ${l1Entries} entries; more than 32 MiB is refused`);
  if (l1Entries < Math.ceil(virtualSize / bytesPerL1Entry)) {
    throw corrupt(`the qcow2 L1 table has ${l1Entries} entries, too few for a disk of ${virtualSize} bytes`);
  }
  const refcountBytes = head.readUInt32BE(56) * clusterSize;
  if (refcountBytes === 0 || refcountBytes > MAX_REFCOUNT_TABLE_BYTES) {
    throw corrupt(`the qcow2 refcount table has ${refcountBytes} bytes; 1 to 8 MiB are possible`);
  }
  const snapshots = head.readUInt32BE(60);
  if (snapshots > MAX_SNAPSHOTS)
    throw unsafe(`the qcow2 image has ${snapshots} internal snapshots; at most ${MAX_SNAPSHOTS} are accepted`);
  return {
    virtualSize,
    clusterSize,
    l1Offset: u64be(head, 40),
    l1Entries,
    refcountOffset: u64be(head, 48),
    refcountBytes,
    snapshots,
    snapshotsOffset: u64be(head, 64),
  };
}

/** The header, and that the tables which it names lie inside the file. Returns the virtual size in bytes. */
export async function examineQcow2(file: Window): Promise<number> {
  const header = readQcow2Header(await file.read(0, Math.min(file.size, 2 ** 21)));
  const { clusterSize, l1Offset, l1Entries, refcountOffset } = header;
  for (const [offset, what] of [
    [l1Offset, 'L1 table'],
    [refcountOffset, 'refcount table'],
  ] as const) {
    if (offset === 0 || offset % clusterSize !== 0) throw corrupt(`the qcow2 ${what} is not aligned to a cluster`);
  }
  requireInside(l1Offset, l1Entries * 8, file.size, 'the qcow2 L1 table');
  requireInside(refcountOffset, header.refcountBytes, roundUp(file.size, clusterSize), 'the qcow2 refcount table');
  if (header.snapshots > 0) requireInside(header.snapshotsOffset, 40, file.size, 'the qcow2 snapshot table');

  // A download cut short passes every check above: its header is whole, the tables at its end are gone.
  for (let entry = 0; entry < l1Entries; entry += L1_STEP) {
    const table = await file.read(l1Offset + entry * 8, Math.min(L1_STEP, l1Entries - entry) * 8);
    for (let at = 0; at < table.length; at += 8) {
      // Bits 9 to 55 (a shift or mask of 32 bits would turn offsets above 2 GiB negative, hence the arithmetic).
      const low = table.readUInt32BE(at + 4);
      const l2Offset = (table.readUInt32BE(at) % 2 ** 24) * 2 ** 32 + (low - (low % 512));
      if (l2Offset !== 0) requireInside(l2Offset, clusterSize, roundUp(file.size, clusterSize), 'a qcow2 L2 table');
    }
  }
  return header.virtualSize;
}

function refuseBackingFile(head: Buffer): void {
  const offset = u64be(head, 8);
  if (offset === 0) return;
  const length = Math.min(head.readUInt32BE(16), 1023);
  const name = offset + length <= head.length ? printable(head.toString('utf8', offset, offset + length)) : '';
  throw unsafe(
    `the qcow2 image has a backing file (${name === '' ? 'name unreadable' : `"${name}"`}): a cloud would read that file from its own hosts. ` +
      'Publish a flattened image (qemu-img convert)',
  );
}

/** Checks what version 3 added; tells whether L2 entries are the extended ones. */
function readVersion3(head: Buffer, clusterSize: number): boolean {
  requireInside(0, 104, head.length, 'the qcow2 header');
  const features = head.readBigUInt64BE(72);
  const unknown = features & ~KNOWN_INCOMPATIBLE;
  if (unknown !== 0n) {
    throw unsafe(`the qcow2 image needs features that are unknown here (incompatible bits 0x${unknown.toString(16)})`);
  }
  const bits = Number(features);
  if ((bits & INCOMPATIBLE.dataFile) !== 0) throw externalDataFile();
  if ((bits & INCOMPATIBLE.corrupt) !== 0) {
    throw corrupt('the qcow2 image is marked corrupt: repair it (qemu-img check -r all) and publish it again');
  }
  const refcountOrder = head.readUInt32BE(96);
  if (refcountOrder > 6) throw corrupt(`the qcow2 refcount order ${refcountOrder} is impossible`);
  const headerLength = head.readUInt32BE(100);
  if (headerLength < 104 || headerLength % 8 !== 0 || headerLength > clusterSize) {
    throw corrupt(`the qcow2 header says it has ${headerLength} bytes, which is impossible`);
  }
  const compressionType = headerLength > 104 && head.length > 104 ? head.readUInt8(104) : 0;
  if (compressionType > 1 || (compressionType === 1) !== ((bits & INCOMPATIBLE.compressionType) !== 0)) {
    throw unsafe(`the qcow2 compression type ${compressionType} is unknown or contradicts its feature bit`);
  }
  readExtensions(head, headerLength, clusterSize);
  return (bits & INCOMPATIBLE.extendedL2) !== 0;
}

function readExtensions(head: Buffer, headerLength: number, clusterSize: number): void {
  const end = Math.min(clusterSize, head.length);
  let offset = headerLength;
  while (offset + 8 <= end) {
    const type = head.readUInt32BE(offset);
    const length = head.readUInt32BE(offset + 4);
    if (type === EXTENSION.end) return;
    if (type === EXTENSION.dataFile) throw externalDataFile();
    offset += 8;
    requireInside(offset, length, clusterSize, 'an extension of the qcow2 header');
    offset += roundUp(length, 8);
  }
}

function externalDataFile() {
  return unsafe(
    'the qcow2 image keeps its data in another file (external data file): a cloud would read that file from its own hosts. Publish a complete image (qemu-img convert)',
  );
}

function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}
