import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FROM_SOURCES } from '../../support/from-sources.ts';

const MAIN = join(import.meta.dirname, '..', '..', '..', 'src', 'main.ts');

export interface Outcome {
  code: number | null;
  out: string;
  err: string;
}

/** Compiled code is kept from run to run, for each user. */
export const COMPILED = { XDG_CACHE_HOME: join(tmpdir(), `imageproxy-cli-cache-${process.getuid?.()}`) };

/** The real program as a child process. Whatever still runs at the end of the test is killed by {@link killAll}. */
export class Program {
  static readonly #running = new Set<Program>();
  readonly child: ChildProcess;
  readonly #done: Promise<Outcome>;
  #out = '';
  #err = '';
  readonly #listeners = new Set<() => void>();

  constructor(words: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.child = spawn(process.execPath, [...FROM_SOURCES, MAIN, ...words], {
      env: { PATH: process.env['PATH'], HOME: process.env['HOME'], LANG: 'C.UTF-8', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#out += text;
      for (const listener of this.#listeners) listener();
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#err += text;
      for (const listener of this.#listeners) listener();
    });
    Program.#running.add(this);
    this.#done = once(this.child, 'close').then(() => {
      Program.#running.delete(this);
      for (const listener of this.#listeners) listener();
      return { code: this.child.exitCode, out: this.#out, err: this.#err };
    });
  }

  get done(): Promise<Outcome> {
    return this.#done;
  }

  /** Resolves once it has said so, on either stream, to what it said. */
  async says(text: RegExp): Promise<RegExpExecArray> {
    const { promise, resolve, reject } = Promise.withResolvers<RegExpExecArray>();
    const look = (): void => {
      const said = text.exec(this.#out) ?? text.exec(this.#err);
      if (said !== null) resolve(said);
      else if (!Program.#running.has(this))
        reject(new Error(`it ended without saying ${text}:\n${this.#out}${this.#err}`));
    };
    this.#listeners.add(look);
    look();
    return promise.finally(() => this.#listeners.delete(look));
  }

  signal(name: NodeJS.Signals): Promise<Outcome> {
    this.child.kill(name);
    return this.#done;
  }

  static async killAll(): Promise<void> {
    await Promise.all([...Program.#running].map((program) => program.signal('SIGKILL')));
  }
}

/** Runs one command to its end. */
export function imageproxy(words: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Outcome> {
  return new Program(words, env).done;
}
