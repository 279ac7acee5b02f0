import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { VMImage } from '../../../src/api/types.ts';
import { gather } from '../../../src/reconcilers/vmimage/content.ts';
import type { Part } from '../../../src/reconcilers/vmimage/plan.ts';
import { settled } from '../../support/clock.ts';
import { DownloadBench, partFrom } from './downloading.ts';
import { vmimage } from './objects.ts';
import { sha256 } from './scripted-origins.ts';

const HOUR_MS = 3_600_000;
const [ONE, TWO] = ['https://one.example/disk', 'https://two.example/disk'];
const body = Buffer.from('a disk');
const wrong = { etag: '"wrong"', body: Buffer.from('other bytes') };
const right = { etag: '"right"', body };
const gone = new Failure('NotFound', 'it is not there');
const down = new Failure('NetworkError', 'it does not answer');

/** Rounds of one image that wants the bytes, until nothing runs any more. */
class Asker {
  readonly bench: DownloadBench;
  readonly part: Part;
  #image: VMImage;

  constructor(bench: DownloadBench, declared: Part['declared'] = { sha256: sha256(body) }) {
    this.bench = bench;
    this.part = partFrom([ONE, TWO], declared);
    this.#image = bench.add(vmimage());
  }

  async rounds(): Promise<string> {
    const { bench, part } = this;
    const { woken, jobs, deps } = bench;
    for (;;) {
      woken.length = 0;
      const round = bench.round(this.#image);
      deps.downloads.ask(round.key, [part]);
      const content = await gather(round, [part], 'inputs', { maxBytes: 2 ** 30, bound: '', also: [] });
      this.#image = await bench.conclude(round);
      while (woken.length === 0 && jobs.running > 0) await settled();
      if (woken.length === 0) return content.step === 'Failed' ? content.failure.reason : content.step;
    }
  }

  /** Seven hours pass. What is looked at, and which bytes are fetched then. */
  async later(): Promise<{ step: string; asked: string[]; fetched: string[] }> {
    const { origins, clock } = this.bench;
    origins.asked.length = 0;
    origins.fetched.length = 0;
    clock.advance(7 * HOUR_MS);
    const step = await this.rounds();
    return { step, asked: [...new Set(origins.asked)], fetched: [...origins.fetched] };
  }
}

describe.each([false, true])('wrong bytes, with the process restarted since: %s', (restarted) => {
  async function refused(one: Parameters<DownloadBench['origins']['serve']>[1], two: typeof one) {
    const bench = await DownloadBench.open();
    const asker = new Asker(bench);
    bench.origins.serve(ONE, one);
    bench.origins.serve(TWO, two);
    const reason = await asker.rounds();
    if (restarted) bench.restart();
    return { bench, asker, reason };
  }

  it('are not fetched again while both mirrors say the same', async () => {
    const { asker, reason } = await refused(wrong, wrong);
    expect(reason).toBe('DigestMismatch');
    for (let n = 0; n < 3; n++)
      expect(await asker.later()).toEqual({ step: 'DigestMismatch', asked: [ONE, TWO], fetched: [] });
  });

  it.each([
    ['is not there', gone],
    ['does not answer', down],
  ])('of one mirror are replaced there while another %s: that is seen at the next look', async (_, other) => {
    const { bench, asker } = await refused(wrong, wrong);
    bench.origins.serve(TWO, other);
    expect(await asker.later()).toMatchObject({ step: 'DigestMismatch', fetched: [] });
    bench.origins.serve(ONE, right);
    expect(await asker.later()).toMatchObject({ step: 'Ready', fetched: [ONE] });
  });

  it('of the first mirror, the second being gone, are found mended at the second', async () => {
    const { bench, asker, reason } = await refused(wrong, gone);
    expect(reason).toBe('DigestMismatch');
    expect(await asker.later()).toMatchObject({ step: 'DigestMismatch', fetched: [] });
    bench.origins.serve(TWO, right);
    const { step, fetched } = await asker.later();
    expect([step, fetched.at(-1)]).toEqual(['Ready', TWO]);
  });

  it('of the second mirror, the first being gone, are found mended where they were', async () => {
    const { bench, asker, reason } = await refused(gone, wrong);
    expect(reason).toBe('NotFound');
    bench.origins.serve(TWO, right);
    expect(await asker.later()).toMatchObject({ step: 'Ready', fetched: [TWO] });
  });
});

it('of the second mirror, the first being gone, are not fetched again as they are', async () => {
  const bench = await DownloadBench.open();
  const asker = new Asker(bench);
  bench.origins.serve(ONE, gone);
  bench.origins.serve(TWO, wrong);
  expect(await asker.rounds()).toBe('NotFound');
  for (let n = 0; n < 3; n++) expect(await asker.later()).toMatchObject({ step: 'NotFound', fetched: [] });
});

it('that were a page of text are seen when an image is there instead', async () => {
  const bench = await DownloadBench.open();
  const asker = new Asker(bench);
  bench.origins.serve(ONE, new Failure('NotAnImage', 'a page'));
  bench.origins.serve(TWO, gone);
  expect(await asker.rounds()).toBe('NotAnImage');
  bench.origins.serve(ONE, right);
  expect(await asker.later()).toMatchObject({ step: 'Ready', fetched: [ONE] });
});

it('A wrong checksum is found beside a right one by which the bytes are here already', async () => {
  const bench = await DownloadBench.open();
  bench.origins.serve(ONE, right);
  expect(await new Asker(bench).rounds()).toBe('Ready');
  const declared = { sha256: sha256(body), sha512: '0'.repeat(128) };
  const asker = new Asker(bench, declared);
  asker.part.key = 'another';
  expect(await asker.rounds()).toBe('DigestMismatch');
  expect(await asker.later()).toMatchObject({ step: 'DigestMismatch', fetched: [] });
});
