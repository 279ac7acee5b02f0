import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Failure, type Reason } from '../../../../src/api/failure.ts';
import { makerMarks } from '../../../../src/api/maker.ts';
import { ANNOTATIONS, API_VERSION, type ImageSubscription, type VMImage } from '../../../../src/api/types.ts';
import type { Entry, ListFacts, Skipped } from '../../../../src/catalogs/catalog.ts';
import { keep, type KeptList } from '../../../../src/catalogs/kept.ts';
import type { Deps } from '../../../../src/reconcilers/deps.ts';
import { ALONE, type Duties } from '../../../../src/reconcilers/duties.ts';
import { attentionOf, countsOf } from '../../../../src/reconcilers/imagesubscription/counts.ts';
import { follow } from '../../../../src/reconcilers/imagesubscription/follow.ts';
import { leave } from '../../../../src/reconcilers/imagesubscription/leave.ts';
import { KeptLists } from '../../../../src/reconcilers/imagesubscription/lists.ts';
import { beginLook, type Look, told } from '../../../../src/reconcilers/imagesubscription/look.ts';
import { type Selections, startSelections } from '../../../../src/reconcilers/imagesubscription/selections.ts';
import { Jobs } from '../../../../src/runtime/jobs.ts';
import type { Draft } from '../../../../src/stores/store.ts';
import { createLogger } from '../../../../src/telemetry/log.ts';
import { HeldClock } from '../../../support/clock.ts';
import { entry, list, stored, subscription } from './entries.ts';

/** Entries on one side, VMImages in memory on the other. */
let root: string;
let lists: KeptLists;
let selections: Selections;
let clock: HeldClock;
let images: Map<string, VMImage>;
/** What the store's copy does not show yet. */
let hidden: Map<string, VMImage>;
let writes: string[];
let refuse: (name: string) => Reason | undefined;
let mayWrite: boolean;
let summarizes: () => boolean;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'follow-'));
  lists = new KeptLists(root);
  selections = startSelections();
  clock = new HeldClock();
  images = new Map();
  hidden = new Map();
  writes = [];
  refuse = () => undefined;
  mayWrite = true;
  summarizes = () => true;
});
afterEach(async () => {
  await selections.close();
  rmSync(root, { recursive: true, force: true });
});

const many = (count: number): Entry[] =>
  Array.from({ length: count }, (_, i) => entry({ id: `e-${i}`, title: `Entry ${i}` }));

async function publish(
  entries: readonly Entry[],
  skipped: readonly Skipped[] = [],
  facts: ListFacts = list(),
): Promise<KeptList> {
  const catalog = { list: facts, entries, skipped, warnings: [] };
  const head = { warnings: [], url: 'https://lists.example.org/image.list', acceptedAt: '2026-01-01T00:00:00Z' };
  const kept = await keep(lists.folder('uid-egi'), catalog, head, []);
  lists.set('uid-egi', kept);
  return kept;
}

const duties = (): Duties => ({
  ...ALONE,
  get summarizes() {
    return summarizes();
  },
});

function lookAt(metadata: Partial<ImageSubscription['metadata']> = {}, spec: Record<string, unknown> = {}): Look {
  const one: ImageSubscription = subscription(spec, metadata);
  const deps = {
    store: {
      list: (kind: string) => (kind === 'VMImage' ? [...images.values()] : [one]),
      get: (_: string, { name }: { name: string }) => images.get(name),
      async create(draft: Draft) {
        if (images.has(draft.metadata.name) || hidden.has(draft.metadata.name))
          throw new Failure('NameInUse', `${draft.metadata.name} is there`);
        await this.apply(draft);
      },
      async apply(draft: Draft) {
        const { name, uid } = draft.metadata;
        writes.push(name);
        const reason = refuse(name);
        if (uid !== undefined && images.get(name)?.metadata.uid !== uid)
          throw new Failure('Conflict', `${name} has gone`);
        if (reason !== undefined) throw new Failure(reason, `${name} is refused`);
        images.set(name, stored(draft, { generation: (images.get(name)?.metadata.generation ?? 0) + 1 }));
      },
      async delete(_: string, { name }: { name: string }) {
        writes.push(`-${name}`);
        images.delete(name);
      },
    },
    jobs: new Jobs(() => undefined),
    lists,
    selections,
    clock,
    log: createLogger({ level: 'silent' }),
    authority: { goodForMs: () => mayWrite },
    duties: duties(),
    settings: { instance: 'test' },
  } as unknown as Deps;
  return beginLook(one, deps);
}

async function round(kept: KeptList, spec: Record<string, unknown> = {}, generation = 1, inForce = true) {
  const look = lookAt({ generation }, spec);
  const done = await follow(look, kept, inForce);
  if (done === undefined) throw new Error('the entries are lost');
  return { ...done, look };
}

/** Nobody has signed it as a whole. */
function unsigned(more: Partial<ListFacts> = {}): ListFacts {
  const { signer: _, ...facts } = list(more);
  return facts;
}

const states = () =>
  [...images.values()].map(({ metadata, spec }) => [metadata.annotations?.[ANNOTATIONS.entry], spec.state]);
const makers = () => [...images.values()].map(({ metadata }) => makerMarks(metadata)?.uid);
/** As a subscription leaves its images behind. */
function letGo(): void {
  for (const [name, image] of images) {
    const { [ANNOTATIONS.subscriptionUid]: _, ...annotations } = image.metadata.annotations ?? {};
    images.set(name, { ...image, metadata: { ...image.metadata, annotations } });
  }
}
const retired = () => [...images.values()].map(({ metadata }) => metadata.annotations?.[ANNOTATIONS.retired]);

describe('following a list', () => {
  test('writes each image once, and nothing the next time, nor after a restart', async () => {
    const kept = await publish(many(3));
    expect((await round(kept)).summary).toMatchObject({ entries: 3, selected: 3, attention: [] });
    expect(writes).toHaveLength(3);
    await round(kept);
    lists = new KeptLists(root);
    await round(kept);
    expect(writes).toHaveLength(3);
  });

  test('knows what it made when an owner reference was all that said so, and marks it', async () => {
    const kept = await publish(many(2));
    await round(kept);
    letGo();
    const owner = { apiVersion: API_VERSION, kind: 'ImageSubscription', name: 'egi', uid: 'uid-egi', controller: true };
    for (const image of images.values()) image.metadata.ownerReferences = [owner];
    expect((await round(kept)).summary).toMatchObject({ selected: 2, attention: [] });
    expect(writes).toHaveLength(4);
    for (const { metadata } of images.values()) {
      expect(metadata.annotations?.[ANNOTATIONS.subscriptionUid]).toBe('uid-egi');
      expect(metadata.ownerReferences).toBeUndefined();
    }
  });

  test('writes only the one that somebody has changed', async () => {
    const kept = await publish(many(3));
    await round(kept);
    const [name, image] = [...images][1] as [string, VMImage];
    images.set(name, {
      ...image,
      metadata: { ...image.metadata, generation: 2 },
      spec: { ...image.spec, source: { http: { urls: ['https://evil/'] } } },
    });
    writes = [];
    await round(kept);
    expect(writes).toEqual([name]);
  });

  test('writes into the command to approve an entry no id that a shell would run or take for an option', async () => {
    const kept = await publish(['a.img', "$(id)'s.img", '--all'].map((id) => entry({ id })));
    const { summary } = await round(kept, { approval: 'Manual' });
    expect(summary.attention.map(({ message }) => message?.split('or with: ')[1])).toEqual([
      'imageproxy approve egi -n default a.img',
      String.raw`imageproxy approve egi -n default '$(id)'\''s.img'`,
      'imageproxy approve egi -n default -- --all',
    ]);
  });

  test('takes no name that somebody was quicker to take, and says so; when it is free again, it is made', async () => {
    const kept = await publish(many(1));
    await round(kept);
    await round(kept);
    const [name, image] = [...images][0] as [string, VMImage];
    // Made by hand, within the time that the watch needs to tell of it.
    const unseen = {
      ...image,
      metadata: { ...image.metadata, uid: 'of a person', ownerReferences: [], annotations: {} },
    };
    images.clear();
    hidden.set(name, unseen);
    expect((await round(kept)).summary.attention).toMatchObject([{ reason: 'NameInUse', image: name }]);
    expect(hidden.get(name)).toBe(unseen);
    images.set(name, unseen);
    hidden.clear();
    expect((await round(kept)).summary.attention).toMatchObject([{ reason: 'GuidInUse' }]);
    images.clear();
    writes = [];
    expect((await round(kept)).summary.attention).toEqual([]);
    expect(writes).toEqual([name]);
  });

  test('makes no image again that goes while it is taken out of service', async () => {
    await round(await publish(many(2)));
    const gone = [...images.values()].find(({ metadata }) => metadata.annotations?.[ANNOTATIONS.entry] === 'e-1');
    refuse = (name) => {
      if (name === gone?.metadata.name) images.delete(name);
      return undefined;
    };
    await expect(round(await publish(many(1)))).rejects.toMatchObject({ reason: 'Conflict' });
    expect(states().map(([id]) => id)).toEqual(['e-0']);
  });

  test('comes to an end with more than one round can hold, and says so', async () => {
    const kept = await publish(many(1030));
    const first = await round(kept);
    expect(first.more).toBe(true);
    expect(first.look.lookAgainAt).toBe(clock.now());
    expect((await round(kept)).more).toBe(false);
    expect(images.size).toBe(1030);
  });

  test('begins nothing while the right to write may end', async () => {
    mayWrite = false;
    expect(await round(await publish(many(3)))).toMatchObject({ more: true });
    expect(writes).toEqual([]);
  });

  test('ends in the middle when another controller is to follow the lists from now on', async () => {
    summarizes = () => writes.length < 32;
    expect(await round(await publish(many(100)))).toMatchObject({ more: true });
    expect(writes).toHaveLength(32);
  });

  test('goes on past what is refused, tells it, and does not ask for it again until the list is read anew', async () => {
    const kept = await publish(many(1030));
    refuse = () => 'InvalidSpec';
    await round(kept);
    refuse = () => undefined;
    expect((await round(kept)).more).toBe(false);
    expect(images.size).toBe(1030 - 1024);
    const { summary } = await round(kept);
    expect(summary.attention).toHaveLength(1024);
    expect(attentionOf([], summary)).toHaveLength(100);
    delete lists.memory('uid-egi').refused;
    delete lists.memory('uid-egi').followed;
    await round(kept);
    expect(images.size).toBe(1030);
  });

  test('gives other work its turn by the time that entries take, not by their number', async () => {
    const kept = await publish(many(3));
    const spent = vi.spyOn(performance, 'now');
    let [now, turns, done] = [0, 0, false];
    spent.mockImplementation(() => (now += 11));
    const other = () => {
      turns++;
      if (!done) setImmediate(other);
    };
    mayWrite = false;
    await lists.entries('uid-egi');
    setImmediate(other);
    await round(kept);
    done = true;
    spent.mockRestore();
    expect(turns).toBeGreaterThanOrEqual(3);
  });

  test('does not evaluate again what could not be evaluated', async () => {
    const kept = await publish(many(3));
    const spec = { select: { expression: 'entry.(' } };
    await expect(round(kept, spec)).rejects.toMatchObject({ reason: 'InvalidSpec' });
    const [first] = [lists.memory('uid-egi').unanswered?.failure];
    await expect(round(kept, spec)).rejects.toBe(first);
    expect((await round(kept, {}, 2)).summary.selected).toBe(3);
  });

  test('throws what may succeed the next time', async () => {
    refuse = (name) => (name.includes('e-1') ? 'NetworkError' : undefined);
    await expect(round(await publish(many(3)))).rejects.toMatchObject({ reason: 'NetworkError' });
    expect(images.size).toBe(2);
  });

  test('gives two entries of one name to nobody twice', async () => {
    const { summary } = await round(await publish([entry(), entry({ title: 'Again' })]));
    expect(writes).toHaveLength(1);
    expect(summary.attention).toMatchObject([{ reason: 'NameInUse' }]);
  });

  test('knows when it comes out otherwise by itself', async () => {
    const soon = new Date(clock.now() + 60_000).toISOString();
    const kept = await publish([entry({ expiresAt: soon })]);
    expect((await round(kept)).summary.dueAt).toBe(clock.now() + 60_000);
    clock.advance(60_000);
    await round(kept);
    expect(retired()).toEqual(['Expired']);
  });
});

describe('an image whose entry is gone', () => {
  const gone = async (
    spec: Record<string, unknown> = {},
    skipped: readonly Skipped[] = [],
    more: Partial<KeptList> = {},
  ) => {
    await round(await publish(many(2)), spec);
    writes = [];
    const { summary } = await round({ ...(await publish(many(1), skipped)), ...more }, spec);
    return summary;
  };
  const fault = (reason: Reason): Skipped => ({ id: 'e-1', reason, message: 'what is wrong' });
  const distrust = { reason: 'EndorserNotTrusted' as const, message: 'he is out' };

  test.each<[string, Record<string, unknown>, Skipped[], Partial<KeptList>, unknown, unknown]>([
    [
      'is deactivated',
      {},
      [],
      {},
      [
        ['e-0', 'Active'],
        ['e-1', 'Deactivated'],
      ],
      [undefined, 'Removed'],
    ],
    ['is deleted where that is said', { onRemoved: 'Delete' }, [], {}, [['e-0', 'Active']], [undefined]],
    [
      'stays where that is said',
      { onRemoved: 'Retain' },
      [],
      {},
      [
        ['e-0', 'Active'],
        ['e-1', 'Active'],
      ],
      [undefined, undefined],
    ],
    [
      'stays where only its entry is faulty',
      {},
      [fault('InvalidEntry')],
      {},
      [
        ['e-0', 'Active'],
        ['e-1', 'Active'],
      ],
      [undefined, undefined],
    ],
    [
      'stays where a CRL is missing',
      {},
      [fault('CrlMissing')],
      {},
      [
        ['e-0', 'Active'],
        ['e-1', 'Active'],
      ],
      [undefined, undefined],
    ],
    [
      'is untrusted where its own signer is',
      {},
      [fault('CertificateRevoked')],
      {},
      [
        ['e-0', 'Active'],
        ['e-1', 'Deactivated'],
      ],
      [undefined, 'Untrusted'],
    ],
    [
      'is untrusted with all the others where the signer of the list is',
      {},
      [],
      { distrust },
      [
        ['e-0', 'Deactivated'],
        ['e-1', 'Deactivated'],
      ],
      ['Untrusted', 'Untrusted'],
    ],
  ])('%s', async (_, spec, skipped, more, expected, why) => {
    await gone(spec, skipped, more);
    expect(states()).toEqual(expected);
    expect(retired()).toEqual(why);
  });

  test('is counted, and written once', async () => {
    const summary = await gone();
    expect(writes).toHaveLength(1);
    expect(countsOf([...images.values()], summary)).toMatchObject({ images: 2, retired: 1 });
    await round(await publish(many(1)));
    expect(writes).toHaveLength(1);
  });

  test('is left to its finalizer when it is on its way out', async () => {
    await round(await publish(many(2)));
    const [name, image] = [...images][1] as [string, VMImage];
    images.set(name, { ...image, metadata: { ...image.metadata, deletionTimestamp: '2026-11-21T12:00:00Z' } });
    writes = [];
    await round(await publish(many(1)), { onRemoved: 'Delete' });
    expect(writes).toEqual([]);
  });

  test('stays where a former subscription of the name has left it; where there is an entry, it is taken up again', async () => {
    await round(await publish(many(2)));
    letGo();
    writes = [];
    await round(await publish(many(1)), { onRemoved: 'Delete' });
    expect(writes).toEqual([[...images.keys()][0]]);
    expect(makers()).toEqual(['uid-egi', undefined]);
    expect(retired()).toEqual([undefined, undefined]);
  });

  test('stays where one of several endorsers of it may be in order again tomorrow, whoever else has written of it', async () => {
    const faults = [fault('EndorserNotTrusted'), fault('CertificateExpired'), fault('EndorserNotTrusted')];
    await gone({}, faults);
    expect(retired()).toEqual([undefined, undefined]);
    await gone({}, [fault('EndorserNotTrusted'), fault('CertificateRevoked')]);
    expect(retired()).toEqual([undefined, 'Untrusted']);
  });

  test('goes by the entry that is believed, not by what a stranger has written of it', async () => {
    await round(await publish(many(1)));
    const stranger: Skipped = { id: 'e-0', reason: 'EndorserNotTrusted', message: 'he is none' };
    await round(await publish([entry({ id: 'e-0', deprecated: 'it has a hole' })], [stranger]));
    expect(retired()).toEqual(['Removed']);
  });

  test('of many that nobody has signed waits for a person, and those that stay are brought up to date meanwhile', async () => {
    await round(await publish(many(30), [], unsigned()));
    writes = [];
    const left = [entry({ id: 'e-0', title: 'Renamed' })];
    const { summary } = await round(await publish(left, [], unsigned()));
    expect(summary.held).toMatchObject({ reason: 'ConfirmationRequired' });
    expect(writes).toHaveLength(1);
    const { summary: signed } = await round(await publish(left));
    expect(signed).toMatchObject({ retired: 29 });
    expect(signed.held).toBeUndefined();
  });

  test('of a Marketplace that answers with nothing waits for a person, for nobody signs its answers', async () => {
    const directoryRef = { kind: 'ConfigMap', name: 'anchors' };
    const trust = { x509: { endorsers: [{ subject: '/CN=alice', issuer: '/CN=CA' }], directoryRef } };
    const marketplace = unsigned({ format: 'Marketplace' });
    await round(await publish(many(2), [], marketplace), { trust });
    const { summary } = await round(await publish([], [], marketplace), { trust });
    expect(summary.held).toMatchObject({ reason: 'ConfirmationRequired' });
    expect(retired()).toEqual([undefined, undefined]);
    await round(await publish(many(1), [], marketplace), { trust });
    expect(retired()).toEqual([undefined, 'Removed']);
  });
});

describe('an image of a list in which each entry is signed by itself', () => {
  const alice = { subject: '/CN=alice', issuer: '/CN=CA' };
  const bob = { subject: '/CN=bob', issuer: '/CN=CA' };
  const signer = { kind: 'x509', name: '/CN=alice', ...alice, fingerprint: 'ab' } as const;
  const x509 = { endorsers: [alice], directoryRef: { kind: 'ConfigMap', name: 'anchors' } };
  const trust = { trust: { x509 } };
  const marketplace = unsigned({ format: 'Marketplace' });
  const word = (reason: Reason, by: Skipped['signer']): Skipped => ({
    id: 'e-1',
    reason,
    message: 'what is wrong',
    ...(by === undefined ? {} : { signer: by }),
  });

  test.each<[string, Skipped[], string | undefined]>([
    ['goes when its own endorser is revoked', [word('CertificateRevoked', alice)], 'Untrusted'],
    [
      'goes whoever has made another entry of its id, or one in the name of its endorser',
      [
        word('SignatureInvalid', 'Unproven'),
        word('CertificateRevoked', alice),
        word('CrlMissing', bob),
        word('UntrustedSigner', alice),
        word('WeakSignature', alice),
      ],
      'Untrusted',
    ],
    [
      'stays while another entry of its endorser may be in order tomorrow',
      [word('CertificateRevoked', alice), word('CrlMissing', alice)],
      undefined,
    ],
    ['stays where the authority of its endorser is gone', [word('UntrustedSigner', alice)], undefined],
    ['stays where a CRL is missing', [word('CrlMissing', alice)], undefined],
    [
      'is removed when its endorser has withdrawn it, whoever never trusted endorses it too',
      [word('EndorserNotTrusted', bob)],
      'Removed',
    ],
    ['is removed when all that is left is forged', [word('SignatureInvalid', 'Unproven')], 'Removed'],
    [
      'is removed when another is revoked whom another authority gave the same name',
      [word('CertificateRevoked', { ...alice, issuer: '/CN=Other CA' })],
      'Removed',
    ],
  ])('%s', async (_, skipped, why) => {
    const entries = many(2).map((each) => ({ ...each, signer }));
    await round(await publish(entries, [], marketplace), trust);
    await round(await publish(entries.slice(0, 1), skipped, marketplace), trust);
    expect(retired()).toEqual([undefined, why]);
  });

  test('waits for a person with many others whose entries somebody has replaced by forged ones', async () => {
    const entries = many(12).map((each) => ({ ...each, signer }));
    await round(await publish(entries, [], marketplace), trust);
    const forged = entries.slice(1).map(({ id }) => ({ ...word('EndorserNotTrusted', bob), id }));
    const { summary } = await round(await publish(entries.slice(0, 1), forged, marketplace), trust);
    expect(summary.held).toMatchObject({ reason: 'ConfirmationRequired' });
    expect(new Set(retired())).toEqual(new Set([undefined]));
  });
});

describe('a list that is not in force', () => {
  const resting = (kept: KeptList, spec: Record<string, unknown> = {}, generation = 1) =>
    round(kept, spec, generation, false);

  test('makes no image, changes none, and brings none back; when it is in force again, it does', async () => {
    await round(await publish(many(2)));
    await round(await publish(many(1)));
    const kept = await publish([...many(3).slice(1), entry({ id: 'e-0', title: 'Renamed' })]);
    const before = states();
    writes = [];
    expect((await resting(kept)).summary).toMatchObject({ selected: 3, attention: [] });
    expect(writes).toEqual([]);
    expect(states()).toEqual(before);
    await round(kept);
    expect(writes).toHaveLength(3);
    expect(retired()).toEqual([undefined, undefined, undefined]);
  });

  test('lets images go that are chosen no longer, or past their date', async () => {
    const soon = new Date(clock.now() + 60_000).toISOString();
    const kept = await publish([entry({ id: 'e-0', expiresAt: soon }), entry({ id: 'e-1' }), entry({ id: 'e-2' })]);
    await round(kept);
    clock.advance(60_000);
    await resting(kept, { select: { exclude: { ids: ['e-1'] } } }, 2);
    expect(retired()).toEqual(['Expired', 'Removed', undefined]);
  });
});

describe('a list whose signer is out', () => {
  const distrust = { reason: 'CertificateRevoked' as const, message: 'he is revoked' };

  test('lets all images go, although what is chosen of it cannot be evaluated', async () => {
    const kept = await publish(many(2));
    await round(kept);
    const spec = { select: { expression: 'entry.(' } };
    await expect(round(kept, spec, 2)).rejects.toMatchObject({ reason: 'InvalidSpec' });
    const { summary } = await round({ ...kept, distrust }, spec, 2);
    expect(summary).toMatchObject({ entries: 2, selected: 0, retired: 2 });
    expect(retired()).toEqual(['Untrusted', 'Untrusted']);
  });

  test('lets no image go that a former subscription of its name has left', async () => {
    const kept = await publish(many(1));
    await round(kept);
    letGo();
    await round({ ...kept, distrust });
    expect(retired()).toEqual([undefined]);
  });
});

test('products of a keyring whose key is taken out go with it, and those beside them stay', async () => {
  const keyringRef = { kind: 'ConfigMap', name: 'keys', key: 'keyring.asc' };
  const spec = { trust: { openpgp: { keyringRef } } };
  await round(await publish(many(2)), spec);
  const lost: Skipped = { id: 'e-1', reason: 'UntrustedSigner', message: 'nobody in the keyring' };
  await round(await publish(many(1), [lost]), spec);
  expect(retired()).toEqual([undefined, 'Untrusted']);
});

describe('an endorser on a white or black list', () => {
  test.each([
    [{ include: { endorsers: ['/CN=alice'] } }, 2],
    [{ include: { endorsers: ['/CN=bob'] } }, 0],
    [{ exclude: { endorsers: ['/CN=al*'] } }, 0],
    [{ matchFields: [{ key: 'endorser', operator: 'In', values: ['/CN=alice'] }] }, 2],
    [{ expression: 'entry.endorser == "/CN=bob"' }, 0],
  ])('is who signed the list, where that is signed as a whole: %j', async (select, selected) => {
    expect((await round(await publish(many(2)), { select })).summary).toMatchObject({ selected });
  });

  test('is who signed the entry, where entries are', async () => {
    const bob = { kind: 'x509', name: '/CN=bob', subject: '/CN=bob', issuer: '/CN=CA', fingerprint: 'cd' } as const;
    const kept = await publish([entry({ signer: bob })]);
    expect((await round(kept, { select: { include: { endorsers: ['/CN=alice'] } } })).summary.selected).toBe(0);
  });
});

describe('a deletion that a store refuses', () => {
  test('says why, and is tried again when its time has come or somebody asks', async () => {
    await round(await publish(many(1)));
    refuse = () => 'InvalidSpec';
    writes = [];
    const first = lookAt();
    expect(await leave(first)).toBe(false);
    expect(told(first, 'Ready')).toMatchObject({
      reason: 'DeletionHeld',
      message: expect.stringContaining('is refused') as string,
    });
    await leave(lookAt());
    expect(writes).toHaveLength(1);
    await leave(lookAt({ annotations: { [ANNOTATIONS.requestedAt]: 'now' } }));
    expect(writes).toHaveLength(2);
    clock.advance(30_000);
    refuse = () => undefined;
    await leave(lookAt());
    expect(makers()).toEqual([undefined]);
  });
});
