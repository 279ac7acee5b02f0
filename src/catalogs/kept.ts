import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Catalog, Entry, ListFacts, Skipped } from './catalog.ts';
import type { Distrust } from './distrust.ts';
import { documentFile, type KeptDocument, type TakenDocument } from './documents.ts';

/**
 * The accepted list of one subscription, in a folder of its own: `list.json`, which is written last and names the others, the entries
 * (a line of JSON each, so that a hundred thousand are read without holding up the program), and the documents as they were published.
 * All of it can be read again from the list's origin: what is damaged counts as lost.
 */
export interface KeptList {
  readonly format: 1;
  /** Names the entries; another one where any of them differs. */
  readonly revision: string;
  readonly list: ListFacts;
  readonly warnings: readonly string[];
  readonly documents: readonly KeptDocument[];
  /** Cleaned. */
  readonly url: string;
  /** RFC 3339. */
  readonly acceptedAt: string;
  /** Names what it was read with: another name is a reason to read it again. */
  readonly inputs?: string;
  /** Set when it is certain that who signed the list is trusted no longer. */
  readonly distrust?: Distrust;
}

export interface KeptEntries {
  readonly entries: readonly Entry[];
  readonly skipped: readonly Skipped[];
}

/** As they were read: how much text they are, which is about what they take in memory. */
export interface SizedEntries extends KeptEntries {
  readonly characters: number;
}

const HEAD = 'list.json';

type Line = { entry: Entry } | { skipped: Skipped };

/** @returns undefined when there is none, or it is damaged */
export async function readKept(folder: string): Promise<KeptList | undefined> {
  try {
    const head = JSON.parse(await readFile(join(folder, HEAD), 'utf8')) as KeptList;
    return head.format === 1 && typeof head.revision === 'string' ? head : undefined;
  } catch {
    return undefined;
  }
}

/** @returns undefined when they are lost or damaged */
export async function readEntries(folder: string, { revision }: KeptList): Promise<SizedEntries | undefined> {
  const entries: Entry[] = [];
  const skipped: Skipped[] = [];
  const hash = createHash('sha256');
  let characters = 0;
  try {
    for await (const text of linesOf(entriesFile(folder, revision))) {
      hash.update(text).update('\n');
      characters += text.length;
      const line = JSON.parse(text) as Line;
      if ('entry' in line) entries.push(line.entry);
      else skipped.push(line.skipped);
    }
  } catch {
    return undefined;
  }
  return nameOf(hash) === revision ? { entries, skipped, characters } : undefined;
}

/** By line feeds alone: Node's readline also breaks at U+2028, which JSON leaves as it is. */
async function* linesOf(path: string): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of createReadStream(path, 'utf8') as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
  if (rest !== '') yield rest;
}

function nameOf(hash: Hash): string {
  return hash.digest('hex').slice(0, 32);
}

/** Replaces what is kept. A crash in between leaves the old list, whole. */
export async function keep(
  folder: string,
  catalog: Catalog,
  head: Omit<KeptList, 'format' | 'revision' | 'documents' | 'list'>,
  documents: readonly TakenDocument[],
): Promise<KeptList> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const revision = await writeEntries(folder, catalog);
  const has = new Set(await readdir(folder));
  for (const { sha256, bytes } of documents) {
    if (!has.has(`document-${sha256}`)) await replaceFile(documentFile(folder, sha256), [bytes]);
  }
  const kept: KeptList = {
    format: 1,
    revision,
    list: catalog.list,
    documents: documents.map(({ url, sha256, etag, lastModified }) => ({
      url,
      sha256,
      ...(etag !== undefined && { etag }),
      ...(lastModified !== undefined && { lastModified }),
    })),
    ...head,
  };
  return writeHead(folder, kept);
}

/** Entries of the same documents that are judged otherwise now: some of their signers are out. */
export async function keepJudged(folder: string, before: KeptList, catalog: KeptEntries): Promise<KeptList> {
  return writeHead(folder, { ...before, revision: await writeEntries(folder, catalog) });
}

/** @returns the revision that names them */
async function writeEntries(folder: string, catalog: KeptEntries): Promise<string> {
  const lines = [
    ...catalog.entries.map((entry): Line => ({ entry })),
    ...catalog.skipped.map((skipped): Line => ({ skipped })),
  ].map((line) => `${JSON.stringify(line)}\n`);
  const hash = createHash('sha256');
  for (const line of lines) hash.update(line);
  const revision = nameOf(hash);
  // What is there may be damaged: then it is why the list was read again.
  if (!(await isWhole(folder, revision))) await replaceFile(entriesFile(folder, revision), lines);
  return revision;
}

/** To be written last: the entries and documents that it names are there, and no others are when it returns. */
export async function writeHead(folder: string, kept: KeptList): Promise<KeptList> {
  await replaceFile(join(folder, HEAD), [JSON.stringify(kept)]);
  await removeOthers(folder, kept);
  return kept;
}

async function removeOthers(folder: string, { revision, documents }: KeptList): Promise<void> {
  const wanted = new Set([HEAD, `entries-${revision}.jsonl`, ...documents.map(({ sha256 }) => `document-${sha256}`)]);
  for (const name of await readdir(folder)) if (!wanted.has(name)) await rm(join(folder, name), { force: true });
}

async function isWhole(folder: string, revision: string): Promise<boolean> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of createReadStream(entriesFile(folder, revision))) hash.update(chunk as Uint8Array);
  } catch {
    return false;
  }
  return nameOf(hash) === revision;
}

function entriesFile(folder: string, revision: string): string {
  return join(folder, `entries-${revision}.jsonl`);
}

/** The old content or the new one, also after a power cut: temporary file, fsync, rename, fsync of the folder. */
async function replaceFile(path: string, pieces: readonly (string | Uint8Array)[]): Promise<void> {
  const temporary = `${path}.tmp`;
  const file = await open(temporary, 'w', 0o600);
  try {
    for (const piece of joined(pieces)) await file.appendFile(piece);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const folder = await open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Some thousand lines at a time: a write for each would take as long as all else. */
function* joined(pieces: readonly (string | Uint8Array)[]): Generator<string | Uint8Array> {
  for (let at = 0; at < pieces.length; at += 4096) {
    const some = pieces.slice(at, at + 4096);
    if (some.every((piece) => typeof piece === 'string')) yield some.join('');
    else yield* some;
  }
}
