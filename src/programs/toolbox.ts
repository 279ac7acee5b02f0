import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { delimiter, isAbsolute, join } from 'node:path';
import { Failure } from '../api/failure.ts';

/** Outside programs, each with the Debian package that brings it. */
export const TOOL_PACKAGES = {
  'qemu-img': 'qemu-utils',
  xz: 'xz-utils',
  zstd: 'zstd',
  bzip2: 'bzip2',
  prlimit: 'util-linux',
  setpriv: 'util-linux',
  openssl: 'openssl',
} as const;

export type ToolName = keyof typeof TOOL_PACKAGES;
export type ToolPaths = Partial<Record<ToolName, string>>;

/** Where programs are. Looked up at each use: a tool installed meanwhile ends `ToolMissing` without a restart. */
export interface Toolbox {
  /** The absolute path. @throws Failure ToolMissing naming the package. */
  locate(tool: ToolName): Promise<string>;
}

/** `paths` names programs instead of looking for them in `searchPath` (a PATH). */
export function createToolbox(paths: ToolPaths = {}, searchPath = process.env['PATH'] ?? ''): Toolbox {
  return {
    async locate(tool) {
      const named = paths[tool];
      const candidates =
        named === undefined
          ? searchPath
              .split(delimiter)
              .filter(isAbsolute)
              .map((folder) => join(folder, tool))
          : [named];
      for (const candidate of candidates) {
        if (await isProgram(candidate)) return candidate;
      }
      throw missing(tool, named);
    },
  };
}

export function missing(tool: ToolName, path?: string): Failure {
  const where = path === undefined ? '' : ` at ${path}`;
  return new Failure('ToolMissing', `${tool} is not installed${where}: apt-get install ${TOOL_PACKAGES[tool]}`);
}

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
