/** Raw disks: what their first 128 KiB say. Each answer is in words, for messages and logs. */

const ISO_DESCRIPTOR = 0x8000;

/** ECMA-119 (CD001), or ECMA-167's bridge (BEA01), in the first volume descriptor. What lies before it is free for boot sectors. */
export function isIso(head: Buffer): boolean {
  const id = head.toString('latin1', ISO_DESCRIPTOR + 1, ISO_DESCRIPTOR + 6);
  return id === 'CD001' || id === 'BEA01';
}

export function recogniseRaw(head: Buffer): string | undefined {
  return partitionTable(head) ?? fileSystem(head);
}

function partitionTable(head: Buffer): string | undefined {
  for (const sector of [512, 4096]) {
    if (head.toString('latin1', sector, sector + 8) === 'EFI PART') return 'a disk with a GPT partition table';
  }
  if (head.length < 512 || head.readUInt16LE(510) !== 0xaa55) return undefined;
  if (head.toString('latin1', 3, 11) === 'NTFS    ') return 'an NTFS file system';
  if (head.toString('latin1', 54, 57) === 'FAT' || head.toString('latin1', 82, 85) === 'FAT')
    return 'a FAT file system';
  return hasPlausibleMbr(head) ? 'a disk with an MBR partition table' : undefined;
}

/** 0xaa55 ends kernels and boot floppies too: only flags of 0 or 0x80, and one partition with a type and a length, make a table. */
function hasPlausibleMbr(head: Buffer): boolean {
  let used = 0;
  for (let entry = 446; entry < 510; entry += 16) {
    const flag = head[entry];
    if (flag !== 0x00 && flag !== 0x80) return false;
    if (head[entry + 4] !== 0 && head.readUInt32LE(entry + 12) > 0) used++;
  }
  return used > 0;
}

function fileSystem(head: Buffer): string | undefined {
  const at = (offset: number, text: string) => head.toString('latin1', offset, offset + text.length) === text;
  if (head.length >= 1024 + 80 && head.readUInt16LE(1024 + 56) === 0xef53) {
    const blockBits = head.readUInt32LE(1024 + 24);
    const revision = head.readUInt32LE(1024 + 76);
    if (blockBits <= 6 && revision <= 1) return 'an ext2, ext3 or ext4 file system';
  }
  if (at(0, 'XFSB')) return 'an XFS file system';
  if (at(0x10040, '_BHRfS_M')) return 'a Btrfs file system';
  if (at(0, 'hsqs')) return 'a SquashFS file system';
  if (at(512, 'LABELONE')) return 'an LVM physical volume';
  if (head.length >= 1028 && head.readUInt32LE(1024) === 0xe0f5e1e2) return 'an EROFS file system';
  if (head.length >= 1028 && head.readUInt32LE(1024) === 0xf2f52010) return 'an F2FS file system';
  return undefined;
}
