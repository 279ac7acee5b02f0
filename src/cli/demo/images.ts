import { createHash, randomBytes } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { copyFile, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { CommandError, EXIT } from '../exit.ts';
import type { DebianInstaller } from './installer.ts';
import { findTool, runTool, type ToolRun } from './tools.ts';

/** A file that the origin serves. */
export interface Published {
  /** Name of the file, and path at the origin. */
  file: string;
  path: string;
  size: number;
  sha256: string;
  sha1: string;
  /** For people: what it is, and how it was made. */
  what: string;
}

export interface DemoImages {
  /** Of a VMImage `web`, and its next version. */
  first: Published;
  next: Published;
  /** Of the other VMImage: gzip-compressed raw. */
  second: Published;
  secondName: string;
  kernel: Published;
  ramdisk: Published;
  /** What could not be done as it should, and what was done instead. */
  notes: string[];
}

interface Workshop {
  folder: string;
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
}

/** Content that no compression makes small, so that there are bytes to watch. */
const BALLAST_BYTES = 12 * 1024 * 1024;
const DISK = '80M';

/** Makes the images of the demo with what the machine has. @throws CommandError naming the package to install */
export async function makeImages(workshop: Workshop, installer: DebianInstaller | undefined): Promise<DemoImages> {
  const { folder, env } = workshop;
  const notes: string[] = [];
  const maker = await fileSystemMaker(env);
  const qemuImg = await findTool('qemu-img', env);
  if (qemuImg === undefined) notes.push('qemu-img is not installed (package qemu-utils): raw images only, no qcow2');
  await mkdir(folder, { recursive: true });
  const run: ToolRun = { cwd: folder, signal: workshop.signal, timeoutMs: 60_000 };

  const disk = async (name: string, version: string): Promise<Published> => {
    const raw = await maker.make(name, version, run);
    if (qemuImg === undefined) return publish(folder, raw, `raw, ${maker.what}`);
    const file = `${name}-${version}.qcow2`;
    await runTool(qemuImg, ['convert', '-f', 'raw', '-O', 'qcow2', raw, file], run);
    return publish(folder, file, `qcow2, ${maker.what}`);
  };
  const first = await disk('web', '1.0');
  const next = await disk('web', '1.1');
  const [raw, what] = await secondDisk(maker, installer, run);
  await pipeline(
    createReadStream(join(folder, raw)),
    createGzip({ level: 1 }),
    createWriteStream(join(folder, `${raw}.gz`)),
  );
  const second = await publish(folder, `${raw}.gz`, `raw, gzip, ${what}`);
  const [kernel, ramdisk] = await bootParts(workshop, installer, notes);
  return { first, next, second, secondName: installer === undefined ? 'archive' : 'installer', kernel, ramdisk, notes };
}

/** The installer where there is one, bootable if it comes as such; else one more file system. */
async function secondDisk(
  maker: FileSystemMaker,
  installer: DebianInstaller | undefined,
  run: ToolRun,
): Promise<[file: string, what: string]> {
  if (installer === undefined) return [await maker.make('archive', '1.0', run), maker.what];
  if (installer.iso !== undefined) {
    await copyFile(installer.iso, join(run.cwd, 'installer.raw'));
    return ['installer.raw', "Debian's installer, bootable"];
  }
  const boot = { 'boot/vmlinuz': installer.kernel, 'boot/initrd.gz': installer.ramdisk };
  return [await maker.make('installer', '12', run, boot), `${maker.what}, with Debian's installer`];
}

interface FileSystemMaker {
  /** What it makes, for people. */
  what: string;
  /** Makes a raw image; returns the name of its file. */
  make(name: string, version: string, run: ToolRun, files?: Readonly<Record<string, string>>): Promise<string>;
}

async function fileSystemMaker(env: NodeJS.ProcessEnv): Promise<FileSystemMaker> {
  const mke2fs = await findTool('mke2fs', env);
  if (mke2fs !== undefined) {
    return {
      what: 'ext4 by mke2fs',
      async make(name, version, run, files) {
        const tree = await makeTree(name, version, run.cwd, files);
        const file = `${name}-${version}.raw`;
        await runTool(mke2fs, ['-q', '-F', '-t', 'ext4', '-L', name, '-d', tree, file, DISK], run);
        return file;
      },
    };
  }
  for (const tool of ['genisoimage', 'xorrisofs', 'mkisofs']) {
    const path = await findTool(tool, env);
    if (path === undefined) continue;
    return {
      what: `ISO 9660 by ${tool}`,
      async make(name, version, run, files) {
        const tree = await makeTree(name, version, run.cwd, files);
        const file = `${name}-${version}.iso`;
        await runTool(path, ['-quiet', '-R', '-V', name, '-o', file, tree], run);
        return file;
      },
    };
  }
  throw new CommandError(
    EXIT.failed,
    'the demo makes a real file system, and there is no mke2fs: install the package e2fsprogs (or genisoimage)',
  );
}

/** Folder of what will be in the file system: files of the machine by their paths in it, else something that is no use to compress. */
async function makeTree(
  name: string,
  version: string,
  folder: string,
  files: Readonly<Record<string, string>> | undefined,
): Promise<string> {
  const tree = join(folder, `${name}-${version}`);
  await mkdir(join(tree, 'etc'), { recursive: true });
  await writeFile(
    join(tree, 'etc', 'os-release'),
    `NAME="${name}"\nVERSION_ID="${version}"\nPRETTY_NAME="${name} ${version}"\n`,
  );
  if (files === undefined) await writeFile(join(tree, 'ballast'), randomBytes(BALLAST_BYTES));
  for (const [path, source] of Object.entries(files ?? {})) {
    await mkdir(join(tree, path, '..'), { recursive: true });
    await copyFile(source, join(tree, path));
  }
  return tree;
}

async function bootParts(
  { folder, env, signal }: Workshop,
  installer: DebianInstaller | undefined,
  notes: string[],
): Promise<[Published, Published]> {
  if (installer !== undefined) {
    await copyFile(installer.kernel, join(folder, 'vmlinuz'));
    await copyFile(installer.ramdisk, join(folder, 'initrd.gz'));
    return [
      await publish(folder, 'vmlinuz', "the installer's kernel"),
      await publish(folder, 'initrd.gz', "the installer's ramdisk"),
    ];
  }
  notes.push(
    "Debian's installer is not at hand (by apt-get download), so kernel and ramdisk of chapter 6 are stand-ins",
  );
  const cpio = await findTool('cpio', env);
  await writeFile(join(folder, 'vmlinuz'), randomBytes(2 * 1024 * 1024));
  await writeFile(join(folder, 'init'), '#!/bin/sh\nexec /bin/sh\n', { mode: 0o755 });
  if (cpio === undefined) await copyFile(join(folder, 'init'), join(folder, 'initrd'));
  else
    await runTool('/bin/sh', ['-c', 'echo init | "$0" -o -H newc > initrd', cpio], {
      cwd: folder,
      signal,
      timeoutMs: 10_000,
    });
  await pipeline(createReadStream(join(folder, 'initrd')), createGzip(), createWriteStream(join(folder, 'initrd.gz')));
  return [
    await publish(folder, 'vmlinuz', 'a stand-in for a kernel'),
    await publish(folder, 'initrd.gz', 'a stand-in for a ramdisk'),
  ];
}

async function publish(folder: string, file: string, what: string): Promise<Published> {
  const path = join(folder, file);
  const [sha256, sha1] = [createHash('sha256'), createHash('sha1')];
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    sha256.update(chunk);
    sha1.update(chunk);
  }
  return { file, path, what, size: (await stat(path)).size, sha256: sha256.digest('hex'), sha1: sha1.digest('hex') };
}

/** ORCA's metadata XML of the three parts. */
export async function publishMetafile(
  folder: string,
  url: string,
  parts: readonly { type: string; part: Published }[],
): Promise<Published> {
  const images = parts.map(
    ({ type, part }) =>
      `  <image>\n    <type>${type}</type>\n    <signature>${part.sha1}</signature>\n    <url>${url}/${part.file}</url>\n  </image>`,
  );
  await writeFile(join(folder, 'appliance.xml'), `<images>\n${images.join('\n')}\n</images>\n`);
  return publish(folder, 'appliance.xml', 'ORCA metafile');
}

/** How many images an index of a directory site names, by id. */
export async function idsInIndex(shelf: string): Promise<string[]> {
  const text = await readFile(join(shelf, 'index.json'), 'utf8').catch(() => '{"images":[]}');
  return (JSON.parse(text) as { images: { id: string }[] }).images.map(({ id }) => id);
}
