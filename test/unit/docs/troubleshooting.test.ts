import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { REASONS } from '../../../src/api/failure.ts';

const ROOT = join(import.meta.dirname, '../../..');
const PAGE = readFileSync(join(ROOT, 'docs/troubleshooting.md'), 'utf8');

interface Row {
  reason: string;
  cells: string[];
}

/** Rows whose first cell is one reason in code; a heading names the class above them. */
function rowsOf(page: string): Row[] {
  return page.split('\n').flatMap((line) => {
    const cells = line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
    const reason = /^`(\w+)`$/.exec(cells[0] ?? '')?.[1];
    return reason === undefined ? [] : [{ reason, cells }];
  });
}

function sectionOf(reason: string): string | undefined {
  const at = PAGE.split('\n').findIndex((line) => line.startsWith(`| \`${reason}\` |`));
  return PAGE.split('\n')
    .slice(0, at)
    .findLast((line) => line.startsWith('## '));
}

/** Reasons that reconcilers write by name: `tell(row, phase, 'Reason'`, `note(round, type, 'Reason'`, `wait('Reason'`, … */
function writtenReasons(): string[] {
  const calls = [
    /\btell\(\s*[\w.]+,\s*[^,'`]*(?:'\w+')?[^,'`]*(?:'\w+')?\)?,\s*'(?<reason>[A-Z]\w+)'/g,
    /\bnote\(\s*[\w.]+,\s*'\w+',\s*'(?<reason>[A-Z]\w+)'/g,
    /\bwait\(\s*'(?<reason>[A-Z]\w+)'/g,
    /#(?:ready|stalled)\((?:true,|false,)?\s*'(?<reason>[A-Z]\w+)'/g,
    /\breason: '(?<reason>[A-Z]\w+)'/g,
  ];
  const sources = globSync('src/reconcilers/**/*.ts', { cwd: ROOT }).map((file) =>
    readFileSync(join(ROOT, file), 'utf8'),
  );
  const found = sources.flatMap((source) =>
    calls.flatMap((call) => Array.from(source.matchAll(call), (match) => match.groups?.['reason'] ?? '')),
  );
  return [...new Set(found)].sort();
}

describe('the troubleshooting page', () => {
  const rows = rowsOf(PAGE);

  it.each(Object.keys(REASONS))('says what to do about %s', (reason) => {
    const row = rows.find((each) => each.reason === reason);
    expect(row, `docs/troubleshooting.md has no row for ${reason}`).toBeDefined();
    expect(row?.cells).toHaveLength(3);
    expect(row?.cells.every((cell) => cell !== '')).toBe(true);
  });

  it.each(Object.entries(REASONS))('has %s among the reasons of class %s', (reason, failureClass) => {
    expect(sectionOf(reason)).toContain(failureClass);
  });

  it('has the reasons that reconcilers write beside the failures', () => {
    const written = writtenReasons();
    // One of each way of writing: if the sources change their words, the search must change with them.
    expect(written).toEqual(
      expect.arrayContaining(['LossLimit', 'Registered', 'SiteNotFound', 'Probed', 'DeletionHeld']),
    );
    expect(written.filter((reason) => !rows.some((row) => row.reason === reason))).toEqual([]);
  });

  it('names each reason once', () => {
    const names = rows.map(({ reason }) => reason);
    expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
  });
});
