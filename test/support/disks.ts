import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

/** Small real disk images, made on the spot. */
export interface Disk {
  bytes: Buffer;
  sha256: string;
  sha512: string;
  sha1: string;
  md5: string;
}

export function digested(bytes: Buffer): Disk {
  const hash = (name: string) => createHash(name).update(bytes).digest('hex');
  return { bytes, sha256: hash('sha256'), sha512: hash('sha512'), sha1: hash('sha1'), md5: hash('md5') };
}

/** An ext4 file system of so many MiB, whose label makes its bytes its own. */
export function ext4(label: string, mebibytes = 4): Disk {
  return inFolder((folder) => {
    const path = join(folder, 'disk.raw');
    execFileSync('/sbin/mke2fs', ['-q', '-F', '-t', 'ext4', '-L', label, path, `${mebibytes}M`]);
    return digested(readFileSync(path));
  });
}

/** The same file system as a qcow2. */
export function qcow2(label: string, mebibytes = 4): Disk {
  return asQcow2(ext4(label, mebibytes));
}

export function asQcow2(raw: Disk): Disk {
  return inFolder((folder) => {
    writeFileSync(join(folder, 'disk.raw'), raw.bytes);
    execFileSync('qemu-img', [
      'convert',
      '-f',
      'raw',
      '-O',
      'qcow2',
      join(folder, 'disk.raw'),
      join(folder, 'disk.qcow2'),
    ]);
    return digested(readFileSync(join(folder, 'disk.qcow2')));
  });
}

export function gzipped(disk: Disk): Disk {
  return digested(gzipSync(disk.bytes));
}

function inFolder<T>(work: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'imageproxy-disk-'));
  try {
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
