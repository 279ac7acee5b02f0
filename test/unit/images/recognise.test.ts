import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FORMATS } from '../../../src/images/format.ts';
import { recognise } from '../../../src/images/recognise.ts';

function bytes(length: number, parts: Record<number, string | number[]>): Buffer {
  const buffer = Buffer.alloc(length);
  for (const [offset, part] of Object.entries(parts)) {
    Buffer.from(typeof part === 'string' ? Buffer.from(part, 'latin1') : part).copy(buffer, Number(offset));
  }
  return buffer;
}

const MBR = bytes(4096, { 446: [0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x10, 0, 0], 510: [0x55, 0xaa] });

describe('compressed files', () => {
  it.each([
    ['Gzip', gzipSync('x')],
    ['Xz', bytes(64, { 0: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0] })],
    ['Bzip2', bytes(64, { 0: 'BZh91AY&SY' })],
    ['Bzip2', bytes(14, { 0: [0x42, 0x5a, 0x68, 0x39, 0x17, 0x72, 0x45, 0x38, 0x50, 0x90] })],
    ['Zstd', bytes(64, { 0: [0x28, 0xb5, 0x2f, 0xfd] })],
  ])('%s is told by its magic, and never judged by its head', (compression, head) => {
    expect(recognise(head)).toEqual({ compression, judgedByHead: false });
  });

  it('finds the zstd frame behind skippable frames', () => {
    const head = bytes(64, { 0: [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4, 0x28, 0xb5, 0x2f, 0xfd] });
    expect(recognise(head).compression).toBe('Zstd');
    const other = bytes(64, { 0: [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4, 1, 1, 1, 1] });
    expect(recognise(other).compression).toBe('None');
  });

  it('does not take a text that begins with BZh9 for bzip2', () => {
    expect(recognise(Buffer.from('BZh9 is how bzip2 files begin')).text).toBe('text');
  });
});

describe('disk formats', () => {
  it.each([
    ['Vhdx', bytes(4096, { 0: 'vhdxfile' })],
    ['Vhd', bytes(4096, { 0: 'conectix' })],
    ['Vdi', bytes(4096, { 0x40: [0x7f, 0x10, 0xda, 0xbe] })],
    ['Vmdk', bytes(4096, { 0: 'KDMV' })],
    ['Vmdk', bytes(4096, { 0: 'COWD' })],
    ['Vmdk', Buffer.from('# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\n')],
    ['Vmdk', Buffer.from('# a comment\n\nversion=1\ncreateType="monolithicFlat"\n')],
    ['Qcow2', bytes(4096, { 0: [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3] })],
  ])('%s is told by its magic, and a header without the rest is not judged by it', (format, head) => {
    expect(recognise(head)).toMatchObject({ compression: 'None', format, judgedByHead: false });
  });

  it('takes a file for VHD when only its last 512 bytes say so', () => {
    const footer = bytes(1024, { 512: 'conectix' });
    expect(recognise(MBR)).toMatchObject({ format: 'Raw', judgedByHead: true });
    expect(recognise(MBR, footer)).toMatchObject({ format: 'Vhd', judgedByHead: false });
    expect(recognise(Buffer.alloc(4096), footer).format).toBe('Vhd');
  });

  it('tells a raw disk by partition table or file system, and says which', () => {
    const rows: [string, Buffer][] = [
      ['a disk with an MBR partition table', MBR],
      ['a disk with a GPT partition table', bytes(4096, { 510: [0x55, 0xaa], 512: 'EFI PART' })],
      ['a disk with a GPT partition table', bytes(8192, { 4096: 'EFI PART' })],
      ['an ext2, ext3 or ext4 file system', bytes(4096, { 1080: [0x53, 0xef], 1100: [1] })],
      ['an XFS file system', bytes(4096, { 0: 'XFSB' })],
      ['a Btrfs file system', bytes(0x11000, { 0x10040: '_BHRfS_M' })],
      ['a SquashFS file system', bytes(4096, { 0: 'hsqs' })],
      ['a FAT file system', bytes(4096, { 54: 'FAT16', 510: [0x55, 0xaa] })],
    ];
    for (const [what, head] of rows) {
      expect(recognise(head)).toEqual({ compression: 'None', format: 'Raw', what, judgedByHead: true });
    }
  });

  it('counts an isohybrid (ISO 9660 with an MBR) as Iso, and does not mistake a qcow2 file for one', () => {
    const hybrid = bytes(0x9000, {
      446: [0x80, 0, 0, 0, 0x17, 0, 0, 0, 0, 0, 0, 0, 1],
      510: [0x55, 0xaa],
      0x8001: 'CD001',
    });
    expect(recognise(hybrid)).toMatchObject({ format: 'Iso', judgedByHead: true });
    const disguised = bytes(0x9000, { 0: [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3], 0x8001: 'CD001' });
    expect(recognise(disguised).format).toBe('Qcow2');
  });

  it('does not call a boot sector without partitions a disk', () => {
    expect(recognise(bytes(512, { 0: [0xeb, 0x3c], 510: [0x55, 0xaa] }))).toMatchObject({
      format: 'Unknown',
      judgedByHead: false,
    });
  });
});

describe('what is no disk', () => {
  it.each([
    ['a Linux kernel (bzImage)', bytes(4096, { 0: 'MZ', 510: [0x55, 0xaa], 0x202: 'HdrS' })],
    ['a cpio archive (an initrd)', Buffer.from('070701000000')],
    ['an EFI or Windows program', bytes(512, { 0: 'MZ', 0x3c: [0x80], 0x80: 'PE' })],
    ['a ZIP archive', bytes(64, { 0: 'PK\x03\x04' })],
    ['a LUKS-encrypted volume', bytes(64, { 0: [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe] })],
    ['a file compressed by compress (.Z)', bytes(64, { 0: [0x1f, 0x9d, 0x90] })],
    [
      'a file compressed by lzma (.lzma, the predecessor of xz)',
      bytes(64, { 0: [0x5d, 0, 0, 0x80, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0] }),
    ],
  ])('knows %s', (what, head) => {
    expect(recognise(head)).toEqual({ compression: 'None', format: 'Unknown', what, judgedByHead: false });
  });

  it('knows an Apple disk image by its tail', () => {
    expect(recognise(Buffer.alloc(4096), bytes(1024, { 512: 'koly' })).what).toBe('an Apple disk image (DMG)');
  });

  it.each([
    [
      'HTML',
      'Sign in – Example',
      Buffer.from('<!DOCTYPE html>\n<html><head><title>\n Sign in – Example </title></head>'),
    ],
    [
      'HTML',
      'Connexion refusée'.replace('é', '\ufffd'),
      Buffer.from('<html><title>Connexion refus\xe9e</title>', 'latin1'),
    ],
    ['XML', undefined, Buffer.from('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>')],
    ['JSON', undefined, Buffer.from('{"error": "not found"}')],
    ['text', undefined, Buffer.from('404 page not found\n')],
    ['text', undefined, Buffer.from('\ufeffseite nicht gefunden', 'utf16le')],
  ])('knows a page of %s', (text, title, head) => {
    const found = recognise(head);
    expect(found).toMatchObject({ format: 'Unknown', text, judgedByHead: false });
    expect(found.title).toBe(title);
  });

  it('does not take bytes with control characters for text', () => {
    expect(recognise(Buffer.from('<html>\0\0\0')).text).toBeUndefined();
    expect(recognise(Buffer.from([0xff, 0xfe, 0x41])).text).toBeUndefined();
  });
});

describe('any bytes', () => {
  const magic = fc.constantFrom(
    ...[
      'QFI\xfb\0\0\0\x02',
      'QFI\xfb\0\0\0\x03',
      'KDMV',
      'COWD',
      'conectix',
      'vhdxfile',
      'MZ',
      'BZh9',
      '# Disk DescriptorFile',
      '\x50\x2a\x4d\x18',
      '<html>',
      '\x5d\0\0',
    ].map((text) => Buffer.from(text, 'latin1')),
  );
  const head = fc.oneof(
    fc.uint8Array({ maxLength: 2048 }),
    fc
      .tuple(magic, fc.uint8Array({ maxLength: 2048 }))
      .map(([start, rest]) => new Uint8Array(Buffer.concat([start, rest]))),
  );

  it('never make it throw, whatever they are and wherever they are cut', () => {
    fc.assert(
      fc.property(head, fc.option(fc.uint8Array({ maxLength: 1024 }), { nil: undefined }), (start, tail) => {
        const found = recognise(start, tail);
        if (found.compression === 'None') expect([...FORMATS, 'Unknown']).toContain(found.format);
        if (found.format === 'Unknown' || found.compression !== 'None') expect(found.judgedByHead).toBe(false);
      }),
      { numRuns: 3000 },
    );
  });
});
