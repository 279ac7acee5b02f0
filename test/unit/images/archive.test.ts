import { buffer } from 'node:stream/consumers';
import fc from 'fast-check';
import tar from 'tar-stream';
import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import { findOvaDisk } from '../../../src/images/ova.ts';
import { readOvf } from '../../../src/images/ovf.ts';
import { recognise } from '../../../src/images/recognise.ts';
import { findTarMember, listTar } from '../../../src/images/tar.ts';
import { bufferWindow } from '../../../src/images/window.ts';

type Entry = { name: string; body: Buffer } & Partial<tar.Header>;

async function pack(entries: Entry[]): Promise<Buffer> {
  const archive = tar.pack();
  for (const { body, ...header } of entries) archive.entry({ ...header }, body);
  archive.finalize();
  return buffer(archive);
}

const OVF = (files: string) =>
  Buffer.from(
    `<?xml version="1.0"?><ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>${files}</References></ovf:Envelope>`,
  );
const FILE = '<File ovf:href="disk.img" ovf:id="f1"/>';
/** A raw disk with an MBR. */
const DISK = Buffer.alloc(4096);
Buffer.from([0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x10]).copy(DISK, 446);
DISK.writeUInt16LE(0xaa55, 510);

async function refusal(work: Promise<unknown>): Promise<Failure> {
  const error: unknown = await work.then(
    () => undefined,
    (failure: unknown) => failure,
  );
  expect(error).toBeInstanceOf(Failure);
  return error as Failure;
}

describe('a tar archive', () => {
  it('gives each member with its place, as another implementation packed it', async () => {
    const name = fc.stringMatching(/^[a-zé]{1,30}(\/[a-z]{1,60}){0,5}$/);
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.tuple(name, fc.uint8Array({ maxLength: 1500 })), { selector: ([key]) => key, maxLength: 8 }),
        async (files) => {
          const archive = await pack(files.map(([key, body]) => ({ name: key, body: Buffer.from(body) })));
          const members = await listTar(bufferWindow(archive));
          expect(members.map((member) => member.name)).toEqual(files.map(([key]) => key));
          for (const [index, member] of members.entries()) {
            const [segment] = member.segments;
            const start = segment?.offset ?? 0;
            expect(archive.subarray(start, start + member.size)).toEqual(Buffer.from(files[index]?.[1] ?? []));
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it('is refused with a Failure, never a hang or another error, when it is cut or damaged anywhere', async () => {
    const archive = await pack([
      { name: 'a', body: Buffer.alloc(700, 1) },
      { name: `${'long/'.repeat(60)}b`, body: DISK },
    ]);
    await fc.assert(
      fc.asyncProperty(fc.nat(archive.length - 1), fc.nat(archive.length - 1), fc.nat(255), async (cut, at, value) => {
        const damaged = Buffer.from(archive.subarray(0, archive.length - cut));
        if (at < damaged.length) damaged[at] = value;
        const result: unknown = await listTar(bufferWindow(damaged)).catch((error: unknown) => error);
        if (!Array.isArray(result)) expect(result).toBeInstanceOf(Failure);
      }),
      { numRuns: 500 },
    );
  });

  it('cut short is corrupt', async () => {
    const archive = await pack([{ name: 'filesystem', body: DISK }]);
    const failure = await refusal(listTar(bufferWindow(archive.subarray(0, 2048))));
    expect(failure.reason).toBe('CorruptImage');
  });

  it('names the member that is missing, and refuses links in its place', async () => {
    const archive = await pack([{ name: 'other', body: DISK }]);
    expect((await refusal(findTarMember(bufferWindow(archive), 'filesystem'))).message).toMatch(
      /no member "filesystem"/,
    );
    const link = await pack([{ name: 'filesystem', type: 'symlink', linkname: '/etc/shadow', body: Buffer.alloc(0) }]);
    expect((await refusal(findTarMember(bufferWindow(link), 'filesystem'))).reason).toBe('UnsafeImage');
  });
});

describe('an OVA archive', () => {
  it('is recognised by the descriptor in its head, and its one disk is found', async () => {
    const archive = await pack([
      { name: 'vm.ovf', body: OVF(FILE) },
      { name: 'disk.img', body: DISK },
      { name: 'vm.mf', body: Buffer.from('SHA1(x)= 00') },
    ]);
    expect(recognise(archive)).toEqual({ compression: 'None', format: 'Ova', judgedByHead: false });
    const disk = await findOvaDisk(bufferWindow(archive));
    expect(disk).toMatchObject({ name: 'disk.img', format: 'Raw', size: 4096 });
    expect(archive.subarray(disk.offset, disk.offset + disk.size)).toEqual(DISK);
  });

  it('is a plain tar archive without a descriptor', async () => {
    expect(recognise(await pack([{ name: 'disk.img', body: DISK }]))).toMatchObject({
      format: 'Unknown',
      what: 'a tar archive',
    });
  });

  const ovf = { name: 'vm.ovf', body: OVF('') };
  it.each<[string, string, RegExp, Entry[]]>([
    [
      'two disks',
      'NotSupported',
      /2 disks \("a.img", "b.img"\)/,
      [ovf, { name: 'a.img', body: DISK }, { name: 'b.img', body: DISK }],
    ],
    ['no disk', 'NotAnImage', /no disk/, [ovf]],
    ['a disk of no known format', 'CorruptImage', /"a.vmdk"/, [ovf, { name: 'a.vmdk', body: Buffer.alloc(4096, 7) }]],
    ['a compressed disk', 'NotSupported', /Gzip/, [ovf, { name: 'a.vmdk', body: Buffer.from([0x1f, 0x8b, 8, 0, 0]) }]],
    [
      'a member that leaves the archive',
      'UnsafeImage',
      /"..\/..\/etc\/passwd" has a path/,
      [ovf, { name: '../../etc/passwd', body: DISK }],
    ],
    ['an absolute member', 'UnsafeImage', /has a path/, [ovf, { name: '/etc/passwd', body: DISK }]],
    [
      'a link',
      'UnsafeImage',
      /link or a device/,
      [ovf, { name: 'a.img', type: 'symlink', linkname: '/etc/shadow', body: Buffer.alloc(0) }],
    ],
    ['a member twice', 'UnsafeImage', /twice/, [ovf, { name: 'a.img', body: DISK }, { name: 'a.img', body: DISK }]],
    [
      'two descriptors',
      'CorruptImage',
      /2 OVF descriptors/,
      [ovf, { name: 'b.ovf', body: OVF('') }, { name: 'a.img', body: DISK }],
    ],
    [
      'an endless descriptor',
      'UnsafeImage',
      /1 MiB/,
      [
        { name: 'a.ovf', body: Buffer.alloc(2 ** 20 + 1, 32) },
        { name: 'a.img', body: DISK },
      ],
    ],
    [
      'a reference to what is not there',
      'UnsafeImage',
      /"b.img", which is not/,
      [
        { name: 'a.ovf', body: OVF('<File ovf:href="b.img"/>') },
        { name: 'a.img', body: DISK },
      ],
    ],
  ])('is refused with %s', async (_name, reason, message, entries) => {
    const failure = await refusal(findOvaDisk(bufferWindow(await pack(entries))));
    expect(failure.reason).toBe(reason);
    expect(failure.message).toMatch(message);
  });
});

describe('an OVF descriptor', () => {
  it.each<[string, string, RegExp]>([
    ['a file on the network', '<Envelope><File href="http://169.254.169.254/x"/></Envelope>', /not in the archive/],
    ['a file outside', '<Envelope><File href="../x"/></Envelope>', /not in the archive/],
    ['a parent disk', '<Envelope><Disk parentRef="d0"/></Envelope>', /parent disk/],
    ['chunks', '<Envelope><File href="x" chunkSize="7"/></Envelope>', /chunks/],
    ['a compressed file', '<Envelope><File href="x" compression="gzip"/></Envelope>', /compresses/],
    ['a DOCTYPE', '<!DOCTYPE x [<!ENTITY a "b">]><Envelope/>', /DOCTYPE/],
    ['another root', '<html/>', /<html>/],
    ['broken markup', '<Envelope><File', /well-formed/],
    ['deep nesting', '<Envelope>'.repeat(100), /deep/],
  ])('is refused with %s', (_name, text, message) => {
    expect(() => readOvf(text)).toThrow(message);
  });
});
