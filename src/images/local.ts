import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Toolbox } from '../programs/toolbox.ts';
import { runBulk } from './bulk.ts';
import { convert } from './convert.ts';
import { extract } from './extract.ts';
import { qemuInfo, toolVersion } from './qemu.ts';
import type { ImageTools, VersionedTool } from './tools.ts';

/** What this room may need, of all outside programs. */
const TOOLS = ['qemu-img', 'xz', 'zstd', 'bzip2', 'prlimit', 'setpriv'] as const;

/** `scratchDirectory`: folder for the empty working folders of tools; the system's temporary folder by default. */
export function localTools(toolbox: Toolbox, scratchDirectory = tmpdir()): ImageTools {
  async function inScratch<T>(work: (folder: string) => Promise<T>): Promise<T> {
    await mkdir(scratchDirectory, { recursive: true });
    const folder = await mkdtemp(join(scratchDirectory, 'imageproxy-tool-'));
    try {
      return await work(folder);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  return {
    info: (disk, signal) => inScratch((folder) => qemuInfo(toolbox, disk, folder, signal)),
    unpack: ({ compression, progress, ...job }, signal) =>
      runBulk(toolbox, { ...job, read: { compression } }, signal, progress),
    extract: (job, signal) => extract(toolbox, job, signal),
    convert: (job, signal) => inScratch((folder) => convert(toolbox, job, folder, signal)),
    version: async (tool: VersionedTool) =>
      tool === 'zlib' ? process.versions.zlib : inScratch((folder) => toolVersion(toolbox, tool, folder)),
    async missing() {
      const found = await Promise.allSettled(TOOLS.map((tool) => toolbox.locate(tool)));
      return TOOLS.filter((_, index) => found[index]?.status === 'rejected');
    },
  };
}
