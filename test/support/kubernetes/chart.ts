import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { findBinaries } from './binaries.ts';
import { findHelm } from './helm.ts';

export const CHART = join(import.meta.dirname, '..', '..', '..', 'deploy', 'helm', 'imageproxy');

/** An object that a chart renders. */
export interface Rendered {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  [field: string]: unknown;
}

export type Values = Readonly<Record<string, unknown>>;

export interface ReleaseOptions {
  release?: string;
  namespace?: string;
  /** Another chart than ours: a folder. */
  chart?: string;
  /** Flags of helm besides. */
  flags?: readonly string[];
}

/** A program ended with another code than 0; the message is what it said. */
class ProgramError extends Error {
  override readonly name = 'ProgramError';
}

/** Helm as a user calls it, with a home of its own: what the user of this machine has set for helm plays no part. */
export class Helm {
  readonly #program: string;
  readonly #home: string;
  readonly #kubeconfig: string;

  private constructor(program: string, home: string, kubeconfig: string) {
    this.#program = program;
    this.#home = home;
    this.#kubeconfig = kubeconfig;
  }

  /** Without a kubeconfig it can render, and no more. */
  static async start(kubeconfig = '/dev/null'): Promise<Helm> {
    return new Helm(await findHelm(), await mkdtemp(join(tmpdir(), 'imageproxy-helm-')), kubeconfig);
  }

  async close(): Promise<void> {
    await rm(this.#home, { recursive: true, force: true });
  }

  /** What it prints. @throws ProgramError with what it says is wrong */
  run(...args: string[]): Promise<string> {
    const homes = Object.fromEntries(['CACHE', 'CONFIG', 'DATA'].map((name) => [`HELM_${name}_HOME`, this.#home]));
    return output(this.#program, args, { ...homes, HOME: this.#home, KUBECONFIG: this.#kubeconfig });
  }

  /** The objects of the chart, the pod of `helm test` among them. */
  async template(values: Values = {}, options: ReleaseOptions = {}): Promise<Rendered[]> {
    const text = await this.#with(values, (file) => this.run('template', ...place(options), '-f', file));
    return objectsOf(text);
  }

  /** Installs the release, or upgrades it, with these values and no former ones; what is printed is the notes. */
  upgrade(values: Values = {}, options: ReleaseOptions = {}): Promise<string> {
    return this.#with(values, (file) =>
      this.run(
        'upgrade',
        '--install',
        '--create-namespace',
        '--reset-values',
        ...place(options),
        '-f',
        file,
        ...(options.flags ?? []),
      ),
    );
  }

  uninstall({ release = 'imageproxy', namespace = 'imageproxy' }: ReleaseOptions = {}): Promise<string> {
    return this.run('uninstall', release, '--namespace', namespace, '--wait', '--timeout=180s');
  }

  async #with<T>(values: Values, use: (file: string) => Promise<T>): Promise<T> {
    const folder = await mkdtemp(join(this.#home, 'values-'));
    const file = join(folder, 'values.json');
    await writeFile(file, JSON.stringify(values));
    return use(file);
  }
}

function place({ release = 'imageproxy', namespace = 'imageproxy', chart = CHART }: ReleaseOptions): string[] {
  return [release, chart, '--namespace', namespace];
}

export function objectsOf(text: string): Rendered[] {
  const documents = parseAllDocuments(text, { merge: true }).map((each) => each.toJS() as Rendered | null);
  return documents.filter((each) => each !== null);
}

/** `kubectl`, of the release that the API server has, as an administrator. */
export async function kubectl(kubeconfig: string, args: readonly string[], input?: string): Promise<string> {
  const { directory } = await findBinaries();
  return output(join(directory, 'kubectl'), args, { KUBECONFIG: kubeconfig, HOME: tmpdir() }, input);
}

function output(program: string, args: readonly string[], env: Record<string, string>, input = ''): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const options = { env: { PATH: process.env['PATH'] ?? '', ...env }, maxBuffer: 64 * 2 ** 20 };
  const child = execFile(program, args, options, (error, stdout, stderr) => {
    if (error === null) resolve(stdout);
    else reject(new ProgramError(`${stderr}${stdout}`, { cause: error }));
  });
  child.stdin?.end(input);
  return promise;
}
