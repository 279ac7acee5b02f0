import type { ReflectorTarget } from '../../runtime/reflector.ts';
import { deepFreeze } from '../directory/freeze.ts';
import { type Change, type Kind, keyOf, type ObjectKey, type Resource } from '../store.ts';

type Listener = (change: Change) => void;

interface CopyLog {
  error(fields: object, message: string): void;
}

/**
 * The local copy of one kind. It is fed by the watch, and by the answers to our own writes, so that who has written reads what he
 * wrote: a reconcile that began with a copy from before its last write could do a step twice. What comes later from the watch and
 * is older than that is passed over, told by the resourceVersion, which Kubernetes promises to be ordered (KEP-5504).
 */
export class LocalCopy {
  readonly kind: Kind;
  readonly #log: CopyLog;
  readonly #objects = new Map<string, Resource>();
  readonly #listeners = new Set<Listener>();
  /** Uids that a write of ours has removed; the watch may still tell of their last days. */
  readonly #removed = new Set<string>();
  #telling = false;
  /** By namespace (`''`: all of them) the version of the last list. */
  readonly #listed = new Map<string, string>();

  constructor(kind: Kind, log: CopyLog) {
    this.kind = kind;
    this.#log = log;
  }

  get(key: ObjectKey): Resource | undefined {
    return this.#objects.get(keyOf(key));
  }

  list(namespace?: string): readonly Resource[] {
    const all = [...this.#objects.values()];
    return namespace === undefined ? all : all.filter(({ metadata }) => metadata.namespace === namespace);
  }

  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    if (this.#telling) for (const object of this.list()) this.#tell(listener, { type: 'Applied', object });
    return () => this.#listeners.delete(listener);
  }

  /** Tells all that is there, and from now on every change. */
  startTelling(): void {
    if (this.#telling) return;
    this.#telling = true;
    for (const listener of [...this.#listeners]) {
      for (const object of this.list()) this.#tell(listener, { type: 'Applied', object });
    }
  }

  /** What a reflector of all namespaces, or of one, feeds. */
  target(namespace?: string): ReflectorTarget {
    return {
      replace: (items, resourceVersion) => this.#replace(items, resourceVersion, namespace),
      applied: (object) => void this.applied(object),
      deleted: (object) => this.#deleted(object),
    };
  }

  /** The object as the server has it now. Returns what the copy holds then, which may be newer. */
  applied(object: Resource): Resource | undefined {
    const { uid, resourceVersion } = object.metadata;
    const key = keyOf(object);
    const known = this.#objects.get(key);
    if (this.#removed.has(uid)) return known;
    if (known !== undefined && isOlder(resourceVersion, known.metadata.resourceVersion, true)) return known;
    // Another object of the same name: the end of the first one was not seen.
    if (known !== undefined && known.metadata.uid !== uid) this.#drop(key, known);
    const previous = known?.metadata.uid === uid ? known : undefined;
    const kept = slim(object);
    this.#objects.set(key, kept);
    this.#tellAll(
      previous === undefined ? { type: 'Applied', object: kept } : { type: 'Applied', object: kept, previous },
    );
    return kept;
  }

  /** A write of ours, or its answer, has shown that this very object is gone. The watch will say so too. */
  removed(object: Resource): void {
    const key = keyOf(object);
    const known = this.#objects.get(key);
    if (known?.metadata.uid !== object.metadata.uid) return;
    this.#removed.add(object.metadata.uid);
    this.#drop(key, known);
  }

  #deleted(object: Resource): void {
    const { uid, resourceVersion } = object.metadata;
    if (this.#removed.delete(uid)) return;
    const key = keyOf(object);
    const known = this.#objects.get(key);
    // Its successor may be here already, by a write of ours.
    if (known === undefined || known.metadata.uid !== uid) return;
    if (!isOlder(resourceVersion, known.metadata.resourceVersion)) this.#drop(key, known, slim(object));
  }

  #replace(items: readonly Resource[], resourceVersion: string, namespace: string | undefined): void {
    const scope = namespace ?? '';
    const before = this.#listed.get(scope);
    this.#listed.set(scope, resourceVersion);
    // A history that runs backwards is another one (etcd restored from a backup): then nothing we know is newer than the list.
    const rewritten = before !== undefined && isOlder(resourceVersion, before);
    const there = new Set(items.map(({ metadata }) => metadata.uid));
    for (const known of this.list(namespace)) {
      const { uid, resourceVersion: version } = known.metadata;
      if (there.has(uid) && !rewritten) continue;
      // Made by us after the list was taken: the watch brings it again.
      if (!rewritten && isOlder(resourceVersion, version)) continue;
      if (!there.has(uid)) this.#drop(keyOf(known), known);
      else this.#objects.delete(keyOf(known));
    }
    for (const uid of this.#removed) if (!there.has(uid)) this.#removed.delete(uid);
    for (const item of items) this.applied(item);
  }

  #drop(key: string, known: Resource, last = known): void {
    this.#objects.delete(key);
    this.#tellAll({ type: 'Deleted', object: last, previous: known });
  }

  #tellAll(change: Change): void {
    if (!this.#telling) return;
    for (const listener of [...this.#listeners]) this.#tell(listener, change);
  }

  #tell(listener: Listener, change: Change): void {
    try {
      listener(change);
    } catch (error) {
      this.#log.error({ err: error, object: `${this.kind} ${keyOf(change.object)}` }, 'a listener failed');
    }
  }
}

/** Whether version `a` comes before `b`; with `orSame`, whether it is not after it. Both are decimal numbers of any length. */
export function isOlder(a: string, b: string, orSame = false): boolean {
  if (a === b) return orSame;
  return a.length === b.length ? a < b : a.length < b.length;
}

/** Frozen, and without the bookkeeping of server-side apply, which is half of an object's size and nobody's concern here. */
export function slim<T extends Resource>(object: T): T {
  const { managedFields: _, ...metadata } = object.metadata as T['metadata'] & { managedFields?: unknown };
  return deepFreeze({ ...object, metadata });
}
