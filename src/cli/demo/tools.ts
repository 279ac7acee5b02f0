import { execFile } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** File systems are made by programs in sbin, which is in no ordinary user's PATH. */
const ALSO = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

/** Full path of an installed program; undefined when there is none. */
export async function findTool(name: string, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  for (const folder of [...(env['PATH'] ?? '').split(delimiter), ...ALSO]) {
    if (folder === '') continue;
    const path = join(folder, name);
    const usable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (usable) return path;
  }
  return undefined;
}

export interface ToolRun {
  cwd: string;
  signal: AbortSignal;
  timeoutMs: number;
}

/** @throws Error with the last line that the program said */
export async function runTool(
  path: string,
  args: readonly string[],
  { cwd, signal, timeoutMs }: ToolRun,
): Promise<void> {
  try {
    await execute(path, [...args], { cwd, signal, timeout: timeoutMs, maxBuffer: 1024 * 1024 });
  } catch (error) {
    const { stderr } = error as { stderr?: unknown };
    const said = typeof stderr === 'string' ? (stderr.trim().split('\n').at(-1) ?? '') : '';
    throw new Error(`${path} failed${said === '' ? '' : `: ${said}`}`, { cause: error });
  }
}
