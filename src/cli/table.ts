import { clipTo, printable, widthOf } from './output.ts';

export interface TableOptions {
  /** Columns of the terminal; lines are not longer. Default: no bound. */
  columns?: number;
  indent?: string;
  /** A table without its line of titles. */
  untitled?: boolean;
  /** Widths that must not become smaller, so that rows printed later stand below those before. */
  widths?: number[];
}

const GAP = '   ';

/** A table as kubectl prints it: titles in capitals, three blanks between. Cells may be coloured, their text must be printable. */
export function renderTable(
  titles: readonly string[],
  rows: readonly (readonly string[])[],
  options: TableOptions = {},
): string[] {
  const { columns = Number.POSITIVE_INFINITY, indent = '', untitled = false, widths = [] } = options;
  const head = titles.map((title) => title.toUpperCase());
  const lines = untitled ? rows : [head, ...rows];
  head.forEach((title, i) => {
    widths[i] = Math.max(
      widths[i] ?? 0,
      ...(untitled ? [] : [title.length]),
      ...rows.map((row) => widthOf(row[i] ?? '')),
    );
  });
  return lines.map((cells) => {
    const padded = cells.map((cell, i) => cell + ' '.repeat(Math.max(0, (widths[i] ?? 0) - widthOf(cell))));
    return clipTo((indent + padded.join(GAP)).replace(/ +$/, ''), columns);
  });
}

/** A cell's text from anything that a status may hold; kubectl shows absence as nothing in columns of CRDs. */
export function cell(value: unknown): string {
  if (value === undefined || value === null) return '';
  if (typeof value === 'string') return printable(value);
  return printable(JSON.stringify(value) ?? '');
}
