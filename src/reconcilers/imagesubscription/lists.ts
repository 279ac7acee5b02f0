import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Failure } from '../../api/failure.ts';
import type { EntryAttention } from '../../api/types.ts';
import { type KeptEntries, type KeptList, readEntries, readKept, type SizedEntries } from '../../catalogs/kept.ts';
import type { Summary } from './summary.ts';

/** Entries of all lists together that are held in memory. Others are read from the disk when they are needed. */
const MAX_ENTRIES = 200_000;
/** Their texts together: an entry is about 1 KiB, and up to half a MiB where somebody means harm. */
const MAX_CHARACTERS = 256 * 1024 * 1024;

/** What is known of a subscription between two looks; lost with the process, and found again without harm. */
export interface Memory {
  /** What the last reading was done with; another one is a reason to read again. */
  inputs?: string;
  /** The kept list has to be read or judged anew before anything is made of it. */
  doubtful?: boolean;
  /** What was asked for last, and its back-offs were ended; the reading that it asks for may not have ended yet. */
  heard?: string;
  /** What had been asked for last when the reading that runs began, or ran last. */
  readFor?: string;
  /**
   * The same for the last reading of which the outcome is written: one that ran already may have been to the origin before him who asks.
   */
  answered?: string;
  /** Not before this date, in milliseconds since the epoch: those that were all overdue at a start do not go at once. */
  spreadUntil?: number;
  /** What the images were last compared with, and what came of it. */
  followed?: { ticket: string; summary: Summary };
  /** A selection that cannot be evaluated, of which spec and entries, and why. */
  unanswered?: { question: string; failure: Failure };
  /** Writes that a store has refused for good, and how that is told. */
  refused?: Map<string, EntryAttention>;
  /** When a deletion tries them again, in milliseconds since the epoch. */
  retryAt?: number;
}

/** The accepted lists of this process, by the uids of their subscriptions; each in a folder of the state. */
export class KeptLists {
  readonly #root: string;
  readonly #maxEntries: number;
  readonly #heads = new Map<string, KeptList | undefined>();
  readonly #maxCharacters: number;
  readonly #entries = new Map<string, { revision: string; kept: SizedEntries }>();
  readonly #memories = new Map<string, Memory>();
  #doubted = false;

  constructor(root: string, maxEntries = MAX_ENTRIES, maxCharacters = MAX_CHARACTERS) {
    this.#root = root;
    this.#maxEntries = maxEntries;
    this.#maxCharacters = maxCharacters;
  }

  folder(uid: string): string {
    return join(this.#root, uid.replaceAll(/[^-0-9A-Za-z]/g, '_'));
  }

  memory(uid: string): Memory {
    let memory = this.#memories.get(uid);
    if (memory === undefined) this.#memories.set(uid, (memory = this.#doubted ? { doubtful: true } : {}));
    return memory;
  }

  /** Somebody else may have followed the lists meanwhile: what is remembered of them, and whom they are signed by, is the past. */
  doubt(): void {
    this.#doubted = true;
    for (const uid of this.#memories.keys()) this.#memories.set(uid, { doubtful: true });
  }

  async head(uid: string): Promise<KeptList | undefined> {
    if (!this.#heads.has(uid)) this.#heads.set(uid, await readKept(this.folder(uid)));
    return this.#heads.get(uid);
  }

  /** What a reading has left in the folder. */
  set(uid: string, kept: KeptList | undefined): void {
    this.#heads.set(uid, kept);
  }

  /** Undefined when they are lost, or damaged: the list has to be read again. */
  async entries(uid: string): Promise<KeptEntries | undefined> {
    const head = await this.head(uid);
    if (head === undefined) return undefined;
    const known = this.#entries.get(uid);
    this.#entries.delete(uid);
    const kept = known?.revision === head.revision ? known.kept : await readEntries(this.folder(uid), head);
    if (kept === undefined) {
      this.#heads.set(uid, undefined);
      return undefined;
    }
    this.#entries.set(uid, { revision: head.revision, kept });
    this.#bound(uid);
    return kept;
  }

  async forget(uid: string): Promise<void> {
    this.#heads.delete(uid);
    this.#entries.delete(uid);
    this.#memories.delete(uid);
    await rm(this.folder(uid), { recursive: true, force: true });
  }

  /** The least recently used go first; the one at hand stays. */
  #bound(current: string): void {
    let [count, characters] = [0, 0];
    for (const { kept } of this.#entries.values()) {
      count += kept.entries.length;
      characters += kept.characters;
    }
    for (const [uid, { kept }] of this.#entries) {
      if ((count <= this.#maxEntries && characters <= this.#maxCharacters) || uid === current) continue;
      this.#entries.delete(uid);
      count -= kept.entries.length;
      characters -= kept.characters;
    }
  }
}
