import { open } from 'node:fs/promises';
import { Failure } from '../api/failure.ts';
import { type Format, type ImageFacts, interchangeable, type Recognition, type Role } from './format.ts';
import { findOvaDisk, type OvaDisk } from './ova.ts';
import { examineQcow2 } from './qcow2.ts';
import type { DiskPlace } from './qemu.ts';
import { HEAD_BYTES, recognise, TAIL_BYTES } from './recognise.ts';
import { recogniseForeign } from './signatures.ts';
import type { ImageTools } from './tools.ts';
import { examineVdi } from './vdi.ts';
import { examineVhd } from './vhd.ts';
import { examineVhdx } from './vhdx.ts';
import { examineVmdk } from './vmdk.ts';
import { fileWindow, requireVirtualSize, subWindow, unsafe, type Window } from './window.ts';

export interface Expected {
  format: Format | 'Auto';
  role: Role;
  checksumDeclared: boolean;
}

/** What our own parsers found, before qemu-img is asked. */
interface Examined {
  format: Format;
  size: number;
  /** Sizes that qemu-img may confirm; the first is ours. */
  virtualSizes: readonly number[];
  /** The disk to confirm; absent where there is nothing to misread (raw disks, kernels). */
  disk?: DiskPlace;
}

export async function inspect(
  tools: Pick<ImageTools, 'info'>,
  path: string,
  expected: Expected,
  signal: AbortSignal,
): Promise<ImageFacts> {
  const examined = await examineFile(path, expected);
  const { format, size, virtualSizes, disk } = examined;
  const [ours = 0] = virtualSizes;
  if (disk === undefined) return { format, size, virtualSize: ours };
  if (signal.aborted) throw new Failure('Aborted', 'inspection was stopped');
  const theirs = await tools.info(disk, signal);
  // qemu counts in sectors of 512 bytes.
  if (!virtualSizes.some((mine) => Math.abs(mine - theirs) < 512)) {
    throw unsafe(`the image's header is read in two ways: ${ours} bytes by us, ${theirs} by qemu-img`);
  }
  return { format, size, virtualSize: requireVirtualSize(theirs, format) };
}

/** Where the disk is that a conversion reads: the file, or the span of an OVA that is its disk. Our parsers have judged it. */
export async function examineDisk(path: string, format: Format): Promise<{ disk: DiskPlace; virtualSize: number }> {
  const examined = await examineFile(path, { format, role: 'Disk', checksumDeclared: true });
  if (examined.format === 'Ova' && examined.disk === undefined)
    throw new Failure('InternalError', 'an OVA without a disk was accepted');
  const disk = examined.disk ?? { path, format: format === 'Iso' ? 'Iso' : 'Raw' };
  return { disk, virtualSize: Math.max(...examined.virtualSizes) };
}

async function examineFile(path: string, expected: Expected): Promise<Examined> {
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    if (size === 0) throw new Failure('NotAnImage', 'the file is empty');
    const file = fileWindow(handle, size);
    const head = await file.read(0, Math.min(HEAD_BYTES, size));
    const tail = await file.read(Math.max(0, size - TAIL_BYTES), Math.min(TAIL_BYTES, size));
    const found = recognise(head, tail);
    refuseText(found);
    if (expected.role !== 'Disk') return { format: 'Raw', size, virtualSizes: [size] };
    const format = decideFormat(found, expected, head, tail);
    return { format, size, ...(await examineAs(format, file, path)) };
  } finally {
    await handle.close();
  }
}

function refuseText({ text, title }: Recognition): void {
  if (text === undefined) return;
  const page =
    text === 'text' ? 'plain text' : `${text === 'HTML' ? 'an' : 'a'} ${text} ${text === 'JSON' ? 'document' : 'page'}`;
  const titled = title === undefined ? '' : ` titled "${title}"`;
  throw new Failure(
    'NotAnImage',
    `the source sent ${page}${titled} instead of an image: check the URL, and whether it needs a login`,
  );
}

function decideFormat(found: Recognition, expected: Expected, head: Buffer, tail: Buffer): Format {
  const declared = expected.format;
  if (found.compression !== 'None') {
    throw new Failure(
      'FormatMismatch',
      `${declared === 'Auto' ? 'a disk is expected' : `the format is declared as ${declared}`}, but the bytes are still compressed with ${found.compression}`,
    );
  }
  const what = found.what === undefined ? '' : ` (${found.what})`;
  if (found.format !== undefined && found.format !== 'Unknown') {
    if (declared === 'Auto' || declared === found.format) return found.format;
    // Every ISO is a raw disk; not every raw disk is an ISO.
    if (declared === 'Raw' && interchangeable(found.format, 'Raw')) return 'Raw';
    throw mismatch(declared, `are ${found.format}${what}`);
  }
  const foreign =
    recogniseForeign(head, tail) ??
    (found.what === undefined ? undefined : { what: found.what, reason: 'NotAnImage' as const });
  if (foreign !== undefined) {
    const cure =
      foreign.reason === 'NotSupported'
        ? 'publish it as one of the supported formats'
        : 'check the URL and the part of the image that it is for';
    throw new Failure(foreign.reason, `the file is ${foreign.what}, not a disk image: ${cure}`);
  }
  if (declared !== 'Auto' && declared !== 'Raw') throw mismatch(declared, 'have no known disk format');
  if (!expected.checksumDeclared) {
    throw new Failure(
      'NotAnImage',
      'nothing in the bytes says that they are a disk, and no checksum vouches for them: declare checksums',
    );
  }
  return 'Raw';
}

function mismatch(declared: Format, found: string): Failure {
  return new Failure(
    'FormatMismatch',
    `the format is declared as ${declared}, but the bytes ${found}: correct spec.format, or the URL`,
  );
}

async function examineAs(format: Format, file: Window, path: string): Promise<Pick<Examined, 'virtualSizes' | 'disk'>> {
  if (format === 'Raw' || format === 'Iso') return { virtualSizes: [requireVirtualSize(file.size, format)] };
  if (format === 'Ova') {
    const disk = await findOvaDisk(file);
    return examineOvaDisk(disk, file, path);
  }
  return { virtualSizes: await examineContainer(format, file), disk: { path, format } };
}

async function examineOvaDisk({ format, offset, size }: OvaDisk, file: Window, path: string) {
  const window = subWindow(file, offset, size);
  const virtualSizes = format === 'Raw' ? [size] : await examineContainer(format, window);
  return { virtualSizes, disk: { path, format, span: { offset, size } } };
}

async function examineContainer(
  format: Exclude<Format, 'Raw' | 'Iso' | 'Ova'>,
  file: Window,
): Promise<readonly number[]> {
  switch (format) {
    case 'Qcow2':
      return [await examineQcow2(file)];
    case 'Vmdk':
      return [await examineVmdk(file)];
    case 'Vdi':
      return [await examineVdi(file)];
    case 'Vhdx':
      return [await examineVhdx(file)];
    case 'Vhd': {
      const { virtualSize, geometrySize } = await examineVhd(file);
      return [virtualSize, geometrySize];
    }
  }
}
