import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Disk, digested, ext4 } from './disks.ts';

const MIB = 2 ** 20;

/** Disks that a cloud must not be given, each with what the refusal says. Made by qemu-img, or of its work with some bytes changed. */
export interface UnsafeDisk {
  what: string;
  reason: 'UnsafeImage' | 'CorruptImage';
  says: RegExp;
  disk: Disk;
}

export function unsafeDisks(): UnsafeDisk[] {
  const folder = mkdtempSync(join(tmpdir(), 'imageproxy-unsafe-'));
  try {
    return make(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function make(folder: string): UnsafeDisk[] {
  const qemu = (...args: string[]) => execFileSync('qemu-img', args, { cwd: folder, stdio: 'pipe' });
  const create = (format: string, ...args: string[]) => qemu('create', '-q', '-f', format, ...args);
  const read = (name: string) => readFileSync(join(folder, name));
  const changed = (name: string, change: (bytes: Buffer) => Buffer | void) => {
    const bytes = read(name);
    return change(bytes) ?? bytes;
  };
  const convert = (format: string, name: string, ...options: string[]) =>
    qemu('convert', '-f', 'raw', '-O', format, ...options.flatMap((option) => ['-o', option]), 'disk.raw', name);

  writeFileSync(join(folder, 'disk.raw'), ext4('unsafe').bytes);
  convert('qcow2', 'sound.qcow2');
  convert('vmdk', 'sound.vmdk');
  convert('vdi', 'sound.vdi');
  convert('vpc', 'sound.vhd', 'force_size=on');
  convert('vhdx', 'sound.vhdx');
  create('qcow2', '-b', 'disk.raw', '-F', 'raw', 'backing.qcow2');
  create('qcow2', '-o', 'data_file=data.bin', 'data.qcow2', '4M');
  create('vmdk', '-o', 'subformat=monolithicFlat', 'flat.vmdk', '4M');

  const rows: [string, UnsafeDisk['reason'], RegExp, Buffer][] = [
    [
      'a qcow2 with a backing file',
      'UnsafeImage',
      /backing file \("disk.raw"\).*Publish a flattened/s,
      read('backing.qcow2'),
    ],
    ['a qcow2 with an external data file', 'UnsafeImage', /external data file/, read('data.qcow2')],
    [
      'an encrypted qcow2 (LUKS)',
      'UnsafeImage',
      /encrypted \(LUKS\)/,
      changed('sound.qcow2', (bytes) => void bytes.writeUInt32BE(2, 32)),
    ],
    [
      'a qcow2 that needs an unknown feature',
      'UnsafeImage',
      /features that are unknown here/,
      changed('sound.qcow2', (bytes) => void bytes.writeBigUInt64BE(1n << 40n, 72)),
    ],
    [
      'a qcow2 of an absurd virtual size',
      'UnsafeImage',
      /64 TiB/,
      changed('sound.qcow2', (bytes) => void bytes.writeBigUInt64BE(1n << 50n, 24)),
    ],
    ['a qcow2 cut short', 'CorruptImage', /cut short|damaged/, read('sound.qcow2').subarray(0, 200_000)],
    ['a VMDK that is only a descriptor', 'UnsafeImage', /only a descriptor.*flat-flat.vmdk/s, read('flat.vmdk')],
    [
      'a VMDK that names a file of the host',
      'UnsafeImage',
      /names the file "\/etc\/x/,
      changed('sound.vmdk', (bytes) => void bytes.write('/etc/xxxxx"', bytes.indexOf('sound.vmdk"'), 'latin1')),
    ],
    [
      'a differencing VDI',
      'UnsafeImage',
      /differencing/,
      changed('sound.vdi', (bytes) => void bytes.writeUInt32LE(4, 0x4c)),
    ],
    ['a differencing VHD', 'UnsafeImage', /differencing/, changed('sound.vhd', differencingVhd)],
    [
      'a VHD with a wrong checksum',
      'CorruptImage',
      /checksum/,
      changed('sound.vhd', (bytes) => void bytes.writeUInt32BE(1, bytes.length - 464)),
    ],
    ['a VHDX with a parent', 'UnsafeImage', /differencing/, changed('sound.vhdx', vhdxWithParent)],
  ];
  return rows.map(([what, reason, says, bytes]) => ({ what, reason, says, disk: digested(bytes) }));
}

/** Type 4 in both footers, with the checksums put right. */
function differencingVhd(bytes: Buffer): void {
  for (const at of [0, bytes.length - 512]) {
    const footer = bytes.subarray(at, at + 512);
    footer.writeUInt32BE(4, 60);
    footer.writeUInt32BE(0, 64);
    footer.writeUInt32BE(~footer.reduce((sum, byte) => sum + byte, 0) >>> 0, 64);
  }
}

/** The flag HasParent in the file parameters (MS-VHDX 2.6.2.1). */
function vhdxWithParent(bytes: Buffer): void {
  const entry = bytes.indexOf(Buffer.from('3767a1ca36fa434db3b633f0aa44e76b', 'hex'), MIB);
  const table = bytes.lastIndexOf('metadata', entry);
  bytes.writeUInt8(2, table + bytes.readUInt32LE(entry + 16) + 4);
}
