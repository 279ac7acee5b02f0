import { join } from 'node:path';
import type { EventNote, Resource } from '../store.ts';
import { Serial } from './concurrency.ts';
import type { Disk } from './disk.ts';
import { idOf } from './kinds.ts';
import { recordFile } from './records.ts';
import { isMapping, type Log, type Now, timestamp } from './seams.ts';
import { readJson } from './state.ts';

export interface RecordedEvent extends EventNote {
  count: number;
  firstSeen: string;
  lastSeen: string;
}

const PER_OBJECT = 50;
const MAX_MESSAGE = 1024;
/** As client-go's spam filter: so many different ones at once, then one in five minutes. */
const BURST = 25;
const REFILL_MS = 300_000;
/** Objects whose events are kept in memory; the files have the rest. */
const OBJECTS_IN_MEMORY = 500;

interface Journal {
  uid: string;
  events: RecordedEvent[];
  tokens: number;
  refilledAt: number;
}

export interface EventsOptions {
  state: string;
  disk: Disk;
  now: Now;
  log: Log;
  /** Whether this very object is still in the store: an event on a gone one is only logged. */
  exists(object: Resource): boolean;
}

/** Events of objects: logged, and kept in `state/events` for `imageproxy describe`. They are worth no fsync. */
export class EventRecorder {
  readonly #options: EventsOptions;
  readonly #journals = new Map<string, Journal>();
  readonly #serial = new Serial();

  constructor(options: EventsOptions) {
    this.#options = options;
  }

  record(object: Resource, note: EventNote): void {
    const id = idOf(object.kind, object);
    const at = this.#options.now();
    void this.#serial
      .run(id, () => this.#record(id, object, note, at))
      .catch((error: unknown) => {
        this.#options.log.warn({ object: id, err: error }, 'an event could not be kept');
      });
  }

  idle(): Promise<void> {
    return this.#serial.idle();
  }

  async #record(id: string, object: Resource, { type, reason, message: full }: EventNote, ms: number): Promise<void> {
    const { state, disk, log, exists } = this.#options;
    const message = full.slice(0, MAX_MESSAGE);
    const journal = await this.#journal(id, object, ms);
    const at = timestamp(ms);
    const known = journal.events.find(
      (event) => event.type === type && event.reason === reason && event.message === message,
    );
    if (known !== undefined) {
      known.count++;
      known.lastSeen = at;
      log.debug({ object: id, reason, count: known.count }, message);
    } else {
      if (!spend(journal, ms)) return;
      journal.events.push({ type, reason, message, count: 1, firstSeen: at, lastSeen: at });
      log[type === 'Warning' ? 'warn' : 'info']({ object: id, reason }, message);
      if (journal.events.length > PER_OBJECT) {
        const oldest = journal.events.reduce((a, b) => (b.lastSeen < a.lastSeen ? b : a));
        journal.events.splice(journal.events.indexOf(oldest), 1);
      }
    }
    if (!exists(object)) {
      this.#journals.delete(id);
      return;
    }
    const path = join(state, 'events', recordFile(object.kind, object.metadata));
    await disk.replace(path, `${JSON.stringify({ uid: journal.uid, events: journal.events })}\n`, false);
    // It may have gone meanwhile, and its file with it.
    if (!exists(object)) await disk.remove(path, false);
  }

  async #journal(id: string, object: Resource, now: number): Promise<Journal> {
    const { uid } = object.metadata;
    let journal = this.#journals.get(id);
    this.#journals.delete(id);
    if (journal === undefined || journal.uid !== uid) {
      const path = join(this.#options.state, 'events', recordFile(object.kind, object.metadata));
      journal = {
        uid,
        events: decodeEvents(await readJson(path), uid),
        tokens: BURST,
        refilledAt: now,
      };
    }
    // The map's order is that of use.
    this.#journals.set(id, journal);
    if (this.#journals.size > OBJECTS_IN_MEMORY) {
      const [oldest] = this.#journals.keys();
      if (oldest !== undefined) this.#journals.delete(oldest);
    }
    return journal;
  }
}

function spend(journal: Journal, now: number): boolean {
  const refill = Math.floor((now - journal.refilledAt) / REFILL_MS);
  if (refill > 0) {
    journal.tokens = Math.min(BURST, journal.tokens + refill);
    journal.refilledAt += refill * REFILL_MS;
  }
  if (journal.tokens === 0) return false;
  journal.tokens--;
  return true;
}

/** The events in a file, if they are of this object; none when the file is torn. */
export function decodeEvents(value: unknown, uid: string): RecordedEvent[] {
  if (!isMapping(value) || value.uid !== uid || !Array.isArray(value.events)) return [];
  return value.events.filter(
    (event: unknown): event is RecordedEvent =>
      isMapping(event) &&
      typeof event.reason === 'string' &&
      typeof event.message === 'string' &&
      typeof event.count === 'number' &&
      typeof event.firstSeen === 'string' &&
      typeof event.lastSeen === 'string',
  );
}
