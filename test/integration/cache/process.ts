import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

const PROGRAM = fileURLToPath(new URL('holder.ts', import.meta.url));

export interface Child {
  pid: number;
  stderr(): string;
  /** Resolves when a line on standard output begins with this; rejects when the child ends before. */
  line(start: string): Promise<string>;
  kill(): void;
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/** Starts a process that opens the cache; the end of the test ends it. */
export function startHolder(...args: string[]): Child {
  const child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr, ended] = ['', '', false];
  const waiting: { start: string; resolve(line: string): void; reject(error: Error): void }[] = [];
  const look = (): void => {
    for (const wait of waiting.slice()) {
      const line = stdout.split('\n').find((candidate) => candidate.startsWith(wait.start));
      if (line === undefined && !ended) continue;
      waiting.splice(waiting.indexOf(wait), 1);
      if (line === undefined) wait.reject(new Error(`the child ended without a line "${wait.start}": ${stderr}`));
      else wait.resolve(line);
    }
  };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    look();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.on('close', (code, signal) => {
      ended = true;
      look();
      resolve({ code, signal });
    });
  });
  const kill = (): void => void child.kill('SIGKILL');
  onTestFinished(async () => {
    kill();
    await exited;
  });
  return {
    pid: child.pid ?? -1,
    stderr: () => stderr,
    line: (start) =>
      new Promise((resolve, reject) => {
        waiting.push({ start, resolve, reject });
        look();
      }),
    kill,
    exited,
  };
}
