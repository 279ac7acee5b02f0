import type { Stats } from 'node:fs';
import { access, constants, opendir, stat } from 'node:fs/promises';
import { briefly, codeOf, isAbsence } from '../stores/directory/seams.ts';
import { CommandError, EXIT } from './exit.ts';

/**
 * What there is of that name, to be read; undefined where there is nothing.
 * @param look `isListed`: whether it is asked for what is in it, where it is a folder, or only for what is named
 * @throws CommandError (failed) where one cannot look
 */
export async function lookAt(path: string, { isListed = true } = {}): Promise<Stats | undefined> {
  try {
    const facts = await stat(path);
    // Tried, not asked: access() answers for who has started the program, not for who it runs as.
    if (facts.isDirectory()) {
      if (isListed) await (await opendir(path)).close();
      await stat(`${path}/.`);
    } else await access(path, constants.R_OK);
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
