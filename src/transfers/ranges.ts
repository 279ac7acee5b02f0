/** Which bytes of a file are there. Ranges are half-open, sorted and merged; bytes may come in any order, but only once. */
export class Ranges {
  readonly #ranges: { start: number; end: number }[] = [];

  /** Everything before this offset is there: what readers of a growing file may read. */
  get watermark(): number {
    const first = this.#ranges[0];
    return first?.start === 0 ? first.end : 0;
  }

  /** Bytes that are there, in all. */
  get size(): number {
    return this.#ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  }

  /** @throws RangeError when some of it is there already: bytes below the watermark may have been read and sent. */
  add(start: number, end: number): void {
    if (!(Number.isSafeInteger(start) && Number.isSafeInteger(end) && 0 <= start && start <= end)) {
      throw new RangeError(`no range: ${start} to ${end}`);
    }
    if (start === end) return;
    // Bytes arrive mostly in order: the place is nearly always the last one.
    let at = this.#ranges.length;
    while (at > 0 && (this.#ranges[at - 1]?.start ?? 0) >= end) at -= 1;
    const before = this.#ranges[at - 1];
    const after = this.#ranges[at];
    if (before !== undefined && before.end > start) throw new RangeError(`written twice: ${start} to ${end}`);
    const joinsBefore = before?.end === start;
    const joinsAfter = after?.start === end;
    if (joinsBefore && joinsAfter) {
      before.end = after.end;
      this.#ranges.splice(at, 1);
    } else if (joinsBefore) before.end = end;
    else if (joinsAfter) after.start = start;
    else this.#ranges.splice(at, 0, { start, end });
  }
}
