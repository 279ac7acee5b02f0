import { corrupt, requireInside, requireVirtualSize, u64be, unsafe, type Window } from './window.ts';

/** Microsoft's "Virtual Hard Disk Image Format Specification", October 2006. */
export const VHD_COOKIE = 'conectix';
const FOOTER_BYTES = 512;
const TYPE = { fixed: 2, dynamic: 3, differencing: 4 } as const;

export function hasVhdCookie(bytes: Buffer, offset = 0): boolean {
  return bytes.toString('latin1', offset, offset + 8) === VHD_COOKIE;
}

interface Footer {
  type: number;
  currentSize: number;
  geometrySize: number;
  headerOffset: number;
}

/**
 * Virtual PC rounds disks to its geometry, others do not, and qemu decides by the creator's name which of both sizes counts; so
 * both are told, and `qemu-img info` chooses.
 */
export async function examineVhd(file: Window): Promise<{ virtualSize: number; geometrySize: number }> {
  requireInside(0, FOOTER_BYTES, file.size, 'the VHD footer');
  const tail = await file.read(file.size - FOOTER_BYTES, FOOTER_BYTES);
  if (!hasVhdCookie(tail)) throw corrupt('the VHD image has no footer at its end: it is cut short');
  const footer = readFooter(tail, 'footer');
  requireVirtualSize(footer.currentSize, 'VHD');
  if (footer.type === TYPE.fixed) {
    // A fixed disk's first sectors belong to the guest; only there a second cookie would make hosts open it as another disk.
    if (hasVhdCookie(await file.read(0, 8)))
      throw unsafe('the VHD image is fixed by its footer, but begins like a dynamic one');
    if (footer.currentSize > file.size - FOOTER_BYTES) {
      throw corrupt(
        `the fixed VHD says it has ${footer.currentSize} bytes, but the file has ${file.size}: it is cut short`,
      );
    }
  } else {
    await examineDynamic(file, footer);
  }
  return { virtualSize: footer.currentSize, geometrySize: footer.geometrySize };
}

async function examineDynamic(file: Window, footer: Footer): Promise<void> {
  const copyBytes = await file.read(0, FOOTER_BYTES);
  if (!hasVhdCookie(copyBytes)) throw corrupt('the dynamic VHD does not begin with a copy of its footer');
  const copy = readFooter(copyBytes, 'copy of the footer');
  if (
    copy.type !== footer.type ||
    copy.currentSize !== footer.currentSize ||
    copy.headerOffset !== footer.headerOffset
  ) {
    throw unsafe('the two footers of the VHD image contradict each other');
  }
  requireInside(footer.headerOffset, 1024, file.size, 'the VHD dynamic header');
  const header = await file.read(footer.headerOffset, 1024);
  if (header.toString('latin1', 0, 8) !== 'cxsparse')
    throw corrupt('the dynamic VHD has no dynamic header where its footer says');
  requireChecksum(header, 36, 'dynamic header');
  if (header.subarray(40, 56).some((byte) => byte !== 0)) throw differencing();
  const entries = header.readUInt32BE(28);
  const blockBytes = header.readUInt32BE(32);
  if (blockBytes < 512 || (blockBytes & (blockBytes - 1)) !== 0 || blockBytes > 2 ** 28) {
    throw corrupt(`the VHD block size of ${blockBytes} bytes is impossible`);
  }
  if (entries * blockBytes < footer.currentSize) throw corrupt('the VHD block table is too small for the disk');
  requireInside(u64be(header, 16), entries * 4, file.size, 'the VHD block table');
}

function readFooter(bytes: Buffer, what: string): Footer {
  requireChecksum(bytes, 64, what);
  const version = bytes.readUInt32BE(12);
  if (version >>> 16 !== 1) throw unsafe(`VHD version ${version >>> 16} is unknown; version 1 is accepted`);
  const type = bytes.readUInt32BE(60);
  if (type === TYPE.differencing) throw differencing();
  if (type !== TYPE.fixed && type !== TYPE.dynamic) throw unsafe(`the VHD disk type ${type} is unknown`);
  return {
    type,
    currentSize: u64be(bytes, 48),
    geometrySize: bytes.readUInt16BE(56) * bytes.readUInt8(58) * bytes.readUInt8(59) * 512,
    headerOffset: u64be(bytes, 16),
  };
}

/** The one's complement of the sum of all bytes but the checksum's own. */
function requireChecksum(bytes: Buffer, checksumOffset: number, what: string): void {
  const stored = bytes.readUInt32BE(checksumOffset);
  let sum = 0;
  for (const [index, byte] of bytes.entries()) {
    if (index < checksumOffset || index >= checksumOffset + 4) sum += byte;
  }
  if (~sum >>> 0 !== stored) throw corrupt(`the checksum of the VHD ${what} is wrong`);
}

function differencing() {
  return unsafe(
    'the VHD image is a differencing disk: it is of no use without its parent. Publish a merged image (Merge-VHD)',
  );
}
