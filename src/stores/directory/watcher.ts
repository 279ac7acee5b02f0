import { type FSWatcher, watch } from 'node:fs';
import type { Timers } from './seams.ts';

const GATHER_MS = 20;
/** inotify watches are a shared and bounded good; folders beyond these are found by the periodic look alone. */
const MOST_FOLDERS = 256;

/**
 * Notices that something in a set of folders may have changed. Only a hint: notices get lost (network file systems, full queues), so
 * whoever uses this looks now and then by himself.
 */
export class FolderHints {
  readonly #watchers = new Map<string, FSWatcher>();
  readonly #timers: Timers;
  readonly #notice: () => void;
  #gathering: unknown;
  #closed = false;

  constructor(timers: Timers, notice: () => void) {
    this.#timers = timers;
    this.#notice = notice;
  }

  set(folders: readonly string[]): void {
    // Who is still starting, or in the middle of a scan, when all ends would keep the process from ending by a watch.
    if (this.#closed) return;
    const wanted = new Set(folders.slice(0, MOST_FOLDERS));
    for (const [folder, watcher] of this.#watchers) {
      if (wanted.has(folder)) continue;
      watcher.close();
      this.#watchers.delete(folder);
    }
    for (const folder of wanted) {
      if (this.#watchers.has(folder)) continue;
      try {
        const watcher = watch(folder, () => this.#hint());
        watcher.on('error', () => this.#forget(folder));
        this.#watchers.set(folder, watcher);
      } catch {
        // Gone again, or no watches left.
      }
    }
  }

  close(): void {
    this.set([]);
    this.#closed = true;
    this.#timers.clearTimeout(this.#gathering);
    this.#gathering = undefined;
  }

  #forget(folder: string): void {
    this.#watchers.get(folder)?.close();
    this.#watchers.delete(folder);
  }

  /** An editor's save is several notices, a checkout many. */
  #hint(): void {
    this.#gathering ??= this.#timers.setTimeout(() => {
      this.#gathering = undefined;
      this.#notice();
    }, GATHER_MS);
  }
}
