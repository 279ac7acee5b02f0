import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_BYTES, Blocks } from '../../../src/sources/http/blocks.ts';
import type { Sink } from '../../../src/sources/source.ts';

/** Keeps what it is given, when its turn comes and not before. */
class SlowSink implements Sink {
  readonly resume = undefined;
  readonly content: Buffer;
  readonly #pending: (() => void)[] = [];

  constructor(size: number) {
    this.content = Buffer.alloc(size);
  }

  async begin(): Promise<void> {}

  write(offset: number, bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      this.#pending.push(() => {
        this.content.set(bytes, offset); // the bytes as they are now: a block used too early would show
        resolve();
      });
    });
  }

  /** Ends the oldest write; tells whether there was one. */
  step(): boolean {
    const next = this.#pending.shift();
    next?.();
    return next !== undefined;
  }
}

describe('blocks', () => {
  it('use memory that somebody reads still no more, and go on in other memory', async () => {
    const seen = new Set<ArrayBufferLike>();
    const sink: Sink = {
      resume: undefined,
      begin: async () => {},
      write: async (_, bytes) => {
        expect(seen).not.toContain(bytes.buffer);
        seen.add(bytes.buffer);
        return 'Lent';
      },
    };
    const written = new Blocks(sink, 0);
    for (let at = 0; at < 20; at += 1) {
      await new Promise(setImmediate);
      expect(written.put(new Uint8Array(BLOCK_BYTES))).toBe(BLOCK_BYTES);
    }
    await written.close();
    expect(seen.size).toBe(20);
    // Nor does the next download.
    const next = new Blocks(sink, 0);
    next.put(new Uint8Array(BLOCK_BYTES));
    await next.close();
  });

  it('hand over every byte once and in its place, whatever the sizes and however slow the sink', async () => {
    const chunk = fc.record({
      size: fc.integer({ min: 1, max: BLOCK_BYTES * 1.5 }),
      flush: fc.boolean(),
      direct: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(chunk, { minLength: 1, maxLength: 6 }), async (chunks) => {
        const size = chunks.reduce((sum, { size: bytes }) => sum + bytes, 0);
        const body = Buffer.allocUnsafe(size);
        for (let at = 0; at < size; at += 1) body[at] = (at * 31 + (at >> 8)) & 255;
        const sink = new SlowSink(size);
        const blocks = new Blocks(sink, 0);
        let done = 0;
        for (const { size: bytes, flush, direct } of chunks) {
          for (let rest = body.subarray(done, done + bytes); rest.length > 0; ) {
            const { space } = blocks;
            let taken: number;
            if (direct) {
              taken = Math.min(space.length, rest.length);
              space.set(rest.subarray(0, taken));
              if (taken > 0) blocks.commit(taken);
            } else taken = blocks.put(rest);
            rest = rest.subarray(taken);
            if (rest.length === 0) break;
            const room = new Promise<void>((resolve) => blocks.onWritten(resolve));
            expect(sink.step()).toBe(true);
            await room;
          }
          done += bytes;
          if (flush) blocks.flush();
        }
        const closed = blocks.close();
        while (sink.step()) await Promise.resolve();
        await closed;
        expect(sink.content.equals(body)).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  it('tell the first failure of the sink, and give it nothing more', async () => {
    let writes = 0;
    const blocks = new Blocks(
      {
        resume: undefined,
        begin: async () => {},
        write: async () => {
          writes += 1;
          throw new Error(`write ${writes}`);
        },
      },
      0,
    );
    blocks.put(Buffer.alloc(10));
    const written = new Promise<void>((resolve) => blocks.onWritten(resolve));
    blocks.flush();
    await written;
    blocks.put(Buffer.alloc(10));
    await expect(blocks.close()).rejects.toThrow('write 1');
    expect(writes).toBe(1);
  });
});
