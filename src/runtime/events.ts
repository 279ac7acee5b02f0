import { createHash } from 'node:crypto';
import { type EventNote, keyOf, type Resource } from '../stores/store.ts';
import type { Clock } from './clock.ts';

/** `events.k8s.io/v1` Event, as far as it is written here. */
export interface KubernetesEvent {
  apiVersion: 'events.k8s.io/v1';
  kind: 'Event';
  metadata: { name: string; namespace: string };
  regarding: {
    apiVersion: string;
    kind: string;
    name: string;
    namespace?: string;
    uid: string;
    resourceVersion: string;
  };
  type: EventNote['type'];
  reason: string;
  note: string;
  action: string;
  reportingController: string;
  reportingInstance: string;
  /** MicroTime. */
  eventTime: string;
}

export interface EventSeries {
  count: number;
  /** MicroTime. */
  lastObservedTime: string;
}

/** The two requests of a recorder. */
export interface EventSink {
  create(event: KubernetesEvent): Promise<void>;
  /** Resolves to false when the event is there no more: the API server forgets events after an hour. */
  count(namespace: string, name: string, series: EventSeries): Promise<boolean>;
}

export interface EventRecorderOptions {
  sink: EventSink;
  /** `imageproxy.dev/controller`. */
  controller: string;
  /** Which of them: the pod's name. */
  instance: string;
  clock: Clock;
  log: EventLog;
}

interface EventLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

interface Known {
  event: KubernetesEvent;
  count: number;
  lastSeen: number;
  /** What the server has been told: the count, and when. */
  written: number;
  writtenAt: number;
  flush: (() => void) | undefined;
}

/** As client-go's spam filter: so many different ones at once for an object, then one in five minutes. */
const BURST = 25;
const REFILL_MS = 300_000;
/** client-go's: an event that comes again later begins a new series. */
const SERIES_MS = 6 * 60_000;
/** A count is brought up to date this often, not at every repetition. */
const COUNT_EVERY_MS = 60_000;
/** Limits of events.k8s.io/v1's validation, in bytes. */
const LONGEST_NOTE = 1024;
const LONGEST_REASON = 128;
const MOST_EVENTS = 2048;
const MOST_OBJECTS = 2048;
/** Requests under way or waiting; an event more is worth less than the memory. */
const MOST_PENDING = 500;

/**
 * Tells users what happens to an object, through the Events API: the same words again are counted in a series, different ones are
 * bounded by object. Events are a courtesy: one that cannot be written is logged and dropped, and nobody waits for it.
 */
export class EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #known = new Map<string, Known>();
  readonly #tokens = new Map<string, { left: number; refilledAt: number }>();
  #tail: Promise<void> = Promise.resolve();
  #pending = 0;
  #closed = false;

  constructor(options: EventRecorderOptions) {
    this.#options = options;
  }

  record(object: Resource, note: EventNote): void {
    if (this.#closed) return;
    const { clock, log } = this.#options;
    const now = clock.now();
    const text = cut(note.message, LONGEST_NOTE);
    const { uid } = object.metadata;
    const id = JSON.stringify([object.kind, uid, note.type, note.reason, text]);
    const known = this.#known.get(id);
    if (known !== undefined && now - known.lastSeen < SERIES_MS) {
      // The map's order is that of use.
      this.#known.delete(id);
      this.#known.set(id, known);
      this.#again(known, now);
      return;
    }
    if (!this.#spend(uid, now)) return;
    known?.flush?.();
    const fresh: Known = {
      event: this.#eventOf(object, { ...note, message: text }, now),
      count: 1,
      lastSeen: now,
      written: 1,
      writtenAt: now,
      flush: undefined,
    };
    log[note.type === 'Warning' ? 'warn' : 'info'](
      { kind: object.kind, object: keyOf(object), reason: note.reason },
      text,
    );
    this.#known.delete(id);
    this.#known.set(id, fresh);
    this.#forgetOldest();
    this.#enqueue(fresh.event, () => this.#options.sink.create(fresh.event));
  }

  /** Resolves when everything recorded so far has been written or dropped. */
  async idle(): Promise<void> {
    await this.#tail;
  }

  /** Takes no more, and writes the counts that are still owed. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const known of this.#known.values()) {
      known.flush?.();
      if (known.count > known.written) this.#writeCount(known);
    }
    await this.#tail;
  }

  #again(known: Known, now: number): void {
    known.count++;
    known.lastSeen = now;
    if (known.flush !== undefined) return;
    const due = known.count === 2 ? 0 : known.writtenAt + COUNT_EVERY_MS - now;
    if (due <= 0) {
      this.#writeCount(known);
      return;
    }
    known.flush = this.#options.clock.after(due, () => {
      known.flush = undefined;
      this.#writeCount(known);
    });
  }

  #writeCount(known: Known): void {
    const { sink, clock } = this.#options;
    const { namespace, name } = known.event.metadata;
    known.writtenAt = clock.now();
    this.#enqueue(known.event, async () => {
      const { count, lastSeen } = known;
      known.written = count;
      if (!(await sink.count(namespace, name, { count, lastObservedTime: microTime(lastSeen) }))) {
        await sink.create(known.event);
      }
    });
  }

  /** One after the other: an event's series is never written before the event, and the API server is not flooded. */
  #enqueue(event: KubernetesEvent, write: () => Promise<void>): void {
    const { log } = this.#options;
    const { regarding, reason, note } = event;
    if (this.#pending >= MOST_PENDING) {
      log.debug({ object: regarding.name, reason }, `an event was dropped, too many wait: ${note}`);
      return;
    }
    this.#pending++;
    this.#tail = this.#tail.then(write).then(
      () => void this.#pending--,
      (error: unknown) => {
        this.#pending--;
        log.warn({ kind: regarding.kind, object: regarding.name, reason, err: error }, `an event was lost: ${note}`);
      },
    );
  }

  #spend(uid: string, now: number): boolean {
    const bucket = this.#tokens.get(uid) ?? { left: BURST, refilledAt: now };
    this.#tokens.delete(uid);
    this.#tokens.set(uid, bucket);
    if (this.#tokens.size > MOST_OBJECTS) {
      const [oldest] = this.#tokens.keys();
      if (oldest !== undefined) this.#tokens.delete(oldest);
    }
    const refill = Math.floor((now - bucket.refilledAt) / REFILL_MS);
    if (refill > 0) {
      bucket.left = Math.min(BURST, bucket.left + refill);
      bucket.refilledAt += refill * REFILL_MS;
    }
    if (bucket.left === 0) return false;
    bucket.left--;
    return true;
  }

  #forgetOldest(): void {
    if (this.#known.size <= MOST_EVENTS) return;
    const [oldest] = this.#known;
    if (oldest === undefined) return;
    oldest[1].flush?.();
    this.#known.delete(oldest[0]);
  }

  #eventOf(object: Resource, { type, reason, message }: EventNote, now: number): KubernetesEvent {
    const { controller, instance } = this.#options;
    const { name, namespace, uid, resourceVersion } = object.metadata;
    const id = createHash('sha256')
      .update(JSON.stringify([uid, type, reason, message, now]))
      .digest('hex');
    return {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name: `${name.slice(0, 200)}.${id.slice(0, 16)}`, namespace: namespace ?? 'default' },
      regarding: {
        apiVersion: object.apiVersion,
        kind: object.kind,
        name,
        ...(namespace === undefined ? {} : { namespace }),
        uid,
        resourceVersion,
      },
      type,
      reason: reason.slice(0, LONGEST_REASON),
      note: message,
      // Required by the API; what was being done is what the reason tells.
      action: 'Reconcile',
      reportingController: controller,
      reportingInstance: instance.slice(0, 128),
      eventTime: microTime(now),
    };
  }
}

/** client-go's MicroTime wants six digits. */
export function microTime(ms: number): string {
  return new Date(ms).toISOString().replace('Z', '000Z');
}

/** At most so many bytes of UTF-8, without half a character at the end. */
function cut(text: string, bytes: number): string {
  const encoded = Buffer.from(text);
  if (encoded.byteLength <= bytes) return text;
  return `${new TextDecoder().decode(encoded.subarray(0, bytes - 3), { stream: true })}…`;
}
