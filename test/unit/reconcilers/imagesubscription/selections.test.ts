import { afterEach, describe, expect, test, vi } from 'vitest';
import type { Entry } from '../../../../src/catalogs/catalog.ts';
import {
  type SelectionBounds,
  type Selections,
  startSelections,
} from '../../../../src/reconcilers/imagesubscription/selections.ts';
import { settled } from '../../../support/clock.ts';
import { entry } from './entries.ts';

let selections: Selections | undefined;
afterEach(() => selections?.close());

function begin(bounds: Partial<SelectionBounds> = {}): Selections {
  return (selections = startSelections({ bounds }));
}

const expression = (text: string) => ({ expression: text });
const matches = (pattern: string) => expression(`entry.description.matches("${pattern}")`);
const many = (count: number): Entry[] => Array.from({ length: count }, (_, i) => entry({ id: `e-${i}` }));

/** As much of everything as a list may give. */
const large = entry({
  description: 'a'.repeat(4096),
  createdAt: '2026-01-01T00:00:00Z',
  fields: Object.fromEntries(Array.from({ length: 128 }, (_, i) => [`field-${i}`, 'v'.repeat(4096)])),
});

/** What a tenant may write in 4,096 characters to hold up others. Each computes for many seconds, without a pause of its own. */
const HOSTILE: readonly (readonly [string, string])[] = [
  [
    'half a million instructions in a pattern',
    `entry.fields.all(key, !entry.fields[key].matches("${'x{1000}'.repeat(500)}"))`,
  ],
  [
    'patterns compiled a million times',
    `entry.fields.all(a, entry.fields.all(b, ${Array.from({ length: 200 }, (_, i) => `!a.matches("${i}b")`).join(' && ')}))`,
  ],
  [
    'a comparison of all with all',
    `entry.fields.all(a, entry.fields.all(b, ${Array.from({ length: 150 }, () => 'entry.fields == entry.fields').join(' && ')}))`,
  ],
];

describe('the thread that evaluates selections', { timeout: 120_000 }, () => {
  test('answers for each entry, in their order, whoever asks in between', async () => {
    const thread = begin();
    const evens = thread.begin({ include: { ids: ['e-?[02468]', 'e-0', 'e-2', 'e-4'] } }, undefined);
    const late = thread.begin(expression('entry.id > "e-2" && entry.id < "e-5"'), undefined);
    const [first, second, third] = await Promise.all([
      evens.choose(many(6)),
      late.choose(many(6)),
      evens.choose(many(3)),
    ]);
    expect(first).toEqual([true, false, true, false, true, false]);
    expect(second).toEqual([false, false, false, true, true, false]);
    expect(third).toEqual([true, false, true]);
  });

  test('knows who has signed the list, where an entry has no signer of its own', async () => {
    const signer = { kind: 'x509', name: 'Alice', subject: '/CN=alice', fingerprint: 'ab' } as const;
    const of = begin().begin(expression('entry.endorser == "/CN=alice"'), signer);
    const bob = entry({ signer: { ...signer, subject: '/CN=bob' } });
    expect(await of.choose([entry(), bob])).toEqual([true, false]);
  });

  test('says what is wrong with a selection that is none, and with an entry that it cannot judge', async () => {
    const thread = begin();
    await expect(thread.begin(expression('entry.('), undefined).choose(many(1))).rejects.toMatchObject({
      reason: 'InvalidSpec',
      message: expect.stringContaining('spec.select.expression') as string,
    });
    const unknown = thread.begin(expression('entry.fields["none"] == "x"'), undefined);
    expect(await unknown.choose(many(1))).toEqual([{ fault: expect.stringContaining('none') as string }]);
  });

  test.each(HOSTILE)('gives up %s, while the program goes on and others get their answers', async (_, hostile) => {
    const thread = begin({ entryMs: 2000 });
    let turns = 0;
    const ticker = setInterval(() => turns++, 5);
    try {
      const evil = thread.begin(expression(hostile), undefined).choose([large]);
      const honest = thread.begin(expression('entry.arch == "x86_64"'), undefined).choose(many(3));
      await expect(evil).rejects.toMatchObject({
        reason: 'InvalidSpec',
        message: expect.stringMatching(/too long \(more than 2 s for an entry.*simpler/) as string,
      });
      expect(turns).toBeGreaterThan(5);
      expect(await honest).toEqual([true, true, true]);
    } finally {
      clearInterval(ticker);
    }
  });

  test('is not blamed for a time in which the program itself was held up', async () => {
    const thread = begin({ entryMs: 2000 });
    const honest = thread.begin(expression('entry.arch == "x86_64"'), undefined);
    await honest.choose(many(1));
    const asked = honest.choose(many(3));
    // The answer has come long before anybody listens again.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2500);
    expect(await asked).toEqual([true, true, true]);
  });

  test('is not blamed for a time in which nothing ran, neither the program nor the thread: of its own it has enough left', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const [, hostile = ''] = HOSTILE[1] ?? [];
      const refusals: unknown[] = [];
      const asked = begin().begin(expression(hostile), undefined).choose([large]);
      asked.catch((error: unknown) => refusals.push(error));
      while (vi.getTimerCount() === 0) await settled();
      // The machine was asleep for hours: what was due meanwhile is due at once.
      vi.advanceTimersToNextTimer();
      await settled();
      await settled();
      expect(refusals).toEqual([]);
      while (refusals.length === 0) {
        vi.advanceTimersToNextTimer();
        await settled();
      }
      await expect(asked).rejects.toMatchObject({ reason: 'InvalidSpec' });
    } finally {
      vi.useRealTimers();
    }
  });

  test('gives up one that fills its memory, and nothing else ends with it', async () => {
    const thread = begin({ entryMs: 60_000, allMs: 60_000, heapMiB: 32 });
    const stamps = Array.from({ length: 120 }, () => 'timestamp(entry.createdAt)').join(',');
    const evil = `entry.fields.map(a, entry.fields.map(b, [${stamps}])).size() == 0`;
    await expect(thread.begin(expression(evil), undefined).choose([large])).rejects.toMatchObject({
      reason: 'InvalidSpec',
      message: expect.stringContaining('too much memory (more than 32 MiB)') as string,
    });
    expect(await thread.begin(matches('^.+$'), undefined).choose(many(1))).toEqual([false]);
  });

  test('counts what all questions of a selection cost together, and another one begins anew', async () => {
    const thread = begin({ allMs: 20 });
    const tooLong = { reason: 'InvalidSpec', message: expect.stringContaining('for all so far') as string };
    const costly = thread.begin(matches('(a|b)+'), undefined);
    const askOn = async (): Promise<never> => {
      for (;;) await costly.choose([large]);
    };
    await expect(askOn()).rejects.toMatchObject(tooLong);
    await expect(thread.begin(expression('entry.('), undefined).choose([large])).rejects.toMatchObject({
      message: expect.stringContaining('expecting') as string,
    });
  });

  test('waits for no answer when it is closed', async () => {
    const thread = begin();
    const [, hostile = ''] = HOSTILE[1] ?? [];
    const asked = [hostile, 'true'].map((text) => thread.begin(expression(text), undefined).choose([large]));
    const ends = Promise.allSettled(asked);
    await thread.close();
    const aborted = { status: 'rejected', reason: expect.objectContaining({ reason: 'Aborted' }) as Error };
    expect(await ends).toEqual([aborted, aborted]);
    await expect(thread.begin(matches('a'), undefined).choose([large])).rejects.toMatchObject({ reason: 'Aborted' });
  });

  test('starts again after a time without questions', async () => {
    const thread = begin({ idleMs: 0 });
    const of = thread.begin(expression('entry.id == "e-1"'), undefined);
    for (let i = 0; i < 3; i++) {
      expect(await of.choose(many(2))).toEqual([false, true]);
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
});
