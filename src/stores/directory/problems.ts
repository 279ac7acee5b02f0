import { join } from 'node:path';
import type { Disk } from './disk.ts';
import type { Problem } from './manifest.ts';
import { isMapping, type Log } from './seams.ts';
import { readJson } from './state.ts';

const FILE = 'problems.json';
const MOST = 1_000;

/** What is wrong with the manifests now: logged when it appears and when it is gone, and written down for the command line. */
export class ProblemBoard {
  readonly #state: string;
  readonly #disk: Disk;
  readonly #log: Log;
  #current: readonly Problem[] = [];
  #known = new Map<string, Problem>();
  #written = false;

  constructor(state: string, disk: Disk, log: Log) {
    this.#state = state;
    this.#disk = disk;
    this.#log = log;
  }

  get current(): readonly Problem[] {
    return this.#current;
  }

  async set(problems: readonly Problem[]): Promise<void> {
    const sorted = problems
      .toSorted((a, b) => compare(a.file, b.file) || a.document - b.document || a.line - b.line)
      .slice(0, MOST);
    const next = new Map(sorted.map((problem) => [JSON.stringify(problem), problem]));
    const before = this.#known;
    const changed = next.size !== before.size || [...next.keys()].some((key) => !before.has(key));
    this.#current = Object.freeze(sorted.map((problem) => Object.freeze({ ...problem })));
    if (!changed && this.#written) return;
    for (const [key, { message, severity, ...where }] of next) {
      if (!before.has(key)) this.#log[severity === 'error' ? 'error' : 'warn'](where, message);
    }
    for (const [key, { message, severity: _, ...where }] of before) {
      if (!next.has(key)) this.#log.info(where, `no longer: ${message}`);
    }
    this.#known = next;
    // A disk that is full now takes it at a later scan.
    this.#written = false;
    await this.#disk.replace(join(this.#state, FILE), `${JSON.stringify(sorted)}\n`, false);
    this.#written = true;
  }
}

export async function readProblems(state: string): Promise<Problem[]> {
  const problems = await readJson(join(state, FILE));
  if (!Array.isArray(problems)) return [];
  return problems.filter(
    (problem: unknown): problem is Problem =>
      isMapping(problem) && typeof problem.file === 'string' && typeof problem.message === 'string',
  );
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
