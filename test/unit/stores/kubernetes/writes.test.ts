import { beforeEach, describe, expect, it } from 'vitest';
import { loadSchemas } from '../../../../src/api/schema.ts';
import { ApiError } from '../../../../src/runtime/api-error.ts';
import type { ApiRequest } from '../../../../src/stores/kubernetes/client.ts';
import { LocalCopy } from '../../../../src/stores/kubernetes/copy.ts';
import { Writer } from '../../../../src/stores/kubernetes/writes.ts';
import { RESOURCES } from '../../../../src/stores/kubernetes/resources.ts';
import type { Draft, Kind } from '../../../../src/stores/store.ts';
import { HeldClock, settled } from '../../../support/clock.ts';
import { TestLog } from '../support.ts';

const SITE: Draft = {
  apiVersion: 'imageproxy.dev/v1beta1',
  kind: 'ImageSite',
  metadata: { name: 'shelf' },
  spec: { directory: { path: '/srv/images' } },
};
const KEY = { name: 'shelf' };

/** An API server that answers when it is told to, and hears when a request is given up. */
class SlowClient {
  readonly asked: string[] = [];
  readonly answers: ((refusal?: ApiError) => void)[] = [];

  request<T>({ method, path, signal }: ApiRequest): Promise<T> {
    this.asked.push(`${method} ${path}`);
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    signal?.addEventListener('abort', () => reject(signal.reason));
    const { apiVersion, kind, metadata, spec } = SITE;
    const site = { apiVersion, kind, metadata: { ...metadata, uid: '1', resourceVersion: '1' }, spec, status: {} };
    this.answers.push((refusal) => (refusal === undefined ? resolve(site as T) : reject(refusal)));
    return promise;
  }
}

describe('A write that no reconcile’s object stands behind', () => {
  let client: SlowClient;
  let holdsLease: boolean;

  beforeEach(() => {
    client = new SlowClient();
    holdsLease = true;
  });

  const writer = (answerMs?: number): Writer =>
    new Writer({
      client,
      copies: Object.fromEntries(
        Object.keys(RESOURCES).map((kind) => [kind, new LocalCopy(kind as Kind, new TestLog())]),
      ) as Record<Kind, LocalCopy>,
      schemas: loadSchemas(),
      fieldOwner: 'imageproxy',
      clock: new HeldClock(),
      signal: new AbortController().signal,
      mayWrite: () => holdsLease,
      ...(answerMs === undefined ? {} : { answerMs }),
    });
  const WRITES: [string, (writer: Writer) => Promise<unknown>][] = [
    ['create', (each) => each.create(SITE)],
    ['apply', (each) => each.apply(SITE)],
    ['annotate', (each) => each.annotate('ImageSite', KEY, { seen: 'yes' })],
    ['delete', (each) => each.delete('ImageSite', KEY)],
  ];

  it.each(WRITES)('is not sent when the Lease went while it waited for its turn: %s', async (verb, write) => {
    const one = writer();
    const before = one.apply(SITE);
    await settled();
    const waiting = write(one);
    const refused = expect(waiting).rejects.toMatchObject({
      reason: 'Aborted',
      message: `did not ${verb} ImageSite shelf: this controller does not hold the Lease`,
    });
    await settled();
    holdsLease = false;
    client.answers[0]?.();
    await before;
    await refused;
    expect(client.asked).toHaveLength(1);
  });

  it.each(WRITES)('is given up before another can hold the Lease, when nobody answers: %s', async (verb, write) => {
    await expect(write(writer(20))).rejects.toMatchObject({
      reason: 'Timeout',
      message: `cannot ${verb} ImageSite shelf: the API server does not answer`,
    });
    expect(client.asked).toHaveLength(1);
  });

  it('cannot touch an object that came in the moment before: what makes one does nothing else', async () => {
    const made = expect(writer().create(SITE)).rejects.toMatchObject({ reason: 'NameInUse' });
    await settled();
    client.answers[0]?.(new ApiError(409, 'AlreadyExists', 'imagesites.imageproxy.dev "shelf" already exists'));
    await made;
    expect(client.asked).toEqual(['POST /apis/imageproxy.dev/v1beta1/imagesites']);
  });
});
