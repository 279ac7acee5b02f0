import { execFile, execFileSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { npmScript } from '../../support/npm.ts';

const CHECKOUT = join(import.meta.dirname, '..', '..', '..');

/** What every Unix has, as far as `make setup` and the launcher use it. */
const UNIX = [
  'awk',
  'cat',
  'cksum',
  'dirname',
  'grep',
  'ln',
  'mkdir',
  'mv',
  'paste',
  'readlink',
  'rm',
  'sh',
  'tail',
  'tr',
  'uname',
];

/** What `make test` tells the programs below it; a make that a user starts has none of it. */
const OF_THIS_RUN = { MAKEFLAGS: undefined, MAKELEVEL: undefined, MFLAGS: undefined, NODE_OPTIONS: undefined };

export interface Outcome {
  code: number;
  out: string;
  err: string;
}

/**
 * A machine that has only these programs, as links in one folder, and a checkout in another. Where packages come from, and what was
 * fetched before, is what this machine's user has configured.
 */
export class Machine {
  readonly root = mkdtempSync(join(tmpdir(), 'imageproxy-machine-'));
  /** Named as folders of users are named. */
  readonly checkout = join(this.root, 'a checkout [of mine');
  readonly #bin = join(this.root, 'bin');

  constructor(...programs: readonly string[]) {
    mkdirSync(this.checkout);
    mkdirSync(this.#bin);
    for (const program of [...UNIX, ...programs]) symlinkSync(found(program), join(this.#bin, program));
  }

  /** Copies what git knows at these paths, as it is now; without paths all of it. */
  clone(...paths: readonly string[]): void {
    const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard', ...paths], {
      cwd: CHECKOUT,
      encoding: 'utf8',
    });
    for (const file of listed.split('\0').filter((path) => path !== '' && existsSync(join(CHECKOUT, path)))) {
      cpSync(join(CHECKOUT, file), join(this.checkout, file), { verbatimSymlinks: true });
    }
  }

  write(path: string, text: string): void {
    const file = join(this.checkout, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }

  /** Gives it a program of this name: what follows `exec` in a shell. */
  has(name: string, ...words: readonly string[]): void {
    const quoted = words.map((word) => `'${word}'`).join(' ');
    this.script(name, `exec ${quoted} "$@"`);
  }

  script(name: string, text: string): void {
    const path = join(this.#bin, name);
    writeFileSync(path, `#!/bin/sh\n${text}\n`);
    chmodSync(path, 0o755);
  }

  /** The npm of the tests: it works, whatever `node` on PATH is. */
  hasNpm(): void {
    this.has('npm', process.execPath, npmScript());
  }

  hasOldNode(): void {
    this.script('node', 'case "$*" in *process.versions.node*) echo 18 ;; *) echo v18.20.4 ;; esac');
  }

  loses(name: string): void {
    rmSync(join(this.#bin, name));
  }

  /** A command of this machine by its name, or a file of the checkout by its path in it. */
  run(command: string, words: readonly string[], more: Readonly<Record<string, string>> = {}): Promise<Outcome> {
    const { promise, resolve } = Promise.withResolvers<Outcome>();
    const env = { ...process.env, ...OF_THIS_RUN, PATH: this.#bin, ...more };
    const path = command.includes('/') ? join(this.checkout, command) : join(this.#bin, command);
    execFile(path, words, { cwd: this.checkout, env }, (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), out, err }),
    );
    return promise;
  }

  setup(more: Readonly<Record<string, string>> = {}): Promise<Outcome> {
    return this.run('sh', ['scripts/setup.sh'], more);
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}

/** Where this machine has a program. */
export function onPath(program: string): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  return folders.map((folder) => join(folder, program)).find((path) => existsSync(path));
}

function found(program: string): string {
  const path = onPath(program);
  if (path === undefined) throw new Error(`${program} is not on PATH`);
  return path;
}
