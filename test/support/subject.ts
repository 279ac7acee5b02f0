import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { VMImage } from '../../src/api/types.ts';
import { readState } from '../../src/stores/directory/index.ts';
import { FROM_SOURCES } from './from-sources.ts';
import type { Manifest } from './house.ts';

const SCRIPT = join(import.meta.dirname, 'controller-process.ts');
const PATIENCE_MS = 120_000;

/** Those that a failed test has left. */
const subjects = new Set<Subject>();

/** Ends what a failed test has left: for `afterEach`. */
export async function closeSubjects(): Promise<void> {
  for (const subject of subjects) await subject.close();
}

/** One image on its own manifests and state, run by processes that come and go. */
export class Subject {
  readonly root = mkdtempSync(join(tmpdir(), 'imageproxy-kill-'));
  readonly shelf = join(this.root, 'shelf');
  #child: ChildProcess | undefined;
  #log = '';

  constructor(...sites: Manifest[]) {
    subjects.add(this);
    mkdirSync(join(this.root, 'manifests'));
    mkdirSync(this.shelf);
    this.write('site.yaml', ...sites);
  }

  write(file: string, ...objects: Manifest[]): void {
    const text = objects
      .map((object) => stringify({ apiVersion: object.kind === 'Secret' ? 'v1' : 'imageproxy.dev/v1beta1', ...object }))
      .join('---\n');
    writeFileSync(join(this.root, 'manifests', file), text, { mode: 0o600 });
  }

  start(changes?: number): void {
    const more = changes === undefined ? [] : [String(changes)];
    this.#child = spawn(
      process.execPath,
      [...FROM_SOURCES, SCRIPT, join(this.root, 'manifests'), join(this.root, 'state'), ...more],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
  }

  kill(): void {
    this.#child?.kill('SIGKILL');
  }

  async exited(): Promise<void> {
    const child = this.#child;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }

  /** Resolves with the image once it is as wanted, or with undefined when the process has been killed before. */
  async until(wanted: (image: VMImage) => boolean): Promise<VMImage | undefined> {
    const stop = new AbortController();
    const { promise, resolve, reject } = Promise.withResolvers<VMImage | undefined>();
    const patience = setTimeout(
      () => reject(new Error(`it did not come to an end:\n${this.#log.slice(-3000)}`)),
      PATIENCE_MS,
    );
    void this.exited().then(() => resolve(undefined));
    await readState(join(this.root, 'state')).watch(
      'VMImage',
      ({ object, type }) => {
        if (type === 'Applied' && wanted(object as unknown as VMImage)) resolve(object as unknown as VMImage);
      },
      stop.signal,
    );
    return promise.finally(() => {
      clearTimeout(patience);
      stop.abort();
    });
  }

  async close(): Promise<void> {
    subjects.delete(this);
    this.kill();
    await this.exited();
    rmSync(this.root, { recursive: true, force: true });
  }
}
