import { styleText } from 'node:util';

export type Style = Parameters<typeof styleText>[0];

/** What an {@link Output} needs of a stream; `process.stdout` has it. */
export interface TextStream {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
  rows?: number;
}

export interface OutputOptions {
  env: NodeJS.ProcessEnv;
}

/** One of the two streams to the user, with what it can show. */
export class Output {
  readonly isTerminal: boolean;
  readonly colour: boolean;
  /** Whether block characters can be shown. */
  readonly blocks: boolean;
  readonly #stream: TextStream;

  constructor(stream: TextStream, { env }: OutputOptions) {
    this.#stream = stream;
    this.isTerminal = stream.isTTY === true;
    // https://no-color.org: any value that is not empty.
    this.colour = this.isTerminal && (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb';
    this.blocks = /utf-?8/i.test(env['LC_ALL'] || env['LC_CTYPE'] || env['LANG'] || '');
  }

  get columns(): number {
    // A terminal whose size nobody has set says 0.
    return this.isTerminal ? this.#stream.columns || 80 : Number.POSITIVE_INFINITY;
  }

  get rows(): number {
    return this.isTerminal ? this.#stream.rows || 24 : Number.POSITIVE_INFINITY;
  }

  line(text = ''): void {
    this.#stream.write(`${text}\n`);
  }

  write(text: string): void {
    this.#stream.write(text);
  }

  paint(style: Style, text: string): string {
    return this.colour ? styleText(style, text, { validateStream: false }) : text;
  }
}

/** What a command has to do with the world. */
export interface CommandContext {
  out: Output;
  err: Output;
  env: NodeJS.ProcessEnv;
  /** Milliseconds since the epoch. */
  now(): number;
  /** How the user called the program, where it was not by its own name: `kubectl imageproxy`. */
  calledAs?: string | undefined;
  /** Fires at the first SIGINT or SIGTERM; its reason is an `Interrupted`. */
  signal: AbortSignal;
}

/** C0 and C1 controls (0x9B begins an escape sequence as ESC [ does), and marks that turn the direction of writing. */
const STEERING = /[\p{Cc}\u202A-\u202E\u2066-\u2069]/gu;

/** Text that others wrote (an origin, a cloud, a manifest) must not steer the terminal, nor break the line. */
export function printable(text: string): string {
  return text
    .replaceAll(/[\t\r\n]+/g, ' ')
    .replaceAll(STEERING, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

const ESCAPE = String.fromCharCode(27);
const STYLES = new RegExp(`${ESCAPE}\\[[0-9;]*m`, 'g');

/** Columns that a text takes; colours take none. */
export function widthOf(text: string): number {
  return Array.from(text.replaceAll(STYLES, '')).length;
}

/** Cut to so many columns, with an ellipsis; colours are kept whole. */
export function clipTo(text: string, columns: number): string {
  if (widthOf(text) <= columns) return text;
  let left = Math.max(columns - 1, 0);
  let clipped = '';
  let styled = false;
  for (const part of text.split(new RegExp(`(${ESCAPE}\\[[0-9;]*m)`))) {
    if (part.startsWith(ESCAPE)) {
      clipped += part;
      styled = true;
      continue;
    }
    const characters = Array.from(part);
    clipped += characters.slice(0, left).join('');
    left -= Math.min(left, characters.length);
    if (left === 0) break;
  }
  return `${clipped}…${styled ? `${ESCAPE}[0m` : ''}`;
}
