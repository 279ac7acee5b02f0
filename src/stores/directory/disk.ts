import { open, rename, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { codeOf } from './seams.ts';

/** Ends the name of a file that is not complete; what is left of them is removed at the next start. */
export const TEMPORARY = '.tmp';

export type Step = 'write' | 'sync' | 'rename' | 'unlink' | 'syncFolder';

/**
 * Replaces and removes whole files so that a reader sees the old or the new content and nothing else, at any time and, where
 * `durable` is asked for, after a power cut too (temporary file, fsync, rename, fsync of the folder).
 */
export class Disk {
  readonly #before: ((step: Step, path: string) => void) | undefined;
  readonly #folders = new Map<string, { next: Promise<void> | undefined; running: Promise<void> | undefined }>();
  #count = 0;

  /** `before` is called ahead of each step; where it throws, the work ends there, as in a crash. */
  constructor(before?: (step: Step, path: string) => void) {
    this.#before = before;
  }

  /**
   * Never for a file that must survive, with `durable: false`: a rename whose data has not been synced can be an empty file
   * after a power cut (XFS, ext4 with noauto_da_alloc), and the old content is gone with it.
   */
  async replace(path: string, text: string, durable: boolean): Promise<void> {
    const temporary = join(dirname(path), `.${basename(path)}.${this.#count++}${TEMPORARY}`);
    this.#before?.('write', temporary);
    try {
      const file = await open(temporary, 'w', 0o600);
      try {
        await file.writeFile(text);
        if (durable) {
          this.#before?.('sync', temporary);
          await file.datasync();
        }
      } finally {
        await file.close();
      }
      this.#before?.('rename', path);
      await rename(temporary, path);
    } catch (error) {
      await unlink(temporary).catch(() => undefined);
      throw error;
    }
    if (durable) await this.syncFolder(dirname(path));
  }

  /** No error when it is gone already. */
  async remove(path: string, durable: boolean): Promise<void> {
    this.#before?.('unlink', path);
    await unlink(path).catch((error: unknown) => {
      if (codeOf(error) !== 'ENOENT') throw error;
    });
    if (durable) await this.syncFolder(dirname(path));
  }

  /** One fsync serves all who asked before it began: a start with thousands of new objects would wait for each else. */
  syncFolder(folder: string): Promise<void> {
    const state = this.#folders.get(folder) ?? { next: undefined, running: undefined };
    this.#folders.set(folder, state);
    state.next ??= (async () => {
      await state.running?.catch(() => undefined);
      // Those whose rename has just ended get in, too.
      await Promise.resolve();
      state.running = state.next;
      state.next = undefined;
      this.#before?.('syncFolder', folder);
      const handle = await open(folder, 'r');
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    })();
    return state.next;
  }
}
