import { z } from 'zod';
import { Failure } from '../api/failure.ts';
import type { Format } from './format.ts';
import { collect, complaint, type ToolRun, runTool } from '../programs/run.ts';
import type { Toolbox, ToolName } from '../programs/toolbox.ts';
import { corrupt, unsafe } from './window.ts';

/** Formats as qemu's block drivers call them. An OVA is no driver: its disk is named by its place in the archive. */
export const QEMU_DRIVERS = {
  Raw: 'raw',
  Iso: 'raw',
  Qcow2: 'qcow2',
  Vmdk: 'vmdk',
  Vdi: 'vdi',
  Vhd: 'vpc',
  Vhdx: 'vhdx',
} as const satisfies Record<Exclude<Format, 'Ova'>, string>;

export type QemuFormat = keyof typeof QEMU_DRIVERS;

/** A disk: a file, or a span of one. */
export interface DiskPlace {
  path: string;
  format: QemuFormat;
  span?: { offset: number; size: number };
}

/**
 * A block node by its full description: the driver is named (never probed), no backing file is opened whatever the header says,
 * and a file name with a comma or a colon is only a name. Locks are off: blobs never change.
 */
export function blockNode(disk: DiskPlace): string {
  const file = { driver: 'file', filename: disk.path, locking: 'off' };
  const storage =
    disk.span === undefined ? file : { driver: 'raw', offset: disk.span.offset, size: disk.span.size, file };
  const driver = QEMU_DRIVERS[disk.format];
  return `json:${JSON.stringify({ driver, ...(disk.format === 'Qcow2' ? { backing: null } : {}), file: storage })}`;
}

const Info = z.object({
  format: z.string(),
  'virtual-size': z.number().int().nonnegative(),
  'backing-filename': z.string().optional(),
  'full-backing-filename': z.string().optional(),
  encrypted: z.boolean().optional(),
  'format-specific': z
    .object({ data: z.object({ 'data-file': z.unknown().optional(), encrypt: z.unknown().optional() }).optional() })
    .optional(),
});

const INFO_LIMITS = { addressSpaceBytes: 2 ** 30, cpuSeconds: 30, fileSizeBytes: 0 };
const INFO_BYTES = 4 * 2 ** 20;
const INFO_TIMEOUT_MS = 120_000;

/**
 * Asks qemu-img what it makes of the disk. Returns the virtual size in bytes.
 * @throws Failure CorruptImage when it cannot open it, UnsafeImage when it sees what our own parser must have missed
 */
export async function qemuInfo(toolbox: Toolbox, disk: DiskPlace, cwd: string, signal: AbortSignal): Promise<number> {
  const chunks: Buffer[] = [];
  const run: ToolRun = {
    tool: 'qemu-img',
    args: ['info', '--output=json', blockNode(disk)],
    limits: INFO_LIMITS,
    cwd,
    consume: collect(chunks, INFO_BYTES),
    timeoutMs: INFO_TIMEOUT_MS,
  };
  const exit = await runTool(toolbox, run, signal);
  if (exit.code !== 0) throw corrupt(`qemu-img cannot open the image as ${disk.format}: ${complaint(exit, disk.path)}`);
  const info = Info.safeParse(parseJson(Buffer.concat(chunks).toString('utf8')));
  if (!info.success) throw new Failure('ToolFailed', 'qemu-img info gave an answer that is not understood');
  const { format, encrypted, 'virtual-size': virtualSize, 'format-specific': specific } = info.data;
  if (format !== QEMU_DRIVERS[disk.format])
    throw unsafe(`qemu-img opens the image as ${format}, not as ${QEMU_DRIVERS[disk.format]}`);
  if (info.data['backing-filename'] !== undefined || info.data['full-backing-filename'] !== undefined) {
    throw unsafe('qemu-img says that the image has a backing file');
  }
  if (specific?.data?.['data-file'] !== undefined)
    throw unsafe('qemu-img says that the image keeps its data in another file');
  if (encrypted === true || specific?.data?.encrypt !== undefined)
    throw unsafe('qemu-img says that the image is encrypted');
  return virtualSize;
}

/** `7.2.22` of `qemu-img version 7.2.22 (Debian …)`. */
export async function toolVersion(toolbox: Toolbox, tool: ToolName, cwd: string): Promise<string> {
  const chunks: Buffer[] = [];
  const run: ToolRun = {
    tool,
    args: ['--version'],
    limits: INFO_LIMITS,
    cwd,
    consume: collect(chunks, 64 * 1024),
    timeoutMs: INFO_TIMEOUT_MS,
  };
  const exit = await runTool(toolbox, run, new AbortController().signal);
  // bzip2 prints its version on the standard error.
  const version = /\b[vV]?(\d+(?:\.\d+)+)/.exec(Buffer.concat(chunks).toString('utf8') || exit.stderr)?.[1];
  if (version === undefined) throw new Failure('ToolFailed', `${tool} --version gave an answer that is not understood`);
  return version;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
