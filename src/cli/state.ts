import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { readState, type StateReader } from '../stores/directory/reader.ts';
import { CommandError, EXIT } from './exit.ts';
import { lookAt } from './looking.ts';

/** Options of every command that looks into a state directory. */
export interface StateOptions {
  state?: string | undefined;
}

/** `--state`, else IMAGEPROXY_STATE, else `imageproxy` in XDG_STATE_HOME or ~/.local/state. */
export function stateDirectory({ state }: StateOptions, env: NodeJS.ProcessEnv): string {
  const chosen = state ?? env['IMAGEPROXY_STATE'];
  if (chosen !== undefined && chosen !== '') return resolve(chosen);
  const xdg = env['XDG_STATE_HOME'];
  // A relative one is to be taken as none (XDG Base Directory Specification).
  return join(xdg?.startsWith('/') === true ? xdg : join(homedir(), '.local', 'state'), 'imageproxy');
}

/** `--manifests`, else IMAGEPROXY_MANIFESTS, else none. */
export function manifestsDirectory(given: string | undefined, env: NodeJS.ProcessEnv): string | undefined {
  const chosen = given ?? env['IMAGEPROXY_MANIFESTS'];
  return chosen === undefined || chosen === '' ? undefined : resolve(chosen);
}

/** @throws CommandError (not found) where there is no state yet, unless it may be new; (failed) where this user may not look into it */
export async function openReader(state: string, mayBeNew = false): Promise<StateReader> {
  const facts = await lookAt(join(state, 'objects'));
  if (facts?.isDirectory() !== true && !mayBeNew) {
    throw new CommandError(
      EXIT.notFound,
      `there is no state in ${state}: start "imageproxy run" or "imageproxy register", name the right folder with --state, or a cluster with --kubernetes`,
    );
  }
  return readState(state);
}
