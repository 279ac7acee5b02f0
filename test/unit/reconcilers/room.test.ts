import { expect, it } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { gather } from '../../../src/reconcilers/vmimage/content.ts';
import type { Part } from '../../../src/reconcilers/vmimage/plan.ts';
import { settled } from '../../support/clock.ts';
import { DownloadBench, partFrom } from './downloading.ts';
import { vmimage } from './objects.ts';
import { sha256 } from './scripted-origins.ts';

const MIB = 2 ** 20;
const QUOTA = 20 * MIB;
/** What all sites take together. */
const TAKEN = 2 ** 30;

/** Images whose rounds come as their jobs and free space wake them, in a cache of 20 MiB. */
class Askers {
  readonly bench: DownloadBench;
  readonly #images = new Map<string, VMImage>();
  #bytes = 0;

  private constructor(bench: DownloadBench) {
    this.bench = bench;
  }

  static async open(...names: string[]): Promise<Askers> {
    const askers = new Askers(await DownloadBench.open(QUOTA));
    for (const name of names)
      askers.#images.set(name, askers.bench.add(vmimage({ metadata: { name, uid: `uid-${name}` } })));
    return askers;
  }

  /** The program starts anew, with a larger cache; what was written of the images is there. */
  async restart(quotaBytes: number): Promise<Askers> {
    const bench = await DownloadBench.open(quotaBytes);
    Object.assign(bench.deps, { transfers: this.bench.origins });
    bench.restart();
    const askers = new Askers(bench);
    for (const [name, image] of this.#images) askers.#images.set(name, bench.add(image));
    return askers;
  }

  part(role: Part['role'], url: string, mib: number): Part {
    const body = Buffer.alloc(mib * MIB, ++this.#bytes);
    this.bench.origins.serve(url, { etag: '"1"', body });
    return { ...partFrom([url], { sha256: sha256(body) }), role };
  }

  /** What the image has of its parts when its downloads have ended. */
  async gather(
    name: string,
    parts: readonly Part[],
    { inputs = parts.map(({ key }) => key).join(), maxBytes = TAKEN } = {},
  ): Promise<string> {
    const { bench } = this;
    const image = this.#images.get(name);
    if (image === undefined) throw new Error(`no ${name}`);
    const round = bench.round(image);
    bench.deps.downloads.ask(round.key, parts);
    const content = await gather(round, parts, inputs, { maxBytes, bound: '', also: [] });
    this.#images.set(name, await bench.conclude(round));
    while (bench.jobs.running > 0) await settled();
    return content.step === 'Failed' ? content.failure.reason : content.step;
  }

  async rounds(name: string, parts: readonly Part[], count: number): Promise<string[]> {
    const steps: string[] = [];
    for (let n = 0; n < count && steps.at(-1) !== 'Ready'; n++) steps.push(await this.gather(name, parts));
    return steps;
  }
}

it('An image whose spec has changed has the room of what it wanted before', async () => {
  const askers = await Askers.open('one');
  const kernel = askers.part('Kernel', 'https://a.example/kernel', 1);
  const before = askers.part('Disk', 'https://a.example/before', 12);
  expect(await askers.rounds('one', [before, kernel], 9)).toContain('Ready');
  const after = askers.part('Disk', 'https://a.example/after', 12);
  expect(await askers.rounds('one', [after, kernel], 9)).toContain('Ready');
  expect(askers.bench.origins.fetched.filter((url) => url.endsWith('kernel'))).toHaveLength(1);
});

it('Of two images that each hold what the other lacks the room for, one goes on, and then the other', async () => {
  const askers = await Askers.open('one', 'two');
  const partsOf = (name: string) => [
    askers.part('Disk', `https://${name}.example/disk`, 8),
    askers.part('Kernel', `https://${name}.example/kernel`, 6),
  ];
  const parts = { one: partsOf('one'), two: partsOf('two') };
  for (const name of ['one', 'two'] as const) await askers.rounds(name, parts[name].slice(0, 1), 9);
  const waiting = new Set(['one', 'two'] as const);
  for (let n = 0; n < 20 && waiting.size > 0; n++) {
    for (const name of waiting) {
      if ((await askers.gather(name, parts[name])) !== 'Ready') continue;
      // It has been sent to its sites.
      askers.bench.cache.unpinAll(`uid-${name}`);
      waiting.delete(name);
    }
  }
  expect([...waiting]).toEqual([]);
});

it('An image that the cache cannot hold as a whole fetches one of its parts, says so, and holds up nobody', async () => {
  const askers = await Askers.open('one', 'two');
  const parts = [
    askers.part('Disk', 'https://a.example/disk', 12),
    askers.part('Kernel', 'https://a.example/kernel', 12),
  ];
  for (let n = 0; n < 20; n++) {
    await askers.gather('one', parts);
    askers.bench.clock.advance(600_000);
  }
  // Which of them came first is nobody's to say.
  expect(askers.bench.origins.fetched).toHaveLength(1);
  expect(await askers.gather('one', parts)).toBe('TooLarge');
  // Not even what came is held.
  expect(askers.bench.cache.stats().pinnedBytes).toBe(0);
  const another = askers.part('Disk', 'https://b.example/disk', 12);
  expect(await askers.rounds('two', [another], 9)).toContain('Ready');
});

it('An image that the cache could not hold as a whole is fetched as soon as the cache may hold more', async () => {
  const askers = await Askers.open('one');
  const parts = [
    askers.part('Disk', 'https://a.example/disk', 12),
    askers.part('Kernel', 'https://a.example/kernel', 12),
  ];
  expect((await askers.rounds('one', parts, 9)).at(-1)).toBe('TooLarge');
  expect((await (await askers.restart(QUOTA)).rounds('one', parts, 9)).at(-1)).toBe('TooLarge');
  expect(await (await askers.restart(2 * QUOTA)).rounds('one', parts, 9)).toContain('Ready');
});

it('An image that was too large for its sites is fetched as soon as they take more', async () => {
  const askers = await Askers.open('one');
  const parts = [askers.part('Disk', 'https://a.example/disk', 8)];
  for (let n = 0; n < 3; n++) await askers.gather('one', parts, { maxBytes: MIB });
  expect(await askers.gather('one', parts, { maxBytes: MIB })).toBe('TooLarge');
  const before = askers.bench.origins.fetched.length;
  expect(await askers.rounds('one', parts, 4)).toContain('Ready');
  expect(askers.bench.origins.fetched).toHaveLength(before + 1);
});

it('What the parts of a metafile have run into stands, though the metafile itself is here', async () => {
  const askers = await Askers.open('one');
  const named = askers.part('Disk', 'https://a.example/image.xml', 1);
  const metafile: Part = { ...named, metafile: true };
  const parts = [
    askers.part('Disk', 'https://a.example/disk', 12),
    askers.part('Kernel', 'https://a.example/kernel', 12),
  ];
  const inputs = 'of the metafile';
  const round = async (of: Askers) =>
    (await of.gather('one', [metafile], { inputs, maxBytes: MIB })) === 'Ready'
      ? of.gather('one', parts, { inputs })
      : '';
  let step = '';
  for (let n = 0; n < 20; n++) {
    step = await round(askers);
    askers.bench.clock.advance(600_000);
  }
  expect(step).toBe('TooLarge');
  // The metafile, and one of the parts.
  expect(askers.bench.origins.fetched).toHaveLength(2);
  // A larger volume is an empty one: the metafile is not in it.
  const larger = await askers.restart(2 * QUOTA);
  for (let n = 0; n < 9 && step !== 'Ready'; n++) step = await round(larger);
  expect(step).toBe('Ready');
});
