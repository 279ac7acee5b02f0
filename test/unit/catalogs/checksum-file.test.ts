import { describe, expect, it } from 'vitest';
import { one, read, refusal, SHA256, SHA512, skipped } from './reading.ts';
import { effortMs } from '../../support/effort.ts';

const FOLDER = 'https://cloud.example.org/noble/current/';
const sums = (text: string, name = 'SHA256SUMS') => read('ChecksumFile', text, FOLDER + name);

describe('a checksum file', () => {
  it('is read for the disk images in it; all else is left out in silence', async () => {
    const catalog = await sums(`# made by hand

${SHA256} *noble-server-cloudimg-amd64.img
${SHA256}  noble-server-cloudimg-arm64.img
${SHA256} *noble-server-cloudimg-amd64.manifest
${SHA256} *noble-server-cloudimg-amd64-root.tar.xz
${SHA256} *unpacked/vmlinuz
`);
    expect(catalog).toEqual({
      list: { format: 'ChecksumFile', digest: expect.stringMatching(/^sha256:/) },
      entries: [
        {
          id: 'noble-server-cloudimg-amd64.img',
          title: 'noble-server-cloudimg-amd64.img',
          urls: [`${FOLDER}noble-server-cloudimg-amd64.img`],
          checksums: { sha256: SHA256 },
          contentChecksums: {},
          arch: 'x86_64',
          os: {},
          fields: { name: 'noble-server-cloudimg-amd64.img', sha256: SHA256 },
        },
        expect.objectContaining({ id: 'noble-server-cloudimg-arm64.img', arch: 'aarch64' }),
      ],
      skipped: [],
      warnings: [],
    });
  });

  it.each([
    ['GNU, text', `${SHA256}  x.qcow2`, { checksums: { sha256: SHA256 }, format: 'Qcow2' }],
    ['GNU, binary', `${SHA256} *x.qcow2`, { id: 'x.qcow2' }],
    ['one space', `${SHA256} x.qcow2`, { id: 'x.qcow2' }],
    ['a tab', `${SHA256}\tx.qcow2`, { id: 'x.qcow2' }],
    ['upper case', `${SHA256.toUpperCase()}  x.qcow2`, { checksums: { sha256: SHA256 } }],
    ['line ends of Windows', `${SHA256}  x.qcow2\r\n`, { id: 'x.qcow2' }],
    ['SHA-512', `${SHA512}  x.raw.xz`, { checksums: { sha512: SHA512 }, format: 'Raw', compression: 'Xz' }],
    ['SHA-1', `${'a'.repeat(40)}  x.raw`, { checksums: { sha1: 'a'.repeat(40) } }],
    ['MD5', `${'a'.repeat(32)}  x.raw`, { checksums: { md5: 'a'.repeat(32) } }],
    ['BSD', `SHA256 (x-1.0.vhd.gz) = ${SHA256}`, { checksums: { sha256: SHA256 }, format: 'Vhd', compression: 'Gzip' }],
    ['openssl', `SHA2-512(x.vmdk)= ${SHA512}`, { checksums: { sha512: SHA512 }, format: 'Vmdk' }],
    [
      'two algorithms',
      `SHA256 (x.img) = ${SHA256}\nSHA512 (x.img) = ${SHA512}`,
      { checksums: { sha256: SHA256, sha512: SHA512 } },
    ],
    ['a line twice', `${SHA256}  x.img\n${SHA256} *./x.img`, { id: 'x.img' }],
    ['a name with ./', `${SHA256}  ./x.img`, { id: 'x.img', urls: [`${FOLDER}x.img`] }],
    [
      'a folder below',
      `${SHA256}  images/x.img`,
      { id: 'images/x.img', title: 'x.img', urls: [`${FOLDER}images/x.img`] },
    ],
    [
      'a name with spaces and signs',
      `${SHA256}  a b#1?2%+ü.img`,
      { id: 'a b#1?2%+ü.img', urls: [`${FOLDER}a%20b%231%3F2%25+%C3%BC.img`] },
    ],
    ['a name like a scheme', `${SHA256}  https:x.img`, { urls: [`${FOLDER}https:x.img`] }],
    ["Fedora's size", `# x.qcow2: 468647936 bytes\nSHA256 (x.qcow2) = ${SHA256}`, { size: 468647936 }],
    ['an ISO', `${SHA256}  x-aarch64-dvd.iso`, { arch: 'aarch64' }],
  ])('in the form: %s', async (_, text, expected) => {
    expect(await one(sums(text))).toMatchObject(expected);
  });

  it('of one image may hold the digest alone', async () => {
    expect(await one(sums(`${SHA256}\n`, 'x.qcow2.sha256'))).toMatchObject({
      id: 'x.qcow2',
      checksums: { sha256: SHA256 },
    });
    expect(await one(sums(`${SHA512}\n`, 'x.qcow2.SHA512SUM?a=b'))).toMatchObject({ urls: [`${FOLDER}x.qcow2`] });
    expect(await refusal(sums(`${SHA256}\n`))).toContain('InvalidList');
  });

  it('never takes credentials into the locations', async () => {
    const url = 'https://me:secret@cloud.example.org/a/SHA256SUMS?key=secret';
    expect((await one(read('ChecksumFile', `${SHA256}  x.img`, url))).urls).toEqual([
      'https://cloud.example.org/a/x.img',
    ]);
  });

  it.each([
    [
      'that leaves the folder',
      `${SHA256}  ../x.img`,
      '../x.img InvalidEntry: "../x.img" is not the path of a file below the list\'s folder',
    ],
    ['that leaves it later', `${SHA256}  a/../../x.img`, /is not the path of a file below/],
    ['that leaves it by an escape', `${SHA256}  %2e%2e/x.img`, /is not the path of a file below/],
    ['from the root', `${SHA256}  /etc/x.img`, /is not the path of a file below/],
    ['of another server', `${SHA256}  https://evil.example.org/x.img`, /is not the path of a file below/],
    ['of another server, without scheme', `${SHA256}  //evil.example.org/x.img`, /is not the path of a file below/],
    ['with a backslash', `${SHA256}  ..\\x.img`, /is not the path of a file below/],
    [
      'with escapes',
      `\\${SHA256}  a\\nb.img`,
      'a\\nb.img InvalidEntry: its name is escaped: names with line breaks or backslashes are not taken',
    ],
    [
      'with control characters',
      `${SHA256}  a\u0007b.img`,
      'a b.img InvalidEntry: its name is too long, or has characters that cannot be printed',
    ],
    [
      'with two different checksums',
      `${SHA256}  x.img\n${'0'.repeat(64)}  x.img`,
      'x.img DuplicateEntry: the list has two sha256 checksums for this file, which differ: ask its publisher',
    ],
    [
      'with a checksum of another length',
      `SHA256 (x.img) = ${'0'.repeat(32)}`,
      'x.img InvalidEntry: its sha256 checksum has 32 digits',
    ],
    [
      'with a checksum of another kind',
      `SHA384 (x.img) = ${'0'.repeat(96)}`,
      'x.img InvalidEntry: its checksum is of another kind than sha512, sha256, sha1 and md5',
    ],
    ['with a checksum of another length, alone', `${'0'.repeat(96)}  x.img`, /another kind than sha512/],
  ])('skips a name %s', async (_, text, expected) => {
    const reading = sums(`${text}\n${SHA256}  good.img`);
    expect(await skipped(reading)).toMatch(expected);
    expect((await reading).entries.map(({ id }) => id)).toEqual(['good.img']);
  });

  it('of BLAKE2 is not taken for one of SHA-512', async () => {
    expect(await skipped(sums(`${SHA512}  x.img`, 'B2SUMS'))).toContain('another kind than sha512');
  });

  it('skips lines that are none, and says which', async () => {
    expect(await skipped(sums(`what is this?\n${SHA256}  x.img`))).toBe(
      'line 1 InvalidEntry: line 1 is no checksum and file name: "what is this?"',
    );
  });

  it.each([
    [
      'a page of HTML',
      '<html>\n<body>Not here</body></html>',
      'InvalidList: the list cannot be read: it is no checksum file: no line has a digest and a file name',
    ],
    ['nothing', '', /no line has a digest/],
    ['bytes', Buffer.from([0xff, 0xfe, 0x00]), 'InvalidList: the list cannot be read: it is not UTF-8 text'],
  ])('is refused when it is %s', async (_, text, expected) => {
    expect(await refusal(read('ChecksumFile', text))).toMatch(expected);
  });

  it('is read in linear time, whatever its lines are', async () => {
    const long = [
      `SHA256 (${'('.repeat(200_000)}`,
      `${' '.repeat(200_000)}x`,
      `${SHA256}${' '.repeat(200_000)}`,
      `# ${'a: '.repeat(100_000)}`,
    ];
    const took = await effortMs(async () => {
      expect(await refusal(sums(long.join('\n')))).toContain('InvalidList');
    });
    expect(took).toBeLessThan(5_000);
  });
});
