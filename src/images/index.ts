import { open, rename, rm } from 'node:fs/promises';
import type { Algorithm } from '../api/digest.ts';
import { Failure } from '../api/failure.ts';
import { borrowedTools } from './borrowed.ts';
import { type Compression, interchangeable } from './format.ts';
import { archiveBeside, type Images, type Produced } from './images.ts';
import { inspect } from './inspect.ts';
import { localTools } from './local.ts';
import { recognise } from './recognise.ts';
import type { RunnerPlace } from '../programs/runner/protocol.ts';
import { createToolbox, TOOL_PACKAGES, type ToolPaths } from '../programs/toolbox.ts';

export { HEAD_BYTES, TAIL_BYTES } from './recognise.ts';

export interface ImagesOptions {
  /** Absolute paths of programs; those not named are looked for in PATH. */
  tools?: ToolPaths;
  /** Folder for the empty working folders of tools; the system's temporary folder by default. */
  scratchDirectory?: string;
  /** Have programs run by a tool runner, instead of this process. */
  runner?: RunnerPlace;
  log?: { debug(fields: object, message: string): void };
}

const UNPACKERS = { Gzip: 'zlib', Xz: 'xz', Zstd: 'zstd', Bzip2: 'bzip2' } as const;

export function createImages(options: ImagesOptions = {}): Images {
  const { log, runner } = options;
  const toolbox = createToolbox(options.tools);
  const tools = runner === undefined ? localTools(toolbox, options.scratchDirectory) : borrowedTools(runner, toolbox);

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

  /** Unpacks into a new file, and takes one member out if it was a tar archive and one was asked for. */
  async function decompress(job: Parameters<Images['decompress']>[0], signal: AbortSignal): Promise<Produced> {
    const { member, to, ...rest } = job;
    const { maxOutputBytes } = job;
    const digests = withSha256(job.digests);
    if (member === undefined) return intoNew(to, () => tools.unpack({ ...rest, to, digests }, signal));
    const archive = archiveBeside(to);
    try {
      const whole = await intoNew(archive, () => tools.unpack({ ...rest, to: archive, digests }, signal));
      const taken = await intoNew(to, async () => {
        const found = await tools.extract({ from: archive, to, member, maxOutputBytes, digests }, signal);
        if (found === undefined) await rename(archive, to);
        return found;
      });
      return taken ?? whole;
    } finally {
      await rm(archive, { force: true });
    }
  }

  return {
    recognise,
    inspect: (path, expected, signal) => timed('inspected', expected, () => inspect(tools, path, expected, signal)),
    decompress: (job, signal) => timed('decompressed', { compression: job.compression }, () => decompress(job, signal)),
    convert: (job, signal) =>
      timed('converted', { from: job.fromFormat, to: job.toFormat }, () =>
        intoNew(job.to, () => tools.convert({ ...job, digests: withSha256(job.digests ?? []) }, signal)),
      ),

    async transformId(step) {
      if ('compression' in step) return `${step.compression.toLowerCase()}-to-none/${await unpacker(step.compression)}`;
      const { fromFormat, toFormat } = step;
      const name = `${fromFormat}-to-${toFormat}`.toLowerCase();
      return interchangeable(fromFormat, toFormat)
        ? `${name}/copy`
        : `${name}/qemu-img-${await tools.version('qemu-img')}`;
    },

    async missingTools() {
      return (await tools.missing()).map((tool) => ({ tool, package: TOOL_PACKAGES[tool] }));
    },
  };

  async function unpacker(compression: Compression): Promise<string> {
    if (compression === 'None') return 'copy';
    const tool = UNPACKERS[compression];
    return `${tool}-${await tools.version(tool)}`;
  }
}

/** sha256 is our own name for bytes, so it is always computed. */
function withSha256(algorithms: readonly Algorithm[]): Algorithm[] {
  return [...new Set<Algorithm>(['sha256', ...algorithms])];
}

/**
 * Does the work on a new empty file, which is gone when it fails. Fails when a file is there: whatever it is, it is not ours to
 * overwrite or, later, to remove.
 */
async function intoNew<T>(path: string, work: () => Promise<T>): Promise<T> {
  await (await open(path, 'wx', 0o600)).close();
  try {
    return await work();
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}
