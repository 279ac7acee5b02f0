import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '../../../src/runtime/clock.ts';
import { LeaseElector } from '../../../src/runtime/lease.ts';
import { type KubernetesStore, openKubernetesStore } from '../../../src/stores/kubernetes/index.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually, startApiServer } from '../../support/apiserver.ts';
import { TestLog } from '../../unit/stores/support.ts';

/** Short, for who waits for its end. */
const LEASE_MS = 2_000;
/** For who must not lose it while the machine is busy. */
const LONG_LEASE_MS = 30_000;

describe('a Lease of a real API server', () => {
  let server: ApiServer;
  let store: KubernetesStore;
  const ends: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    server = await startApiServer({ crds: false });
    await server.namespace('imageproxy');
    store = await openKubernetesStore({
      kubeconfig: server.kubeconfig,
      controllerNamespace: 'imageproxy',
      log: new TestLog(),
    });
  }, API_SERVER_PATIENCE_MS);
  afterAll(async () => {
    for (const end of ends) await end();
    await store?.close();
    await server?.stop();
  });

  const candidate = (identity: string, leaseMs: number) => {
    const elector = new LeaseElector({
      client: store.lease('imageproxy'),
      identity,
      clock: systemClock,
      log: new TestLog(),
      leaseMs,
      renewMs: 100,
    });
    const stop = new AbortController();
    const running = elector.run(stop.signal);
    const end = async () => {
      stop.abort();
      await running;
    };
    ends.push(end);
    return { elector, end };
  };
  const read = () =>
    server.request<{ spec: { holderIdentity: string; leaseTransitions: number; renewTime: string } }>({
      method: 'GET',
      path: '/apis/coordination.k8s.io/v1/namespaces/imageproxy/leases/imageproxy',
    });

  test('is held by one of three, and goes on to another when it is given back', async () => {
    const all = ['a', 'b', 'c'].map((name) => candidate(name, LONG_LEASE_MS));
    const leaders = () => all.filter(({ elector }) => elector.goodForMs(0));
    const [first] = await eventually('somebody holds it', async () => {
      if (leaders().length === 0) throw new Error('nobody');
      return leaders();
    });
    expect(leaders()).toHaveLength(1);
    const { spec } = await read();
    expect(spec.renewTime).toMatch(/\.\d{6}Z$/);
    await eventually('it was renewed', async () => expect((await read()).spec.renewTime).not.toBe(spec.renewTime));
    await first?.end();
    await eventually('the next holds it', async () => expect(leaders()).toHaveLength(1));
    expect(leaders()[0]).not.toBe(first);
    expect((await read()).spec.leaseTransitions).toBeGreaterThanOrEqual(1);
    for (const { end } of all) await end();
    expect((await read()).spec.holderIdentity).toBe('');
  });

  test('is taken from a holder that says nothing any more, after its time', async () => {
    const { spec, ...lease } = await read();
    await server.request({
      method: 'PUT',
      path: '/apis/coordination.k8s.io/v1/namespaces/imageproxy/leases/imageproxy',
      body: { ...lease, spec: { ...spec, holderIdentity: 'dead', leaseDurationSeconds: 2 } },
    });
    const started = performance.now();
    const { elector } = candidate('heir', LEASE_MS);
    await eventually('the heir holds it', async () => expect(elector.goodForMs(0)).toBe(true));
    expect(performance.now() - started).toBeGreaterThan(LEASE_MS);
  });
});
