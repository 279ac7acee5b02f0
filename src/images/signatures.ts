import type { Reason } from '../api/failure.ts';
import type { Compression } from './format.ts';

/** Magic numbers of compressed files, and of things that are mistaken for disks. */

export function recogniseCompression(head: Buffer): Compression | undefined {
  if (starts(head, [0x1f, 0x8b, 0x08])) return 'Gzip';
  if (starts(head, [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00])) return 'Xz';
  if (isBzip2(head)) return 'Bzip2';
  if (isZstd(head)) return 'Zstd';
  return undefined;
}

/** `BZh1`–`BZh9` is printable text; the block's magic (pi) or, in an empty file, the end's (square root of pi) makes it sure. */
function isBzip2(head: Buffer): boolean {
  if (head.toString('latin1', 0, 3) !== 'BZh' || !/[1-9]/.test(head.toString('latin1', 3, 4))) return false;
  return starts(head, [0x31, 0x41, 0x59, 0x26, 0x53, 0x59], 4) || starts(head, [0x17, 0x72, 0x45, 0x38, 0x50, 0x90], 4);
}

/** RFC 8878 section 3.1.2: skippable frames may stand before the first frame of data (pzstd and signed files have one). */
function isZstd(head: Buffer): boolean {
  let offset = 0;
  for (let frames = 0; frames < 64; frames++) {
    if (offset + 4 > head.length) return frames > 0;
    const magic = head.readUInt32LE(offset);
    if (magic === 0xfd2fb528) return true;
    if (magic >>> 4 !== 0x184d2a5 || offset + 8 > head.length) return false;
    offset += 8 + head.readUInt32LE(offset + 4);
  }
  return true;
}

export interface Foreign {
  /** In words, for messages: `a ZIP archive`. */
  what: string;
  reason: Extract<Reason, 'NotSupported' | 'NotAnImage' | 'UnsafeImage'>;
}

interface Signature extends Foreign {
  at?: number;
  magic: string | readonly number[];
}

const SIGNATURES: readonly Signature[] = [
  { what: 'a file compressed by compress (.Z)', reason: 'NotSupported', magic: [0x1f, 0x9d] },
  { what: 'a file compressed by lz4', reason: 'NotSupported', magic: [0x04, 0x22, 0x4d, 0x18] },
  { what: 'a file compressed by lzip', reason: 'NotSupported', magic: 'LZIP' },
  { what: 'a file compressed by lzop', reason: 'NotSupported', magic: [0x89, 0x4c, 0x5a, 0x4f, 0x00] },
  { what: 'a file compressed by lrzip', reason: 'NotSupported', magic: 'LRZI' },
  { what: 'a ZIP archive', reason: 'NotSupported', magic: [0x50, 0x4b, 0x03, 0x04] },
  { what: 'a 7-Zip archive', reason: 'NotSupported', magic: [0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c] },
  { what: 'a RAR archive', reason: 'NotSupported', magic: [0x52, 0x61, 0x72, 0x21, 0x1a, 0x07] },
  { what: 'a QED disk image', reason: 'NotSupported', magic: [0x51, 0x45, 0x44, 0x00] },
  { what: 'a qcow (version 1) disk image', reason: 'NotSupported', magic: [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 1] },
  { what: 'a Parallels disk image', reason: 'NotSupported', magic: 'WithoutFreeSpace' },
  { what: 'a Parallels disk image', reason: 'NotSupported', magic: 'WithouFreSpacExt' },
  { what: 'a Bochs disk image', reason: 'NotSupported', magic: 'Bochs Virtual HD Image' },
  { what: 'a cloop image', reason: 'NotSupported', magic: '#!/bin/sh\n#V2.0 Format' },
  { what: 'a Windows image archive (WIM)', reason: 'NotSupported', magic: 'MSWIM\0\0\0' },
  { what: 'an Android sparse image', reason: 'NotSupported', magic: [0x3a, 0xff, 0x26, 0xed] },
  { what: 'a LUKS-encrypted volume', reason: 'UnsafeImage', magic: [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe] },
  { what: 'a Linux kernel (bzImage)', reason: 'NotAnImage', at: 0x202, magic: 'HdrS' },
  { what: 'a Linux kernel (arm64 Image)', reason: 'NotAnImage', at: 0x38, magic: 'ARM\x64' },
  { what: 'a Linux kernel (riscv Image)', reason: 'NotAnImage', at: 0x38, magic: 'RSC\x05' },
  { what: 'a U-Boot image', reason: 'NotAnImage', magic: [0x27, 0x05, 0x19, 0x56] },
  { what: 'an ELF program or kernel', reason: 'NotAnImage', magic: [0x7f, 0x45, 0x4c, 0x46] },
  { what: 'a cpio archive (an initrd)', reason: 'NotAnImage', magic: '070701' },
  { what: 'a cpio archive (an initrd)', reason: 'NotAnImage', magic: '070702' },
  { what: 'a cpio archive (an initrd)', reason: 'NotAnImage', magic: '070707' },
  { what: 'a cpio archive (an initrd)', reason: 'NotAnImage', magic: [0xc7, 0x71] },
];

/** Known things that are no disk image of ours. `tail` is the last kilobyte of a complete file. */
export function recogniseForeign(head: Buffer, tail?: Buffer): Foreign | undefined {
  for (const { what, reason, at, magic } of SIGNATURES) {
    const bytes = typeof magic === 'string' ? [...Buffer.from(magic, 'latin1')] : magic;
    if (starts(head, bytes, at)) return { what, reason };
  }
  if (isLzmaAlone(head))
    return { what: 'a file compressed by lzma (.lzma, the predecessor of xz)', reason: 'NotSupported' };
  if (isEfiProgram(head)) return { what: 'an EFI or Windows program', reason: 'NotAnImage' };
  if (
    tail !== undefined &&
    tail.length >= 512 &&
    tail.toString('latin1', tail.length - 512, tail.length - 508) === 'koly'
  ) {
    return { what: 'an Apple disk image (DMG)', reason: 'NotSupported' };
  }
  return undefined;
}

/** .lzma has no magic: the usual properties byte, a dictionary of 2^n or 2^n + 2^(n-1) bytes, and a length that is sane or unknown. */
function isLzmaAlone(head: Buffer): boolean {
  if (head.length < 14 || head[0] !== 0x5d || head[13] !== 0) return false;
  const dictionary = head.readUInt32LE(1);
  const shape = dictionary.toString(2).replace(/0+$/, '');
  if (dictionary < 4096 || (shape !== '1' && shape !== '11')) return false;
  const length = head.readBigUInt64LE(5);
  return length === 0xffff_ffff_ffff_ffffn || length < 2n ** 40n;
}

function isEfiProgram(head: Buffer): boolean {
  if (head.length < 0x40 || head.toString('latin1', 0, 2) !== 'MZ') return false;
  return starts(head, [0x50, 0x45, 0, 0], head.readUInt32LE(0x3c));
}

function starts(bytes: Buffer, magic: readonly number[], at = 0): boolean {
  return at + magic.length <= bytes.length && magic.every((byte, index) => bytes[at + index] === byte);
}
