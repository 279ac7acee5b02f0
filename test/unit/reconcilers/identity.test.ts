import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HeldClock } from '../../support/clock.ts';
import {
  defaultGuid,
  hashOf,
  nextAttempt,
  ownerOf,
  registrationId,
  type RegistrationIdentity,
  uuidFrom,
} from '../../../src/reconcilers/vmimage/identity.ts';

const UUID_V5 = /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** RFC 9562 §5.5, step by step and with no eye on ours. */
function uuidV5(namespace: string, name: string): string {
  const digest = createHash('sha1')
    .update(Buffer.from(namespace.replaceAll('-', ''), 'hex'))
    .update(name, 'utf8')
    .digest('hex')
    .slice(0, 32);
  const version = `5${digest.slice(13, 16)}`;
  const variant = `${((Number.parseInt(digest.slice(16, 18), 16) & 0x3f) | 0x80).toString(16)}${digest.slice(18, 20)}`;
  return [digest.slice(0, 8), digest.slice(8, 12), version, variant, digest.slice(20)].join('-');
}

const PROJECT = '3d0a5b0e-6f0c-4d5b-9b5f-8f2b9c1a7e42';
// Names of Kubernetes hold no NUL, which is what joins them.
const word = fc.string({ unit: 'grapheme', minLength: 0, maxLength: 12 }).map((text) => text.replaceAll('\0', ''));

describe('an id that is made of names', () => {
  it('is a UUID of version 5 as RFC 9562 makes it', () => {
    // The reference itself first: the example of RFC 9562, appendix A.4.
    expect(uuidV5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'www.example.com')).toBe(
      '2ed6657d-e927-568b-95e1-2665a8aea6a2',
    );
    fc.assert(
      fc.property(fc.array(word, { minLength: 1, maxLength: 8 }), (names) => {
        const id = uuidFrom(...names);
        expect(id).toMatch(UUID_V5);
        expect(id).toBe(uuidV5(PROJECT, names.join('\0')));
      }),
    );
  });

  it('never changes, or every registration would be made anew', () => {
    // Computed with Python's uuid and hashlib.
    expect(defaultGuid('site', 'default', 'ubuntu')).toBe('f368879c-1515-57ac-8cec-bbd4d09c246a');
    expect(ownerOf('site', 'default')).toBe('db851d9633833182a1d99ebd1e753793');
  });

  it('is another for each other list of names, however they are cut', () => {
    fc.assert(
      fc.property(
        fc.array(word, { minLength: 1, maxLength: 5 }),
        fc.array(word, { minLength: 1, maxLength: 5 }),
        (a, b) => {
          expect(uuidFrom(...a) === uuidFrom(...b)).toBe(JSON.stringify(a) === JSON.stringify(b));
        },
      ),
    );
    expect(uuidFrom('ab', 'c')).not.toBe(uuidFrom('a', 'bc'));
  });
});

describe('the id of a registration', () => {
  const base: RegistrationIdentity = {
    instance: 'i',
    namespace: 'default',
    guid: 'g',
    role: 'Disk',
    digest: 'sha256:00',
    transform: 'as-published',
    site: 'nova',
    attempt: 1,
  };

  it('is another as soon as anything of what is registered where is another', () => {
    const ids = new Set([registrationId(base)]);
    for (const field of Object.keys(base) as (keyof RegistrationIdentity)[]) {
      ids.add(registrationId({ ...base, [field]: field === 'attempt' ? 2 : 'other' }));
    }
    expect(ids.size).toBe(1 + Object.keys(base).length);
  });
});

describe('the attempts', () => {
  it('find a free id in a few steps, however many were burnt in earlier lives', () => {
    const clock = new HeldClock();
    const burnt = new Set<number>();
    for (let life = 0; life < 2000; life++) {
      let attempt = 1;
      let steps = 1;
      for (; burnt.has(attempt); steps++) attempt = nextAttempt(attempt, clock);
      expect(steps).toBeLessThanOrEqual(16);
      burnt.add(attempt);
    }
    expect(burnt.size).toBe(2000);
  });
});

describe('the owner and the default guid', () => {
  it('tell instances and namespaces apart', () => {
    const owners = [ownerOf('a', 'b'), ownerOf('a', 'c'), ownerOf('c', 'b'), ownerOf('ab', ''), ownerOf('', 'ab')];
    expect(new Set(owners).size).toBe(owners.length);
    expect(owners.every((owner) => /^[0-9a-f]{32}$/.test(owner))).toBe(true);
    const guids = [defaultGuid('i', 'a', 'b'), defaultGuid('i', 'b', 'a'), defaultGuid('j', 'a', 'b')];
    expect(new Set(guids).size).toBe(guids.length);
  });
});

describe('the hash of plain data', () => {
  const shuffled = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(shuffled);
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(
      Object.entries(value)
        .toReversed()
        .map(([key, each]) => [key, shuffled(each)]),
    );
  };
  const plain = fc.jsonValue({ maxDepth: 4 });

  it('does not depend on the order of keys', () => {
    fc.assert(
      fc.property(plain, (value) => {
        expect(hashOf(shuffled(value))).toBe(hashOf(value));
      }),
    );
  });

  it('takes an absent key for one that is undefined', () => {
    expect(hashOf({ a: 1, b: undefined })).toBe(hashOf({ a: 1 }));
  });

  it('is another for other data', () => {
    const canonical = (value: unknown): string =>
      JSON.stringify(value, (_, each: unknown) =>
        each !== null && typeof each === 'object' && !Array.isArray(each)
          ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)))
          : each,
      );
    fc.assert(
      fc.property(plain, plain, (a, b) => {
        expect(hashOf(a) === hashOf(b)).toBe(canonical(a) === canonical(b));
      }),
    );
    expect(hashOf(['a', 'b'])).not.toBe(hashOf(['b', 'a']));
    expect(hashOf(['ab'])).not.toBe(hashOf(['a', 'b']));
    expect(hashOf({ a: { b: 1 } })).not.toBe(hashOf({ a: 1, b: {} }));
  });
});
