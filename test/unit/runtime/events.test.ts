import { beforeEach, describe, expect, it } from 'vitest';
import { EventRecorder, type EventSeries, type KubernetesEvent, microTime } from '../../../src/runtime/events.ts';
import type { EventNote, Resource } from '../../../src/stores/store.ts';
import { HeldClock } from '../../support/clock.ts';
import { TestLog } from '../stores/support.ts';

const image = (name: string): Resource => ({
  apiVersion: 'imageproxy.dev/v1beta1',
  kind: 'VMImage',
  metadata: {
    name,
    namespace: 'default',
    uid: `uid-${name}`,
    generation: 1,
    resourceVersion: '7',
    creationTimestamp: '2026-11-21T12:00:00Z',
  },
});
const fetched: EventNote = { type: 'Normal', reason: 'Fetched', message: 'all bytes are here' };

describe('Events', () => {
  let clock: HeldClock;
  let log: TestLog;
  let created: KubernetesEvent[];
  let counted: EventSeries[];
  let forgotten: boolean;
  let down: boolean;
  let recorder: EventRecorder;

  beforeEach(() => {
    [clock, log, created, counted, forgotten, down] = [new HeldClock(), new TestLog(), [], [], false, false];
    recorder = new EventRecorder({
      controller: 'imageproxy.dev/controller',
      instance: 'pod-1',
      clock,
      log,
      sink: {
        async create(event) {
          if (down) throw new Error('no API server');
          created.push(event);
        },
        async count(_namespace, _name, series) {
          counted.push(series);
          return !forgotten;
        },
      },
    });
  });

  it('are written as events.k8s.io/v1 wants them', async () => {
    recorder.record(image('a'), fetched);
    await recorder.idle();
    expect(created).toEqual([
      {
        apiVersion: 'events.k8s.io/v1',
        kind: 'Event',
        metadata: { name: expect.stringMatching(/^a\.[0-9a-f]{16}$/), namespace: 'default' },
        regarding: {
          apiVersion: 'imageproxy.dev/v1beta1',
          kind: 'VMImage',
          name: 'a',
          namespace: 'default',
          uid: 'uid-a',
          resourceVersion: '7',
        },
        type: 'Normal',
        reason: 'Fetched',
        note: 'all bytes are here',
        action: 'Reconcile',
        reportingController: 'imageproxy.dev/controller',
        reportingInstance: 'pod-1',
        eventTime: '2026-11-21T12:00:00.000000Z',
      },
    ]);
  });

  it('of an object without a namespace are in default', async () => {
    const { namespace: _, ...metadata } = image('site').metadata;
    recorder.record({ ...image('site'), metadata }, fetched);
    await recorder.idle();
    expect(created[0]?.metadata.namespace).toBe('default');
    expect(created[0]?.regarding).not.toHaveProperty('namespace');
  });

  it('that come again are counted: the second at once, the rest once a minute', async () => {
    for (let i = 0; i < 50; i++) recorder.record(image('a'), fetched);
    await recorder.idle();
    expect(created).toHaveLength(1);
    expect(counted).toHaveLength(1);
    expect(counted[0]?.count).toBeGreaterThanOrEqual(2);
    clock.advance(59_999);
    expect(counted).toHaveLength(1);
    clock.advance(1);
    await recorder.idle();
    expect(counted.at(-1)).toEqual({ count: 50, lastObservedTime: microTime(clock.now() - 60_000) });
    clock.advance(600_000);
    await recorder.idle();
    // Nothing came: nothing is written.
    expect(counted).toHaveLength(2);
  });

  it('that come again after six minutes begin anew', async () => {
    recorder.record(image('a'), fetched);
    clock.advance(6 * 60_000);
    recorder.record(image('a'), fetched);
    await recorder.idle();
    expect(created).toHaveLength(2);
    expect(created[0]?.metadata.name).not.toBe(created[1]?.metadata.name);
  });

  it('that the server has forgotten are made again when they are counted', async () => {
    forgotten = true;
    recorder.record(image('a'), fetched);
    recorder.record(image('a'), fetched);
    await recorder.idle();
    expect(created).toHaveLength(2);
  });

  it('of one object are bounded: 25 different ones, then one in five minutes; another object has its own', async () => {
    for (let i = 0; i < 40; i++) recorder.record(image('a'), { ...fetched, message: `block ${i}` });
    recorder.record(image('b'), fetched);
    await recorder.idle();
    expect(created.filter(({ regarding }) => regarding.name === 'a')).toHaveLength(25);
    expect(created.filter(({ regarding }) => regarding.name === 'b')).toHaveLength(1);
    clock.advance(300_000);
    for (let i = 0; i < 5; i++) recorder.record(image('a'), { ...fetched, message: `later ${i}` });
    await recorder.idle();
    expect(created.filter(({ regarding }) => regarding.name === 'a')).toHaveLength(26);
  });

  it('with long words are cut to the 1024 bytes that the API takes, between characters', async () => {
    recorder.record(image('a'), { ...fetched, message: 'ü'.repeat(2000) });
    await recorder.idle();
    const note = created[0]?.note ?? '';
    expect(Buffer.byteLength(note)).toBeLessThanOrEqual(1024);
    expect(note).toMatch(/^ü+…$/);
  });

  it('that cannot be written are logged and lost, and hold up nothing', async () => {
    down = true;
    recorder.record(image('a'), fetched);
    await recorder.idle();
    down = false;
    recorder.record(image('b'), fetched);
    await recorder.idle();
    expect(created.map(({ regarding }) => regarding.name)).toEqual(['b']);
    expect(log.messages('warn')).toEqual(['an event was lost: all bytes are here']);
  });

  it('owed at the end are written, and none is taken afterwards', async () => {
    recorder.record(image('a'), fetched);
    recorder.record(image('a'), fetched);
    await recorder.idle();
    recorder.record(image('a'), fetched);
    await recorder.close();
    expect(counted.at(-1)?.count).toBe(3);
    expect(clock.pending).toBe(0);
    recorder.record(image('b'), fetched);
    await recorder.idle();
    expect(created).toHaveLength(1);
  });
});
