import { constants, copyFile, link, lstat, mkdir, readdir, rm, unlink, writeFile } from 'node:fs/promises';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { Failure } from '../../api/failure.ts';
import { LoanName, unavailable } from './protocol.ts';

/**
 * Files that a tool runner may see, while a job needs them: `in/<name>` to read and `out/<name>` to write. Each is a second name of a
 * file of the program's own (a hard link), so nothing is copied, and what a runner does to the names in `out/` changes no path that
 * the program uses. See docs/decisions/0020-a-tool-runner-with-nothing-to-steal.md.
 */
export type Side = 'in' | 'out';
const SIDES: readonly Side[] = ['in', 'out'];

/** The end of one takes its name away. */
export interface Loan extends AsyncDisposable {
  readonly name: string;
}

const placeOf = (files: string, side: Side, name: string): string => join(files, side, name);

/** Lends a file for reading: as a copy that shares its blocks where the file system has that, else under a second name. */
export async function lendIn(files: string, path: string): Promise<Loan> {
  const loan = newLoan(files, 'in');
  try {
    await copyFile(path, loan.path, constants.COPYFILE_FICLONE_FORCE);
  } catch {
    await link(path, loan.path);
  }
  return loan;
}

/** Lends a file for writing. */
export async function lendOut(files: string, path: string): Promise<Loan> {
  const loan = newLoan(files, 'out');
  await link(path, loan.path);
  return loan;
}

function newLoan(files: string, side: Side): Loan & { path: string } {
  const name = randomUUID();
  const path = placeOf(files, side, name);
  return { name, path, [Symbol.asyncDispose]: () => rm(path, { force: true }) };
}

/**
 * The runner's side: the path of a lent file.
 * @throws Failure ToolRunnerUnavailable when it is not there, InternalError when it is no plain file
 */
export async function lentFile(files: string, side: Side, name: string): Promise<string> {
  const path = placeOf(files, side, LoanName.parse(name));
  const facts = await lstat(path).catch((error: unknown) => {
    throw unavailable(
      'the tool runner does not see the file that it is lent: its --files must be the --tool-files of the controller',
      error,
    );
  });
  if (!facts.isFile())
    throw new Failure('InternalError', `the tool runner refuses ${side}/${name}: it is no plain file`);
  return path;
}

/**
 * Makes the folders, and takes away what a killed program has left in them. Called with the cache's lock held, so that no other
 * program lends there. `sample` is a file on the cache's file system.
 * @throws Failure Conflict when files of that file system cannot be lent there
 */
export async function prepareLoans(files: string, sample: string): Promise<void> {
  for (const side of SIDES) {
    const folder = join(files, side);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const left = (await readdir(folder)).filter((name) => LoanName.safeParse(name).success);
    // What cannot be unlinked is no loan of ours, and no later one has its name.
    await Promise.all(left.map((name) => unlink(join(folder, name)).catch(() => undefined)));
  }
  await writeFile(sample, '');
  try {
    await using _in = await lendIn(files, sample);
    await using _out = await lendOut(files, sample);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Failure(
      'Conflict',
      `files of the cache cannot be lent to the tool runner in ${files} (${code}): --tool-files must name a folder on the file system of the cache, and that must have hard links; without --tool-runner (in the chart: tools.separate: false) tools run in the controller itself`,
      { cause: error },
    );
  } finally {
    await rm(sample, { force: true });
  }
}
