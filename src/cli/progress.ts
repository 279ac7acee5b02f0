import { findCondition, kstatus, READY } from '../api/conditions.ts';
import type { ProgressStatus, VMImage } from '../api/types.ts';
import { clipTo, type Output, printable } from './output.ts';
import { formatBytes } from './quantity.ts';

/** What the phases look like; every other one is at work. */
const PHASE_STYLES: Readonly<Record<string, 'green' | 'red' | 'yellow'>> = {
  Ready: 'green',
  Failed: 'red',
  Held: 'yellow',
  Missing: 'yellow',
  Suspended: 'yellow',
  Expired: 'yellow',
  Deactivated: 'yellow',
};

export function paintPhase(out: Output, phase: string): string {
  const style = PHASE_STYLES[phase];
  return style === undefined ? phase : out.paint(style, phase);
}

/** `████████░░░░` of a percentage; a bar without one is empty. */
export function bar(out: Output, percent: number | undefined, width = 24): string {
  const full = Math.round((Math.min(Math.max(percent ?? 0, 0), 100) / 100) * width);
  const [done, left] = out.blocks ? ['█', '░'] : ['#', '.'];
  return out.paint('cyan', done.repeat(full)) + out.paint('gray', left.repeat(width - full));
}

/** One line of a view that is drawn again and again. */
export interface LiveLine {
  key: string;
  text: string;
  /** Where lines cannot be drawn over, a new one is written when this changes. */
  milestone: string;
  /** Nothing is being done: what is goes before it, where there is no room for all. */
  settled?: boolean;
}

const STEPS: Readonly<Record<string, string>> = {
  Fetch: 'Fetching',
  Decompress: 'Preparing',
  Convert: 'Preparing',
  Digest: 'Verifying',
  Copy: 'Registering',
  Upload: 'Registering',
};

export interface ImageLineOptions {
  /** Lines below each other have names of one width. */
  nameWidth?: number;
  /** Of a failure the reason's name alone; the message is told elsewhere. */
  brief?: boolean;
  /** Default: the object's name. */
  name?: string;
}

/** `ubuntu   Fetching   ██████░░░  42 %   80.2 MiB of 191 MiB   38.1 MiB/s` */
export function imageLine(out: Output, image: VMImage, options: ImageLineOptions = {}): LiveLine {
  const { name = image.metadata.name, nameWidth = name.length, brief = false } = options;
  const { progress, phase = 'Pending', summary, conditions } = image.status ?? {};
  const terminating = image.metadata.deletionTimestamp !== undefined;
  const settled = !terminating && kstatus(image).status !== 'InProgress';
  const step = terminating ? 'Deleting' : settled ? phase : stepOf(progress, phase);
  const ready = findCondition(conditions, READY);
  const message = printable(ready?.message ?? '');
  const verdict = phase === 'Ready' ? '' : brief ? printable(ready?.reason ?? '') : message;
  const tail = settled
    ? [printable(summary?.imageID ?? ''), verdict].filter((text) => text !== '').join('  ')
    : progressText(progress, step === 'Pending' ? '' : message);
  const percent = settled && phase === 'Ready' ? 100 : progress?.percent;
  const shown = percent === undefined ? '    ' : `${String(percent).padStart(3)}%`;
  const head = `${name.padEnd(nameWidth)}  ${paintPhase(out, step)}${' '.repeat(Math.max(0, 11 - step.length))}`;
  return {
    key: `${image.metadata.namespace ?? ''}/${image.metadata.name}`,
    settled,
    text: `${head}  ${bar(out, percent)}  ${shown}  ${tail}`.trimEnd(),
    milestone: `${step}/${settled}/${settled ? tail : Math.floor((percent ?? 0) / 25)}`,
  };
}

/** What is being done; a phase that a new generation has overtaken says nothing any more. */
function stepOf(progress: ProgressStatus | undefined, phase: string): string {
  if (progress?.step !== undefined) return STEPS[progress.step] ?? phase;
  return phase === 'Ready' || phase === 'Failed' ? 'Pending' : phase;
}

export function progressText(progress: ProgressStatus | undefined, otherwise: string): string {
  if (progress?.bytes === undefined) return otherwise;
  const total = progress.totalBytes === undefined ? '' : ` of ${formatBytes(progress.totalBytes)}`;
  const speed =
    progress.bytesPerSecond === undefined || progress.bytesPerSecond === 0
      ? ''
      : `  ${formatBytes(progress.bytesPerSecond)}/s`;
  return `${formatBytes(progress.bytes)}${total}${speed}`;
}

const DRAW_EVERY_MS = 80;

/**
 * Lines that are drawn over as they change, below what was written before; on anything but a terminal, a new line at every
 * milestone instead.
 */
export class LiveView {
  readonly #out: Output;
  readonly #milestones = new Map<string, string>();
  #lines: readonly LiveLine[] = [];
  #drawn = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(out: Output) {
    this.#out = out;
  }

  show(lines: readonly LiveLine[]): void {
    this.#lines = lines;
    if (!this.#out.isTerminal) return this.#plain();
    // Faster than this nobody can read it, and a slow terminal would hold up the work.
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#draw();
    }, DRAW_EVERY_MS);
  }

  /** A line that stays, above the live ones. */
  note(text: string): void {
    this.#erase();
    this.#out.line(text);
    if (this.#out.isTerminal) this.#draw();
  }

  /** The last lines stay; with `erase` they go. */
  end({ erase = false }: { erase?: boolean } = {}): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!this.#out.isTerminal) return;
    if (erase) this.#erase();
    else this.#draw();
    this.#drawn = 0;
    this.#lines = [];
  }

  #plain(): void {
    for (const { key, text, milestone } of this.#lines) {
      if (this.#milestones.get(key) === milestone) continue;
      this.#milestones.set(key, milestone);
      this.#out.line(text);
    }
  }

  #erase(): void {
    if (this.#drawn > 0) this.#out.write(`\u001B[${this.#drawn}A\u001B[0J`);
    this.#drawn = 0;
  }

  #draw(): void {
    // One write, each line cleared to its end: nothing flickers. A line that wrapped would be counted wrong.
    const columns = this.#out.columns - 1;
    const up = this.#drawn > 0 ? `\u001B[${this.#drawn}A` : '';
    const lines = fitting(this.#lines, this.#out.rows - 1);
    const body = lines.map((text) => `${clipTo(text, columns)}\u001B[K\n`).join('');
    this.#out.write(`${up}${body}\u001B[0J`);
    this.#drawn = lines.length;
  }
}

/** What has scrolled away cannot be drawn over: of more lines than there is room for, those where something is being done. */
function fitting(lines: readonly LiveLine[], room: number): string[] {
  if (lines.length <= room) return lines.map(({ text }) => text);
  const bySettled = [
    ...lines.filter(({ settled }) => settled !== true),
    ...lines.filter(({ settled }) => settled === true),
  ];
  const shown = new Set(bySettled.slice(0, Math.max(1, room - 1)));
  return [
    ...lines.filter((line) => shown.has(line)).map(({ text }) => text),
    `… and ${lines.length - shown.size} more`,
  ];
}
