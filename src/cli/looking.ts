import type { Stats } from 'node:fs';
import { access, constants, stat } from 'node:fs/promises';
import { briefly, codeOf, isAbsence } from '../stores/directory/seams.ts';
import { CommandError, EXIT } from './exit.ts';

/** What there is of that name, to be read; undefined where there is nothing. @throws CommandError (failed) where one cannot look */
export async function lookAt(path: string): Promise<Stats | undefined> {
  try {
    const facts = await stat(path);
    await access(path, facts.isDirectory() ? constants.R_OK | constants.X_OK : constants.R_OK);
    return facts;
  } catch (error) {
    if (isAbsence(error)) return undefined;
    const closed = codeOf(error) === 'EACCES' || codeOf(error) === 'EPERM';
    throw new CommandError(
      EXIT.failed,
      closed
        ? `${path} may not be read by this user: run it as its owner`
        : `${path} cannot be read: ${briefly(error)}`,
    );
  }
}
