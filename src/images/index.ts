import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Failure } from '../api/failure.ts';
import { convert } from './convert.ts';
import { decompress } from './decompress.ts';
import { type Compression, interchangeable } from './format.ts';
import type { Images } from './images.ts';
import { inspect } from './inspect.ts';
import { toolVersion } from './qemu.ts';
import { recognise } from './recognise.ts';
import { createToolbox, TOOL_PACKAGES, type ToolPaths } from '../programs/toolbox.ts';

export { HEAD_BYTES, TAIL_BYTES } from './recognise.ts';

export interface ImagesOptions {
  /** Absolute paths of programs; those not named are looked for in PATH. */
  tools?: ToolPaths;
  /** Folder for the empty working folders of tools; the system's temporary folder by default. */
  scratchDirectory?: string;
  log?: { debug(fields: object, message: string): void };
}

/** What this room may need, of all outside programs. */
const TOOLS = ['qemu-img', 'xz', 'zstd', 'bzip2', 'prlimit', 'setpriv'] as const;

const VERSIONED = { Xz: 'xz', Zstd: 'zstd', Bzip2: 'bzip2' } as const;

export function createImages(options: ImagesOptions = {}): Images {
  const toolbox = createToolbox(options.tools);
  const scratchDirectory = options.scratchDirectory ?? tmpdir();
  const { log } = options;

  async function inScratch<T>(work: (folder: string) => Promise<T>): Promise<T> {
    await mkdir(scratchDirectory, { recursive: true });
    const folder = await mkdtemp(join(scratchDirectory, 'imageproxy-tool-'));
    try {
      return await work(folder);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  async function timed<T>(what: string, fields: object, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      const result = await work();
      log?.debug({ ...fields, milliseconds: Math.round(performance.now() - start) }, what);
      return result;
    } catch (error) {
      const failure = Failure.from(error);
      log?.debug(
        { ...fields, reason: failure.reason, milliseconds: Math.round(performance.now() - start) },
        `${what} failed`,
      );
      throw failure;
    }
  }

  const version = (tool: 'qemu-img' | 'xz' | 'zstd' | 'bzip2') =>
    inScratch((folder) => toolVersion(toolbox, tool, folder));

  return {
    recognise,
    inspect: (path, expected, signal) =>
      timed('inspected', expected, () => inScratch((folder) => inspect(toolbox, path, expected, folder, signal))),
    decompress: (job, signal) =>
      timed('decompressed', { compression: job.compression }, () => decompress(toolbox, job, signal)),
    convert: (job, signal) =>
      timed('converted', { from: job.fromFormat, to: job.toFormat }, () => convert(toolbox, job, signal)),

    async transformId(step) {
      if ('compression' in step)
        return `${step.compression.toLowerCase()}-to-none/${await decompressor(step.compression, version)}`;
      const { fromFormat, toFormat } = step;
      const name = `${fromFormat}-to-${toFormat}`.toLowerCase();
      return interchangeable(fromFormat, toFormat) ? `${name}/copy` : `${name}/qemu-img-${await version('qemu-img')}`;
    },

    async missingTools() {
      const found = await Promise.all(
        TOOLS.map((tool) =>
          toolbox.locate(tool).then(
            () => true,
            () => false,
          ),
        ),
      );
      return TOOLS.filter((_, index) => !found[index]).map((tool) => ({ tool, package: TOOL_PACKAGES[tool] }));
    },
  };
}

async function decompressor(
  compression: Compression,
  version: (tool: 'xz' | 'zstd' | 'bzip2') => Promise<string>,
): Promise<string> {
  if (compression === 'None') return 'copy';
  if (compression === 'Gzip') return `zlib-${process.versions.zlib}`;
  const tool = VERSIONED[compression];
  return `${tool}-${await version(tool)}`;
}
