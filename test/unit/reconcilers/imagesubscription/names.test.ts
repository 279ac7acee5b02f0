import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { imageGuid, imageName, labelOf } from '../../../../src/reconcilers/imagesubscription/names.ts';
import { UUID } from './entries.ts';

const NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const subscriptions = fc
  .stringMatching(/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/)
  .filter((name) => NAME.test(name) && name.length <= 253);
const ids = fc.oneof(
  fc.uuid(),
  fc.string({ unit: 'binary', minLength: 1, maxLength: 253 }),
  fc.stringMatching(/^[a-c.-]{1,6}$/),
);

describe('the name of an image', () => {
  test.each([
    ['egi', UUID, `egi-${UUID}`],
    ['egi', UUID.toUpperCase(), `egi-${UUID}`],
    ['ubuntu', 'noble-server-cloudimg-amd64.img', 'ubuntu-noble-server-cloudimg-amd64-img-47bafda017'],
    [
      'ubuntu',
      'com.ubuntu.cloud:server:24.04:amd64',
      expect.stringMatching(/^ubuntu-com-ubuntu-cloud-server-24-04-amd64-[0-9a-f]{10}$/),
    ],
    ['ubuntu', '日本語', expect.stringMatching(/^ubuntu-[0-9a-f]{10}$/)],
  ])('%s, %s', (subscription, id, expected) => {
    expect(imageName(subscription, id)).toEqual(expected);
  });

  test('is one that Kubernetes takes, whatever the entry is called', () => {
    fc.assert(
      fc.property(subscriptions, ids, (subscription, id) => {
        const name = imageName(subscription, id);
        expect(name).toMatch(NAME);
        expect(name.length).toBeLessThanOrEqual(253);
      }),
    );
  });

  test('is never that of another entry, nor of another subscription', () => {
    const pair = fc.tuple(subscriptions, ids);
    fc.assert(
      fc.property(pair, pair, ([a, x], [b, y]) => {
        const same = a === b && (x === y || imageGuid('i', 'n', a, x) === imageGuid('i', 'n', b, y));
        expect(imageName(a, x) === imageName(b, y)).toBe(same);
      }),
      { numRuns: 2000 },
    );
  });

  test('tells a subscription whose name looks like another and a part of its entry apart', () => {
    expect(imageName('a', 'b-c')).not.toBe(imageName('a-b', 'c'));
    expect(imageName('a', `x-${UUID}`)).not.toBe(imageName('a-x', UUID));
  });
});

describe('the guid of an image', () => {
  test('is the id where that is a UUID, for everybody', () => {
    expect(imageGuid('one', 'a', 'x', UUID.toUpperCase())).toBe(UUID);
    expect(imageGuid('two', 'b', 'y', UUID)).toBe(UUID);
  });

  test('is a UUID of its own else, for each instance, namespace, subscription and id', () => {
    const made = [
      ['one', 'a', 'x', 'id'],
      ['two', 'a', 'x', 'id'],
      ['one', 'b', 'x', 'id'],
      ['one', 'a', 'y', 'id'],
      ['one', 'a', 'x', 'other'],
    ].map(([instance = '', namespace = '', subscription = '', id = '']) =>
      imageGuid(instance, namespace, subscription, id),
    );
    expect(new Set(made).size).toBe(5);
    for (const guid of made)
      expect(guid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });
});

test('a label holds the beginning of a long name, and what tells it apart', () => {
  const [one, two] = [`${'n'.repeat(100)}1`, `${'n'.repeat(100)}2`];
  expect(labelOf('egi')).toBe('egi');
  expect(labelOf(one)).not.toBe(labelOf(two));
  expect(labelOf(one)).toMatch(/^[a-z0-9][-a-z0-9.]{0,61}[a-z0-9]$/);
});
