import { mkdtempSync, rmSync } from 'node:fs';
import { stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { VMImage } from '../../../src/api/types.ts';
import { Layout } from '../../../src/cache/layout.ts';
import { Candidacy } from '../../../src/runtime/candidacy.ts';
import { type Clock, systemClock } from '../../../src/runtime/clock.ts';
import { LeaseElector } from '../../../src/runtime/lease.ts';
import type { KubernetesStore } from '../../../src/stores/kubernetes/index.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually, startApiServer } from '../../support/apiserver.ts';
import { qcow2 } from '../../support/disks.ts';
import { openstackSite, vmimage } from '../../support/house.ts';
import { type ApiFaultProxy, startApiFaultProxy } from '../../support/kubernetes/fault-proxy.ts';
import { type OpenStack, openstackAvailable, startOpenStack } from '../../support/openstack.ts';
import { type Origin, type Route, startOrigin } from '../../support/origin.ts';
import { type FaultProxy, startFaultProxy } from '../../support/proxy.ts';
import { Program } from '../cli/program.ts';
import { cacheOf, Cluster, makeAccount, runPod, runPodWith, tokenOf } from './cluster.ts';

const LEASE = '/apis/coordination.k8s.io/v1/namespaces/imageproxy/leases/imageproxy';
const SUMMARY = '/apis/coordination.k8s.io/v1/namespaces/default/leases/imageproxy-summary';
const MiB = 2 ** 20;
/** The shortest that there is: it is used for 20 s, and another may take it after 30 s. */
const SHORT_LEASE = ['--lease-duration', '30s'];
const LOST = /the lease is not ours any more/;
const REGAINED = /the lease is not ours any more[^]*the lease is ours/;

interface Lease {
  metadata: object;
  spec: Record<string, unknown> & { holderIdentity: string };
}

/**
 * The program as a process, a real API server that fails, and a real Glance: downloads go on, clouds are written under the Lease
 * alone, and nothing is done twice. A cluster that is not ours (TEST_KUBECONFIG) must not be stopped.
 */
describe.skipIf(!openstackAvailable() || (process.env['TEST_KUBECONFIG'] ?? '') !== '')(
  'when the API server fails while work is under way',
  () => {
    let server: ApiServer;
    let origin: Origin;
    let openstack: OpenStack;
    let glance: FaultProxy;
    let cluster: Cluster;
    let root: string;
    let api: ApiFaultProxy | undefined;

    beforeAll(async () => {
      root = mkdtempSync(join(tmpdir(), 'imageproxy-outage-'));
      [server, origin, openstack] = await Promise.all([startApiServer(), startOrigin(), startOpenStack()]);
      for (const name of ['default', 'imageproxy']) await server.namespace(name);
      glance = await startFaultProxy(openstack.glanceUrl);
      cluster = new Cluster(server);
      await cluster.apply(
        ...openstackSite('nova', await openstack.clouds('demo', { imageEndpoint: glance.url }), 'demo'),
      );
    }, API_SERVER_PATIENCE_MS);
    afterEach(async () => {
      server.pauseEtcd(false);
      await Program.killAll();
      await api?.stop();
      api = undefined;
      glance.clear();
      // What a killed one held nobody has to wait for.
      for (const path of [LEASE, SUMMARY]) await server.request({ method: 'DELETE', path }).catch(() => undefined);
    });
    afterAll(async () => {
      await cluster?.close();
      await glance?.stop();
      await Promise.all([server?.stop(), origin?.close(), openstack?.stop()]);
      rmSync(root, { recursive: true, force: true });
    });

    const run = async (name: string, ...more: string[]): Promise<Program> => {
      const program = runPod(root, name, server.kubeconfig, ...SHORT_LEASE, ...more);
      await program.says(/imageproxy runs/);
      return program;
    };
    const apply = async (name: string, route: Route = {}, mebibytes = 4) => {
      const disk = qcow2(name, mebibytes);
      origin.route(`/${name}`, { body: disk.bytes, ...route });
      await cluster.apply(
        vmimage(name, {
          source: { http: { urls: [`${origin.url}/${name}`] } },
          checksums: { sha256: disk.sha256 },
          sites: [{ name: 'nova' }],
        }),
      );
      return disk;
    };
    /** Resolves in the middle of its download, which waits there to be let go on. */
    const applyHeld = async (name: string) => {
      const { promise: until, resolve: goOn } = Promise.withResolvers<void>();
      await apply(name, { bytesPerSecond: 2 * MiB, holdAfter: { bytes: 2 * MiB, until } }, 8);
      await cluster.until(name, ({ status }) => status.phase === 'Fetching', 'being fetched');
      return { goOn };
    };
    /** All that Glance has of the image, whatever its state, as its owner sees it. */
    const records = async ({ status }: VMImage): Promise<{ id: string; status: string }[]> => {
      const found: { id: string; status: string }[] = [];
      for (const hidden of ['false', 'true']) {
        const { body } = await openstack.image(
          'demo',
          'GET',
          `/images?os_hidden=${hidden}&imageproxy_guid=${status.guid}`,
        );
        found.push(...(body as { images: { id: string; status: string }[] }).images);
      }
      return found;
    };
    const expectOnce = async (name: string): Promise<void> => {
      const image = await cluster.ready(name);
      expect(await records(image)).toMatchObject([{ id: image.status.sites?.[0]?.imageID, status: 'active' }]);
    };
    const bodies = (name: string) =>
      origin.requests.filter(({ path, method }) => path === `/${name}` && method === 'GET').length;
    const isThere = (path: string) =>
      stat(path).then(
        () => true,
        () => false,
      );
    /** The Lease as the program stands for it. */
    const candidacyOn = (store: KubernetesStore, clock: Clock): Candidacy => {
      const elector = new LeaseElector({
        client: store.lease('imageproxy'),
        identity: 'in-process',
        clock,
        leaseMs: 30_000,
        log: cluster.log,
      });
      const candidacy = new Candidacy(elector);
      candidacy.stand();
      return candidacy;
    };
    const lease = () => server.request<Lease>({ method: 'GET', path: LEASE });

    test('etcd hangs for longer than the Lease lasts: the download ends, the cloud hears nothing, then all goes on', async () => {
      const program = await run('etcd');
      const disk = await apply('etcd', { bytesPerSecond: MiB }, 24);
      await cluster.until('etcd', ({ status }) => status.phase === 'Fetching', 'being fetched');
      server.pauseEtcd(true);
      await program.says(LOST);
      const written = glance.seen.filter(({ method }) => method !== 'GET').length;
      const blob = new Layout(cacheOf(root, 'etcd')).blob(disk.sha256);
      await eventually('the download has ended', async () => expect(await isThere(blob)).toBe(true));
      // Nothing was sent, and nothing is begun, while the Lease may be another's.
      expect(glance.seen.filter(({ method }) => method !== 'GET')).toHaveLength(written);
      server.pauseEtcd(false);
      await program.says(REGAINED);
      await expectOnce('etcd');
      expect(bodies('etcd')).toBe(1);
      expect(await program.signal('SIGTERM')).toMatchObject({ code: 0 });
    });

    test('another takes the Lease in the middle of an upload: it is cut, the process makes room, and ends what it began when it may', async () => {
      const first = await run('loser');
      const reached = Promise.withResolvers<void>();
      glance.fault({
        method: 'PUT',
        path: /\/file$/,
        wait: () => {
          reached.resolve();
          return new Promise(() => undefined);
        },
      });
      await apply('taken');
      await reached.promise;
      // Its holder writes it every few seconds, and may be quicker than we are.
      const held = await eventually('the Lease is taken', async () => {
        const found = await lease();
        const now = new Date().toISOString().replace('Z', '000Z');
        const spec = { ...found.spec, holderIdentity: 'usurper', renewTime: now, acquireTime: now };
        await server.request({ method: 'PUT', path: LEASE, body: { ...found, spec } });
        return found;
      });
      await first.says(LOST);
      const { code, err } = await first.done;
      expect({ code, err }).toMatchObject({
        code: 1,
        err: expect.stringContaining('the Lease was lost to usurper: this process ends'),
      });
      const before = await cluster.image('taken');
      expect(before.status.sites?.[0]?.operation).toMatchObject({ kind: 'Register' });
      // What the cut left was removed at once, while the Lease could not have been another's in earnest.
      expect(await records(before)).toEqual([]);
      // As the kubelet does it.
      const second = runPod(root, 'loser', server.kubeconfig, ...SHORT_LEASE);
      await second.says(/waits for the Lease/);
      const { metadata, spec } = await lease();
      expect(spec.holderIdentity).toBe('usurper');
      await server.request({
        method: 'PUT',
        path: LEASE,
        body: { ...held, metadata, spec: { ...spec, holderIdentity: '' } },
      });
      await expectOnce('taken');
      expect(bodies('taken')).toBe(1);
    });

    test('the API server is killed in the middle of an upload and comes back: the upload ends, and its id is written then', async () => {
      // The Lease is used for 80 s. Of the shortest some 3 s may be left when the API server goes: too few for the upload to end in.
      await run('killed', '--lease-duration', '120s');
      const reached = Promise.withResolvers<void>();
      const back = Promise.withResolvers<void>();
      glance.fault({
        method: 'PUT',
        path: /\/file$/,
        wait: () => {
          reached.resolve();
          return back.promise;
        },
      });
      await apply('restart');
      await reached.promise;
      await server.killServer();
      back.resolve();
      await eventually('Glance has got the image', async () => {
        const upload = glance.seen.findLast(({ method, path }) => method === 'PUT' && path.endsWith('/file'));
        expect(upload?.status).toBe(204);
      });
      await server.startServer();
      await expectOnce('restart');
      expect(bodies('restart')).toBe(1);
    });

    test('the machine’s clock is set a day ahead, and back: downloads go on, and nothing is done twice', async () => {
      let offset = 0;
      const clock: Clock = { ...systemClock, now: () => Date.now() + offset };
      await cluster.start({ clock }, (store) => ({
        clock,
        lease: candidacyOn(store, clock),
      }));
      try {
        const download = await applyHeld('ahead');
        offset = 24 * 3_600_000;
        download.goOn();
        await expectOnce('ahead');
        expect(bodies('ahead')).toBe(1);
        offset = -24 * 3_600_000;
        await apply('back');
        await expectOnce('back');
        await expectOnce('ahead');
      } finally {
        await cluster.stop();
      }
    });

    test('the clock of the process is set a day ahead, and back: it lives, has its Lease again, and nothing is done twice', async () => {
      const preload = join(import.meta.dirname, '..', '..', 'support', 'settable-clock-process.ts');
      const env = { NODE_OPTIONS: `--import=${preload}` };
      const more = [...SHORT_LEASE, '--telemetry', '127.0.0.1:0'];
      const program = runPodWith(env, root, 'clock', server.kubeconfig, ...more);
      const url = (await program.says(/"telemetry":"(http[^"]+)"/))[1] ?? '';
      await program.says(/imageproxy runs/);
      const download = await applyHeld('day-ahead');
      program.child.kill('SIGUSR2');
      download.goOn();
      await program.says(REGAINED);
      await expectOnce('day-ahead');
      expect(bodies('day-ahead')).toBe(1);
      program.child.kill('SIGUSR2');
      await apply('day-behind');
      await expectOnce('day-behind');
      await expectOnce('day-ahead');
      expect((await request(`${url}/livez`)).statusCode).toBe(200);
      expect(await program.signal('SIGTERM')).toMatchObject({ code: 0 });
    });

    test('answers are lost, refused and delayed at random: every image is registered once, and told right', async () => {
      api = await startApiFaultProxy(server);
      const status = (code: number, reason: string) => ({
        kind: 'Status',
        code,
        reason,
        message: `${reason} by the test`,
      });
      for (const [n, fault] of [
        { status: 409, body: status(409, 'Conflict') },
        { status: 429, headers: { 'retry-after': '1' }, body: status(429, 'TooManyRequests') },
        { status: 500, body: status(500, 'InternalError') },
        { status: 503, headers: { 'retry-after': '1' }, body: status(503, 'ServiceUnavailable') },
      ].entries()) {
        api.fault({ path: new RegExp(`vmimages/storm-${n}(/status)?\\?`), times: 3, ...fault });
      }
      const kubeconfig = await server.writeConfig('storm', { server: api.url });
      const program = runPod(root, 'storm', kubeconfig, ...SHORT_LEASE);
      await program.says(/imageproxy runs/);
      const names = [0, 1, 2, 3].map((n) => `storm-${n}`);
      await Promise.all(names.map((name) => apply(name)));
      for (let cut = 0; cut < 5; cut++) {
        api.cutWatches();
        await eventually('watches are open again', async () => expect(api?.openWatches).toBeGreaterThan(4));
      }
      for (const name of names) {
        await expectOnce(name);
        expect(bodies(name)).toBe(1);
      }
    });

    test('a token that ends while the process runs is read anew from its file', async () => {
      const home = '/api/v1/namespaces/imageproxy';
      await makeAccount(server, 'tokens');
      const tokenBoundTo = async (name: string): Promise<string> => {
        await server.apply(`${home}/secrets/${name}`, { apiVersion: 'v1', kind: 'Secret', metadata: { name } });
        return tokenOf(server, 'tokens', name);
      };
      const file = join(root, 'token');
      await writeFile(file, await tokenBoundTo('first'), { mode: 0o600 });
      const kubeconfig = await server.writeConfig('tokens', { tokenFile: file });
      const program = runPod(root, 'tokens', kubeconfig, ...SHORT_LEASE);
      await program.says(/imageproxy runs/);
      await apply('before');
      await expectOnce('before');
      await server.request({ method: 'DELETE', path: `${home}/secrets/first` });
      await program.says(/Unauthorized/);
      await writeFile(file, await tokenBoundTo('second'), { mode: 0o600 });
      await apply('after');
      await expectOnce('after');
    });
  },
);
