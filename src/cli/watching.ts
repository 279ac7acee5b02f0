import type { ApiKind } from '../api/crds.ts';
import type { Change, ObjectKey, Scope, Store } from '../stores/store.ts';
import { isClusterScoped } from '../stores/directory/kinds.ts';
import type { StoredResource } from '../stores/directory/records.ts';
import type { CommandContext } from './output.ts';

export type Listener = (change: Change<StoredResource>) => void;

/** Whatever tells changes of objects: a place, or a session. */
export interface Watchable {
  /** Tells what is there of the scope, then every change of it, until the signal fires. Resolves after the first complete look. */
  watch(kind: ApiKind, scope: Scope, listener: Listener, signal: AbortSignal): Promise<void>;
}

/** The listener, for changes in the scope alone. */
export function within({ namespace, name }: Scope, listener: Listener): Listener {
  return (change) => {
    const { metadata } = change.object;
    if (namespace !== undefined && metadata.namespace !== namespace) return;
    if (name === undefined || metadata.name === name) listener(change);
  };
}

/** The one object that the scope is of; undefined where there may be several. */
export function keyIn(kind: ApiKind, { namespace, name }: Scope): ObjectKey | undefined {
  if (name === undefined) return undefined;
  if (isClusterScoped(kind)) return { name };
  return namespace === undefined ? undefined : { namespace, name };
}

/** A store of this process as something to watch. */
export function watchStore(store: Pick<Store, 'subscribe'>): Watchable {
  return {
    async watch(kind, scope, listener, signal) {
      const end = store.subscribe<StoredResource>(kind, within(scope, listener));
      signal.addEventListener('abort', end, { once: true });
    },
  };
}

/** A controller that runs takes up what is asked for within a second or two. */
export const OVERDUE_MS = 30_000;

export interface WatchForOptions<T> {
  kind: ApiKind;
  key: ObjectKey;
  /** Called with the object at every change, undefined when it is gone or not there. Ends the wait with anything but undefined. */
  decide(object: StoredResource | undefined): T | undefined;
  /** 0: one look is made. */
  timeoutMs: number;
  /** Told once, when nothing is decided for so long that somebody should have been at work. */
  onOverdue?(last: StoredResource): void;
  /** Ends the wait with its error. */
  ended?: Promise<never>;
  onTimeout(last: StoredResource | undefined): Error;
}

/** Watches one object until it is decided what becomes of it. */
export async function watchFor<T>(
  source: Watchable,
  { signal }: Pick<CommandContext, 'signal'>,
  options: WatchForOptions<T>,
): Promise<T> {
  const { kind, key, decide, timeoutMs, ended, onTimeout, onOverdue } = options;
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  // It may be decided while the first look is still going on, when nobody awaits it yet: that must not end the process.
  promise.catch(() => undefined);
  let last: StoredResource | undefined;
  const look = (object: StoredResource | undefined): void => {
    last = object;
    try {
      const decision = decide(object);
      if (decision !== undefined) resolve(decision);
    } catch (error) {
      reject(error);
    }
  };
  const stop = new AbortController();
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  const since = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const overdue = setTimeout(() => {
    if (last !== undefined) onOverdue?.(last);
  }, OVERDUE_MS + 1000);
  ended?.catch(reject);
  try {
    await source.watch(kind, key, ({ type, object }) => look(type === 'Deleted' ? undefined : object), stop.signal);
    if (last === undefined) look(undefined);
    // Not before the first look has ended: what is there already is there in no time at all.
    const leftMs = timeoutMs - (performance.now() - since);
    timer = setTimeout(() => reject(onTimeout(last)), Math.min(Math.max(leftMs, 0), 2 ** 31 - 1));
    return await promise;
  } finally {
    clearTimeout(timer);
    clearTimeout(overdue);
    stop.abort();
    signal.removeEventListener('abort', onAbort);
  }
}
