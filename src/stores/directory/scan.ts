import { createHash } from 'node:crypto';
import { type BigIntStats, constants } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { inParallel } from './concurrency.ts';
import { idOf, nameOf, type Validate } from './kinds.ts';
import { type ManifestObject, type Mention, type ParsedManifest, type Problem, parseManifest } from './manifest.ts';
import { briefly, codeOf, type Now } from './seams.ts';

const MAX_FILE_BYTES = 4 * 1024 * 1024;
const MAX_FOLDER_DEPTH = 32;
const FILES_AT_ONCE = 16;
/** A file changed less than this before it was read may change again without its times showing it. */
const SETTLED_MS = 2_000;
/** Names of files that are read as manifests. */
export const MANIFEST = /\.(ya?ml|json)$/i;

export interface ScanResult {
  /** By id; the first of each in path order. */
  objects: Map<string, ManifestObject>;
  /** Ids written in the manifests, the wrong ones included. */
  present: Set<string>;
  /** Secrets that are there but may not be used, with the cure. */
  refusals: Map<string, string>;
  /** Files whose former objects may still be meant. */
  uncertainFiles: Set<string>;
  /** Folders that could not be listed: what is below them has not been looked at. */
  unlisted: readonly string[];
  problems: Problem[];
  /** Every folder and file could be listed and looked at: what is absent is absent. */
  clean: boolean;
  /** Which folder this was, to tell an unmounted volume from an emptied folder; absent when it could not be read. */
  root?: string;
}

interface FileEntry {
  /** Times, size, inode and mode: as long as they are the same, the file is not read again. */
  fingerprint: string;
  settled: boolean;
  /** Of the content; a file that was touched is not parsed again. */
  digest: string;
  parsed: ParsedManifest;
  /** Others can read or change it. */
  exposed: boolean;
}

/** Reads a folder of manifests again and again, each time only what has changed. */
export class Scanner {
  readonly #root: string;
  readonly #validate: Validate;
  readonly #now: Now;
  #files = new Map<string, FileEntry>();
  /** Folders of the last scan, for who wants to watch them. */
  folders: string[] = [];

  constructor(root: string, validate: Validate, now: Now) {
    this.#root = root;
    this.#validate = validate;
    this.#now = now;
  }

  async scan(): Promise<ScanResult> {
    const walk = new Walk(this.#root);
    const root = await walk.run();
    const problems = [...walk.problems];
    const files = new Map<string, FileEntry>();
    let clean = walk.unlisted.length === 0;
    const uncertainFiles = new Set<string>();
    await inParallel(walk.files, FILES_AT_ONCE, async (path) => {
      const known = this.#files.get(path);
      try {
        const entry = await this.#look(path, known);
        files.set(path, entry);
      } catch (error) {
        uncertainFiles.add(path);
        if (known !== undefined) files.set(path, { ...known, fingerprint: '' });
        // Gone between listing and reading, or changing under our hands: this scan cannot tell what is absent.
        if (error instanceof Unsteady || codeOf(error) === 'ENOENT') clean = false;
        else
          problems.push({
            ...whole(path),
            message: `cannot be read (${briefly(error)}): its objects stay as they were`,
          });
      }
    });
    for (const path of walk.dangling) {
      uncertainFiles.add(path);
      const known = this.#files.get(path);
      if (known !== undefined) files.set(path, { ...known, fingerprint: '' });
      problems.push({ ...whole(path), message: 'is a symbolic link to nowhere: its objects stay as they were' });
    }
    // Those alone: a file that is gone elsewhere must not count for as long as, say, a `lost+found` cannot be listed.
    for (const [path, entry] of this.#files)
      if (!files.has(path) && isWithin(path, walk.unlisted)) files.set(path, entry);
    this.#files = files;
    this.folders = walk.folders;
    const result = assemble(files, uncertainFiles, problems);
    return { ...result, unlisted: walk.unlisted, clean, ...(root === undefined ? {} : { root }) };
  }

  async #look(path: string, known: FileEntry | undefined): Promise<FileEntry> {
    const facts = await stat(path, { bigint: true });
    const fingerprint = fingerprintOf(facts);
    if (known?.fingerprint === fingerprint && known.settled) return known;
    const exposed = (facts.mode & 0o066n) !== 0n;
    const settled = Math.abs(this.#now() - Number(facts.mtimeMs)) > SETTLED_MS;
    const { text, fault } = await readBounded(path, fingerprint);
    const digest = fault ?? createHash('sha256').update(text).digest('base64');
    if (known?.digest === digest) return { ...known, fingerprint, settled, exposed };
    const parsed = fault === undefined ? await parseManifest(path, text, this.#validate) : refusedFile(path, fault);
    return { fingerprint, settled, digest, exposed, parsed: withFormer(parsed, known?.parsed) };
  }
}

/** Whether a file's last good state stays, because what it says now, or whether it is there, is not known. */
export function isUnread(file: string, { uncertainFiles, unlisted }: ScanResult): boolean {
  return uncertainFiles.has(file) || isWithin(file, unlisted);
}

function isWithin(path: string, folders: readonly string[]): boolean {
  return folders.some((folder) => path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep));
}

/** A file in which something cannot be read keeps the objects that it had and that are not found in it now. */
function withFormer(parsed: ParsedManifest, former: ParsedManifest | undefined): ParsedManifest {
  if (!parsed.uncertain || former === undefined) return parsed;
  const found = new Set([...parsed.objects, ...parsed.refused].map(({ kind, key }) => idOf(kind, key)));
  const isMissing = ({ kind, key }: Mention): boolean => !found.has(idOf(kind, key));
  return {
    ...parsed,
    objects: [...parsed.objects, ...former.objects.filter(isMissing)],
    refused: [...parsed.refused, ...former.refused.filter(isMissing)],
  };
}

/** A folder's manifests, in the order in which they count, and what could not be looked at. */
export async function listManifests(root: string): Promise<{ files: string[]; problems: Problem[] }> {
  const walk = new Walk(root);
  await walk.run();
  return { files: [...walk.files, ...walk.dangling].sort(), problems: walk.problems };
}

/** What a file says of objects, as it is written: of two documents of one object the first counts. */
export function inOrder({ objects, refused }: ParsedManifest): readonly (ManifestObject | Mention)[] {
  if (refused.length === 0) return objects;
  return [...objects, ...refused].sort((a, b) => a.document - b.document || (a.item ?? 0) - (b.item ?? 0));
}

function assemble(
  files: Map<string, FileEntry>,
  uncertainFiles: Set<string>,
  problems: Problem[],
): Omit<ScanResult, 'clean' | 'unlisted'> {
  const objects = new Map<string, ManifestObject>();
  // The wrong ones, too: no second document steps in for one with a typo.
  const found = new Map<string, Mention>();
  const refusals = new Map<string, string>();
  for (const path of [...files.keys()].sort()) {
    const { parsed, exposed } = files.get(path) as FileEntry;
    problems.push(...parsed.problems);
    if (parsed.uncertain) uncertainFiles.add(path);
    for (const object of inOrder(parsed)) {
      const id = idOf(object.kind, object.key);
      const first = found.get(id);
      found.set(id, first ?? object);
      if (!('content' in object)) continue;
      if (first !== undefined) {
        problems.push(secondOf(object, first));
        continue;
      }
      if (object.kind === 'Secret' && exposed) {
        const message = `${nameOf('Secret', object.key)} is not used, because others can read or change its file: chmod 600 ${path}`;
        refusals.set(id, message);
        problems.push({ ...at(object), message, severity: 'error' });
      } else objects.set(id, object);
    }
  }
  return { objects, present: new Set(found.keys()), refusals, uncertainFiles, problems };
}

/** The problem of a second document of an object. */
export function secondOf(second: Mention, first: Mention): Problem {
  const message = `${nameOf(second.kind, second.key)} is also in ${first.file}, document ${first.document}; that one counts: remove one of the two`;
  return { ...at(second), field: 'metadata.name', message, severity: 'error' };
}

function at({ kind, key, file, document, line }: Mention): Omit<Problem, 'message' | 'severity'> {
  return { file, document, line, field: '', object: nameOf(kind, key) };
}

function whole(file: string): Omit<Problem, 'message'> {
  return { file, document: 0, line: 0, field: '', severity: 'error' };
}

function refusedFile(file: string, message: string): ParsedManifest {
  return { objects: [], refused: [], uncertain: true, problems: [{ ...whole(file), message }] };
}

class Unsteady extends Error {}

async function readBounded(path: string, fingerprint: string): Promise<{ text: string; fault?: string }> {
  // Non-blocking: a FIFO put in the file's place must not hang the scan.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const facts = await file.stat({ bigint: true });
    if (facts.size > MAX_FILE_BYTES) {
      return {
        text: '',
        fault: `has ${facts.size} bytes; ${MAX_FILE_BYTES} is the most for a file of manifests: split it`,
      };
    }
    const buffer = Buffer.alloc(Number(facts.size) + 1);
    let length = 0;
    for (;;) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length, length);
      length += bytesRead;
      if (bytesRead === 0 || length === buffer.length) break;
    }
    const after = await file.stat({ bigint: true });
    if (fingerprintOf(after) !== fingerprint || length !== Number(facts.size)) throw new Unsteady();
    const text = buffer.subarray(0, length);
    const decoder = new TextDecoder('utf-8', { fatal: true });
    try {
      return { text: decoder.decode(text) };
    } catch {
      return { text: '', fault: 'is not UTF-8 text' };
    }
  } finally {
    await file.close();
  }
}

function fingerprintOf(facts: BigIntStats): string {
  return [facts.dev, facts.ino, facts.size, facts.mtimeNs, facts.ctimeNs, facts.mode].join(':');
}

/** Lists the manifests below a folder, following symbolic links as Kubernetes mounts have them (`a.yaml -> ..data/a.yaml`). */
class Walk {
  readonly #root: string;
  readonly #seen = new Set<string>();
  readonly files: string[] = [];
  /** Symbolic links to nowhere: a file may come back there. */
  readonly dangling: string[] = [];
  readonly folders: string[] = [];
  readonly problems: Problem[] = [];
  readonly unlisted: string[] = [];

  constructor(root: string) {
    this.#root = root;
  }

  async run(): Promise<string | undefined> {
    try {
      const facts = await stat(this.#root, { bigint: true });
      await this.#folder(this.#root, facts, 0);
      return this.unlisted.length === 0 || this.folders.length > 0 ? `${facts.dev}:${facts.ino}` : undefined;
    } catch (error) {
      this.#incomplete(this.#root, error);
      return undefined;
    }
  }

  async #folder(path: string, facts: BigIntStats, depth: number): Promise<void> {
    const identity = `${facts.dev}:${facts.ino}`;
    // Links may lead in circles, or twice to the same place.
    if (this.#seen.has(identity)) return;
    this.#seen.add(identity);
    if (depth > MAX_FOLDER_DEPTH) throw new Error(`folders are nested more than ${MAX_FOLDER_DEPTH} deep`);
    this.folders.push(path);
    for (const entry of await readdir(path, { withFileTypes: true })) {
      // Editors' and version control's own files, and the folders behind Kubernetes' links.
      if (entry.name.startsWith('.')) continue;
      const child = join(path, entry.name);
      if (entry.isFile()) {
        if (MANIFEST.test(entry.name)) this.files.push(child);
      } else if (entry.isDirectory() || entry.isSymbolicLink()) await this.#entry(child, entry.isSymbolicLink(), depth);
    }
  }

  async #entry(path: string, isLink: boolean, depth: number): Promise<void> {
    try {
      const facts = await stat(path, { bigint: true });
      if (facts.isDirectory()) await this.#folder(path, facts, depth + 1);
      else if (facts.isFile() && MANIFEST.test(path)) this.files.push(path);
    } catch (error) {
      if (isLink && codeOf(error) === 'ENOENT') {
        if (MANIFEST.test(path)) this.dangling.push(path);
      } else this.#incomplete(path, error);
    }
  }

  #incomplete(path: string, error: unknown): void {
    this.unlisted.push(path);
    const message = `the folder cannot be read (${briefly(error)}): nothing below it is taken as gone`;
    this.problems.push({ ...whole(path), message });
  }
}
