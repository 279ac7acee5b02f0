import { locationProblem } from './schema.ts';
import { plain } from './text.ts';

/**
 * A file that a list names by its path, as a URL below the list's root. Nothing else may come out: with `../` or a host of its own a
 * list could have documents of other servers read in its name, or credentials sent there.
 * @param root a URL whose path ends with a slash
 * @returns the URL, or what is wrong with the path
 */
export function below(root: string, path: string): { url: string } | { problem: string } {
  const segments = path.replace(/^(?:\.\/)+/, '').split('/');
  // A backslash is a slash to the WHATWG parser, %2e a dot.
  if (/[\\\p{C}]/u.test(path) || segments.some((part) => /^(?:\.|%2e)*$/i.test(part))) {
    return { problem: `${quotedPath(path)} is not the path of a file below the list's folder` };
  }
  const base = new URL(root);
  const url = new URL(`./${segments.map(escape).join('/')}`, base);
  if (url.origin !== base.origin || !url.pathname.startsWith(base.pathname)) {
    return { problem: `${quotedPath(path)} leads out of the list's folder` };
  }
  const problem = locationProblem(url.href);
  return problem === undefined ? { url: url.href } : { problem: `${quotedPath(path)} ${problem}` };
}

/** The folder in which a document is, without credentials, query and fragment. */
export function folderOf(url: string): string {
  const folder = new URL('.', url);
  folder.username = '';
  folder.password = '';
  return folder.href;
}

/** A path may be escaped already, or not at all: what is an escape stays one. */
function escape(segment: string): string {
  return encodeURI(segment)
    .replaceAll(/%25(?=[0-9a-f]{2})/gi, '%')
    .replaceAll('?', '%3F')
    .replaceAll('#', '%23');
}

function quotedPath(path: string): string {
  return `"${plain(path, 120)}"`;
}
