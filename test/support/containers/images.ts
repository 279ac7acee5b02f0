import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { glob, mkdir, readFile, rm, stat } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { cacheDirectory } from '../cache-directory.ts';

/**
 * Container images for tests: ours, built from the Dockerfile that users build, and the one that keeps a pod's namespaces. No
 * Docker and no registry is asked; what the Dockerfile starts FROM is made here, from Debian's own packages, and given its name.
 */

const ROOT = join(import.meta.dirname, '..', '..', '..');
const SCRIPT = join(import.meta.dirname, 'build.sh');
const CACHE = cacheDirectory('containers');

export interface Archive {
  /** What a pod calls it. */
  name: string;
  /** In Docker's form, as `docker load` and `ctr images import` read it. */
  file: string;
}

export type Say = (line: string) => void;

/** The product. Built anew when anything that goes into it is another than last time: about a minute. */
export async function productImage(say: Say): Promise<Archive> {
  const from = await baseName();
  const base = await baseArchive(from, say);
  const name = 'localhost/imageproxy:e2e';
  const file = join(CACHE, `imageproxy-${await contentsHash(base)}.tar`);
  if (!existsSync(file)) {
    say('building the container image from the Dockerfile');
    await build(['product', ROOT, from, base, name, file]);
    await forgetOthers('imageproxy-*.tar', file);
  }
  return { name, file };
}

export async function pauseImage(): Promise<Archive> {
  const name = 'localhost/pause:1';
  const file = join(CACHE, 'pause.tar');
  if (!existsSync(file)) await build(['pause', name, file]);
  return { name, file };
}

/** What the last stage starts from, e.g. `debian:bookworm-slim`. */
async function baseName(): Promise<string> {
  const text = await readFile(join(ROOT, 'Dockerfile'), 'utf8');
  const from = new Set(Array.from(text.matchAll(/^FROM (?<name>\S+)/gm), (match) => match.groups?.['name'] ?? ''));
  const [name] = from;
  if (name === undefined || from.size > 1)
    throw new Error(`the Dockerfile starts from ${[...from].join(' and ')}, not from one base`);
  return name;
}

async function baseArchive(name: string, say: Say): Promise<string> {
  const suite = /^debian:(?<suite>[a-z]+)-slim$/.exec(name)?.groups?.['suite'];
  if (suite === undefined)
    throw new Error(`the Dockerfile starts FROM ${name}: tests know how to make debian:SUITE-slim`);
  const file = join(CACHE, `${suite}.tar`);
  if (!existsSync(file)) {
    say(`making ${name} from Debian's packages, once`);
    await build(['base', suite, file]);
  }
  return file;
}

/** All that .dockerignore lets in, the Dockerfile, and the base. */
async function contentsHash(base: string): Promise<string> {
  const ignore = await readFile(join(ROOT, '.dockerignore'), 'utf8');
  const admitted = Array.from(ignore.matchAll(/^!(?<path>.+)$/gm), (match) => match.groups?.['path'] ?? '');
  const patterns = ['Dockerfile', '.dockerignore', ...admitted.flatMap((path) => [path, `${path}/**`])];
  const hash = createHash('sha256');
  hash.update(await readFile(SCRIPT));
  hash.update(String((await stat(base)).mtimeMs));
  const files = (await Array.fromAsync(glob(patterns, { cwd: ROOT, withFileTypes: true })))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  for (const file of files.toSorted()) {
    hash.update(`\0${relative(ROOT, file)}\0`);
    hash.update(await readFile(file));
  }
  return hash.digest('hex').slice(0, 16);
}

async function forgetOthers(pattern: string, kept: string): Promise<void> {
  for await (const name of glob(pattern, { cwd: CACHE })) {
    if (join(CACHE, name) !== kept) await rm(join(CACHE, name), { force: true });
  }
}

async function build(args: readonly string[]): Promise<void> {
  await mkdir(dirname(args.at(-1) ?? ''), { recursive: true });
  await promisify(execFile)('sh', [SCRIPT, ...args], { maxBuffer: 2 ** 26 }).catch(
    (error: { stdout: string; stderr: string }) => {
      const end = `${error.stdout}\n${error.stderr}`.trim().split('\n').slice(-30).join('\n');
      throw new Error(`building the image ${args[0]} failed:\n${end}`);
    },
  );
}
