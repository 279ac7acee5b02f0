import { corrupt, requireInside, requireVirtualSize, u64le, unsafe, type Window } from './window.ts';

/** VirtualBox's VDICore.h; the bounds are those of qemu's block/vdi.c. */
const SIGNATURE = 0xbeda107f;
const HEADER_BYTES = 0x1c8;
const VERSION = 0x0001_0001;
const TYPE = { dynamic: 1, fixed: 2, undo: 3, differencing: 4 } as const;
const BLOCK_BYTES = 2 ** 20;

export function isVdi(head: Buffer): boolean {
  return head.length >= 0x48 && head.readUInt32LE(0x40) === SIGNATURE;
}

interface VdiHeader {
  virtualSize: number;
  blocks: number;
  allocated: number;
  mapOffset: number;
  dataOffset: number;
}

/** @throws Failure UnsafeImage | CorruptImage */
export function readVdiHeader(head: Buffer): VdiHeader {
  requireInside(0, HEADER_BYTES, head.length, 'the VDI header');
  const version = head.readUInt32LE(0x44);
  if (version !== VERSION)
    throw unsafe(`VDI version ${version >>> 16}.${version & 0xffff} is unknown; 1.1 is accepted`);
  const type = head.readUInt32LE(0x4c);
  const linked = !isZero(head.subarray(0x1a8, 0x1c8));
  if (type === TYPE.undo || type === TYPE.differencing || linked) {
    throw unsafe(
      'the VDI image is a differencing disk: it is of no use without its parent. Publish a flattened image (VBoxManage clonemedium)',
    );
  }
  if (type !== TYPE.dynamic && type !== TYPE.fixed) throw unsafe(`the VDI image type ${type} is unknown`);
  if (head.readUInt32LE(0x168) !== 512)
    throw corrupt(`the VDI sector size of ${head.readUInt32LE(0x168)} bytes is impossible`);
  if (head.readUInt32LE(0x178) !== BLOCK_BYTES)
    throw unsafe(`VDI blocks of ${head.readUInt32LE(0x178)} bytes are not supported; 1 MiB is`);
  const header = {
    virtualSize: requireVirtualSize(u64le(head, 0x170), 'VDI'),
    blocks: head.readUInt32LE(0x180),
    allocated: head.readUInt32LE(0x184),
    mapOffset: head.readUInt32LE(0x154),
    dataOffset: head.readUInt32LE(0x158),
  };
  if (header.blocks * BLOCK_BYTES < header.virtualSize || header.allocated > header.blocks) {
    throw corrupt(
      `the VDI block counts (${header.allocated} of ${header.blocks}) contradict its size of ${header.virtualSize} bytes`,
    );
  }
  if (header.mapOffset % 512 !== 0 || header.dataOffset % 512 !== 0)
    throw corrupt('the VDI tables are not aligned to sectors');
  return header;
}

/** Returns the virtual size in bytes. */
export async function examineVdi(file: Window): Promise<number> {
  const header = readVdiHeader(await file.read(0, Math.min(file.size, 512)));
  requireInside(header.mapOffset, header.blocks * 4, file.size, 'the VDI block map');
  // The last block may be cut to the disk's end.
  const dataBytes = Math.max(0, (header.allocated - 1) * BLOCK_BYTES);
  requireInside(header.dataOffset, dataBytes, file.size, 'the data of the VDI image');
  return header.virtualSize;
}

function isZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0);
}
