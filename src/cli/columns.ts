import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { CRD_DIRECTORY } from '../api/crds.ts';
import { evaluate, type JsonPath, parseJsonPath } from './jsonpath.ts';
import { GROUP, type KindNames } from './kinds.ts';
import { formatAge } from './quantity.ts';
import { cell } from './table.ts';

export interface Column {
  title: string;
  date: boolean;
  /** Above 0: with `-o wide` only. */
  priority: number;
  path: JsonPath;
}

interface PrinterColumn {
  name: string;
  type: string;
  jsonPath: string;
  priority?: number;
}

const KEY = 'additionalPrinterColumns:';

/**
 * The columns of a kind, from its CRD, so that `get` looks as kubectl's does. Only that block of the file is parsed: the whole
 * takes longer than all else that `get` does.
 */
export function columnsOf({ plural }: KindNames, directory: string = CRD_DIRECTORY): Column[] {
  const lines = readFileSync(join(directory, `${GROUP}_${plural}.yaml`), 'utf8').split('\n');
  const start = lines.findIndex((line) => line.trim() === KEY);
  const indent = lines[start]?.indexOf(KEY) ?? 0;
  const after = lines.slice(start + 1);
  const end = after.findIndex((line) => line.trim() !== '' && line.search(/\S/) <= indent);
  const columns = start < 0 ? [] : (parse(after.slice(0, end < 0 ? undefined : end).join('\n')) as PrinterColumn[]);
  return columns.map(({ name, type, jsonPath, priority = 0 }) => ({
    title: name,
    date: type === 'date',
    priority,
    path: parseJsonPath(jsonPath),
  }));
}

/** What a column shows of an object. */
export function cellOf(column: Column, object: unknown, now: number): string {
  const value = evaluate(column.path, object)[0];
  if (!column.date) return cell(value);
  return typeof value === 'string' ? formatAge(now - Date.parse(value)) : '<unknown>';
}
