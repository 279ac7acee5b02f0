import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { isOlder, LocalCopy } from '../../../../src/stores/kubernetes/copy.ts';
import type { Resource } from '../../../../src/stores/store.ts';
import { TestLog } from '../support.ts';

const object = (name: string, version: number | string, uid = `uid-${name}`, namespace = 'default'): Resource => ({
  apiVersion: 'imageproxy.dev/v1beta1',
  kind: 'VMImage',
  metadata: { name, namespace, uid, generation: 1, resourceVersion: String(version), creationTimestamp: '' },
});

describe('The local copy of a kind', () => {
  let copy: LocalCopy;
  let heard: string[];
  let log: TestLog;

  beforeEach(() => {
    log = new TestLog();
    copy = new LocalCopy('VMImage', log);
    heard = [];
    copy.subscribe(({ type, object: { metadata }, previous }) =>
      heard.push(
        `${type} ${metadata.name}@${metadata.resourceVersion}${previous ? ` was ${previous.metadata.resourceVersion}` : ''}`,
      ),
    );
    copy.startTelling();
  });
  const version = (name = 'a') => copy.get({ namespace: 'default', name })?.metadata.resourceVersion;

  it('tells nobody before it is complete, and then each of what is there once', () => {
    const fresh = new LocalCopy('VMImage', log);
    const told: string[] = [];
    fresh.subscribe(({ object: { metadata } }) => told.push(metadata.name));
    fresh.target().replace([object('a', 1), object('b', 2)], '2');
    expect(told).toEqual([]);
    fresh.startTelling();
    fresh.startTelling();
    expect(told).toEqual(['a', 'b']);
  });

  it('passes over what it knows already, and what is older: the watch repeats our own writes', () => {
    copy.applied(object('a', 10));
    copy.target().applied(object('a', 9));
    copy.target().applied(object('a', 10));
    expect(version()).toBe('10');
    expect(heard).toEqual(['Applied a@10']);
    copy.target().applied(object('a', 11));
    expect(heard.at(-1)).toBe('Applied a@11 was 10');
  });

  it('tells the end of an object before the beginning of another of the same name', () => {
    copy.target().applied(object('a', 1, 'first'));
    copy.target().applied(object('a', 5, 'second'));
    expect(heard).toEqual(['Applied a@1', 'Deleted a@1 was 1', 'Applied a@5']);
  });

  it('does not bring back what our own write has removed, until its end was told', () => {
    copy.target().applied(object('a', 1));
    copy.removed(object('a', 1));
    copy.target().applied(object('a', 2));
    expect(version()).toBeUndefined();
    copy.target().deleted(object('a', 3));
    copy.target().applied(object('a', 4, 'another'));
    expect(heard).toEqual(['Applied a@1', 'Deleted a@1 was 1', 'Applied a@4']);
  });

  it('keeps what we made after the list was taken, and drops what the list has no more', () => {
    copy.target().applied(object('old', 3));
    copy.applied(object('ours', 30));
    copy.target().replace([object('new', 7)], '20');
    expect(
      copy
        .list()
        .map(({ metadata }) => metadata.name)
        .toSorted(),
    ).toEqual(['new', 'ours']);
    expect(heard).toContain('Deleted old@3 was 3');
  });

  it('takes a list from a history that runs backwards as it is', () => {
    copy.target().replace([object('a', 90), object('b', 95)], '100');
    copy.target().replace([object('a', 40)], '50');
    expect(version()).toBe('40');
    expect(version('b')).toBeUndefined();
    copy.target().applied(object('a', 51));
    expect(version()).toBe('51');
  });

  it('of a namespace replaces that namespace only', () => {
    copy.target('one').replace([object('a', 1, 'u1', 'one')], '5');
    copy.target('two').replace([object('a', 2, 'u2', 'two')], '6');
    copy.target('one').replace([], '9');
    expect(copy.list().map(({ metadata }) => metadata.namespace)).toEqual(['two']);
    expect(copy.list('one')).toEqual([]);
  });

  it('goes on when a listener throws', () => {
    copy.subscribe(() => {
      throw new Error('a mistake');
    });
    const later: string[] = [];
    copy.subscribe(({ object: { metadata } }) => later.push(metadata.name));
    copy.target().applied(object('a', 1));
    expect(later).toEqual(['a']);
    expect(log.messages('error')).toEqual(['a listener failed']);
  });

  it('holds no bookkeeping of server-side apply, and nothing that can be changed', () => {
    const managed = {
      ...object('a', 1),
      metadata: { ...object('a', 1).metadata, managedFields: [{ manager: 'kubectl' }] },
    };
    copy.target().applied(managed);
    const kept = copy.get(managed.metadata);
    expect(kept?.metadata).not.toHaveProperty('managedFields');
    expect(Object.isFrozen(kept?.metadata)).toBe(true);
  });

  it('compares versions as numbers, however long they are', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 80n }), fc.bigInt({ min: 0n, max: 2n ** 80n }), (a, b) => {
        expect(isOlder(String(a), String(b))).toBe(a < b);
        expect(isOlder(String(a), String(b), true)).toBe(a <= b);
      }),
    );
  });
});
