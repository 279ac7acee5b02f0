import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { examineQcow2, readQcow2Header } from '../../../src/images/qcow2.ts';
import { recognise } from '../../../src/images/recognise.ts';
import { bufferWindow } from '../../../src/images/window.ts';

const CLUSTER = 65536;

/** A sound, empty qcow2 v3 of 1 MiB: header, L1 table, refcount table. */
function image(patch: (header: Buffer) => void = () => {}): Buffer {
  const file = Buffer.alloc(4 * CLUSTER);
  file.writeUInt32BE(0x514649fb, 0);
  file.writeUInt32BE(3, 4);
  file.writeUInt32BE(16, 20);
  file.writeBigUInt64BE(1n << 20n, 24);
  file.writeUInt32BE(1, 36);
  file.writeBigUInt64BE(BigInt(3 * CLUSTER), 40);
  file.writeBigUInt64BE(BigInt(CLUSTER), 48);
  file.writeUInt32BE(1, 56);
  file.writeUInt32BE(4, 96);
  file.writeUInt32BE(112, 100);
  patch(file);
  return file;
}

async function refusal(patch: (header: Buffer) => void): Promise<Failure> {
  const error: unknown = await examineQcow2(bufferWindow(image(patch))).catch((failure: unknown) => failure);
  expect(error).toBeInstanceOf(Failure);
  return error as Failure;
}

describe('a qcow2 header', () => {
  it('is accepted when sound, and judged by its head', async () => {
    expect(await examineQcow2(bufferWindow(image()))).toBe(1 << 20);
    expect(recognise(image()).judgedByHead).toBe(true);
  });

  it('is accepted when dirty: only reference counts are stale', async () => {
    expect(await examineQcow2(bufferWindow(image((header) => header.writeBigUInt64BE(1n, 72))))).toBe(1 << 20);
  });

  it('is accepted in version 2', async () => {
    const file = image((header) => {
      header.writeUInt32BE(2, 4);
      header.fill(0, 72, 112);
    });
    expect(await examineQcow2(bufferWindow(file))).toBe(1 << 20);
  });

  it.each<[string, string, RegExp, (header: Buffer) => void]>([
    [
      'a backing file',
      'UnsafeImage',
      /backing file \("\/etc\/shadow"\)/,
      (h) => {
        h.writeBigUInt64BE(512n, 8);
        h.writeUInt32BE(11, 16);
        h.write('/etc/shadow', 512);
      },
    ],
    [
      'a backing file with an unreadable name',
      'UnsafeImage',
      /name unreadable/,
      (h) => {
        h.writeBigUInt64BE(2n ** 60n, 8);
        h.writeUInt32BE(11, 16);
      },
    ],
    ['AES encryption', 'UnsafeImage', /encrypted \(AES\)/, (h) => h.writeUInt32BE(1, 32)],
    ['LUKS encryption', 'UnsafeImage', /encrypted \(LUKS\)/, (h) => h.writeUInt32BE(2, 32)],
    ['an external data file', 'UnsafeImage', /external data file/, (h) => h.writeBigUInt64BE(4n, 72)],
    [
      'the name of an external data file',
      'UnsafeImage',
      /external data file/,
      (h) => {
        h.writeUInt32BE(0x44415441, 112);
        h.writeUInt32BE(4, 116);
      },
    ],
    ['the corrupt mark', 'CorruptImage', /marked corrupt/, (h) => h.writeBigUInt64BE(2n, 72)],
    ['an unknown incompatible feature', 'UnsafeImage', /0x8000000000/, (h) => h.writeBigUInt64BE(1n << 39n, 72)],
    ['an unknown version', 'UnsafeImage', /version 4/, (h) => h.writeUInt32BE(4, 4)],
    [
      'an absurd virtual size',
      'UnsafeImage',
      /64 TiB/,
      (h) => {
        h.writeBigUInt64BE(2n ** 60n, 24);
        h.writeUInt32BE(4194304, 36);
      },
    ],
    ['no virtual size', 'CorruptImage', /no bytes/, (h) => h.writeBigUInt64BE(0n, 24)],
    ['clusters of 2 GiB', 'CorruptImage', /2\^31/, (h) => h.writeUInt32BE(31, 20)],
    [
      'an L1 table behind its end',
      'CorruptImage',
      /L1 table lies at/,
      (h) => h.writeBigUInt64BE(BigInt(CLUSTER * 1000), 40),
    ],
    ['an L1 table that is too small', 'CorruptImage', /too few/, (h) => h.writeBigUInt64BE(2n ** 40n, 24)],
    ['an L1 table of gigabytes', 'CorruptImage', /32 MiB/, (h) => h.writeUInt32BE(0xffffffff, 36)],
    [
      'an L2 table behind its end',
      'CorruptImage',
      /L2 table lies at/,
      (h) => h.writeBigUInt64BE((1n << 63n) | (1n << 40n), 3 * CLUSTER),
    ],
    [
      'a refcount table behind its end',
      'CorruptImage',
      /refcount table lies at/,
      (h) => h.writeBigUInt64BE(2n ** 40n, 48),
    ],
    ['no refcount table', 'CorruptImage', /refcount table/, (h) => h.writeUInt32BE(0, 56)],
    ['too many snapshots', 'UnsafeImage', /snapshots/, (h) => h.writeUInt32BE(60000, 60)],
    ['an impossible header length', 'CorruptImage', /header says/, (h) => h.writeUInt32BE(13, 100)],
    [
      'an extension behind its cluster',
      'CorruptImage',
      /extension/,
      (h) => {
        h.writeUInt32BE(0x1234, 112);
        h.writeUInt32BE(0xfffffff0, 116);
      },
    ],
    [
      'an unknown compression',
      'UnsafeImage',
      /compression type 7/,
      (h) => {
        h.writeBigUInt64BE(8n, 72);
        h.writeUInt8(7, 104);
      },
    ],
  ])('is refused with %s', async (_name, reason, message, patch) => {
    const failure = await refusal(patch);
    expect(failure.reason).toBe(reason);
    expect(failure.message).toMatch(message);
    if (reason === 'UnsafeImage') expect(recognise(image(patch)).judgedByHead).toBe(false);
  });

  it('is refused in time and with a reason, whatever bits are flipped or bytes are missing', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(127), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        fc.nat(4 * CLUSTER),
        async (patches, cut) => {
          const file = image((header) => {
            for (const [offset, value] of patches) header[offset] = value;
          }).subarray(0, 4 * CLUSTER - cut);
          const result: unknown = await examineQcow2(bufferWindow(file)).catch((error: unknown) => error);
          if (typeof result !== 'number') expect(result).toBeInstanceOf(Failure);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('never throws anything but a Failure on a head of any length', () => {
    fc.assert(
      fc.property(fc.nat(200), (length) => {
        try {
          readQcow2Header(image().subarray(0, length));
        } catch (error) {
          expect(error).toBeInstanceOf(Failure);
        }
      }),
    );
  });
});
