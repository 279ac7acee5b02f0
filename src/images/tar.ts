import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { corrupt, requireInside, type Window } from './window.ts';

/**
 * Tar archives (POSIX.1-2017 ustar and pax, GNU's extensions), read by seeking: a 20 GiB appliance is looked into by reading its
 * headers alone, where a streaming reader would pass all its bytes.
 */
const BLOCK = 512;
const MAX_MEMBERS = 4096;
/** Long names and pax records; honest ones have a few hundred bytes. */
const MAX_EXTENSION_BYTES = 64 * 1024;
const MAX_SPARSE_ENTRIES = 2 ** 20;

/** Where a run of a member's bytes lies in the archive, and where it belongs in the member. */
export interface Segment {
  offset: number;
  length: number;
  at: number;
}

export interface TarMember {
  name: string;
  type: 'File' | 'Directory' | 'Other';
  /** Bytes of the member as it is unpacked. */
  size: number;
  sparse: boolean;
  segments: Segment[];
}

export function isTarHeader(block: Buffer): boolean {
  return block.length >= BLOCK && checksumHolds(block.subarray(0, BLOCK));
}

/** The names of members whose headers lie in the head of an archive; never throws. */
export function tarNamesInHead(head: Buffer): string[] {
  const names: string[] = [];
  let offset = 0;
  while (offset + BLOCK <= head.length && names.length < 16) {
    const block = head.subarray(offset, offset + BLOCK);
    if (!checksumHolds(block)) break;
    const size = readNumber(block, 124, 12);
    if (size === undefined) break;
    if (!'xgLK'.includes(typeFlag(block))) names.push(ustarName(block));
    offset += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  return names;
}

/** @throws Failure CorruptImage | UnsafeImage | NotSupported */
export async function listTar(file: Window): Promise<TarMember[]> {
  const members: TarMember[] = [];
  let offset = 0;
  let longName: string | undefined;
  let pax = new Map<string, string>();
  for (let headers = 0; ; headers++) {
    if (headers > MAX_MEMBERS * 2) throw new Failure('UnsafeImage', `the archive has more than ${MAX_MEMBERS} members`);
    if (offset + BLOCK > file.size) throw corrupt('the archive has no end mark: it is cut short');
    const block = await file.read(offset, BLOCK);
    if (block.every((byte) => byte === 0)) return members;
    if (!checksumHolds(block)) throw corrupt(`the archive's header at byte ${offset} is damaged`);
    const flag = typeFlag(block);
    const stored =
      flag === 'x' || flag === 'g' || !pax.has('size') ? readNumber(block, 124, 12) : Number(pax.get('size'));
    if (stored === undefined || !Number.isSafeInteger(stored) || stored < 0)
      throw corrupt(`the archive's header at byte ${offset} gives no size`);
    offset += BLOCK;

    if (flag === 'x' || flag === 'g' || flag === 'L' || flag === 'K') {
      if (stored > MAX_EXTENSION_BYTES)
        throw new Failure('UnsafeImage', `the archive has a name or record of ${stored} bytes`);
      const body = await file.read(offset, stored);
      if (flag === 'x') pax = readPax(body);
      if (flag === 'L') longName = untilNul(body.toString('utf8'));
      offset += Math.ceil(stored / BLOCK) * BLOCK;
      continue;
    }
    const name = pax.get('path') ?? longName ?? ustarName(block);
    if ([...pax.keys()].some((key) => key.startsWith('GNU.sparse'))) {
      throw new Failure(
        'NotSupported',
        `"${printable(name)}" is a sparse member in pax format: pack it with "tar --format=gnu -S", or without -S`,
      );
    }
    const sparse = flag === 'S' ? await readSparseMap(file, block, offset, stored) : undefined;
    const dataOffset = sparse?.dataOffset ?? offset;
    requireInside(dataOffset, stored, file.size, `the archive's member "${printable(name)}"`);
    members.push({
      name,
      type:
        flag === '0' || flag === '\0' || flag === '7' || flag === 'S' ? 'File' : flag === '5' ? 'Directory' : 'Other',
      size: sparse?.size ?? stored,
      sparse: sparse !== undefined,
      segments: sparse?.segments ?? [{ offset: dataOffset, length: stored, at: 0 }],
    });
    offset = dataOffset + Math.ceil(stored / BLOCK) * BLOCK;
    longName = undefined;
    pax = new Map();
  }
}

/** The one plain file of that name. @throws Failure NotAnImage when there is none; UnsafeImage; and as {@link listTar} */
export async function findTarMember(file: Window, name: string): Promise<TarMember> {
  const found = (await listTar(file)).filter((member) => member.name.replace(/^\.\//, '') === name);
  const [member] = found;
  if (member === undefined) {
    throw new Failure(
      'NotAnImage',
      `the archive has no member "${printable(name)}", which is where the disk should be`,
    );
  }
  if (found.length > 1 || member.type !== 'File') {
    throw new Failure('UnsafeImage', `the archive's member "${printable(name)}" is not one plain file`);
  }
  return member;
}

/** Old GNU sparse members (`tar -S`): four runs in the header, then blocks of 21 more. */
async function readSparseMap(file: Window, header: Buffer, offset: number, stored: number) {
  const size = readNumber(header, 483, 12);
  if (size === undefined) throw corrupt('a sparse member of the archive has no size');
  const runs: { at: number; length: number }[] = [];
  const collect = (block: Buffer, start: number, count: number) => {
    for (let entry = start; entry < start + count * 24; entry += 24) {
      const at = readNumber(block, entry, 12);
      const length = readNumber(block, entry + 12, 12);
      if (at === undefined || length === undefined || block[entry] === 0) return;
      runs.push({ at, length });
    }
  };
  collect(header, 386, 4);
  let dataOffset = offset;
  let extended = header[482] !== 0;
  while (extended) {
    if (runs.length > MAX_SPARSE_ENTRIES)
      throw new Failure('UnsafeImage', 'a sparse member of the archive has too many runs');
    const block = await file.read(dataOffset, BLOCK);
    collect(block, 0, 21);
    extended = block[504] !== 0;
    dataOffset += BLOCK;
  }
  const segments: Segment[] = [];
  let packed = 0;
  let end = 0;
  for (const { at, length } of runs) {
    if (at < end || at + length > size)
      throw corrupt('the runs of a sparse member of the archive overlap or pass its end');
    if (length > 0) segments.push({ offset: dataOffset + packed, length, at });
    packed += length;
    end = at + length;
  }
  if (packed !== stored) throw corrupt('the runs of a sparse member of the archive do not add up to its bytes');
  return { size, segments, dataOffset };
}

function readPax(body: Buffer): Map<string, string> {
  const records = new Map<string, string>();
  let offset = 0;
  while (offset < body.length) {
    const space = body.indexOf(0x20, offset);
    const length = space < 0 ? Number.NaN : Number(body.toString('latin1', offset, space));
    if (!Number.isSafeInteger(length) || length <= space - offset || offset + length > body.length) {
      throw corrupt('a pax record of the archive is damaged');
    }
    const record = body.toString('utf8', space + 1, offset + length - 1);
    const equals = record.indexOf('=');
    if (equals > 0) records.set(record.slice(0, equals), record.slice(equals + 1));
    offset += length;
  }
  return records;
}

function checksumHolds(block: Buffer): boolean {
  const stored = readNumber(block, 148, 8);
  if (stored === undefined || block[0] === 0) return false;
  let sum = 0;
  for (let index = 0; index < BLOCK; index++) sum += index >= 148 && index < 156 ? 0x20 : (block[index] ?? 0);
  return sum === stored;
}

/** Octal digits, or (first bit set) GNU's big-endian binary, needed above 8 GiB. */
function readNumber(block: Buffer, offset: number, length: number): number | undefined {
  const first = block[offset] ?? 0;
  if (first === 0x80) {
    let value = 0;
    for (let index = offset + 1; index < offset + length; index++) value = value * 256 + (block[index] ?? 0);
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const text = untilNul(block.toString('latin1', offset, offset + length)).trim();
  return /^[0-7]{0,12}$/.test(text) ? Number.parseInt(text || '0', 8) : undefined;
}

function ustarName(block: Buffer): string {
  const name = untilNul(block.toString('utf8', 0, 100));
  const prefix = block.toString('latin1', 257, 263) === 'ustar\0' ? untilNul(block.toString('utf8', 345, 500)) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function typeFlag(block: Buffer): string {
  return String.fromCharCode(block[156] ?? 0);
}

function untilNul(text: string): string {
  const nul = text.indexOf('\0');
  return nul < 0 ? text : text.slice(0, nul);
}
