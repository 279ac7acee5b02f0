import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runTool, type ToolExit } from '../programs/run.ts';
import { createToolbox, type Toolbox } from '../programs/toolbox.ts';

/**
 * openssl as a child process: the whole of RFC 5280 and RFC 5652, maintained, in some milliseconds a call. It sees no certificates but
 * those that it is given: `-CAfile` alone would leave the system's authorities in force.
 */
export const NO_SYSTEM_AUTHORITIES = ['-no-CAfile', '-no-CApath', '-no-CAstore'] as const;

/** A list of 32 MiB is hashed in a tenth of a second; nothing honest takes longer than this. */
const LIMITS = { addressSpaceBytes: 2 ** 30, cpuSeconds: 20, fileSizeBytes: 64 * 2 ** 20 };
const TIMEOUT_MS = 60_000;

/** A private folder with the files of one verification. */
export class OpenSsl {
  readonly #folder: string;
  readonly #toolbox: Toolbox;
  readonly #signal: AbortSignal;
  #files = 0;

  private constructor(folder: string, toolbox: Toolbox, signal: AbortSignal) {
    this.#folder = folder;
    this.#toolbox = toolbox;
    this.#signal = signal;
  }

  /** Does some work with a folder of its own (mode 0700), which is gone afterwards. */
  static async use<T>(
    { toolbox = createToolbox(), signal }: { toolbox?: Toolbox | undefined; signal: AbortSignal },
    work: (openssl: OpenSsl) => Promise<T>,
  ): Promise<T> {
    const folder = await mkdtemp(join(tmpdir(), 'imageproxy-trust-'));
    try {
      return await work(new OpenSsl(folder, toolbox, signal));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  /** Writes a file under a name that nobody else chose; returns the name, relative to where openssl runs. */
  async file(content: Uint8Array | string): Promise<string> {
    this.#files += 1;
    const name = `${this.#files}`;
    await writeFile(join(this.#folder, name), content, { mode: 0o600, flag: 'wx' });
    return name;
  }

  /** What openssl has written to a file that it was told to write. */
  read(name: string): Promise<Buffer> {
    return readFile(join(this.#folder, name));
  }

  /** @throws Failure ToolMissing | ToolFailed | Timeout | ResourceLimit | DiskFull | Aborted */
  run(...args: string[]): Promise<ToolExit> {
    const run = { tool: 'openssl', args, limits: LIMITS, cwd: this.#folder, timeoutMs: TIMEOUT_MS } as const;
    return runTool(this.#toolbox, run, this.#signal);
  }
}

/** `-attime`: seconds since the epoch. */
export function attime(at: number): [string, string] {
  return ['-attime', String(Math.max(1, Math.floor(at / 1000)))];
}
