import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/api/failure.ts';
import type { Change, Draft, Kind, ObjectKey, Resource, Store } from '../../../src/stores/store.ts';

/** A store under test and the hand of its user, who writes manifests (or speaks to the API server) beside it. */
export interface StoreHarness {
  /** Started. */
  store: Store;
  user: {
    /** Creates or changes an object; a Secret's values are given as text. */
    put(object: Draft & { data?: Record<string, string> }): Promise<void>;
    remove(kind: Kind, key: ObjectKey): Promise<void>;
  };
  /** Resolves when the store has seen all that the user did. */
  settle(): Promise<void>;
  /** The same data in a new store, as after a restart. */
  restart(): Promise<Store>;
  dispose(): Promise<void>;
  /** Specs that the schema in use admits; the second differs from the first. */
  specs: readonly [object, object];
  /** A status that the schema admits. */
  status(observedGeneration: number, percent?: number): object;
}

interface Sample extends Resource {
  spec: object;
  status: { observedGeneration: number };
}

const FINALIZER = 'imageproxy.dev/registrations';
const KEY = { namespace: 'default', name: 'ubuntu' };

/** What every Store promises (src/stores/store.ts), whatever is behind it. */
export function storeConformance(title: string, make: () => Promise<StoreHarness>): void {
  describe(`${title} keeps the promises of a Store`, () => {
    let harness: StoreHarness;
    beforeEach(async () => {
      harness = await make();
    });
    afterEach(() => harness.dispose());

    const draft = (spec = 0, name = KEY.name): Draft => ({
      apiVersion: 'imageproxy.dev/v1beta1',
      kind: 'VMImage',
      metadata: { name, namespace: KEY.namespace },
      spec: harness.specs[spec],
    });
    const put = async (object: Draft & { data?: Record<string, string> }): Promise<void> => {
      await harness.user.put(object);
      await harness.settle();
    };
    const sample = (): Sample => {
      const object = harness.store.get<Sample>('VMImage', KEY);
      if (object === undefined) throw new Error('the object is not there');
      return object;
    };
    const made = async (): Promise<Sample> => {
      await put(draft());
      return sample();
    };
    const failure = (work: Promise<unknown>): Promise<Failure> =>
      work.then(
        () => Promise.reject(new Error('it did not fail')),
        (error: unknown) => (error instanceof Failure ? error : Promise.reject(error)),
      );

    it('shows an object that a user made, with a uid, generation 1 and a status that nobody has observed', async () => {
      const object = await made();
      expect(object.metadata).toMatchObject({ name: 'ubuntu', namespace: 'default', generation: 1 });
      expect(object.metadata.uid).toMatch(/^[0-9a-f-]{36}$/);
      expect(object.metadata.creationTimestamp).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      expect(object.status).toEqual({ observedGeneration: -1 });
      expect(object.spec).toMatchObject(harness.specs[0]);
    });

    it('lists all objects of a kind, or those of one namespace', async () => {
      await put(draft());
      await put({ ...draft(), metadata: { name: 'ubuntu', namespace: 'other' } });
      expect(harness.store.list('VMImage')).toHaveLength(2);
      expect(harness.store.list('VMImage', 'other').map(({ metadata }) => metadata.namespace)).toEqual(['other']);
      expect(harness.store.list('ImageSite')).toEqual([]);
      expect(harness.store.get('VMImage', { namespace: 'default', name: 'absent' })).toBeUndefined();
    });

    it('hands out frozen objects', async () => {
      const object = await made();
      expect(Object.isFrozen(object)).toBe(true);
      expect(Object.isFrozen(object.metadata)).toBe(true);
      expect(Object.isFrozen(object.spec)).toBe(true);
      expect(Object.isFrozen(object.status)).toBe(true);
    });

    it('tells a subscriber what is there, then each change with the copy before, then the end, and nothing after it left', async () => {
      await put(draft());
      const changes: Change<Sample>[] = [];
      const leave = harness.store.subscribe<Sample>('VMImage', (change) => changes.push(change));
      expect(changes.map(({ type, previous }) => [type, previous])).toEqual([['Applied', undefined]]);
      const before = sample();
      await put(draft(1));
      expect(changes.at(-1)).toMatchObject({
        type: 'Applied',
        previous: { metadata: { resourceVersion: before.metadata.resourceVersion } },
      });
      expect(changes.at(-1)?.object.spec).toMatchObject(harness.specs[1]);
      await harness.user.remove('VMImage', KEY);
      await harness.settle();
      expect(changes.at(-1)?.type).toBe('Deleted');
      leave();
      const count = changes.length;
      await put(draft());
      expect(changes).toHaveLength(count);
    });

    it('counts a change of spec in generation, and a change of labels, status or finalizers not', async () => {
      let object = await made();
      await put({ ...draft(), metadata: { ...draft().metadata, labels: { tier: 'gold' } } });
      await harness.store.applyStatus(sample(), harness.status(1));
      await harness.store.addFinalizer(sample(), FINALIZER);
      expect(sample().metadata).toMatchObject({ generation: 1, labels: { tier: 'gold' } });
      await put(draft(1));
      object = sample();
      expect(object.metadata.generation).toBe(2);
      expect(object.status).toMatchObject({ observedGeneration: 1 });
    });

    it('writes a status, gives back the object as it is then, and says nothing when nothing differs', async () => {
      const object = await made();
      const written = await harness.store.applyStatus(object, harness.status(1));
      expect(written?.status).toMatchObject({ observedGeneration: 1 });
      expect(written?.metadata.resourceVersion).not.toBe(object.metadata.resourceVersion);
      await harness.settle();
      expect(sample().metadata.resourceVersion).toBe(written?.metadata.resourceVersion);
      const again = await harness.store.applyStatus(object, harness.status(1));
      expect(again?.metadata.resourceVersion).toBe(written?.metadata.resourceVersion);
    });

    it('keeps a status across a restart', async () => {
      const object = await made();
      await harness.store.applyStatus(object, harness.status(1, 40));
      const store = await harness.restart();
      const later = store.get<Sample>('VMImage', KEY);
      expect(later?.status).toMatchObject({ observedGeneration: 1 });
      expect(later?.metadata).toMatchObject({ uid: object.metadata.uid, generation: 1 });
    });

    it('does not write a status of an object that has gone, nor one that was replaced by another of its name', async () => {
      const object = await made();
      await harness.user.remove('VMImage', KEY);
      await harness.settle();
      expect(await harness.store.applyStatus(object, harness.status(1))).toBeUndefined();
      await put(draft());
      expect(sample().metadata.uid).not.toBe(object.metadata.uid);
      expect((await failure(harness.store.applyStatus(object, harness.status(1)))).reason).toBe('Conflict');
      expect(sample().status).toEqual({ observedGeneration: -1 });
    });

    it('keeps an object with a finalizer until the last finalizer is removed', async () => {
      const object = await made();
      await harness.store.addFinalizer(object, FINALIZER);
      await harness.store.addFinalizer(object, FINALIZER);
      await harness.store.addFinalizer(object, 'example.org/second');
      await harness.settle();
      expect(sample().metadata.finalizers).toEqual([FINALIZER, 'example.org/second']);
      await harness.store.delete('VMImage', KEY);
      await harness.settle();
      expect(sample().metadata.deletionTimestamp).toBeDefined();
      expect((await harness.store.removeFinalizer(object, FINALIZER))?.metadata.finalizers).toEqual([
        'example.org/second',
      ]);
      await harness.store.applyStatus(object, harness.status(1));
      await harness.user.remove('VMImage', KEY);
      await harness.store.removeFinalizer(object, 'example.org/second');
      await harness.settle();
      expect(harness.store.get('VMImage', KEY)).toBeUndefined();
      expect(await harness.store.removeFinalizer(object, FINALIZER)).toBeUndefined();
    });

    it('takes a changed spec of an object that is being deleted, which stays so', async () => {
      await harness.store.apply(draft());
      await harness.settle();
      await harness.store.addFinalizer(sample(), FINALIZER);
      await harness.store.delete('VMImage', KEY);
      await harness.store.apply(draft(1));
      await harness.settle();
      expect(sample().spec).toMatchObject(harness.specs[1]);
      expect(sample().metadata.deletionTimestamp).toBeDefined();
    });

    it('deletes an object without finalizers at once, and takes a second deletion for done', async () => {
      await harness.store.apply(draft());
      await harness.store.delete('VMImage', KEY);
      await harness.settle();
      expect(harness.store.get('VMImage', KEY)).toBeUndefined();
      await harness.store.delete('VMImage', KEY);
    });

    it('makes and updates an object of its own: labels, annotations and spec are replaced whole', async () => {
      const first = await harness.store.apply<Sample>({
        ...draft(),
        metadata: { ...draft().metadata, labels: { a: '1' }, annotations: { 'example.org/a': '1' } },
      });
      const second = await harness.store.apply<Sample>({
        ...draft(1),
        metadata: { ...draft().metadata, labels: { b: '2' }, annotations: { 'example.org/b': '2' } },
      });
      expect(second.metadata.uid).toBe(first.metadata.uid);
      expect(second.metadata).toMatchObject({
        generation: 2,
        labels: { b: '2' },
        annotations: { 'example.org/b': '2' },
      });
      expect(second.metadata.labels).not.toHaveProperty('a');
      expect(second.metadata.annotations).not.toHaveProperty('example.org/a');
    });

    it('makes an object where there is none, and leaves alone one that is there, whoever made it and whatever it says', async () => {
      const first = await harness.store.create<Sample>(draft());
      expect(first.spec).toMatchObject(harness.specs[0]);
      expect((await failure(harness.store.create(draft(1)))).reason).toBe('NameInUse');
      await put(draft(0, 'debian'));
      for (const spec of [0, 1])
        expect((await failure(harness.store.create(draft(spec, 'debian')))).message).toContain('default/debian');
      await harness.settle();
      expect(sample().metadata.resourceVersion).toBe(first.metadata.resourceVersion);
      const users = harness.store.get<Sample>('VMImage', { ...KEY, name: 'debian' });
      expect(users?.metadata.generation).toBe(1);
      expect(users?.spec).toMatchObject(harness.specs[0]);
    });

    it('takes away by a later draft what the one that made the object had set', async () => {
      await harness.store.create({ ...draft(), metadata: { ...draft().metadata, labels: { a: '1' } } });
      const later = await harness.store.apply<Sample>(draft(1));
      expect(later.metadata.labels ?? {}).toEqual({});
    });

    it('changes and deletes by uid that very object: it makes none that has gone, and touches no other of its name', async () => {
      const of = ({ metadata: { uid } }: Sample): Draft => ({
        ...draft(1),
        metadata: { ...draft().metadata, uid },
      });
      const first = await harness.store.create<Sample>(draft());
      await harness.store.delete('VMImage', KEY, first.metadata.uid);
      await harness.settle();
      expect((await failure(harness.store.apply(of(first)))).reason).toBe('Conflict');
      await harness.settle();
      expect(harness.store.get('VMImage', KEY)).toBeUndefined();
      await harness.store.delete('VMImage', KEY, first.metadata.uid);

      const second = await harness.store.create<Sample>(draft());
      expect((await failure(harness.store.apply(of(first)))).reason).toBe('Conflict');
      expect((await failure(harness.store.delete('VMImage', KEY, first.metadata.uid))).reason).toBe('Conflict');
      await harness.settle();
      expect(sample().metadata).toMatchObject({ uid: second.metadata.uid, generation: 1 });
      expect((await harness.store.apply<Sample>(of(second))).spec).toMatchObject(harness.specs[1]);
      await harness.store.delete('VMImage', KEY, second.metadata.uid);
      await harness.settle();
      expect(harness.store.get('VMImage', KEY)).toBeUndefined();
    });

    it('refuses to apply what the schema does not admit, naming the object', async () => {
      const error = await failure(harness.store.apply({ ...draft(), spec: { url: 7 } }));
      expect(error.reason).toBe('InvalidSpec');
      expect(error.message).toContain('ubuntu');
      expect(harness.store.get('VMImage', KEY)).toBeUndefined();
    });

    it('sets and removes annotations on an object that a user wrote, without touching the rest', async () => {
      const object = await made();
      await harness.store.annotate('VMImage', KEY, { 'imageproxy.dev/requestedAt': 'now', 'example.org/b': 'b' });
      await harness.settle();
      expect(sample().metadata.annotations).toMatchObject({
        'imageproxy.dev/requestedAt': 'now',
        'example.org/b': 'b',
      });
      await harness.store.annotate('VMImage', KEY, { 'imageproxy.dev/requestedAt': null });
      await harness.settle();
      expect(sample().metadata.annotations).not.toHaveProperty('imageproxy.dev/requestedAt');
      expect(sample().metadata.annotations).toMatchObject({ 'example.org/b': 'b' });
      expect(sample().metadata.generation).toBe(object.metadata.generation);
      expect((await failure(harness.store.annotate('VMImage', { ...KEY, name: 'absent' }, {}))).reason).toBe(
        'NotFound',
      );
    });

    it('reads a Secret and a ConfigMap, decoded', async () => {
      await put({
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: 'origin', namespace: 'default' },
        data: { password: 'hunter2' },
      });
      await put({
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name: 'ca', namespace: 'default' },
        data: { 'ca.crt': 'PEM' },
      });
      const secret = await harness.store.secret({ namespace: 'default', name: 'origin' });
      expect(Buffer.from(secret?.data.password ?? []).toString()).toBe('hunter2');
      expect((await harness.store.configMap({ namespace: 'default', name: 'ca' }))?.data).toEqual({ 'ca.crt': 'PEM' });
      expect(await harness.store.secret({ namespace: 'other', name: 'origin' })).toBeUndefined();
      expect(await harness.store.configMap({ namespace: 'default', name: 'origin' })).toBeUndefined();
    });

    it('carries out writes on one object in the order in which they were asked for', async () => {
      const object = await made();
      await Promise.all(
        Array.from({ length: 20 }, (_, index) => harness.store.applyStatus(object, harness.status(index))),
      );
      await harness.settle();
      expect(sample().status).toMatchObject({ observedGeneration: 19 });
    });

    it('takes an event on an object that is there, and on one that is not', async () => {
      const object = await made();
      harness.store.event(object, { type: 'Normal', reason: 'Fetched', message: 'all bytes are here' });
      harness.store.event(
        { ...object, metadata: { ...object.metadata, name: 'absent' } },
        { type: 'Warning', reason: 'Gone', message: 'gone' },
      );
      await harness.settle();
      expect(sample().metadata.resourceVersion).toBe(object.metadata.resourceVersion);
    });
  });
}
