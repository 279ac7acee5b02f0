import type { Algorithm, Digests } from '../api/digest.ts';
import type { Compression, Format, ImageFacts, Recognition, Role } from './format.ts';

/** Bounds of one run of an outside tool. Death by a limit is a `ResourceLimit` failure, never `UnsafeImage`. */
export interface ToolLimits {
  /** Bytes the tool may write: the reservation (RLIMIT_FSIZE). */
  maxOutputBytes: number;
  /** Bytes of address space (RLIMIT_AS); default 1 GiB. */
  addressSpaceBytes?: number;
  /** CPU seconds (RLIMIT_CPU); default 3600. */
  cpuSeconds?: number;
}

export interface Produced {
  size: number;
  /** Of the produced bytes; sha256 is always there. */
  digests: Digests;
}

export interface Progress {
  (bytes: number, totalBytes?: number): void;
}

/** Where the archive lies from which `decompress` takes a member, until it has been taken. */
export function archiveBeside(to: string): string {
  return `${to}.tar`;
}

/**
 * The room of disk images: recognise, refuse what is unsafe, decompress, unpack, convert. It knows files, not resources.
 * Implemented by `images/index.ts`. Where a tool runner works for it, every step may also end with ToolRunnerUnavailable.
 */
export interface Images {
  /** `tail` is the last 1 KiB of the file where it is complete. Never throws on any bytes. */
  recognise(head: Uint8Array, tail?: Uint8Array): Recognition;

  /**
   * Looks into a complete, uncompressed file: the header is parsed by us first (bounds, refusals), then `qemu-img info` confirms
   * (it alone is never trusted to choose a format). A Kernel or Ramdisk is not a disk and is only measured.
   * @throws Failure UnsafeImage | CorruptImage | FormatMismatch | NotAnImage | NotSupported | ToolMissing | Timeout
   */
  inspect(
    path: string,
    expected: { format: Format | 'Auto'; role: Role; checksumDeclared: boolean },
    signal: AbortSignal,
  ): Promise<ImageFacts>;

  /**
   * Decompresses into a new sparse file (runs of zeros become holes). Multi-member and multi-frame files are read to their end;
   * truncation and trailing garbage are errors (NULs after gzip are padding). On failure nothing is left at `to`.
   *
   * With `member`, a result that is a tar archive is replaced by that member (ORCA's ZFILESYSTEM keeps the disk as `filesystem`;
   * GNU sparse members are understood); needs space for both meanwhile (`archiveBeside`). A result that is no archive stays as it is.
   *
   * Progress counts compressed bytes read, of the size of `from`.
   * @throws Failure TooLarge when the output passes `maxOutputBytes`; CorruptImage; ToolMissing; DiskFull; NotSupported when the
   *   compressor's window needs more than 2 GiB of memory; NotAnImage when an archive lacks `member`
   */
  decompress(
    job: {
      from: string;
      to: string;
      compression: Compression;
      maxOutputBytes: number;
      /** Wanted beside sha256, which is always computed. */
      digests: readonly Algorithm[];
      member?: string;
      progress?: Progress;
    },
    signal: AbortSignal,
  ): Promise<Produced>;

  /**
   * Converts with qemu-img (explicit formats, no backing file, sparse output). The one disk of an OVA is read where it lies in the
   * archive. Formats that are `interchangeable` are copied. On failure nothing is left at `to`. Progress counts bytes of the disk.
   * @throws Failure NotSupported (to Ova or Iso, or from Iso to another than Raw); TooLarge when a raw disk passes
   *   `maxOutputBytes`; ResourceLimit; DiskFull; ToolMissing; CorruptImage and UnsafeImage as `inspect`
   */
  convert(
    job: {
      from: string;
      fromFormat: Format;
      to: string;
      toFormat: Format;
      limits: ToolLimits;
      /** Wanted beside sha256, which is always computed. */
      digests?: readonly Algorithm[];
      progress?: Progress;
    },
    signal: AbortSignal,
  ): Promise<Produced>;

  /** Names a conversion with the version of the tool that does it, e.g. `qcow2-to-raw/qemu-img-7.2.22`: the cache's key. */
  transformId(step: { compression: Compression } | { fromFormat: Format; toFormat: Format }): Promise<string>;

  /** Tools that are absent, with the package that brings each: for start-up warnings and `ToolMissing`. */
  missingTools(): Promise<{ tool: string; package: string }[]>;
}
