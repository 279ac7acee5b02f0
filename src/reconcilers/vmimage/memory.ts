import type { Failure } from '../../api/failure.ts';
import type { Validators } from '../../cache/cache.ts';

/** What this process knows of the download of one part beside its journal. */
export interface Memory {
  /** Mirrors that served wrong bytes: not asked again until somebody asks for a fresh look. */
  readonly condemned: Map<string, Failure>;
  /** What each mirror said of what it sent last. */
  readonly told: Map<string, Validators>;
  /** The last generation that an upload has followed, by the upload's job: one such try for each. */
  readonly followed: Map<string, number>;
}

interface Asked {
  readonly askers: Set<string>;
  memory: Memory;
}

/**
 * Memories of parts, each for as long as somebody asks for the part: specs come and go, and a mirror that was wrong for one that is
 * long gone would be remembered until the process ends.
 */
export class Memories {
  readonly #asked = new Map<string, Asked>();
  readonly #parts = new Map<string, Set<string>>();

  /** The asker wants these parts, by their keys, too. */
  ask(asker: string, keys: readonly string[]): void {
    const mine = this.#parts.get(asker) ?? new Set();
    this.#parts.set(asker, mine);
    for (const key of keys) {
      mine.add(key);
      const asked = this.#asked.get(key) ?? { askers: new Set(), memory: empty() };
      asked.askers.add(asker);
      this.#asked.set(key, asked);
    }
  }

  /** The asker wants no others than these any more. Returns the parts that nobody wants now. */
  leave(asker: string, keep: readonly string[] = []): string[] {
    const mine = this.#parts.get(asker);
    if (mine === undefined) return [];
    const forgotten: string[] = [];
    for (const key of mine) {
      if (keep.includes(key)) continue;
      mine.delete(key);
      const asked = this.#asked.get(key);
      asked?.askers.delete(asker);
      if (asked?.askers.size !== 0) continue;
      this.#asked.delete(key);
      forgotten.push(key);
    }
    if (mine.size === 0) this.#parts.delete(asker);
    return forgotten;
  }

  /** Of a part that nobody asks for there is nothing to remember. */
  of(key: string): Memory {
    return this.#asked.get(key)?.memory ?? empty();
  }

  /** The part has come: all that was known of the way to it is over. */
  clear(key: string): void {
    const asked = this.#asked.get(key);
    if (asked !== undefined) asked.memory = empty();
  }
}

function empty(): Memory {
  return { condemned: new Map(), told: new Map(), followed: new Map() };
}
