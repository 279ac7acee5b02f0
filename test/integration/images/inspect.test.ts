import { statSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { Format } from '../../../src/images/format.ts';
import type { Images } from '../../../src/images/images.ts';
import { HEAD_BYTES, TAIL_BYTES } from '../../../src/images/index.ts';
import { examineQcow2 } from '../../../src/images/qcow2.ts';
import { examineVdi } from '../../../src/images/vdi.ts';
import { examineVhd } from '../../../src/images/vhd.ts';
import { crc32c, examineVhdx } from '../../../src/images/vhdx.ts';
import { examineVmdk } from '../../../src/images/vmdk.ts';
import { bufferWindow, type Window } from '../../../src/images/window.ts';
import { WAYS } from './ways.ts';
import { installed, never, refusal, Workspace } from './workspace.ts';
import { effortMs } from '../../support/effort.ts';

const MIB = 2 ** 20;

/** Sound bytes with some bits flipped, without a copy of the whole. */
function flipped(sound: Buffer, changes: readonly (readonly [number, number])[]): Window {
  const window = bufferWindow(sound);
  return {
    size: window.size,
    read: async (offset, length) => {
      const bytes = Buffer.from(await window.read(offset, length));
      for (const [at, bits] of changes) {
        if (at >= offset && at < offset + length) bytes[at - offset] = (bytes[at - offset] ?? 0) ^ bits;
      }
      return bytes;
    },
  };
}

describe.skipIf(!installed('qemu-img', 'mke2fs', 'prlimit')).each(WAYS)(
  'real disk images, looked into %s',
  (_where, wayIn) => {
    const work = new Workspace();
    const way = wayIn(work);
    let images: Images;
    const auto = { format: 'Auto', role: 'Disk', checksumDeclared: false } as const;
    const as = (format: Format) => ({ ...auto, format });
    const inspect = (name: string, expected: Parameters<Images['inspect']>[1] = auto) =>
      images.inspect(work.path(name), expected, never);

    beforeAll(async () => {
      images = await way.images();
      work.makeDisk('disk.raw');
      const convert = (driver: string, name: string, ...options: string[]) =>
        work.run(
          'qemu-img',
          'convert',
          '-f',
          'raw',
          '-O',
          driver,
          ...options.flatMap((option) => ['-o', option]),
          'disk.raw',
          name,
        );
      convert('qcow2', 'v3.qcow2');
      convert('qcow2', 'v2.qcow2', 'compat=0.10');
      convert('qcow2', 'zstd.qcow2', 'compression_type=zstd');
      convert('qcow2', 'extended.qcow2', 'extended_l2=on');
      convert('vmdk', 'sparse.vmdk');
      convert('vmdk', 'stream.vmdk', 'subformat=streamOptimized');
      // VMware writes the grain directory's place only into a footer; qemu-img does not, but reads it.
      work.patch('stream.vmdk', 'footer.vmdk', (bytes) => {
        const footer = Buffer.from(bytes.subarray(0, 512));
        bytes.fill(0xff, 56, 64);
        const marker = Buffer.alloc(512);
        marker.writeUInt32LE(1, 0);
        marker.writeUInt32LE(3, 12);
        return Buffer.concat([bytes, marker, footer, Buffer.alloc(512)]);
      });
      convert('vdi', 'dynamic.vdi');
      convert('vdi', 'static.vdi', 'static=on');
      convert('vpc', 'dynamic.vhd');
      convert('vpc', 'exact.vhd', 'force_size=on');
      convert('vpc', 'fixed.vhd', 'subformat=fixed,force_size=on');
      convert('vhdx', 'dynamic.vhdx');
      convert('vhdx', 'fixed.vhdx', 'subformat=fixed');
      convert('qcow2', 'snapshot.qcow2');
      work.run('qemu-img', 'snapshot', '-c', 'before', 'snapshot.qcow2');
    });
    afterAll(async () => {
      await way.stop();
      work.clean();
    });

    it.each<[string, Format, boolean]>([
      ['disk.raw', 'Raw', true],
      ['v3.qcow2', 'Qcow2', true],
      ['v2.qcow2', 'Qcow2', true],
      ['zstd.qcow2', 'Qcow2', true],
      ['extended.qcow2', 'Qcow2', true],
      ['snapshot.qcow2', 'Qcow2', true],
      ['sparse.vmdk', 'Vmdk', true],
      ['stream.vmdk', 'Vmdk', false],
      ['footer.vmdk', 'Vmdk', false],
      ['dynamic.vdi', 'Vdi', true],
      ['static.vdi', 'Vdi', true],
      ['dynamic.vhd', 'Vhd', false],
      ['exact.vhd', 'Vhd', false],
      ['fixed.vhd', 'Vhd', false],
      ['dynamic.vhdx', 'Vhdx', false],
      ['fixed.vhdx', 'Vhdx', false],
    ])('%s is recognised, inspected and measured as %s', async (name, format, judgedByHead) => {
      const bytes = work.read(name);
      const found = images.recognise(bytes.subarray(0, HEAD_BYTES), bytes.subarray(-TAIL_BYTES));
      expect(found).toMatchObject({ compression: 'None', format, judgedByHead });
      // qemu rounds a VHD up to a cylinder unless told not to.
      const virtualSize =
        name === 'dynamic.vhd' ? expect.toSatisfy((size: number) => size >= 16 * MIB && size < 17 * MIB) : 16 * MIB;
      const facts = { format, size: statSync(work.path(name)).size, virtualSize };
      expect(await inspect(name)).toEqual(facts);
      expect(await inspect(name, as(format))).toEqual(facts);
    });

    it.each<[string, Format, RegExp]>([
      ['v3.qcow2', 'Raw', /declared as Raw, but the bytes are Qcow2/],
      ['disk.raw', 'Qcow2', /declared as Qcow2, but the bytes are Raw \(an ext2/],
      ['fixed.vhd', 'Raw', /declared as Raw, but the bytes are Vhd/],
      ['stream.vmdk', 'Ova', /declared as Ova, but the bytes are Vmdk/],
      ['disk.raw', 'Iso', /declared as Iso, but the bytes are Raw/],
    ])('%s declared as %s is a mismatch that names both', async (name, format, message) => {
      const failure = await refusal(inspect(name, as(format)));
      expect(failure.reason).toBe('FormatMismatch');
      expect(failure.message).toMatch(message);
    });

    it('a disk that is still compressed is a mismatch', async () => {
      work.run('sh', '-c', 'gzip -c disk.raw > disk.raw.gz');
      expect((await refusal(inspect('disk.raw.gz', as('Raw')))).message).toMatch(/still compressed with Gzip/);
    });

    describe('made unsafe by qemu-img itself', () => {
      // qemu times its key derivation by the CPU clock and, on a busy machine, gives up with "Unable to get accurate CPU usage".
      const insist = (program: string, ...args: string[]) => {
        for (let attempt = 1; ; attempt++) {
          try {
            return work.run(program, ...args);
          } catch (error) {
            if (attempt === 50 || !String(error).includes('accurate CPU usage')) throw error;
          }
        }
      };
      beforeAll(() => {
        work.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'disk.raw', '-F', 'raw', 'backing.qcow2');
        work.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'data_file=data.bin', 'data-file.qcow2', '16M');
        insist(
          'qemu-img',
          'create',
          '-q',
          '--object',
          'secret,id=s,data=pw',
          '-f',
          'qcow2',
          '-o',
          'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10',
          'luks.qcow2',
          '16M',
        );
        insist(
          'qemu-img',
          'create',
          '-q',
          '--object',
          'secret,id=s,data=pw',
          '-f',
          'luks',
          '-o',
          'key-secret=s,iter-time=10',
          'volume.luks',
          '1M',
        );
        work.run('qemu-img', 'create', '-q', '-f', 'qed', 'disk.qed', '16M');
        for (const type of ['monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat']) {
          work.run('qemu-img', 'create', '-q', '-f', 'vmdk', '-o', `subformat=${type}`, `${type}.vmdk`, '16M');
        }
        work.run('qemu-img', 'create', '-q', '-f', 'vmdk', '-b', 'sparse.vmdk', '-F', 'vmdk', 'delta.vmdk');
      });

      it.each<[string, string, RegExp]>([
        ['backing.qcow2', 'UnsafeImage', /backing file \("disk.raw"\)/],
        ['data-file.qcow2', 'UnsafeImage', /external data file/],
        ['luks.qcow2', 'UnsafeImage', /encrypted \(LUKS\)/],
        ['volume.luks', 'UnsafeImage', /LUKS-encrypted volume/],
        ['disk.qed', 'NotSupported', /QED/],
        [
          'monolithicFlat.vmdk',
          'UnsafeImage',
          /only a descriptor \(monolithicFlat\) that names "monolithicFlat-flat.vmdk"/,
        ],
        ['twoGbMaxExtentSparse.vmdk', 'UnsafeImage', /only a descriptor/],
        ['twoGbMaxExtentFlat.vmdk', 'UnsafeImage', /only a descriptor/],
        ['twoGbMaxExtentSparse-s001.vmdk', 'UnsafeImage', /one extent of a split disk/],
        ['delta.vmdk', 'UnsafeImage', /parent disk/],
      ])('%s is refused (%s)', async (name, reason, message) => {
        const failure = await refusal(inspect(name, { ...auto, checksumDeclared: true }));
        expect(failure.message).toMatch(message);
        expect(failure.reason).toBe(reason);
        expect(images.recognise(work.read(name).subarray(0, HEAD_BYTES)).judgedByHead).toBe(false);
      });
    });

    describe('with some bytes changed', () => {
      const text = (from: string, to: string) => (bytes: Buffer) => {
        const at = bytes.indexOf(from);
        expect(at).toBeGreaterThan(0);
        bytes.write(to, at, 'latin1');
      };
      const vhdFooter = (change: (footer: Buffer) => void) => (bytes: Buffer) => {
        for (const at of [0, bytes.length - 512]) {
          const footer = bytes.subarray(at, at + 512);
          if (footer.toString('latin1', 0, 8) !== 'conectix') continue;
          change(footer);
          footer.writeUInt32BE(0, 64);
          footer.writeUInt32BE(~footer.reduce((sum, byte) => sum + byte, 0) >>> 0, 64);
        }
      };
      const vhdxHeaders = (change: (header: Buffer) => void) => (bytes: Buffer) => {
        for (const at of [0x10000, 0x20000]) {
          const header = bytes.subarray(at, at + 4096);
          change(header);
          header.writeUInt32LE(0, 4);
          header.writeUInt32LE(crc32c(header), 4);
        }
      };
      const FILE_PARAMETERS = Buffer.from('3767a1ca36fa434db3b633f0aa44e76b', 'hex');
      const PARENT_LOCATOR = Buffer.from('2d5fd3a80bb34d45abf7d3d84834ab0c', 'hex');

      it.each<[string, string, string, RegExp, (bytes: Buffer) => Buffer | void]>([
        [
          'a VMDK that names a file of the host',
          'sparse.vmdk',
          'UnsafeImage',
          /names the file "\/etc\/x/,
          text('sparse.vmdk"', '/etc/xxxxxx"'),
        ],
        [
          'a VMDK of a type with files beside it',
          'sparse.vmdk',
          'UnsafeImage',
          /keeps its data in other files/,
          text('monolithicSparse', 'vmfsRawDeviceMap'),
        ],
        ['a VMDK with a flat extent', 'sparse.vmdk', 'UnsafeImage', /names the file/, text('SPARSE', 'FLAT  ')],
        [
          'a VMDK with a parent',
          'sparse.vmdk',
          'UnsafeImage',
          /parent/,
          text('parentCID=ffffffff', 'parentCID=12345678'),
        ],
        ['a VMDK with capacity 0', 'sparse.vmdk', 'UnsafeImage', /capacity 0/, (b) => void b.writeBigUInt64LE(0n, 12)],
        [
          'a VMDK of an absurd size',
          'sparse.vmdk',
          'UnsafeImage',
          /64 TiB/,
          (b) => void b.writeBigUInt64LE(2n ** 50n, 12),
        ],
        ['a VMDK moved as text', 'sparse.vmdk', 'CorruptImage', /text mode/, (b) => void b.write('\n\n', 75, 'latin1')],
        [
          'a streamOptimized VMDK cut short',
          'footer.vmdk',
          'CorruptImage',
          /no footer/,
          (b) => b.subarray(0, b.length - 4096),
        ],
        [
          'a VMDK with another descriptor in its footer',
          'footer.vmdk',
          'UnsafeImage',
          /another descriptor/,
          (b) => void b.writeBigUInt64LE(7n, b.length - 1024 + 28),
        ],
        ['a differencing VDI', 'dynamic.vdi', 'UnsafeImage', /differencing/, (b) => void b.writeUInt32LE(4, 0x4c)],
        ['a VDI with a parent', 'dynamic.vdi', 'UnsafeImage', /differencing/, (b) => void b.fill(7, 0x1b8, 0x1c8)],
        ['a VDI cut short', 'static.vdi', 'CorruptImage', /cut short/, (b) => b.subarray(0, 8 * MIB)],
        ['a differencing VHD', 'exact.vhd', 'UnsafeImage', /differencing/, vhdFooter((f) => f.writeUInt32BE(4, 60))],
        [
          'a VHD with a wrong checksum',
          'exact.vhd',
          'CorruptImage',
          /checksum/,
          (b) => void b.writeUInt32BE(1, b.length - 512 + 48),
        ],
        [
          'a VHD with a parent in its dynamic header',
          'exact.vhd',
          'UnsafeImage',
          /differencing/,
          (b) => {
            b.fill(1, 512 + 40, 512 + 56);
            b.writeUInt32BE(b.readUInt32BE(512 + 36) - 16, 512 + 36);
          },
        ],
        ['a VHD cut short', 'exact.vhd', 'CorruptImage', /no footer/, (b) => b.subarray(0, b.length - 512)],
        ['a fixed VHD that lacks data', 'fixed.vhd', 'CorruptImage', /cut short/, (b) => b.subarray(4 * MIB)],
        [
          'a fixed VHD that begins like a dynamic one',
          'fixed.vhd',
          'UnsafeImage',
          /begins like a dynamic/,
          (b) => void b.write('conectix', 0),
        ],
        [
          'a VHDX with an open log',
          'dynamic.vhdx',
          'UnsafeImage',
          /log is not empty/,
          vhdxHeaders((h) => h.fill(9, 48, 64)),
        ],
        [
          'a VHDX without a valid header',
          'dynamic.vhdx',
          'CorruptImage',
          /neither header/,
          (b) => {
            b[0x10010] = 1;
            b[0x20010] = 1;
          },
        ],
        [
          'a VHDX that has a parent',
          'dynamic.vhdx',
          'UnsafeImage',
          /differencing/,
          (b) => {
            const entry = b.indexOf(FILE_PARAMETERS, 0x100000);
            const table = b.lastIndexOf('metadata', entry);
            b.writeUInt8(2, table + b.readUInt32LE(entry + 16) + 4);
          },
        ],
        [
          'a VHDX with a parent locator',
          'dynamic.vhdx',
          'UnsafeImage',
          /differencing/,
          (b) => {
            const entry = b.indexOf(FILE_PARAMETERS, 0x100000);
            PARENT_LOCATOR.copy(b, entry);
          },
        ],
        ['a qcow2 cut in half', 'v3.qcow2', 'CorruptImage', /cut short|damaged/, (b) => b.subarray(0, 200_000)],
      ])('%s is refused', async (name, from, reason, message, change) => {
        const file = `${name.replaceAll(/\W+/g, '-')}.img`;
        work.patch(from, file, change);
        const failure = await refusal(inspect(file));
        expect(failure.message).toMatch(message);
        expect(failure.reason).toBe(reason);
      });
    });

    it('whatever is flipped in a header, the answer is facts or a Failure, and comes soon', async () => {
      const parsers: [string, (file: Window) => Promise<unknown>, number][] = [
        ['v3.qcow2', examineQcow2, 128],
        ['footer.vmdk', examineVmdk, 1200],
        ['dynamic.vdi', examineVdi, 512],
        ['exact.vhd', examineVhd, 1536],
        ['dynamic.vhdx', examineVhdx, 0x210000],
      ];
      for (const [name, examine, span] of parsers) {
        const sound = work.read(name);
        const flips = fc.array(fc.tuple(fc.nat(span - 1), fc.integer({ min: 1, max: 255 })), {
          minLength: 1,
          maxLength: 4,
        });
        await fc.assert(
          fc.asyncProperty(flips, async (changes) => {
            let outcome: unknown;
            const took = await effortMs(async () => {
              outcome = await examine(flipped(sound, changes)).catch((error: unknown) => error);
            });
            if (outcome instanceof Error) expect(outcome).toBeInstanceOf(Failure);
            expect(took).toBeLessThan(2000);
          }),
          { numRuns: 150 },
        );
      }
    });

    it('nor does qemu-img bring inspect down', async () => {
      const sound = work.read('v3.qcow2');
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(fc.nat(111), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 2 }),
          async (changes) => {
            const bytes = Buffer.from(sound);
            for (const [at, bits] of changes) bytes[at] = (bytes[at] ?? 0) ^ bits;
            const path = work.write('flipped.qcow2', bytes);
            const outcome: unknown = await images
              .inspect(path, { ...auto, checksumDeclared: true }, never)
              .catch((error: unknown) => error);
            if (outcome instanceof Error) expect(outcome).toBeInstanceOf(Failure);
          },
        ),
        { numRuns: 40 },
      );
    });

    describe('content that is no disk', () => {
      it.each<[string, string, RegExp, () => string]>([
        [
          'a page of HTML',
          'NotAnImage',
          /an HTML page titled "Log in" instead of an image/,
          () => work.write('page', '<html><head><title>Log in</title>'),
        ],
        ['plain text', 'NotAnImage', /plain text instead/, () => work.write('page', 'not found\n')],
        ['an empty file', 'NotAnImage', /empty/, () => work.write('page', '')],
        ['a ZIP archive', 'NotSupported', /ZIP/, () => work.write('page', 'PK\x03\x04', Buffer.alloc(512))],
      ])('%s is refused, also when a checksum is declared', async (_name, reason, message, make) => {
        const path = make();
        for (const format of ['Auto', 'Raw'] as const) {
          const failure = await refusal(images.inspect(path, { format, role: 'Disk', checksumDeclared: true }, never));
          expect(failure.reason).toBe(reason);
          expect(failure.message).toMatch(message);
        }
      });

      it('unrecognised bytes are a raw disk only if a checksum vouches for them', async () => {
        const path = work.write('noise', Buffer.alloc(8192, 0x81));
        expect((await refusal(images.inspect(path, auto, never))).message).toMatch(/no checksum vouches/);
        const declared = { format: 'Auto', role: 'Disk', checksumDeclared: true } as const;
        expect(await images.inspect(path, declared, never)).toEqual({ format: 'Raw', size: 8192, virtualSize: 8192 });
        expect((await refusal(images.inspect(path, { ...declared, format: 'Qcow2' }, never))).reason).toBe(
          'FormatMismatch',
        );
      });

      it('a kernel or ramdisk is only measured, but never a page of text', async () => {
        const path = work.write('kernel', Buffer.alloc(0x202), 'HdrS', Buffer.alloc(100));
        const expected = { format: 'Auto', role: 'Kernel', checksumDeclared: true } as const;
        expect(await images.inspect(path, expected, never)).toEqual({ format: 'Raw', size: 618, virtualSize: 618 });
        expect((await refusal(images.inspect(path, { ...expected, role: 'Disk' }, never))).message).toMatch(
          /a Linux kernel/,
        );
        const page = work.write('initrd', '<html>');
        expect((await refusal(images.inspect(page, { ...expected, role: 'Ramdisk' }, never))).reason).toBe(
          'NotAnImage',
        );
      });
    });

    it.skipIf(!installed('genisoimage'))('an ISO is an Iso, and may be declared Raw', async () => {
      work.run('genisoimage', '-quiet', '-o', 'cd.iso', 'root');
      expect(await inspect('cd.iso')).toMatchObject({ format: 'Iso', virtualSize: statSync(work.path('cd.iso')).size });
      expect(await inspect('cd.iso', as('Raw'))).toMatchObject({ format: 'Raw' });
      expect((await refusal(inspect('cd.iso', as('Qcow2')))).message).toMatch(/are Iso/);
    });

    it('a missing qemu-img names its package', async () => {
      const lacking = await way.images({ 'qemu-img': '/nonexistent/qemu-img' });
      const failure = await refusal(lacking.inspect(work.path('v3.qcow2'), auto, never));
      expect(failure.reason).toBe('ToolMissing');
      expect(failure.message).toBe('qemu-img is not installed at /nonexistent/qemu-img: apt-get install qemu-utils');
      expect(await lacking.missingTools()).toEqual([{ tool: 'qemu-img', package: 'qemu-utils' }]);
    });
  },
);
