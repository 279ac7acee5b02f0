import fc from 'fast-check';
import { expect, it } from 'vitest';
import { lines } from '../../../../src/stores/kubernetes/client.ts';

async function collect(chunks: Uint8Array[]): Promise<string[]> {
  async function* stream(): AsyncGenerator<Uint8Array> {
    yield* chunks;
  }
  const found: string[] = [];
  for await (const line of lines(stream())) found.push(line);
  return found;
}

it('A watch gives the same lines however the network cuts its bytes, also within a character', async () => {
  const text = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 30 })
    .map((part) => `{${part.replaceAll(/\s/g, '_')}}`);
  await fc.assert(
    fc.asyncProperty(fc.array(text), fc.array(fc.nat(400)), async (wanted, cuts) => {
      const bytes = Buffer.from(wanted.map((line) => `${line}\n`).join(''));
      const places = [0, ...cuts.map((cut) => Math.min(cut, bytes.length)).toSorted((a, b) => a - b), bytes.length];
      const chunks = places.slice(1).map((end, i) => bytes.subarray(places[i], end));
      expect(await collect(chunks)).toEqual(wanted);
    }),
  );
});

it('A watch that is cut in the middle of a line gives the lines before, and not the half one', async () => {
  expect(await collect([Buffer.from('{"a":1}\n{"b"')])).toEqual(['{"a":1}']);
});

it('A line without an end is refused, before it fills the memory', async () => {
  const megabyte = Buffer.alloc(2 ** 20, 'x');
  await expect(collect(Array.from({ length: 20 }, () => megabyte))).rejects.toThrow('more than 16777216 characters');
});
