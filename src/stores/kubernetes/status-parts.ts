import { isDeepStrictEqual } from 'node:util';
import { isFields } from '../../api/admission.ts';
import type { StatusShare } from '../store.ts';

type Fields = Record<string, unknown>;

/** A part of a status that is written by one server-side apply, under one field manager. */
export interface StatusPart {
  fieldManager: string;
  fields: Fields;
  /** The same part of a status as it is. */
  of(status: Fields): Fields;
  /** A status as it is, with this part as it is wanted. */
  into(status: Fields): Fields;
}

/**
 * What all controllers together say of an object is written under one name, whoever writes it: when the duty goes from one to
 * another, what the first had applied is not taken away with its name.
 */
const SUMMARY_MANAGER = 'imageproxy-summary';

/** What is to be written of a status, rows first: a summary never speaks of rows that are not there yet. */
export function partsOf(wanted: Fields, share: StatusShare | undefined, fieldOwner: string): StatusPart[] {
  if (share === undefined) {
    return [{ fieldManager: fieldOwner, fields: wanted, of: (status) => status, into: () => wanted }];
  }
  const { rows, isOurs, rest } = share;
  const isOur = ({ name }: Fields): boolean => isOurs(String(name));
  const ours = (status: Fields): Fields => ({ [rows]: rowsOf(status, rows).filter(isOur) });
  const allElse = (status: Fields): Fields =>
    Object.fromEntries(Object.entries(status).filter(([name]) => name !== rows));
  const rowsPart: StatusPart = {
    fieldManager: fieldOwner,
    fields: ours(wanted),
    of: ours,
    into: (status) => ({
      ...status,
      [rows]: [...rowsOf(status, rows).filter((row) => !isOur(row)), ...rowsOf(wanted, rows).filter(isOur)],
    }),
  };
  const restPart: StatusPart = {
    fieldManager: SUMMARY_MANAGER,
    fields: allElse(wanted),
    of: allElse,
    into: (status) => ({ ...allElse(wanted), ...(rows in status ? { [rows]: status[rows] } : {}) }),
  };
  return rest ? [rowsPart, restPart] : [rowsPart];
}

export function isWritten({ fields, of }: StatusPart, status: Fields): boolean {
  return isDeepStrictEqual(inOrder(of(status)), inOrder(fields));
}

function rowsOf(status: Fields, rows: string): Fields[] {
  const value = status[rows];
  return Array.isArray(value) ? value.filter(isFields) : [];
}

/** Lists whose items have a name or a type are maps to the API server: it may give them back in another order. */
function inOrder(status: Fields): Fields {
  return Object.fromEntries(
    Object.entries(status).flatMap(([name, value]) => {
      if (!Array.isArray(value)) return [[name, value]];
      // An empty list is no list, once it has been through server-side apply.
      if (value.length === 0) return [];
      return [[name, value.toSorted((a, b) => keyOfItem(a).localeCompare(keyOfItem(b)))]];
    }),
  );
}

function keyOfItem(item: unknown): string {
  if (!isFields(item)) return '';
  const key = item['name'] ?? item['type'];
  return typeof key === 'string' ? key : '';
}
