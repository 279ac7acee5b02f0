import type { Algorithm, Digests } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import { below } from '../below.ts';
import type { Entry } from '../catalog.ts';
import { Gathering, invalidEntry } from '../gathering.ts';
import { MAX_ENTRIES } from '../limits.ts';
import { present } from '../present.ts';
import { identifier, strongestFirst } from '../schema.ts';
import { packingOf } from '../suffixes.ts';
import { architecture } from '../system.ts';
import { decode, invalidList, plain, quoted } from '../text.ts';

/** `sha256sum`: the digest, a space, a space or the binary mark, the name. A backslash before it: the name is escaped. */
const GNU = /^(\\?)([0-9a-f]{32,128})[ \t]+\*?(\S.*)$/i;
/** `shasum --tag`, BSD, openssl: `SHA256 (name) = digest`. */
const BSD = /^([A-Z0-9-]{3,20}) ?\((.+)\) ?= ?([0-9a-f]{32,128})$/i;
/** Fedora's: `# name: 468647936 bytes`. */
const SIZE = /^#\s*(\S.*): (\d{1,15}) bytes$/;
const BARE = /^[0-9a-f]{32,128}$/i;

const BY_LENGTH: Readonly<Record<number, Algorithm>> = { 32: 'md5', 40: 'sha1', 64: 'sha256', 128: 'sha512' };
const BY_NAME: Readonly<Record<string, Algorithm>> = {
  MD5: 'md5',
  SHA1: 'sha1',
  SHA256: 'sha256',
  'SHA2-256': 'sha256',
  SHA512: 'sha512',
  'SHA2-512': 'sha512',
};
const ARCHITECTURES =
  /(?:^|[-_.])(amd64|x86[-_]64|i[3-6]86|arm64|aarch64|armhf|ppc64(?:le|el)|s390x|riscv64)(?=[-_.]|$)/i;

interface File {
  readonly checksums: Digests;
  /** Why it cannot be taken. */
  problem?: Failure;
}

/**
 * Reads `SHA256SUMS`, `CHECKSUM` and their like: the disk images among the files that are named. Only proven bytes belong here.
 * @param folder URL of the folder that the names are relative to
 * @param listName the list's own name: in `x.qcow2.sha256` a digest may stand alone
 * @throws Failure InvalidList
 */
export function parseChecksums(content: Uint8Array, folder: string, listName: string): ReturnType<Gathering['done']> {
  const files = new Map<string, File>();
  const sizes = new Map<string, number>();
  const gathering = new Gathering();
  let understood = 0;
  for (const [index, text] of lines(decode(content))) {
    const size = SIZE.exec(text);
    if (size?.[1] !== undefined) sizes.set(normal(size[1]), Number(size[2]));
    if (text === '' || text.startsWith('#')) continue;
    const line = readLine(text, listName);
    if (line === undefined) {
      gathering.read({ id: `line ${index}` }, () => {
        throw invalidEntry(`line ${index} is no checksum and file name: ${quoted(text)}`);
      });
      continue;
    }
    understood++;
    take(files, line);
    if (files.size > MAX_ENTRIES) throw invalidList(`it names more than ${MAX_ENTRIES} files`);
  }
  if (understood === 0) throw invalidList('it is no checksum file: no line has a digest and a file name');
  for (const [name, file] of files) {
    const packing = packingOf(name);
    // A distribution's list has kernels, manifests and packages beside the disks.
    if (!packing.image) continue;
    gathering.read({ id: name }, () => readFile(name, file, folder, sizes.get(name)));
  }
  return gathering.done();
}

function* lines(text: string): Generator<[number, string]> {
  let number = 0;
  for (let start = 0; start <= text.length; ) {
    const end = text.indexOf('\n', start);
    const line = text.slice(start, end === -1 ? undefined : end);
    number++;
    yield [number, line.length > 8192 ? line.slice(0, 8192) : line.trim()];
    start = end === -1 ? text.length + 1 : end + 1;
  }
}

interface Line {
  readonly name: string;
  readonly hex: string;
  /** Undefined: an algorithm that nothing here computes. */
  readonly algorithm: Algorithm | undefined;
  readonly escaped: boolean;
}

function readLine(text: string, listName: string): Line | undefined {
  const gnu = GNU.exec(text);
  if (gnu !== null) {
    const [, mark = '', hex = '', name = ''] = gnu;
    return { name: normal(name), hex: hex.toLowerCase(), algorithm: byLength(hex, listName), escaped: mark !== '' };
  }
  const bsd = BSD.exec(text);
  if (bsd !== null) {
    const [, word = '', name = '', hex = ''] = bsd;
    const algorithm = Object.hasOwn(BY_NAME, word.toUpperCase()) ? BY_NAME[word.toUpperCase()] : undefined;
    return { name: normal(name), hex: hex.toLowerCase(), algorithm, escaped: false };
  }
  const described = /^(.+)\.(?:sha1|sha256|sha512|md5)(?:sum)?$/i.exec(listName)?.[1];
  if (described === undefined || !BARE.test(text)) return undefined;
  return { name: described, hex: text.toLowerCase(), algorithm: byLength(text, listName), escaped: false };
}

/** The length tells, but for BLAKE2's, which is that of SHA-512. */
function byLength(hex: string, listName: string): Algorithm | undefined {
  return /b2|blake/i.test(listName) ? undefined : BY_LENGTH[hex.length];
}

function normal(name: string): string {
  return name.trim().replace(/^(?:\.\/)+/, '');
}

/** A file may stand there once for each algorithm. */
function take(files: Map<string, File>, { name, hex, algorithm, escaped }: Line): void {
  const file = files.get(name) ?? { checksums: {} };
  files.set(name, file);
  if (escaped) file.problem = invalidEntry('its name is escaped: names with line breaks or backslashes are not taken');
  if (algorithm === undefined) return;
  const before = file.checksums[algorithm];
  if (before !== undefined && before !== hex) {
    file.problem = new Failure(
      'DuplicateEntry',
      `the list has two ${algorithm} checksums for this file, which differ: ask its publisher`,
    );
  }
  // A digest's own length: `SHA256 (x) = <32 digits>` is a mistake.
  if (BY_LENGTH[hex.length] !== algorithm)
    file.problem = invalidEntry(`its ${algorithm} checksum has ${hex.length} digits`);
  file.checksums[algorithm] = hex;
}

function readFile(name: string, file: File, folder: string, size: number | undefined): Entry {
  if (file.problem !== undefined) throw file.problem;
  const id = identifier.safeParse(name);
  if (!id.success) throw invalidEntry('its name is too long, or has characters that cannot be printed');
  if (Object.keys(file.checksums).length === 0) {
    throw invalidEntry('its checksum is of another kind than sha512, sha256, sha1 and md5');
  }
  const place = below(folder, name);
  if ('problem' in place) throw invalidEntry(place.problem);
  const { format, compression } = packingOf(name);
  return {
    ...present({ size, format, compression, arch: architecture(ARCHITECTURES.exec(name)?.[1]?.replace('-', '_')) }),
    id: id.data,
    title: plain(name.slice(name.lastIndexOf('/') + 1)),
    urls: [place.url],
    checksums: strongestFirst(file.checksums),
    contentChecksums: {},
    os: {},
    fields: { name, ...file.checksums },
  };
}
