import { readFile, realpath } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { makerMarks } from '../../api/maker.ts';
import { AbsenceLedger, APART_MS } from './absence.ts';
import { intentOf, transitionFaults, withIntent } from './change.ts';
import { inParallel } from './concurrency.ts';
import type { Disk } from './disk.ts';
import { idOf, isStoredKind, nameOf, type Validate } from './kinds.ts';
import { lineOfField, type ManifestObject, type Problem } from './manifest.ts';
import type { ObjectRecord } from './records.ts';
import { isUnread, type ScanResult } from './scan.ts';
import { isMapping, type Log, type Now } from './seams.ts';
import { readJson } from './state.ts';
import type { ObjectTable } from './table.ts';

const WRITES_AT_ONCE = 32;

export interface MergerOptions {
  root: string;
  state: string;
  disk: Disk;
  table: ObjectTable;
  validate: Validate;
  now: Now;
  log: Log;
}

/** Carries what the manifests say into the table: new and changed objects at once, absent ones with the caution that the ledger has. */
export class Merger {
  readonly #options: MergerOptions;
  readonly #ledger = new AbsenceLedger();
  /** What was taken over, so that a scan costs nothing for an object that is as it was. */
  readonly #merged = new Map<string, ManifestObject>();
  /** Manifests that the object as it is does not admit, for as long as both are the same. */
  readonly #rejected = new Map<
    string,
    { manifest: ManifestObject; uid: string; generation: number; problems: Problem[] }
  >();
  /** Number of the scan during which an object was removed: that scan may have read its manifest before. */
  readonly #removedIn = new Map<string, number>();
  /** Since when another file says of an object something else than its own, which is gone: milliseconds. */
  readonly #steppingIn = new Map<string, number>();
  /** Of this scan: manifests that wait for another file, which cannot be read. Kept for no longer, because that file may be removed. */
  #waiting: Problem[] = [];
  #scan = 0;
  #present: ReadonlySet<string> = new Set();
  /** Folder that the objects were last read from. */
  #home: string | undefined;
  /** Ids of what another folder has brought since: that it is there does not say that the folder is the right one. */
  #newcomers: ReadonlySet<string> = new Set();

  constructor(options: MergerOptions) {
    this.#options = options;
  }

  async open(): Promise<void> {
    const kept = await readJson(join(this.#options.state, 'manifests.json'));
    if (!isMapping(kept)) return;
    if (typeof kept.home === 'string') this.#home = kept.home;
    if (Array.isArray(kept.newcomers)) this.#newcomers = new Set(kept.newcomers.map(String));
  }

  /** To be called before a scan begins to read. */
  begin(): void {
    this.#scan++;
    for (const [id, scan] of this.#removedIn) if (scan < this.#scan - 1) this.#removedIn.delete(id);
  }

  removed(id: string): void {
    this.#removedIn.set(id, this.#scan);
    this.#merged.delete(id);
  }

  /** Returns what else is wrong with the manifests, and the objects that are to be deleted now. */
  async merge(
    scan: ScanResult,
    startedAt: number,
  ): Promise<{ problems: Problem[]; due: ObjectRecord[]; again: boolean }> {
    let again = false;
    this.#present = scan.present;
    this.#waiting = [];
    const home = await this.#homeOf(scan);
    await this.#meet(home, scan);
    await inParallel(scan.objects, WRITES_AT_ONCE, async ([id, manifest]) => {
      if (!isStoredKind(manifest.kind)) return;
      if (this.#merged.get(id) === manifest) return;
      if (await this.#take(id, manifest, scan, startedAt)) again = true;
    });
    for (const id of this.#rejected.keys()) if (!scan.objects.has(id)) this.#rejected.delete(id);
    for (const id of this.#steppingIn.keys()) if (!scan.objects.has(id)) this.#steppingIn.delete(id);
    const problems = [...this.#rejected.values()].flatMap(({ problems }) => problems).concat(this.#waiting);
    const due = await this.#absent(scan, home, startedAt);
    const { held } = this.#ledger;
    if (held !== undefined) problems.push(this.#heldProblem(held));
    return { problems, due, again };
  }

  nextLookMs(now: number): number | undefined {
    return this.#ledger.nextLookMs(now);
  }

  /** Whether the last scan found it. */
  isPresent(id: string): boolean {
    return this.#present.has(id);
  }

  /** Whether deletions wait for a person. */
  get isHolding(): boolean {
    return this.#ledger.held !== undefined;
  }

  confirm(): string[] {
    return this.#ledger.confirm();
  }

  /** Returns whether it has to be read again: the object was removed since this scan began. */
  async #take(id: string, manifest: ManifestObject, scan: ScanResult, at: number): Promise<boolean> {
    const { table, validate, now } = this.#options;
    const intent = intentOf(manifest);
    let faults: { field: string; message: string }[] = [];
    let early = false;
    let held: Problem | undefined;
    let wasRemoved = false;
    const record = await table.change(manifest.kind, manifest.key, (record) => {
      // Asked here, behind all that is being done with the object: a removal among that is over by now.
      wasRemoved = this.#removedIn.get(id) === this.#scan;
      if (wasRemoved) return { type: 'Unchanged' };
      const outcome = withIntent(record, intent, now());
      if (record === undefined || outcome.type === 'Unchanged') return outcome;
      held = heldByAnotherFile(record, manifest, scan);
      early = held === undefined && outcome.type === 'Write' && this.#isEarly(id, record, manifest, at);
      if (early || held !== undefined) return { type: 'Unchanged' };
      const known = this.#rejected.get(id);
      const { uid, generation } = record.object.metadata;
      if (known?.manifest === manifest && known.uid === uid && known.generation === generation) {
        faults = known.problems;
        return { type: 'Unchanged' };
      }
      const owned = ownedByAnother(record);
      faults =
        owned === undefined
          ? transitionFaults(record, intent.draft, validate).map(({ path, message }) => ({ field: path, message }))
          : [owned];
      return faults.length === 0 ? outcome : { type: 'Unchanged' };
    });
    if (wasRemoved) return true;
    if (early) return false;
    this.#steppingIn.delete(id);
    if (held !== undefined) {
      this.#rejected.delete(id);
      this.#waiting.push(held);
      return false;
    }
    if (faults.length === 0) {
      this.#rejected.delete(id);
      this.#merged.set(id, manifest);
      return false;
    }
    if (record === undefined || this.#rejected.get(id)?.problems === faults) return false;
    const { uid, generation } = record.object.metadata;
    this.#rejected.set(id, { manifest, uid, generation, problems: await withLines(manifest, faults) });
    return false;
  }

  /** A file that is gone may come back, as in the ledger: a later one that says something else steps in at the second look. */
  #isEarly(id: string, record: ObjectRecord, manifest: ManifestObject, at: number): boolean {
    if (earlierFileOf(record, manifest) === undefined) return false;
    const since = this.#steppingIn.get(id);
    if (since === undefined) this.#steppingIn.set(id, at);
    return since === undefined || at - since < APART_MS;
  }

  async #absent(scan: ScanResult, home: string | undefined, at: number): Promise<ObjectRecord[]> {
    const { table, log } = this.#options;
    const expected = [...table.records()].filter(
      ({ origin, object }) => origin === 'manifest' && object.metadata.deletionTimestamp === undefined,
    );
    const absent = new Map<string, ObjectRecord>();
    for (const record of expected) {
      const id = idOf(record.object.kind, record.object);
      if (scan.present.has(id) || (record.file !== undefined && scan.uncertainFiles.has(record.file))) continue;
      absent.set(id, record);
    }
    const elsewhere = this.#isElsewhere(home, expected, absent);
    const due = this.#ledger.observe({
      at,
      clean: scan.clean,
      absent: [...absent.keys()],
      total: expected.length,
      elsewhere,
    });
    const isSettled = home === this.#home && this.#newcomers.size === 0;
    if (home !== undefined && !isSettled && scan.clean && !elsewhere && expected.length > 0) await this.#keep(home, []);
    return due.flatMap((id) => {
      const record = absent.get(id);
      if (record === undefined) return [];
      this.#merged.delete(id);
      log.info({ object: id }, 'it is no longer in the manifests, and is deleted');
      return [record];
    });
  }

  /** A volume that is not mounted shows another, mostly empty folder; a wrong `--manifests` one with other objects. */
  #isElsewhere(home: string | undefined, expected: ObjectRecord[], absent: Map<string, ObjectRecord>): boolean {
    const noneOf = (records: ObjectRecord[]): boolean =>
      records.length > 0 && records.every(({ object }) => absent.has(idOf(object.kind, object)));
    const strays = expected.filter(({ file }) => file !== undefined && !file.startsWith(this.#options.root + sep));
    const known = expected.filter(({ object }) => !this.#newcomers.has(idOf(object.kind, object)));
    return noneOf(strays) || (this.#home !== undefined && home !== this.#home && noneOf(known));
  }

  async #homeOf({ root: identity }: ScanResult): Promise<string | undefined> {
    const { root } = this.#options;
    return identity === undefined ? undefined : `${await realpath(root).catch(() => root)}:${identity}`;
  }

  /** Before they are made: after a kill they would count as known. */
  async #meet(home: string | undefined, { objects }: ScanResult): Promise<void> {
    if (home === undefined || this.#home === undefined || home === this.#home) return;
    const { table } = this.#options;
    const met = [...objects].flatMap(([id, { kind, key }]) =>
      isStoredKind(kind) && table.get(kind, key)?.origin !== 'manifest' && !this.#newcomers.has(id) ? [id] : [],
    );
    if (met.length > 0) await this.#keep(this.#home, [...this.#newcomers, ...met]);
  }

  async #keep(home: string, newcomers: string[]): Promise<void> {
    const { state, disk } = this.#options;
    const kept = { home, ...(newcomers.length === 0 ? {} : { newcomers }) };
    await disk.replace(join(state, 'manifests.json'), `${JSON.stringify(kept)}\n`, true);
    this.#home = home;
    this.#newcomers = new Set(newcomers);
  }

  #heldProblem({ count, total, elsewhere }: { count: number; total: number; elsewhere: boolean }): Problem {
    const what = elsewhere
      ? `this is another folder than before (another path, or a volume that is not mounted), and ${count} of ${total} objects are not in it`
      : `${count} of ${total} objects are gone at once`;
    const message = `${what}; nothing of them is deleted: put the manifests back, or run "imageproxy confirm-deletions"`;
    return { file: this.#options.root, document: 0, line: 0, field: '', message, severity: 'error', held: true };
  }
}

/** An object that a subscription keeps up to date is not taken away from it by a manifest of the same name. */
function ownedByAnother(record: ObjectRecord): { field: string; message: string } | undefined {
  if (record.origin === 'manifest') return undefined;
  const maker = makerMarks(record.object.metadata);
  if (maker === undefined) return undefined;
  const { kind, metadata } = record.object;
  return {
    field: 'metadata.name',
    message: `${nameOf(kind, metadata)} is made by ImageSubscription ${maker.name}: choose another name`,
  };
}

/** The file that the object was read from, where that comes before this manifest's: of two files the first counts. */
function earlierFileOf({ origin, file }: ObjectRecord, manifest: ManifestObject): string | undefined {
  return origin === 'manifest' && file !== undefined && file < manifest.file ? file : undefined;
}

/** Where the file that counts cannot be read just now, its last good state stays, and a second one does not step in. */
function heldByAnotherFile(record: ObjectRecord, manifest: ManifestObject, scan: ScanResult): Problem | undefined {
  const earlier = earlierFileOf(record, manifest);
  if (earlier === undefined || !isUnread(earlier, scan)) return undefined;
  const { kind, key, file, document, line } = manifest;
  const object = nameOf(kind, key);
  const message = `${object} was in ${earlier}, which cannot be read: repair or remove that one`;
  return { file, document, line, field: '', message, severity: 'error', object };
}

async function withLines(manifest: ManifestObject, faults: { field: string; message: string }[]): Promise<Problem[]> {
  const { kind, key, file, document } = manifest;
  const object = nameOf(kind, key);
  const text = await readFile(file, 'utf8').catch(() => undefined);
  const problems: Problem[] = [];
  for (const { field, message } of faults) {
    const line = text === undefined ? manifest.line : await lineOfField(manifest, text, field);
    problems.push({ file, document, line, field, message, severity: 'error', object });
  }
  return problems;
}
