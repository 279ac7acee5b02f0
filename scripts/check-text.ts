/**
 * Cheap checks of what no compiler reads: links between pages resolve, nothing is left to be done later, no trailing spaces.
 * `node scripts/check-text.ts` prints what is wrong.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

const root = join(import.meta.dirname, '..');
const TEXT = /(?:^|\/)(?:Makefile|Dockerfile|run|imageproxy)$|\.(?:ts|md|sh|ya?ml|json|txt|tpl)$/;
const NOT_OURS = /^(?:test\/fixtures\/|package-lock\.json$|LICENSE$|src\/api\/generated\.ts$)/;
/** Written apart, so that this file does not find itself. */
const LATER = /\b(?:TO[D]O|FIX[M]E|XX[X])\b/;
const LINK = /\[[^\]\n]*\]\((?<target>[^()\s]+)(?:\s+"[^"]*")?\)/g;

/** GitHub's anchor of a heading. */
function anchorOf(heading: string): string {
  return heading
    .trim()
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(/\s/g, '-');
}

function anchorsOf(page: string): Set<string> {
  return new Set(Array.from(withoutCode(page).matchAll(/^#+\s+(.*)$/gm), (match) => anchorOf(match[1] ?? '')));
}

/** Links in code blocks are examples; blank lines take their place, so that line numbers stay. */
function withoutCode(page: string): string {
  return page.replaceAll(/^```[^]*?^```/gm, (block) => '\n'.repeat(block.split('\n').length - 1));
}

function brokenLinks(file: string, page: string): string[] {
  const problems: string[] = [];
  for (const match of withoutCode(page).matchAll(LINK)) {
    const target = match.groups?.['target'] ?? '';
    if (/^[a-z][a-z+.-]*:/i.test(target)) continue;
    const [path = '', anchor] = target.split('#');
    const resolved = path === '' ? file : normalize(join(dirname(file), decodeURIComponent(path)));
    const line = withoutCode(page).slice(0, match.index).split('\n').length;
    if (!existsSync(join(root, resolved))) problems.push(`${file}:${line}: no such page: ${target}`);
    else if (
      anchor !== undefined &&
      resolved.endsWith('.md') &&
      !anchorsOf(readFileSync(join(root, resolved), 'utf8')).has(anchor)
    ) {
      problems.push(`${file}:${line}: ${resolved} has no heading for #${anchor}`);
    }
  }
  return problems;
}

function problemsOf(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  const problems: string[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    if (/[ \t]+$/.test(line)) problems.push(`${file}:${index + 1}: trailing space`);
    if (LATER.test(line)) problems.push(`${file}:${index + 1}: left for later: do it, or open an issue`);
  }
  if (text !== '' && !text.endsWith('\n')) problems.push(`${file}: no line break at the end`);
  if (file.endsWith('.md')) problems.push(...brokenLinks(file, text));
  return problems;
}

// What git would commit: an unpacked archive of the sources has no git, and no need of this check.
const files = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\0')
  .filter((file) => TEXT.test(file) && !NOT_OURS.test(file) && existsSync(join(root, file)));
const problems = files.flatMap(problemsOf);
for (const problem of problems) console.log(problem);
process.exitCode = problems.length === 0 ? 0 : 1;
