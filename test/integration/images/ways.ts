import { randomUUID } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { createImages } from '../../../src/images/index.ts';
import type { Images } from '../../../src/images/images.ts';
import { imageJobs } from '../../../src/images/served.ts';
import { prepareLoans } from '../../../src/programs/runner/loans.ts';
import { serveTools } from '../../../src/programs/runner/server.ts';
import { createToolbox, type ToolPaths } from '../../../src/programs/toolbox.ts';
import type { Workspace } from './workspace.ts';

/** The same room, with programs run by the process itself or by a tool runner: every test of this folder is true of both. */
export interface Way {
  /** With these tools. */
  images(tools?: ToolPaths): Promise<Images>;
  /** Also that no file is left on loan. */
  stop(): Promise<void>;
}

export const WAYS: readonly (readonly [string, (work: Workspace) => Way])[] = [
  ['here', () => ({ images: async (tools = {}) => createImages({ tools }), stop: async () => undefined })],
  ['by a tool runner', (work) => new RunnerWay(work.path('loans'))],
];

class RunnerWay implements Way {
  readonly #files: string;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>[] = [];

  constructor(files: string) {
    this.#files = files;
  }

  async images(tools: ToolPaths = {}): Promise<Images> {
    const files = this.#files;
    await prepareLoans(files, `${files}.sample`);
    const socket = join(files, `${randomUUID().slice(0, 8)}.sock`);
    const scratch = `${socket}.scratch`;
    const jobs = imageJobs(createToolbox(tools), scratch);
    const quiet = () => undefined;
    const { promise: listening, resolve } = Promise.withResolvers<void>();
    const log = { debug: quiet, warn: quiet, info: () => resolve() };
    this.#running.push(serveTools({ socket, files, jobs, scratch, log }, this.#stop.signal));
    await Promise.race([listening, ...this.#running]);
    return createImages({ runner: { socket, files } });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#running);
    for (const side of ['in', 'out']) expect(readdirSync(join(this.#files, side))).toEqual([]);
  }
}
