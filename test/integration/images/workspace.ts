import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Failure } from '../../../src/api/failure.ts';
import { createToolbox, type ToolName } from '../../../src/programs/toolbox.ts';

process.env['PATH'] = `${process.env['PATH']}:/usr/sbin:/sbin`;

export const toolbox = createToolbox();
export const never = new AbortController().signal;

export function installed(
  ...programs: (
    | ToolName
    | 'mke2fs'
    | 'genisoimage'
    | 'gzip'
    | 'tar'
    | 'lzma'
    | 'lua5.1'
    | 'promtool'
    | 'openssl'
    | 'gpg'
    | 'minisign'
    | 'xmlsec1'
  )[]
): boolean {
  const folders = (process.env['PATH'] ?? '').split(':');
  return programs.every((program) => folders.some((folder) => existsSync(join(folder, program))));
}

/** A temporary folder, and real programs run in it. */
export class Workspace {
  readonly folder = mkdtempSync(join(tmpdir(), 'images-it-'));

  path(name: string): string {
    return join(this.folder, name);
  }

  run(program: string, ...args: string[]): Buffer {
    return execFileSync(program, args, { cwd: this.folder, stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 2 ** 30 });
  }

  write(name: string, ...parts: (Uint8Array | string)[]): string {
    writeFileSync(this.path(name), Buffer.concat(parts.map((part) => Buffer.from(part as string))));
    return this.path(name);
  }

  read(name: string): Buffer {
    return readFileSync(this.path(name));
  }

  sha256(name: string): string {
    return createHash('sha256').update(this.read(name)).digest('hex');
  }

  /** A raw disk of 16 MiB that holds an ext4 file system with two files: some data, and many holes. */
  makeDisk(name: string): string {
    mkdirSync(this.path('root'), { recursive: true });
    this.write('root/hello', 'hello');
    this.write(
      'root/noise',
      createHash('shake256', { outputLength: 2 ** 20 })
        .update('noise')
        .digest(),
    );
    this.run('mke2fs', '-q', '-F', '-t', 'ext4', '-d', 'root', name, '16M');
    return this.path(name);
  }

  /** A copy with some bytes changed. */
  patch(from: string, to: string, change: (bytes: Buffer) => Buffer | void): string {
    const bytes = this.read(from);
    return this.write(to, change(bytes) ?? bytes);
  }

  clean(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export async function refusal(work: Promise<unknown>): Promise<Failure> {
  const outcome: unknown = await work.catch((error: unknown) => error);
  if (outcome instanceof Failure) return outcome;
  throw new Error(`expected a Failure, got ${outcome instanceof Error ? outcome.stack : JSON.stringify(outcome)}`);
}
