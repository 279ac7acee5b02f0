import { beforeEach, describe, expect, test } from 'vitest';
import { timestamp } from '../../../../src/api/conditions.ts';
import { Failure } from '../../../../src/api/failure.ts';
import type { ImageSubscription } from '../../../../src/api/types.ts';
import type { KeptList } from '../../../../src/catalogs/kept.ts';
import type { ReadOutcome, ReadTask } from '../../../../src/catalogs/reading.ts';
import type { Deps } from '../../../../src/reconcilers/deps.ts';
import { KeptLists } from '../../../../src/reconcilers/imagesubscription/lists.ts';
import { beginLook, endLook, type Look, told } from '../../../../src/reconcilers/imagesubscription/look.ts';
import {
  isAccepted,
  isInForce,
  lastFailure,
  leaveUnanswered,
  readWhenDue,
  takeReading,
  tellPastDate,
} from '../../../../src/reconcilers/imagesubscription/reading.ts';
import { Jobs } from '../../../../src/runtime/jobs.ts';
import { createLogger } from '../../../../src/telemetry/log.ts';
import { HeldClock, settled } from '../../../support/clock.ts';
import { list, subscription } from './entries.ts';

/** When a list is looked at, with time held. */
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

let clock: HeldClock;
let lists: KeptLists;
let jobs: Jobs;
let deps: Deps;
let object: ImageSubscription;
let secretVersion: string | undefined;
let outcome: ReadOutcome | Failure;
let tasks: ReadTask[];
/** Until then a reading runs. */
let answered: Promise<void>;
const results: string[] = [];

const kept = (more: Partial<KeptList> = {}): KeptList => ({
  format: 1,
  revision: 'r1',
  list: list(),
  warnings: [],
  documents: [],
  url: 'https://lists.example.org/image.list',
  acceptedAt: '2026-01-01T00:00:00Z',
  ...more,
});
const accepted = (more: Partial<KeptList> = {}): ReadOutcome => ({ kind: 'Accepted', kept: kept(more), fresh: true });
const refused = (
  failure: Failure,
  stage: 'Fetch' | 'Verify' = 'Fetch',
  { doubt, ...more }: Partial<KeptList> & { doubt?: Failure } = {},
): ReadOutcome => ({
  kind: 'Refused',
  failure: failure.toPlain(),
  stage,
  kept: kept(more),
  ...(doubt === undefined ? {} : { doubt: doubt.toPlain() }),
});

beforeEach(() => {
  clock = new HeldClock();
  secretVersion = undefined;
  tasks = [];
  answered = Promise.resolve();
  results.length = 0;
  outcome = accepted();
  object = subscription({ interval: '1h' });
  start();
});

/** What a start of the program makes anew; the object's status is what is left of the time before. */
function start(): void {
  lists = new KeptLists('/nowhere');
  jobs = new Jobs(() => undefined);
  deps = {
    store: {
      get: () => (secretVersion === undefined ? undefined : { metadata: { resourceVersion: secretVersion } }),
      list: () => [],
      secret: async () => ({ metadata: { namespace: 'default', name: 'ca' }, data: { 'ca.crt': Buffer.from('PEM') } }),
    },
    lists,
    jobs,
    clock,
    log: createLogger({ level: 'silent' }),
    metrics: { listRead: (_: string, result: string) => void results.push(result) },
    settings: { network: { allow: [] }, timeouts: {} },
    catalogs: {
      read: async (task: ReadTask) => {
        tasks.push(task);
        await answered;
        if (outcome instanceof Failure) throw outcome;
        return outcome;
      },
    },
  } as unknown as Deps;
}

/** One look, as the reconciler does it: takes what is there, starts what is due, and writes the status. */
async function look(requestedAt?: string, { written } = { written: true }): Promise<Look> {
  const annotations = requestedAt === undefined ? {} : { 'imageproxy.dev/requestedAt': requestedAt };
  const one = beginLook({ ...object, metadata: { ...object.metadata, annotations } }, deps);
  takeReading(one);
  tellPastDate(one);
  await readWhenDue(one);
  leaveUnanswered(one);
  one.status.observedGeneration = one.generation;
  if (!written) return one;
  object = { ...object, status: one.status };
  endLook(one);
  for (const begin of one.starts) begin();
  await settled();
  return one;
}

/** A look that starts a reading, and the one that takes what it has brought. */
async function read(): Promise<Look> {
  await look();
  return look();
}

/** Whether images are compared with what is kept. */
async function current(one: Look): Promise<boolean> {
  const head = await lists.head(one.uid);
  return head !== undefined && isAccepted(head, one);
}

const due = ({ lookAgainAt }: Look) => ((lookAgainAt ?? Number.NaN) - clock.now()) / MINUTE;

describe('a list', () => {
  test('is read at once when the subscription is new, and then after the interval, give or take a tenth', async () => {
    const first = await read();
    expect(tasks).toHaveLength(1);
    expect(results).toEqual(['Accepted']);
    expect(first.status).toMatchObject({ lastCheckedTime: timestamp(clock.now()), list: { version: '1' } });
    expect(due(first)).toBeGreaterThan(53);
    expect(due(first)).toBeLessThan(67);
    clock.advance(50 * MINUTE);
    await look();
    expect(tasks).toHaveLength(1);
    clock.advance(20 * MINUTE);
    await look();
    expect(tasks).toHaveLength(2);
  });

  test('is not read again because the program was started anew, but at its date', async () => {
    const before = await read();
    start();
    lists.set(object.metadata.uid, kept());
    const again = await look();
    expect(tasks).toHaveLength(1);
    expect(again.lookAgainAt).toBe(before.lookAgainAt);
  });

  test('that came due while the program was down is read soon, and not together with all the others', async () => {
    await read();
    clock.advance(100 * HOUR);
    start();
    lists.set(object.metadata.uid, kept());
    const overdue = await look();
    expect(tasks).toHaveLength(1);
    expect(due(overdue)).toBeGreaterThan(0);
    expect(due(overdue)).toBeLessThanOrEqual(1);
    clock.advance(MINUTE);
    await look();
    expect(tasks).toHaveLength(2);
  });

  test.each<[string, () => ReadOutcome | Failure]>([
    ['was read', accepted],
    ['was read, and has a date of its own', () => accepted({ list: list({ expiresAt: '2099-01-01T00:00:00Z' }) })],
    ['could not be read', () => new Failure('NetworkError', 'no')],
    ['was refused', () => refused(new Failure('SignatureInvalid', 'no'), 'Verify')],
  ])('that %s while the clock was a year ahead is read again once that is put right', async (_, was) => {
    outcome = was();
    clock.advance(365 * 24 * HOUR);
    await read();
    clock.advance(-365 * 24 * HOUR);
    start();
    lists.set(object.metadata.uid, kept());
    outcome = accepted();
    await look();
    clock.advance(MINUTE);
    await look();
    expect(tasks).toHaveLength(2);
    expect((await look()).status.lastCheckedTime).toBe(timestamp(clock.now()));
    expect(tasks).toHaveLength(2);
  });

  test('is read at once when it is lost from the disk', async () => {
    await read();
    start();
    await look();
    expect(tasks).toHaveLength(2);
    expect(tasks[1]?.accepted).toMatchObject({ version: '1', digest: list().digest });
  });

  test.each<[string, () => void]>([
    ['another URL', () => (object = { ...object, spec: { ...object.spec, url: 'https://other.example.org/' } })],
    ['other trust', () => (object = { ...object, spec: { ...object.spec, trust: { minisign: { publicKeys: [] } } } })],
    ['what to do with an older list', () => (object = { ...object, spec: { ...object.spec, rollback: 'Accept' } })],
    ['the Secret', () => (secretVersion = '2')],
  ])('is read at once when this changes: %s', async (_, change) => {
    object = { ...object, spec: { ...object.spec, caRef: { kind: 'Secret', name: 'ca', key: 'ca.crt' } } };
    secretVersion = '1';
    await read();
    await look();
    expect(tasks).toHaveLength(1);
    change();
    await look();
    expect(tasks).toHaveLength(2);
  });

  test('that is older than the one accepted, left of a backup or of former times, is read again and not applied', async () => {
    await read();
    start();
    lists.set(object.metadata.uid, kept({ list: list({ digest: `sha256:${'0'.repeat(64)}` }) }));
    const first = await look();
    expect(await current(first)).toBe(false);
    expect(tasks).toHaveLength(2);
    expect(await current(await look())).toBe(true);
  });

  test('that somebody else may have followed meanwhile is read again before it is applied', async () => {
    await read();
    lists.doubt();
    expect(await current(await look())).toBe(false);
    expect(tasks).toHaveLength(2);
    expect(await current(await look())).toBe(true);
    expect(await current(await look())).toBe(true);
    expect(tasks).toHaveLength(2);
  });

  test('that cannot be read just then is applied as it was, when it is the one accepted', async () => {
    await read();
    lists.doubt();
    outcome = new Failure('NetworkError', 'no');
    await look();
    expect(await current(await look())).toBe(true);
  });

  test('that was read with trust taken away meanwhile is not applied before it has been judged anew', async () => {
    await look();
    object = { ...object, spec: { ...object.spec, trust: { minisign: { publicKeys: [] } } } };
    expect(await current(await look())).toBe(false);
    expect(tasks).toHaveLength(2);
    expect(await current(await look())).toBe(true);
  });

  test('whose new judgement could not be written is judged once more before it is applied', async () => {
    await read();
    object = { ...object, spec: { ...object.spec, trust: { minisign: { publicKeys: [] } } } };
    outcome = new Failure('NetworkError', 'no');
    await look();
    const lost = await look(undefined, { written: false });
    expect(told(lost, 'Verified')?.status).toBe('Unknown');
    expect(await current(await look())).toBe(false);
    expect(tasks).toHaveLength(3);
    expect(told(await look(), 'Verified')?.status).toBe('Unknown');
  });

  test('is read at once when the Secret has changed while the program was down', async () => {
    object = { ...object, spec: { ...object.spec, caRef: { kind: 'Secret', name: 'ca', key: 'ca.crt' } } };
    secretVersion = '1';
    await read();
    const inputs = tasks[0]?.inputs ?? '';
    for (const version of ['1', '2']) {
      start();
      lists.set(object.metadata.uid, kept({ inputs }));
      secretVersion = version;
      await look();
      expect(tasks).toHaveLength(Number(version));
    }
  });

  test('is not read for a change of what its images are made with', async () => {
    await read();
    const { template } = object.spec;
    object = { ...object, spec: { ...object.spec, template: { ...template, spec: { ...template.spec, history: 5 } } } };
    object.metadata.generation++;
    await look();
    expect(tasks).toHaveLength(1);
  });

  test('is read when somebody asks, whatever its date', async () => {
    await read();
    await look('now');
    expect(tasks).toHaveLength(2);
    await look('now');
    expect(tasks).toHaveLength(2);
  });

  test('is read once more when somebody asks while it is read, for that reading may have come before what he has seen', async () => {
    const { promise, resolve: answer } = Promise.withResolvers<void>();
    answered = promise;
    await look();
    await look('now');
    await look('now');
    expect(tasks).toHaveLength(1);
    answer();
    await settled();
    await look('now');
    expect(tasks).toHaveLength(2);
    await look('now');
    expect(tasks).toHaveLength(2);
  });

  test('that somebody asks for is answered when a reading that began after it has ended, well or not', async () => {
    await read();
    expect((await look('1')).status.lastHandledReconcileAt).toBeUndefined();
    expect((await look('1')).status.lastHandledReconcileAt).toBe('1');
    outcome = new Failure('SecretNotFound', 'there is no Secret');
    const asked = await look('2');
    expect(asked.status.lastHandledReconcileAt).toBe('1');
    expect(lastFailure(asked)).toBeUndefined();
    const answered = await look('2');
    expect(answered.status.lastHandledReconcileAt).toBe('2');
    expect(lastFailure(answered)?.reason).toBe('SecretNotFound');
    expect(tasks).toHaveLength(3);
  });

  test('that somebody asks for while it is read is not answered by that reading, nor by one that a stop has cut', async () => {
    const { promise, resolve: answer } = Promise.withResolvers<void>();
    answered = promise;
    await look();
    await look('1');
    answer();
    await settled();
    expect((await look('1')).status.lastHandledReconcileAt).toBeUndefined();
    expect(tasks).toHaveLength(2);
    // The program ends before that reading is taken.
    start();
    lists.set(object.metadata.uid, kept());
    expect((await look('1')).status.lastHandledReconcileAt).toBeUndefined();
    expect(tasks).toHaveLength(3);
    expect((await look('1')).status.lastHandledReconcileAt).toBe('1');
  });

  test('that somebody asks for is read once more where what came of it could not be written', async () => {
    await read();
    await look('1');
    outcome = new Failure('SecretNotFound', 'there is no Secret');
    await look('2');
    await look('2', { written: false });
    expect(tasks).toHaveLength(3);
    expect((await look('2')).status.lastHandledReconcileAt).not.toBe('2');
    expect(tasks).toHaveLength(4);
    const answered = await look('2');
    expect(answered.status.lastHandledReconcileAt).toBe('2');
    expect(lastFailure(answered)?.reason).toBe('SecretNotFound');
  });

  test('is looked at when its own date is past, once', async () => {
    outcome = accepted({ list: list({ expiresAt: timestamp(clock.now() + 10 * MINUTE) }) });
    const first = await read();
    expect(due(first)).toBeCloseTo(10, 0);
    outcome = refused(new Failure('ListExpired', 'past its date'), 'Verify');
    clock.advance(10 * MINUTE + 1000);
    const past = await read();
    expect(tasks).toHaveLength(2);
    expect(told(past, 'Verified')).toMatchObject({ status: 'False', reason: 'ListExpired' });
    // Only the publisher can mend that: no sooner than the interval says.
    expect(due(past)).toBeGreaterThan(50);
  });

  test('is looked at sooner when its interval is made shorter', async () => {
    await read();
    object = { ...object, spec: { ...object.spec, interval: '10m' } };
    expect(due(await look())).toBeLessThanOrEqual(11);
  });
});

describe('the accepted list', () => {
  const unreachable = new Failure('NetworkError', 'no route');
  const changeTrust = () => {
    object = { ...object, spec: { ...object.spec, trust: { minisign: { publicKeys: [] } } } };
  };

  test('is in force while it is the last that was read, and when the next cannot be fetched', async () => {
    expect(isInForce(await read())).toBe(true);
    outcome = refused(unreachable);
    clock.advance(2 * HOUR);
    const failed = await read();
    expect(isInForce(failed)).toBe(true);
    expect(told(failed, 'Verified')).toMatchObject({ status: 'True' });
  });

  test('is not in force after another one was served that is not to be believed', async () => {
    await read();
    outcome = refused(new Failure('SignatureInvalid', 'changed'), 'Verify');
    clock.advance(2 * HOUR);
    expect(isInForce(await read())).toBe(false);
  });

  test.each([
    ['in doubt', { doubt: new Failure('UntrustedSigner', 'the authority is gone') }, 'UntrustedSigner'],
    ['out', { distrust: { reason: 'EndorserNotTrusted' as const, message: 'he is out' } }, 'EndorserNotTrusted'],
  ])(
    'is not in force where it is %s and the next cannot be fetched; when it is judged good, it is again',
    async (_, more, reason) => {
      await read();
      changeTrust();
      outcome = refused(unreachable, 'Fetch', more);
      const failed = await read();
      expect(isInForce(failed)).toBe(false);
      expect(told(failed, 'Fetched')).toMatchObject({ status: 'False', reason: 'NetworkError' });
      expect(told(failed, 'Verified')).toMatchObject({ status: 'False', reason });
      outcome = refused(unreachable);
      clock.advance(HOUR);
      expect(isInForce(await read())).toBe(true);
    },
  );

  test('is not in force where a reading with other trust ended before it could be judged', async () => {
    await read();
    changeTrust();
    outcome = new Failure('ConfigMapNotFound', 'there is no ConfigMap default/anchors');
    const failed = await read();
    expect(await current(failed)).toBe(true);
    expect(isInForce(failed)).toBe(false);
    expect(told(failed, 'Verified')).toMatchObject({ status: 'Unknown', reason: 'ConfigMapNotFound' });
    // What ends before it in the same trust says nothing new.
    outcome = accepted();
    clock.advance(HOUR);
    await read();
    outcome = new Failure('ResourceLimit', 'too much');
    clock.advance(2 * HOUR);
    expect(isInForce(await read())).toBe(true);
  });

  test('ends at its date although its origin cannot be reached then, which is told once, beside why', async () => {
    outcome = accepted({ list: list({ expiresAt: timestamp(clock.now() + 2 * HOUR + 10 * MINUTE) }) });
    await read();
    outcome = refused(new Failure('NotFound', 'it has gone'));
    clock.advance(2 * HOUR);
    const failed = await read();
    expect(told(failed, 'Verified')).toMatchObject({ status: 'True' });
    // It has an interval to wait, and is looked at sooner.
    expect(due(failed)).toBeCloseTo(10, 1);
    clock.advance(due(failed) * MINUTE);
    const past = await look();
    expect(isInForce(past)).toBe(false);
    expect(told(past, 'Verified')).toMatchObject({ status: 'False', reason: 'ListExpired' });
    expect(lastFailure(past)?.message).toMatch(/it has gone.*expired at/);
    expect(past.notes.map(({ reason }) => reason)).toEqual(['ListExpired']);
    clock.advance(2 * HOUR);
    const again = await read();
    expect(told(again, 'Verified')).toEqual(told(past, 'Verified'));
    expect(again.notes).toEqual([]);
    outcome = accepted({ list: list({ expiresAt: timestamp(clock.now() + 9 * HOUR) }) });
    clock.advance(2 * HOUR);
    expect(isInForce(await read())).toBe(true);
  });
});

describe('a look that fails', () => {
  test.each([
    ['NetworkError', 'Fetch', [0.25, 0.5]],
    ['SecretNotFound', 'Fetch', [5, 5]],
    ['CrlMissing', 'Verify', [5, 5]],
    ['SignatureInvalid', 'Verify', [50, 70]],
    ['ListRollback', 'Verify', [50, 70]],
  ] as const)('for %s is repeated in its own time', async (reason, stage, [least, most]) => {
    outcome = refused(new Failure(reason, 'what went wrong'), stage);
    const failed = await read();
    expect(due(failed)).toBeGreaterThanOrEqual(least - 0.02);
    expect(due(failed)).toBeLessThanOrEqual(most + 0.02);
    expect(failed.status).toMatchObject({ attempts: 1 });
    expect(told(failed, stage === 'Fetch' ? 'Fetched' : 'Verified')).toMatchObject({ status: 'False', reason });
  });

  test('again and again is repeated later and later, at most after half an hour, and told by one event', async () => {
    outcome = refused(new Failure('ServerError', '503'));
    const pauses: number[] = [];
    let notes = 0;
    for (let attempt = 1; attempt <= 12; attempt++) {
      const failed = await read();
      expect(failed.status.attempts).toBe(attempt);
      notes += failed.notes.length;
      pauses.push(due(failed));
      clock.advance(due(failed) * MINUTE);
    }
    expect(Math.max(...pauses)).toBeLessThanOrEqual(30.02);
    expect(pauses.at(-1)).toBeGreaterThan(14);
    expect(notes).toBe(1);
  });

  test('waits as long as the server asks for', async () => {
    outcome = refused(new Failure('TooManyRequests', '429', { retryAfterMs: 20 * MINUTE }));
    expect(due(await read())).toBeCloseTo(20, 1);
  });

  test('of the thread itself is one of the network, as far as the list is concerned', async () => {
    outcome = new Failure('ResourceLimit', 'the list is too much');
    expect(told(await read(), 'Fetched')).toMatchObject({ reason: 'ResourceLimit' });
  });

  test('is forgotten with the next that does not', async () => {
    outcome = refused(new Failure('NetworkError', 'no'));
    await read();
    outcome = accepted();
    clock.advance(MINUTE);
    const good = await read();
    expect(good.status).not.toHaveProperty('attempts');
    expect(told(good, 'Fetched')).toMatchObject({ status: 'True' });
  });
});
