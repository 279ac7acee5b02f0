import { Failure } from '../../api/failure.ts';

/** Of all entries together, in milliseconds; an honest selection takes some microseconds for each. */
const ALL_MS = 20_000;
/** Of one entry: nothing else has its turn meanwhile. */
const ENTRY_MS = 1000;

/** What a selection may cost, whoever wrote it. */
export class Budget {
  #spentMs = 0;
  #began = 0;

  /** @throws Failure InvalidSpec when it is used up */
  spend<T>(work: () => T): T {
    this.#began = performance.now();
    try {
      this.check();
      return work();
    } finally {
      this.#spentMs += performance.now() - this.#began;
    }
  }

  /** To be asked between two patterns. @throws Failure InvalidSpec when it is used up */
  check(): void {
    const entryMs = performance.now() - this.#began;
    if (entryMs <= ENTRY_MS && this.#spentMs + entryMs <= ALL_MS) return;
    throw new Failure(
      'InvalidSpec',
      `spec.select: it takes too long (more than ${ENTRY_MS / 1000} s for an entry, or ${ALL_MS / 1000} s for all so far); make its patterns or its expression simpler`,
    );
  }
}
