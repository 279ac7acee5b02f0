import type { Logger } from 'pino';
import { IndexFile } from './catalog.ts';
import { PartRecords } from './records.ts';
import type { Site } from './site.ts';

/** A site's records and its index, the same for all that have the site open in this process: they share its lock. */
export interface Books {
  readonly records: PartRecords;
  readonly index: IndexFile;
  close(): void;
}

const opened = new Map<string, { users: number; records: PartRecords; index: IndexFile }>();

export function openBooks(site: Site, log: Logger): Books {
  let books = opened.get(site.path);
  if (books === undefined) {
    const records = new PartRecords(site, log);
    books = { users: 0, records, index: new IndexFile(site, records) };
    opened.set(site.path, books);
  }
  const shared = books;
  shared.users += 1;
  let closed = false;
  return {
    records: shared.records,
    index: shared.index,
    close() {
      if (closed) return;
      closed = true;
      shared.users -= 1;
      if (shared.users === 0) opened.delete(site.path);
    },
  };
}
