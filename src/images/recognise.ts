import { Failure } from '../api/failure.ts';
import type { Recognition } from './format.ts';
import { isQcow2, readQcow2Header } from './qcow2.ts';
import { isIso, recogniseRaw } from './raw.ts';
import { recogniseCompression, recogniseForeign } from './signatures.ts';
import { isTarHeader, tarNamesInHead } from './tar.ts';
import { recogniseText } from './text.ts';
import { isVdi, readVdiHeader } from './vdi.ts';
import { hasVhdCookie } from './vhd.ts';
import { isVhdx } from './vhdx.ts';
import { judgeVmdkHead, vmdkKind } from './vmdk.ts';

/** Bytes of the head that recognition needs to see everything (Btrfs keeps its superblock at 64 KiB). */
export const HEAD_BYTES = 128 * 1024;
/** Bytes of the tail: the footers of VHD and DMG, and VMDK's before its end mark. */
export const TAIL_BYTES = 1024;

/**
 * What a file is, by its bytes alone. A format's own magic at the start goes before marks elsewhere, so a qcow2 file is a qcow2
 * file whatever its guest wrote where an ISO has `CD001`.
 *
 * `judgedByHead` for a raw disk or an ISO means that an upload may start, not that it may end: a fixed VHD begins like a raw
 * disk and tells itself by its last 512 bytes. The complete file is inspected before the last 64 KiB go out, and that decides.
 */
export function recognise(head: Uint8Array, tail?: Uint8Array): Recognition {
  const bytes = asBuffer(head);
  const end = tail === undefined ? undefined : asBuffer(tail);
  const compression = recogniseCompression(bytes);
  if (compression !== undefined) return { compression, judgedByHead: false };
  return { compression: 'None', ...recogniseContent(bytes, end) };
}

function recogniseContent(head: Buffer, tail: Buffer | undefined): Omit<Recognition, 'compression'> {
  const foreign = recogniseForeign(head, tail);
  if (foreign !== undefined) return { format: 'Unknown', what: foreign.what, judgedByHead: false };
  if (isQcow2(head)) return { format: 'Qcow2', judgedByHead: passes(() => readQcow2Header(head)) };
  if (isVhdx(head)) return { format: 'Vhdx', judgedByHead: false };
  if (hasVhdCookie(head)) return { format: 'Vhd', judgedByHead: false };
  const vmdk = vmdkKind(head);
  if (vmdk !== undefined)
    return { format: 'Vmdk', judgedByHead: vmdk === 'Sparse' && passes(() => judgeVmdkHead(head)) };
  if (isVdi(head)) return { format: 'Vdi', judgedByHead: passes(() => readVdiHeader(head)) };
  if (tail !== undefined && hasVhdCookie(tail, Math.max(0, tail.length - 512)))
    return { format: 'Vhd', judgedByHead: false };

  if (isTarHeader(head)) {
    if (tarNamesInHead(head).some((name) => /\.ovf$/i.test(name))) return { format: 'Ova', judgedByHead: false };
    return { format: 'Unknown', what: 'a tar archive', judgedByHead: false };
  }
  if (isIso(head)) return { format: 'Iso', what: 'an ISO 9660 image', judgedByHead: true };
  const raw = recogniseRaw(head);
  if (raw !== undefined) return { format: 'Raw', what: raw, judgedByHead: true };

  const page = recogniseText(head);
  if (page === undefined) return { format: 'Unknown', judgedByHead: false };
  return {
    format: 'Unknown',
    text: page.kind,
    ...(page.title === undefined ? {} : { title: page.title }),
    judgedByHead: false,
  };
}

/** Whether the header reader has no objection; what it would refuse is refused by `inspect`, with its reason. */
function passes(read: () => unknown): boolean {
  try {
    return read() !== false;
  } catch (error) {
    if (error instanceof Failure) return false;
    throw error;
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
