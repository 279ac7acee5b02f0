import type { Algorithm } from '../api/digest.ts';
import type { ToolName } from '../programs/toolbox.ts';
import type { Compression, Format } from './format.ts';
import type { Produced, Progress, ToolLimits } from './images.ts';
import type { DiskPlace } from './qemu.ts';

/**
 * The half of the room that starts programs: here (`local.ts`), or in a tool runner that has nothing worth stealing (`borrowed.ts`).
 * Every `to` is an empty file that is there already, and whoever made it removes it on failure. Digests are those that are asked for,
 * which may be none.
 */
export interface ImageTools {
  /** The disk's virtual size in bytes, as qemu-img has it. @throws Failure as `qemuInfo` */
  info(disk: DiskPlace, signal: AbortSignal): Promise<number>;
  unpack(job: UnpackJob, signal: AbortSignal): Promise<Produced>;
  /** Undefined, and `to` stays empty, when `from` is no tar archive. @throws Failure NotAnImage when the archive lacks `member` */
  extract(job: ExtractJob, signal: AbortSignal): Promise<Produced | undefined>;
  convert(job: ConvertJob, signal: AbortSignal): Promise<Produced>;
  version(tool: VersionedTool): Promise<string>;
  missing(): Promise<ToolName[]>;
}

/** What conversions and decompressions are named after. */
export const VERSIONED_TOOLS = ['qemu-img', 'xz', 'zstd', 'bzip2', 'zlib'] as const;
export type VersionedTool = (typeof VERSIONED_TOOLS)[number];

interface MakingJob {
  from: string;
  to: string;
  digests: readonly Algorithm[];
}

export interface UnpackJob extends MakingJob {
  compression: Compression;
  maxOutputBytes: number;
  progress?: Progress;
}

export interface ExtractJob extends MakingJob {
  member: string;
  maxOutputBytes: number;
}

export interface ConvertJob extends MakingJob {
  fromFormat: Format;
  toFormat: Format;
  limits: ToolLimits;
  progress?: Progress;
}
