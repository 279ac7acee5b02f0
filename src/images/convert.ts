import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { Failure } from '../api/failure.ts';
import { digestFile, runBulk } from './bulk.ts';
import { type Format, interchangeable } from './format.ts';
import type { Produced, Progress, ToolLimits } from './images.ts';
import type { ConvertJob } from './tools.ts';
import { examineDisk } from './inspect.ts';
import { blockNode, type DiskPlace, QEMU_DRIVERS, type QemuFormat } from './qemu.ts';
import { complaint, runTool } from '../programs/run.ts';
import type { Toolbox } from '../programs/toolbox.ts';

type Target = Exclude<QemuFormat, 'Iso'>;

/**
 * VMDK is monolithicSparse: qemu writes it six times as fast as streamOptimized (3.9 against 23.9 s per GiB), and clouds that take
 * VMDK read it. VHD keeps the disk's exact size (`force_size`), which would else be rounded up to a cylinder, and is dynamic,
 * because a fixed one is no smaller than the raw disk.
 */
const TARGET_OPTIONS: Record<Target, readonly string[]> = {
  Raw: [],
  Qcow2: ['-o', 'compat=1.1'],
  Vmdk: ['-o', 'subformat=monolithicSparse'],
  Vdi: [],
  Vhd: ['-o', 'subformat=dynamic,force_size=on'],
  Vhdx: ['-o', 'subformat=dynamic'],
};

/**
 * `cwd` is an empty private folder.
 * @throws Failure NotSupported | TooLarge | ResourceLimit | DiskFull | ToolMissing | CorruptImage | Aborted
 */
export async function convert(toolbox: Toolbox, job: ConvertJob, cwd: string, signal: AbortSignal): Promise<Produced> {
  const { fromFormat, toFormat, limits, progress, digests } = job;
  const from = resolve(job.from);
  const to = resolve(job.to);
  const { maxOutputBytes } = limits;
  if (interchangeable(fromFormat, toFormat)) {
    const read = { compression: 'None' as const };
    return runBulk(toolbox, { from, to, read, maxOutputBytes, digests }, signal, progress);
  }
  const target = requireConvertible(fromFormat, toFormat);
  const { disk, virtualSize } = await examineDisk(from, fromFormat);
  if (target === 'Raw' && virtualSize > maxOutputBytes) {
    throw new Failure(
      'TooLarge',
      `the raw disk has ${virtualSize} bytes, more than the ${maxOutputBytes} that it may have`,
    );
  }
  if (disk.format === target && disk.span !== undefined) {
    const read = { span: disk.span };
    return runBulk(toolbox, { from, to, read, maxOutputBytes, digests }, signal, progress);
  }
  await runConvert(
    toolbox,
    { disk, to, target, limits, virtualSize, cwd, ...(progress === undefined ? {} : { progress }) },
    signal,
  );
  return digests.length === 0
    ? { size: (await stat(to)).size, digests: {} }
    : digestFile(toolbox, { path: to, maxBytes: maxOutputBytes, digests }, signal);
}

function requireConvertible(from: Format, to: Format): Target {
  if (from === 'Iso')
    throw new Failure('NotSupported', `an ISO image is used as it is, or as Raw; it is never converted to ${to}`);
  if (to === 'Iso' || to === 'Ova')
    throw new Failure('NotSupported', `images are not converted to ${to}: let the site accept another format`);
  return to;
}

interface ConvertRun {
  disk: DiskPlace;
  to: string;
  target: Target;
  limits: ToolLimits;
  virtualSize: number;
  cwd: string;
  progress?: Progress;
}

async function runConvert(toolbox: Toolbox, run: ConvertRun, signal: AbortSignal): Promise<void> {
  const { disk, to, target, limits, virtualSize, progress } = run;
  const exit = await runTool(
    toolbox,
    {
      tool: 'qemu-img',
      // -S 4k: zeros of the guest become holes, in blocks as small as the file system's.
      args: ['convert', '-p', '-S', '4k', '-O', QEMU_DRIVERS[target], ...TARGET_OPTIONS[target], blockNode(disk), to],
      limits: {
        addressSpaceBytes: limits.addressSpaceBytes ?? 2 ** 30,
        cpuSeconds: limits.cpuSeconds ?? 3600,
        fileSizeBytes: limits.maxOutputBytes,
      },
      cwd: run.cwd,
      consume: (out) => readProgress(out, (fraction) => progress?.(Math.round(fraction * virtualSize), virtualSize)),
    },
    signal,
  );
  if (exit.code === 0) return;
  const words = complaint(exit, disk.path, to);
  if (/error while reading|Could not open/i.test(words))
    throw new Failure('CorruptImage', `qemu-img cannot read the image as ${disk.format}: ${words}`);
  throw new Failure('ToolFailed', `qemu-img could not convert ${disk.format} to ${target}: ${words}`);
}

/** `    (12.34/100%)` and a carriage return, again and again; chunks may cut it anywhere. */
export async function readProgress(
  out: Readable | AsyncIterable<Buffer>,
  report: (fraction: number) => void,
): Promise<void> {
  let rest = '';
  for await (const chunk of out as AsyncIterable<Buffer>) {
    rest += chunk.toString('latin1');
    const matches = [...rest.matchAll(/\((\d+(?:\.\d+)?)\/100%\)/g)];
    const last = matches.at(-1);
    if (last !== undefined) report(Math.min(1, Number(last[1]) / 100));
    rest = rest.slice(-32).replace(/^.*\)/s, '');
  }
}
