import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_BYTES, Blocks } from '../../../src/sources/http/blocks.ts';
import { Receiver } from '../../../src/sources/http/receiver.ts';
import type { Sink } from '../../../src/sources/source.ts';

/** A connection as Node drives one with `onread`: it asks for a buffer after each read, and stops when told to. */
class Wire extends EventEmitter {
  reading = true;
  readonly #receiver: Receiver;
  #buffer: Uint8Array;

  constructor(receiver: Receiver) {
    super();
    this.#receiver = receiver;
    this.#buffer = this.#lend();
  }

  resume(): this {
    this.reading = true;
    return this;
  }

  /** Delivers one read of at most `bytes.length`; returns how much went in. */
  deliver(bytes: Uint8Array): number {
    const count = Math.min(bytes.length, this.#buffer.length);
    this.#buffer.set(bytes.subarray(0, count));
    const goOn = this.#receiver.onread.callback(count, this.#buffer);
    this.#buffer = this.#lend();
    if (!goOn) this.reading = false;
    return count;
  }

  #lend(): Uint8Array {
    const { buffer } = this.#receiver.onread;
    return typeof buffer === 'function' ? buffer() : buffer;
  }
}

describe('a receiver', () => {
  it('keeps every byte in its place, however the network cuts it, the disk delays it and TLS overruns a pause', async () => {
    const read = fc.record({
      size: fc.integer({ min: 1, max: 300_000 }),
      /** Records that TLS delivers although it was told to stop. */
      overrun: fc.boolean(),
      writes: fc.nat({ max: 2 }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(read, { minLength: 1, maxLength: 12 }),
        fc.nat({ max: 60_000 }),
        async (reads, first) => {
          const size = Math.min(
            3 * BLOCK_BYTES,
            reads.reduce((sum, { size: bytes }) => sum + bytes, first),
          );
          const body = Buffer.allocUnsafe(size);
          for (let at = 0; at < size; at += 1) body[at] = (at * 13 + (at >> 9)) & 255;
          const content = Buffer.alloc(size);
          const pending: (() => void)[] = [];
          const sink: Sink = {
            resume: undefined,
            begin: async () => {},
            write: (offset, bytes) =>
              new Promise((resolve) =>
                pending.push(() => {
                  content.set(bytes, offset);
                  resolve();
                }),
              ),
          };
          const receiver = new Receiver();
          const wire = new Wire(receiver);
          receiver.attach(wire as unknown as Socket);
          receiver.hold();
          const blocks = new Blocks(sink, 0);
          let sent = Math.min(first, size);
          const state = receiver.takeBody(sent === 0 ? [] : [body.subarray(0, sent)], size, blocks, () => {});
          const settle = async () => {
            for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
          };
          for (let turn = 0; sent < size; turn += 1) {
            const {
              size: length,
              overrun,
              writes,
            } = reads[turn % reads.length] ?? { size: 1, overrun: false, writes: 1 };
            if (wire.reading || overrun) sent += wire.deliver(body.subarray(sent, Math.min(size, sent + length)));
            for (let count = 0; count < Math.max(writes, wire.reading ? 0 : 1); count += 1) {
              pending.shift()?.();
              await settle();
            }
          }
          while (state.behind) {
            pending.shift()?.();
            await settle();
          }
          expect(state.received).toBe(size);
          const closed = blocks.close();
          for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
            next();
            await settle();
          }
          await closed;
          state.check('here', false);
          expect(content.equals(body)).toBe(true);
        },
      ),
      { numRuns: 40 },
    );
  });
});
