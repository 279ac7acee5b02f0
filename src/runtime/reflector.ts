import type { Resource } from '../stores/store.ts';
import { ApiError, isExpired, isFromTheFuture } from './api-error.ts';
import { type BackoffPolicy, backoffMs } from './backoff.ts';
import type { Clock } from './clock.ts';
import { pause } from './pause.ts';

/** One page of a list. */
export interface ListPage {
  items: readonly Resource[];
  resourceVersion: string;
  /** Where the next page begins; absent or empty on the last. */
  continue?: string;
}

/** As it comes over the wire: `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`. */
export interface WatchEvent {
  type: string;
  object: unknown;
}

/** The two calls that a reflector makes. Both throw ApiError for an answer, anything else for a connection. */
export interface ListWatch {
  list(query: Record<string, string>, signal: AbortSignal): Promise<ListPage>;
  watch(query: Record<string, string>, signal: AbortSignal): AsyncIterable<WatchEvent>;
}

/** What keeps the copy. Its methods neither wait nor throw. */
export interface ReflectorTarget {
  /** All there is at this resourceVersion: what is not among the items is gone. */
  replace(items: readonly Resource[], resourceVersion: string): void;
  applied(object: Resource): void;
  deleted(object: Resource): void;
}

export interface ReflectorOptions {
  /** For the log: `vmimages`. */
  what: string;
  source: ListWatch;
  target: ReflectorTarget;
  clock: Clock;
  log: ReflectorLog;
}

interface ReflectorLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

const PAGE_SIZE = 500;
/** client-go's reflector: 800 ms, doubled up to 30 s. */
const BACKOFF: BackoffPolicy = { baseMs: 800, maxMs: 30_000 };
/** The server ends a watch after so many seconds; spread, so that many controllers do not come back together. */
const WATCH_SECONDS = { least: 240, spread: 60 };
/** A watch that ends sooner without a word is a failure in disguise: coming back at once would be a storm. */
const SHORT_WATCH_MS = 1_000;
/** Nobody may make us wait longer by a Retry-After. */
const LONGEST_RETRY_AFTER_MS = 60_000;

/**
 * Keeps a copy of a collection of the API server up to date: a list in pages, then a watch that goes on from its resourceVersion,
 * with bookmarks, so that a quiet kind does not grow stale. When the server has forgotten that version, it lists again; after
 * everything else it waits (backing off, with jitter, and as long as a Retry-After says) and goes on where it was. It never gives
 * up, and never rejects; the signal ends it.
 */
export class Reflector {
  readonly #options: ReflectorOptions;
  readonly #synced = Promise.withResolvers<void>();
  #isSynced = false;
  #resourceVersion: string | undefined;
  #failures = 0;
  /** Set when a page could not be continued: the next list is in one piece, as client-go does it. */
  #inOnePiece = false;
  #lastContact: number;
  #lastError: unknown;

  constructor(options: ReflectorOptions) {
    this.#options = options;
    this.#lastContact = options.clock.now();
  }

  /** Resolves after the first complete list. Never rejects: whoever cannot wait for ever looks at `lastError`. */
  get synced(): Promise<void> {
    return this.#synced.promise;
  }

  get isSynced(): boolean {
    return this.#isSynced;
  }

  /** The copy is complete up to this version. */
  get resourceVersion(): string | undefined {
    return this.#resourceVersion;
  }

  /** When the server was last heard, in milliseconds since the epoch. */
  get lastContact(): number {
    return this.#lastContact;
  }

  /** Why it is waiting now; undefined while all is well. */
  get lastError(): unknown {
    return this.#lastError;
  }

  /** Works until the signal fires. `onFailure` hears of every failure, the first of all before the first back-off. */
  async run(signal: AbortSignal, onFailure?: (error: unknown) => void): Promise<void> {
    const { clock, log, what } = this.#options;
    let version: string | undefined;
    while (!signal.aborted) {
      try {
        version ??= await this.#list(signal);
        await this.#watch(version, signal);
        version = this.#resourceVersion;
      } catch (error) {
        if (signal.aborted) return;
        version = this.#resourceVersion;
        if (isExpired(error) || isFromTheFuture(error)) {
          log.info({ what, resourceVersion: version, err: error }, `${what}: the watch cannot go on, listing again`);
          version = undefined;
          // Once at once; a server that says so again and again is not to be flooded with lists.
          if (this.#failures++ === 0) continue;
        } else {
          if (mustList(error)) version = undefined;
          this.#failures++;
        }
        this.#lastError = error;
        onFailure?.(error);
        const ms = this.#pauseAfter(error);
        log.warn({ what, err: error, pauseMs: ms, failures: this.#failures }, `${what}: ${told(error)}; trying again`);
        await pause(ms, clock, signal);
      }
    }
  }

  #pauseAfter(error: unknown): number {
    const { clock } = this.#options;
    const own = backoffMs(this.#failures, BACKOFF, clock);
    const asked = error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0;
    // Jitter on top: everyone was told the same second.
    return asked === 0 ? own : Math.max(own, Math.min(asked, LONGEST_RETRY_AFTER_MS) + own / 4);
  }

  #heard(): void {
    this.#lastContact = this.#options.clock.now();
    this.#lastError = undefined;
  }

  async #list(signal: AbortSignal): Promise<string> {
    const { source, target } = this.#options;
    const items: Resource[] = [];
    let token: string | undefined;
    let page: ListPage;
    do {
      const query: Record<string, string> = this.#inOnePiece ? {} : { limit: String(PAGE_SIZE) };
      if (token !== undefined) query['continue'] = token;
      try {
        page = await source.list(query, signal);
      } catch (error) {
        // The snapshot of the first page was compacted away meanwhile.
        if (token !== undefined && isExpired(error)) this.#inOnePiece = true;
        throw error;
      }
      this.#heard();
      items.push(...page.items);
      token = page.continue === '' ? undefined : page.continue;
    } while (token !== undefined);
    this.#inOnePiece = false;
    target.replace(items, page.resourceVersion);
    this.#resourceVersion = page.resourceVersion;
    if (!this.#isSynced) {
      this.#isSynced = true;
      this.#synced.resolve();
    }
    return page.resourceVersion;
  }

  async #watch(resourceVersion: string, signal: AbortSignal): Promise<void> {
    const { source, clock } = this.#options;
    const started = clock.now();
    let events = 0;
    const seconds = WATCH_SECONDS.least + Math.round(WATCH_SECONDS.spread * clock.random());
    const query = { resourceVersion, allowWatchBookmarks: 'true', timeoutSeconds: String(seconds) };
    for await (const event of source.watch(query, signal)) {
      events++;
      this.#take(event);
      this.#heard();
      this.#failures = 0;
    }
    if (signal.aborted) return;
    if (events === 0 && clock.now() - started < SHORT_WATCH_MS) {
      throw new Error('the watch was closed at once, without an event');
    }
    this.#failures = 0;
  }

  #take({ type, object }: WatchEvent): void {
    const { target, log, what } = this.#options;
    if (type === 'ERROR') throw ApiError.from(500, object);
    if (!isObject(object)) throw new Error(`a ${type} event without an object`);
    switch (type) {
      case 'ADDED':
      case 'MODIFIED':
        target.applied(object);
        break;
      case 'DELETED':
        target.deleted(object);
        break;
      case 'BOOKMARK':
        break;
      default:
        log.debug({ what, type }, `${what}: an event of an unknown type was passed over`);
        return;
    }
    this.#resourceVersion = object.metadata.resourceVersion;
  }
}

/** The watch may say no to what a list tells better: the kind is gone, or the right to see it. */
function mustList(error: unknown): boolean {
  return error instanceof ApiError && [400, 403, 404, 405].includes(error.status);
}

function told(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A bookmark has a kind and a resourceVersion, and nothing else. */
function isObject(object: unknown): object is Resource {
  if (typeof object !== 'object' || object === null || !('metadata' in object)) return false;
  const { metadata } = object;
  return (
    typeof metadata === 'object' &&
    metadata !== null &&
    'resourceVersion' in metadata &&
    typeof metadata.resourceVersion === 'string'
  );
}
