import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { eventually } from '../apiserver.ts';

/**
 * Network, mount and process namespaces of their own. Whatever runs in them ends with their first process, and that ends with us:
 * no process, mount, interface or firewall rule outlives a test run, however it ends.
 */
export class Namespaces {
  /** Where `start` writes NAME.log. */
  readonly directory: string;
  readonly #unshare: ChildProcess;
  /** As this process sees it; theirs is 1. */
  readonly #first: number;
  /** The nsenter of each that was started: outside, and there until it has seen the end of what runs inside. */
  readonly #started = new Set<ChildProcess>();

  private constructor(directory: string, unshare: ChildProcess, first: number) {
    this.directory = directory;
    this.#unshare = unshare;
    this.#first = first;
  }

  static async make(directory: string): Promise<Namespaces> {
    // The first process takes in those whose parents have ended. Bash reaps them; `sleep` alone would not.
    const reap = 'trap : TERM; while :; do sleep infinity & wait $!; done';
    const kinds = ['--net', '--mount', '--propagation=private', '--pid', '--fork', '--kill-child', '--mount-proc'];
    const unshare = spawn('setpriv', ['--pdeathsig=KILL', 'unshare', ...kinds, 'bash', '-c', reap], {
      stdio: 'ignore',
    });
    const first = await eventually('the namespaces are there', async () => {
      const child = readFileSync(`/proc/${unshare.pid}/task/${unshare.pid}/children`, 'utf8').trim();
      // Not before it is bash: /proc is mounted by then.
      if (!readFileSync(`/proc/${child}/cmdline`, 'utf8').startsWith('bash')) throw new Error('not yet');
      return Number(child);
    });
    return new Namespaces(directory, unshare, first);
  }

  /** The beginning of a command line that runs in the network of the namespaces, and otherwise here. */
  get network(): [string, ...string[]] {
    return ['nsenter', `--net=/proc/${this.#first}/ns/net`, '--'];
  }

  /** Runs on in all of the namespaces. */
  async start(name: string, program: string, args: readonly string[]): Promise<ChildProcess> {
    const log = await open(join(this.directory, `${name}.log`), 'a');
    const child = spawn('nsenter', [...this.#all(), program, ...args], { stdio: ['ignore', log.fd, log.fd] });
    this.#started.add(child);
    child.once('close', () => this.#started.delete(child));
    await log.close();
    return child;
  }

  /** Runs to its end in all of the namespaces. @returns its standard output */
  async run(program: string, args: readonly string[], input = ''): Promise<string> {
    const child = spawn('nsenter', [...this.#all(), program, ...args], { stdio: 'pipe' });
    const [output, errors]: [string[], string[]] = [[], []];
    child.stdout.setEncoding('utf8').on('data', (text: string) => output.push(text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => errors.push(text));
    child.stdin.on('error', () => undefined).end(input);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(output.join(''));
      else reject(new Error(`${program} ${args.join(' ')}: exit code ${code}\n${output.join('')}${errors.join('')}`));
    });
    return promise;
  }

  /** The kernel lets the first process go when all others are gone. */
  async end(): Promise<void> {
    if (this.#unshare.exitCode !== null || this.#unshare.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#unshare.once('exit', resolve));
    process.kill(this.#first, 'SIGKILL');
    await gone;
    await Promise.all(Array.from(this.#started, (child) => new Promise((resolve) => child.once('close', resolve))));
  }

  #all(): string[] {
    return [`--target=${this.#first}`, '--net', '--mount', '--pid', '--'];
  }
}
