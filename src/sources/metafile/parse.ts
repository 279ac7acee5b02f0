import { SaxesParser } from 'saxes';
import { clip } from '../../api/conditions.ts';
import { Failure } from '../../api/failure.ts';
import type { Role } from '../../images/format.ts';

/** ORCA's metadata file names at most a handful of parts; whatever is larger is not one. */
export const MAX_METAFILE_BYTES = 256 * 1024;
const MAX_DEPTH = 16;
const MAX_IMAGES = 16;

export interface MetafilePart {
  role: Role;
  url: string;
  sha1: string;
  /** A ZFILESYSTEM: compressed, and where it is a tar, the disk is its member `filesystem`. */
  packed: boolean;
}

const TYPES: Record<string, { role: Role; packed: boolean; rank: number }> = {
  // Where a metafile names several disks, ORCA preferred the plain one; a QCOW2 beside them is the same system for newer clouds.
  FILESYSTEM: { role: 'Disk', packed: false, rank: 0 },
  QCOW2: { role: 'Disk', packed: false, rank: 1 },
  ZFILESYSTEM: { role: 'Disk', packed: true, rank: 2 },
  KERNEL: { role: 'Kernel', packed: false, rank: 0 },
  RAMDISK: { role: 'Ramdisk', packed: false, rank: 0 },
};

/**
 * Reads the metadata XML of ORCA's ImageProxy (RENCI-NRIG/imageproxy): `<images><image><type/><signature/><url/></image>…`.
 * The old service skipped what it did not understand, let the last of two parts win, and compared upper-case digests in vain;
 * here each of these is an error that names the part.
 *
 * @throws Failure InvalidMetafile
 */
export function parseMetafile(bytes: Uint8Array, name: string): MetafilePart[] {
  if (bytes.length > MAX_METAFILE_BYTES) {
    throw invalid(name, `it has ${bytes.length} bytes, a metafile has at most ${MAX_METAFILE_BYTES}`);
  }
  const images = readImages(bytes, name);
  if (images.length === 0) throw invalid(name, 'it holds no <image>');
  const parts = new Map<Role, MetafilePart & { rank: number; type: string }>();
  images.forEach((image, index) => {
    const part = readPart(image, `image ${index + 1}`, name);
    const other = parts.get(part.role);
    if (other?.type === part.type) {
      throw invalid(name, `it holds two parts of type ${part.type}: keep one`);
    }
    if (other === undefined || part.rank < other.rank) parts.set(part.role, part);
  });
  if (!parts.has('Disk')) throw invalid(name, 'it names no disk: one of FILESYSTEM, ZFILESYSTEM, QCOW2 is needed');
  return (['Disk', 'Kernel', 'Ramdisk'] as const).flatMap((role) => {
    const part = parts.get(role);
    return part === undefined ? [] : [{ role, url: part.url, sha1: part.sha1, packed: part.packed }];
  });
}

function readPart(image: Map<string, string>, where: string, name: string) {
  const field = (key: string): string => {
    const value = image.get(key)?.trim();
    if (value === undefined) throw invalid(name, `${where} has no <${key}>`);
    if (value === '') throw invalid(name, `${where} has an empty <${key}>`);
    return value;
  };
  const type = field('type');
  // `constructor` is no type, though every object has one.
  const known = Object.hasOwn(TYPES, type) ? TYPES[type] : undefined;
  if (known === undefined) {
    throw invalid(
      name,
      `${where} has the type "${short(type)}": one of ${Object.keys(TYPES).join(', ')} is needed (upper case)`,
    );
  }
  const sha1 = field('signature').toLowerCase();
  if (!/^[0-9a-f]{40}$/.test(sha1)) {
    throw invalid(name, `the <signature> of ${where} (${type}) is not a SHA-1 of 40 hex digits: "${short(sha1)}"`);
  }
  const url = field('url');
  const place = URL.parse(url);
  if (place === null || /\s/.test(url) || !/^https?:$/.test(place.protocol)) {
    throw invalid(name, `the <url> of ${where} (${type}) is not an http or https URL`);
  }
  if (place.username !== '' || place.password !== '') {
    throw invalid(
      name,
      `the <url> of ${where} (${type}) holds a user name or password: put them into the Secret of spec.source.metafile.secretRef`,
    );
  }
  if (place.pathname.toLowerCase().endsWith('.torrent')) {
    throw invalid(
      name,
      `the <url> of ${where} (${type}) is a torrent: give the part's own URL, or a VMImage with source.torrent`,
    );
  }
  return { ...known, type, sha1, url };
}

const FIELDS: readonly string[] = ['type', 'signature', 'url'];

/** The fields of every `image` element, its direct children; the root's name never mattered, nor do elements beside them. */
function readImages(bytes: Uint8Array, name: string): Map<string, string>[] {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw invalid(name, 'it is not UTF-8 text');
  }
  const images: Map<string, string>[] = [];
  let depth = 0;
  let image: { fields: Map<string, string>; depth: number } | undefined;
  let field: { name: string; text: string; depth: number } | undefined;
  const where = () => `image ${images.length}`;
  // No DTD is ever needed, and with none there is no entity to expand.
  const parser = new SaxesParser({ xmlns: false });
  parser.on('doctype', () => {
    throw invalid(name, 'it has a DOCTYPE, which a metafile must not have');
  });
  parser.on('error', (error) => {
    throw invalid(name, `it is not well-formed XML: ${short(error.message.split('\n')[0] ?? '', 120)}`);
  });
  parser.on('opentag', (tag) => {
    depth++;
    if (depth > MAX_DEPTH) throw invalid(name, `its elements are nested more than ${MAX_DEPTH} deep`);
    // Which of two would be meant, and which an older reader would take, is a guess that an attacker could make use of.
    if (field !== undefined) {
      throw invalid(name, `the <${field.name}> of ${where()} holds the element <${short(tag.name)}>: give text alone`);
    }
    if (tag.name === 'image') {
      if (image !== undefined) throw invalid(name, `${where()} holds another <image>`);
      image = { fields: new Map(), depth };
      images.push(image.fields);
      if (images.length > MAX_IMAGES) throw invalid(name, `it holds more than ${MAX_IMAGES} images`);
    } else if (image !== undefined && depth === image.depth + 1 && FIELDS.includes(tag.name)) {
      if (image.fields.has(tag.name)) throw invalid(name, `${where()} has two <${tag.name}>: keep one`);
      field = { name: tag.name, text: '', depth };
    }
  });
  const take = (chunk: string) => {
    if (field !== undefined) field.text += chunk;
  };
  parser.on('text', take);
  parser.on('cdata', take);
  parser.on('closetag', () => {
    if (field?.depth === depth) {
      image?.fields.set(field.name, field.text);
      field = undefined;
    } else if (image?.depth === depth) image = undefined;
    depth--;
  });
  parser.write(text).close();
  return images;
}

const short = (text: string, limit = 60): string => clip(text, limit);

function invalid(name: string, fact: string): Failure {
  return new Failure('InvalidMetafile', `the metafile ${name} cannot be used: ${fact}`);
}
