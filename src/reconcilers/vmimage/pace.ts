import type { VMImageStatus } from '../../api/types.ts';

const PACE_MS = 1000;

/**
 * Progress is written once a second at most, and at once where anything else has changed with it. Every write wakes its image again:
 * on an API server that takes its time there is always more to tell by then, and a slow one would be written to the most.
 */
export class Pace {
  /** What this process has written last, of images that have progress to show. */
  readonly #written = new Map<string, { at: number; rest: string }>();

  /** From when on the status may be written, in milliseconds since the epoch; undefined when it may be now. */
  notBefore(key: string, status: VMImageStatus, now: number): number | undefined {
    const last = this.#written.get(key);
    if (last === undefined || now >= last.at + PACE_MS || last.rest !== withoutProgress(status)) return undefined;
    return last.at + PACE_MS;
  }

  wrote(key: string, status: VMImageStatus, now: number): void {
    const isUnderWay =
      status.progress !== undefined || status.sites?.some((row) => row.progress !== undefined) === true;
    if (isUnderWay) this.#written.set(key, { at: now, rest: withoutProgress(status) });
    else this.#written.delete(key);
  }

  forget(key: string): void {
    this.#written.delete(key);
  }
}

function withoutProgress(status: VMImageStatus): string {
  return JSON.stringify(status, (key, value: unknown) => (key === 'progress' ? undefined : value));
}
