import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ImageSubscription, VMImage } from '../../../src/api/types.ts';
import { type KeyPair, makeAuthority } from '../../support/authority.ts';
import { JumpingClock } from '../../support/clock.ts';
import { type Disk, qcow2 } from '../../support/disks.ts';
import {
  hepixList,
  inDays,
  type ListAuthority,
  type ListedImage,
  type ListOptions,
  type ListSigner,
  makeListAuthority,
} from '../../support/hepix.ts';
import { condition, directorySite, House, isTrue, type Manifest } from '../../support/house.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { type Origin, type RecordedRequest, type Route, startOrigin } from '../../support/origin.ts';

/** Whose word a subscription takes: real lists, signed by openssl, on loopback. */
let authority: ListAuthority;
let alice: ListSigner;
let bob: ListSigner;
let origin: Origin;
let house: House;
let clock: JumpingClock;
const listId = randomUUID();
const [one, two] = [randomUUID(), randomUUID()] as const;
const disks = new Map<string, Disk>();

beforeAll(() => {
  authority = makeListAuthority();
  alice = authority.signer('alice');
  bob = authority.signer('bob');
});

afterAll(() => authority.close());

beforeEach(async () => {
  origin = await startOrigin();
  clock = new JumpingClock();
  house = new House({ clock });
  await house.write('shelf.yaml', directorySite('shelf', house.shelf));
  await house.write('ca.yaml', anchors());
  await house.start();
});

afterEach(async () => {
  await house.close();
  await origin.close();
});

function disk(label: string): Disk {
  const made = disks.get(label) ?? qcow2(label);
  disks.set(label, made);
  return made;
}

function listed(id: string, label: string, more: Partial<ListedImage> = {}): ListedImage {
  const { bytes } = disk(label);
  origin.route(`/${label}.qcow2`, { body: bytes });
  return { id, title: `Image ${label}`, url: `${origin.url}/${label}.qcow2`, bytes, ...more };
}

const both = () => [listed(one, 'one'), listed(two, 'two')];

/** A list, signed; its endorser is the signer unless told otherwise. */
function signed(version: string, images: readonly ListedImage[], by = alice, more: Partial<ListOptions> = {}): Buffer {
  return by.sign(hepixList({ id: listId, version, images, endorser: by, ...more }));
}

function publish(body: Buffer): void {
  origin.route('/image.list', { body });
}

const anchors = (...crls: string[]): Manifest => ({
  kind: 'ConfigMap',
  metadata: { name: 'anchors', namespace: 'default' },
  data: { 'ca.crt': authority.ca + crls.join('') },
});

interface Trusting {
  endorsers?: readonly ListSigner[];
  crl?: 'Require' | 'IfPresent';
}

function subscription(more: Record<string, unknown> = {}, { endorsers = [alice], ...rules }: Trusting = {}): Manifest {
  return {
    kind: 'ImageSubscription',
    metadata: { name: 'egi' },
    spec: {
      url: `${origin.url}/image.list`,
      format: 'HEPiX',
      trust: {
        x509: {
          endorsers: endorsers.map(({ subject, issuer }) => ({ subject, issuer })),
          caRef: { kind: 'ConfigMap', name: 'anchors' },
          ...rules,
        },
      },
      template: { spec: { sites: [{ name: 'shelf' }] } },
      ...more,
    },
  };
}

const names = [`egi-${one}`, `egi-${two}`] as const;
const images = () => house.store.list<VMImage>('VMImage');
/** All that a subscription writes of its images, and their ids: a site that is looked at again changes more of the status than these. */
const versions = () =>
  images()
    .map(({ metadata, spec, status }) => {
      const { name, generation, labels, annotations, ownerReferences } = metadata;
      const ids = status.sites?.map(({ imageID, phase }) => [imageID, phase]);
      return JSON.stringify([name, generation, labels, annotations, ownerReferences, spec, ids]);
    })
    .toSorted();

/** Looks again, and resolves when that has been told. */
async function lookAgain(wanted: (each: ImageSubscription) => boolean): Promise<ImageSubscription> {
  const at = randomUUID();
  await house.store.annotate(
    'ImageSubscription',
    { namespace: 'default', name: 'egi' },
    { 'imageproxy.dev/requestedAt': at },
  );
  return house.untilSubscription('egi', (each) => each.status.lastHandledReconcileAt === at && wanted(each));
}

/** A subscription to a list of two images, which are there. */
async function followed(manifest = subscription()): Promise<void> {
  publish(signed('5', both()));
  await house.write('sub.yaml', manifest);
  await Promise.all(names.map((name) => house.ready(name)));
  await house.untilSubscription('egi', (each) => isTrue(each, 'ImagesReady'));
}

describe('a signed list', () => {
  test('is followed, and its signer told', async () => {
    await followed();
    const each = house.subscription('egi') as ImageSubscription;
    expectKstatus(each);
    expect(each.status.list).toMatchObject({
      version: '5',
      endorser: alice.subject,
      fingerprint: expect.any(String) as string,
    });
    expect(condition(each, 'Ready')?.message).toContain(`version 5`);
    expect(house.image(names[0])?.metadata.annotations).toMatchObject({ 'imageproxy.dev/endorser': alice.subject });
  });

  test('changes nothing when it is older, tampered with, past its date, or signed by another', async () => {
    await followed();
    const before = versions();
    const empty = signed('6', []);
    const tampered = Buffer.from(empty.toString('latin1').replace('Test list', 'Best list'), 'latin1');
    const cases: [string, Buffer][] = [
      ['ListRollback', signed('4', [])],
      ['SignatureInvalid', tampered],
      ['ListExpired', signed('6', [], alice, { created: inDays(-40), expires: inDays(-10) })],
      ['EndorserNotTrusted', signed('6', [], bob)],
      ['EndorserMismatch', signed('6', [], alice, { endorser: bob })],
      ['SignatureMissing', Buffer.from(hepixList({ id: listId, version: '6', images: [], endorser: alice }))],
      ['UntrustedSigner', strangers('6')],
    ];
    for (const [reason, body] of cases) {
      publish(body);
      const refused = await lookAgain((each) => condition(each, 'Ready')?.reason === reason);
      expectKstatus(refused);
      expect(condition(refused, 'Verified'), reason).toMatchObject({ status: 'False', reason });
      expect(condition(refused, 'Ready')?.message).toContain('stay as they are');
      expect(versions(), reason).toEqual(before);
    }
    publish(signed('6', both()));
    await lookAgain((each) => isTrue(each, 'Ready') && each.status.list?.version === '6');
    expect(versions()).toEqual(before);
  });

  test('is how a publisher retires all of his images at once: by an empty one', async () => {
    await followed();
    publish(signed('6', []));
    await lookAgain((each) => isTrue(each, 'Ready') && each.status.list?.version === '6');
    await Promise.all(names.map((name) => house.until(name, (image) => image.status.phase === 'Deactivated')));
  });
});

describe('an endorser', () => {
  test('who is trusted no longer takes his images out of service, although his list cannot be read just then', async () => {
    await followed();
    origin.route('/image.list', { status: 503 });
    await house.write('sub.yaml', subscription({}, { endorsers: [bob] }));
    const told = await house.untilSubscription(
      'egi',
      (each) => condition(each, 'Ready')?.reason === 'EndorserNotTrusted',
    );
    expectKstatus(told);
    await Promise.all(names.map((name) => house.until(name, (image) => image.status.phase === 'Deactivated')));
    expect(house.image(names[0])?.metadata.annotations).toMatchObject({ 'imageproxy.dev/retired': 'Untrusted' });
    publish(signed('5', both()));
    await house.write('sub.yaml', subscription({}, { endorsers: [alice] }));
    await Promise.all(names.map((name) => house.ready(name)));
  });

  test('is followed by another with the next list, and no image goes', async () => {
    await followed();
    publish(signed('6', both(), bob));
    await house.write('sub.yaml', subscription({}, { endorsers: [bob] }));
    await house.untilSubscription('egi', (each) => isTrue(each, 'Ready') && each.status.list?.endorser === bob.subject);
    expect(images().every(({ spec }) => spec.state === 'Active')).toBe(true);
  });

  test('whose certificate is revoked is out as soon as the CRL says so; a CRL that is missing says nothing', async () => {
    const carol = authority.signer('carol');
    await house.write('ca.yaml', anchors(authority.crl()));
    publish(signed('5', both(), carol));
    await house.write('sub.yaml', subscription({ onUntrusted: 'Delete' }, { endorsers: [carol], crl: 'Require' }));
    await Promise.all(names.map((name) => house.ready(name)));
    const before = versions();
    await house.write('ca.yaml', anchors());
    const unknown = await house.untilSubscription('egi', (each) => condition(each, 'Ready')?.reason === 'CrlMissing');
    expectKstatus(unknown);
    expect(versions()).toEqual(before);
    await house.write('ca.yaml', anchors(authority.crl(carol)));
    await Promise.all(names.map((name) => house.gone(name)));
    expect(condition(house.subscription('egi') as ImageSubscription, 'Ready')?.reason).toBe('CertificateRevoked');
  });
});

describe('a list that is not in force', () => {
  const three = randomUUID();
  const all = () => [...both(), listed(three, 'three')];
  const there = () =>
    images()
      .toSorted((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))
      .map(({ metadata, spec }) => [metadata.name, spec.state, metadata.annotations?.['imageproxy.dev/retired']]);
  const rest = ['Active', undefined];

  /** A list of three images, of which two are chosen and one is deleted, by which nothing may be made now. */
  async function rested(manifest: Manifest, list: Buffer, change: () => Promise<void> | void): Promise<void> {
    publish(list);
    await house.write('sub.yaml', manifest);
    await Promise.all(names.map((name) => house.ready(name)));
    await house.untilSubscription('egi', (each) => isTrue(each, 'ImagesReady'));
    await change();
    await house.delete(names[1]);
    await house.gone(names[1]);
  }

  test('makes no image while the ConfigMap of its new trust is missing; when it says that the endorser is out, he is', async () => {
    const other = makeListAuthority('Other CA');
    try {
      const carol = other.signer('carol');
      const trust = {
        x509: {
          endorsers: [{ subject: carol.subject, issuer: carol.issuer }],
          caRef: { kind: 'ConfigMap', name: 'others' },
        },
      };
      const chosen = { select: { exclude: { ids: [three] } } };
      await rested(subscription(chosen), signed('5', all()), async () => {
        await house.write('sub.yaml', subscription({ ...chosen, trust }));
        const waiting = await house.untilSubscription(
          'egi',
          (each) => condition(each, 'Ready')?.reason === 'ConfigMapNotFound',
        );
        expectKstatus(waiting);
        expect(condition(waiting, 'Verified')).toMatchObject({ status: 'Unknown', reason: 'ConfigMapNotFound' });
      });
      // Another choice, which would make the third.
      await house.write('sub.yaml', subscription({ trust }));
      const resting = await lookAgain((each) => each.status.counts?.selected === 3);
      expect(condition(resting, 'Ready')?.message).toContain('no other is made of it');
      expect(there()).toEqual([[names[0], ...rest]]);
      await house.write('others.yaml', {
        kind: 'ConfigMap',
        metadata: { name: 'others', namespace: 'default' },
        data: { 'ca.crt': other.ca },
      });
      await house.until(names[0], (image) => image.status.phase === 'Deactivated');
      const out = await house.untilSubscription(
        'egi',
        (each) => condition(each, 'Ready')?.reason === 'EndorserNotTrusted',
      );
      expectKstatus(out);
      expect(there()).toEqual([[names[0], 'Deactivated', 'Untrusted']]);
      await house.write('sub.yaml', subscription());
      await Promise.all([...names, `egi-${three}`].map((name) => house.ready(name)));
    } finally {
      other.close();
    }
  });

  test('takes its images out of service when trust is of another kind now', async () => {
    await followed();
    const publicKeys = ['RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3'];
    await house.write('sub.yaml', subscription({ trust: { minisign: { publicKeys } } }));
    await Promise.all(names.map((name) => house.until(name, (image) => image.status.phase === 'Deactivated')));
    expect(there().map(([, , retired]) => retired)).toEqual(['Untrusted', 'Untrusted']);
  });

  test('makes no image while only its authority is missing, and takes none out of service', async () => {
    const chosen = { select: { exclude: { ids: [three] } } };
    const other = makeListAuthority('Other CA');
    other.close();
    await rested(subscription(chosen), signed('5', all()), async () => {
      await house.write('ca.yaml', { ...anchors(), data: { 'ca.crt': other.ca } });
      await house.untilSubscription('egi', (each) => condition(each, 'Ready')?.reason === 'UntrustedSigner');
    });
    await house.write('sub.yaml', subscription());
    await lookAgain((each) => each.status.counts?.selected === 3);
    expect(there()).toEqual([[names[0], ...rest]]);
    await house.write('ca.yaml', anchors());
    await Promise.all([names[1], `egi-${three}`].map((name) => house.ready(name)));
  });

  test('ends at its date also where its origin cannot be reached then, and makes nothing after it', async () => {
    const soon = new Date(Date.now() + 2 * 3_600_000).toISOString().replace(/\.\d{3}Z$/, 'Z');
    await rested(subscription({ interval: '24h' }), signed('5', both(), alice, { expires: soon }), async () => {
      origin.route('/image.list', { status: 404 });
      const failed = await lookAgain((each) => condition(each, 'Ready')?.reason === 'NotFound');
      expect(condition(failed, 'Verified')).toMatchObject({ status: 'True' });
      clock.jump(3 * 3_600_000);
      const past = await house.untilSubscription(
        'egi',
        (each) => condition(each, 'Verified')?.reason === 'ListExpired',
      );
      expectKstatus(past);
      expect(condition(past, 'Ready')).toMatchObject({ reason: 'NotFound' });
      expect(condition(past, 'Ready')?.message).toContain(`expired at ${soon}`);
    });
    await lookAgain((each) => condition(each, 'Verified')?.reason === 'ListExpired');
    expect(there()).toEqual([[names[0], ...rest]]);
    publish(signed('6', both()));
    await lookAgain((each) => isTrue(each, 'Ready'));
    await house.ready(names[1]);
  });
});

describe('two subscriptions that offer one image', () => {
  test('the signed one goes first, and gets what the unsigned one had registered', async () => {
    listed(one, 'one');
    origin.route('/plain.list', { body: Buffer.from(hepixList({ id: randomUUID(), version: '1', images: both() })) });
    await house.write('plain.yaml', {
      ...subscription({ url: `${origin.url}/plain.list`, trust: { unsigned: {} } }),
      metadata: { name: 'plain' },
    });
    await house.ready(`plain-${one}`);
    const registered = house.row(`plain-${one}`, 'shelf')?.imageID;
    publish(signed('5', [listed(one, 'one')]));
    await house.write('sub.yaml', subscription());
    await house.gone(`plain-${one}`);
    await house.ready(names[0]);
    expect(house.row(names[0], 'shelf')?.imageID).toBe(registered);
    const plain = await house.untilSubscription(
      'plain',
      (each) => each.status.attention?.some(({ id }) => id === one) === true,
    );
    expect(plain.status.attention?.find(({ id }) => id === one)).toMatchObject({ reason: 'GuidInUse' });
    expect(house.image(`plain-${two}`)?.spec.state).toBe('Active');
  });
});

describe('a private list', () => {
  test.each<[string, (person: KeyPair) => Record<string, string>, string | undefined]>([
    [
      'Basic credentials',
      () => ({ username: 's3cr3t-t0ken', password: 'x-oauth-basic' }),
      `Basic ${Buffer.from('s3cr3t-t0ken:x-oauth-basic').toString('base64')}`,
    ],
    ['a token', () => ({ token: 's3cr3t-t0ken' }), 'Bearer s3cr3t-t0ken'],
    ['a client certificate', ({ cert, key }) => ({ 'tls.crt': cert, 'tls.key': key }), undefined],
  ])(
    'is read with %s and a CA of its own, which go nowhere else and are told nowhere',
    async (_, credentialsOf, wanted) => {
      const tls = makeAuthority();
      const credentials = credentialsOf(tls.issue('DNS:client'));
      const asks = wanted === undefined ? { ca: tls.ca, requestCert: true } : {};
      const secure = await startOrigin({ tls: { ...tls.issue('DNS:localhost'), ...asks } });
      try {
        const body = signed('1', [{ ...listed(one, 'one'), url: `${secure.url}/one.qcow2` }, listed(two, 'two')]);
        const guarded =
          (bytes: Uint8Array) =>
          (request: RecordedRequest): Route =>
            request.headers.authorization === wanted ? { body: bytes } : { status: 401 };
        secure.route('/image.list', guarded(body));
        secure.route('/one.qcow2', guarded(disk('one').bytes));
        const secret: Manifest = {
          kind: 'Secret',
          metadata: { name: 'token', namespace: 'default', annotations: { 'imageproxy.dev/hosts': 'localhost' } },
          stringData: credentials,
        };
        const server: Manifest = {
          kind: 'ConfigMap',
          metadata: { name: 'server', namespace: 'default' },
          data: { 'ca.crt': tls.ca },
        };
        const access = { secretRef: { name: 'token' }, caRef: { kind: 'ConfigMap', name: 'server' } };
        await house.write('sub.yaml', subscription({ url: `${secure.url}/image.list`, ...access }), server);
        const waiting = await house.untilSubscription(
          'egi',
          (each) => condition(each, 'Ready')?.reason === 'SecretNotFound',
        );
        expectKstatus(waiting);
        await house.write('secret.yaml', secret);
        await Promise.all(names.map((name) => house.ready(name)));
        secure.route('/image.list', { status: 401 });
        await lookAgain((each) => condition(each, 'Ready')?.reason === 'Unauthorized');
        expect(origin.requests.map(({ headers }) => headers.authorization)).toEqual([undefined]);
        const objects = [images(), house.subscription('egi')];
        // Events are written when the program has ended; each is a line of the log, too.
        await house.stop();
        expect(house.lines.some((line) => line.includes('"reason":"Unauthorized"'))).toBe(true);
        const everything = JSON.stringify([house.lines, objects]);
        // Short lines are the ends of keys, or words that anybody knows.
        const secrets = Object.values(credentials).flatMap((value) => value.split('\n'));
        const telling = secrets.filter(
          (line) => line === 's3cr3t-t0ken' || (line.length > 20 && !line.startsWith('-----')),
        );
        expect(telling.length).toBeGreaterThan(0);
        for (const each of telling) expect(everything).not.toContain(each);
        if (wanted !== undefined) expect(everything).not.toContain(wanted);
      } finally {
        await secure.close();
        tls.close();
      }
    },
  );
});

/** A list by an alice of another authority. */
function strangers(version: string): Buffer {
  const other = makeListAuthority('Other CA');
  try {
    const mallory = other.signer('alice');
    return mallory.sign(hepixList({ id: listId, version, images: [], endorser: mallory }));
  } finally {
    other.close();
  }
}
