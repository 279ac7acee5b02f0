import { constants } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { loadSchemas } from '../api/schema.ts';
import { type ParsedManifest, parseManifest, type Problem } from '../stores/directory/manifest.ts';
import { listManifests } from '../stores/directory/scan.ts';
import { isAbsence } from '../stores/directory/seams.ts';
import { CommandError, EXIT } from './exit.ts';

/** As the directory store bounds a file. */
const MAX_BYTES = 4 * 1024 * 1024;

/**
 * The manifest files that a path names: itself, or those below a folder, as `run` finds them and in the order in which they count;
 * and what could not be looked at.
 * @throws CommandError (not found)
 */
export async function manifestFiles(path: string): Promise<{ files: string[]; problems: Problem[] }> {
  const isFolder = await stat(path).then(
    (facts) => facts.isDirectory(),
    (error: unknown) => {
      if (isAbsence(error)) throw new CommandError(EXIT.notFound, `there is no file or folder ${path}`);
      // Why it cannot be read is told where it is.
      return false;
    },
  );
  return isFolder ? listManifests(path) : { files: [path], problems: [] };
}

/**
 * One manifest file, judged by the schemas of the CRDs. A file that cannot be read is a problem of its own. `home` is the namespace
 * of what names none, `default` unless told otherwise.
 */
export async function readManifest(path: string, home?: string): Promise<ParsedManifest> {
  const schemas = loadSchemas();
  let text: string;
  let exposed: boolean;
  try {
    ({ text, exposed } = await readText(path));
  } catch (error) {
    const message = `cannot be read: ${(error as Error).message.replace(/, \w+ '.*$/s, '')}`;
    const problem: Problem = { file: path, document: 0, line: 0, field: '', message, severity: 'error' };
    return { objects: [], refused: [], uncertain: true, problems: [problem] };
  }
  const parsed = await parseManifest(path, text, (kind, input, old) => schemas.validate(kind, input, old), home);
  const secrets = exposed ? parsed.objects.filter(({ kind }) => kind === 'Secret') : [];
  const exposures = secrets.map(
    ({ key, document, line }): Problem => ({
      file: path,
      document,
      line,
      field: '',
      severity: 'error',
      message: `Secret ${key.namespace}/${key.name} is not used, because others can read or change its file: chmod 600 ${path}`,
    }),
  );
  return { ...parsed, problems: [...parsed.problems, ...exposures] };
}

async function readText(path: string): Promise<{ text: string; exposed: boolean }> {
  // Non-blocking: a FIFO must not hang the command.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const facts = await file.stat();
    if (facts.isDirectory()) throw new Error('it is a folder');
    if (facts.size > MAX_BYTES) throw new Error(`it has ${facts.size} bytes, ${MAX_BYTES} is the most: split it`);
    const bytes = await file.readFile();
    let text: string;
    try {
      text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch {
      throw new Error('it is not UTF-8 text');
    }
    return { text, exposed: (facts.mode & 0o066) !== 0 };
  } finally {
    await file.close();
  }
}
