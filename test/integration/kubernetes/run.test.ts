import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually } from '../../support/apiserver.ts';
import { ext4 } from '../../support/disks.ts';
import { vmimage } from '../../support/house.ts';
import { type ApiFaultProxy, startApiFaultProxy } from '../../support/kubernetes/fault-proxy.ts';
import type { Origin } from '../../support/origin.ts';
import { Program } from '../cli/program.ts';
import { type Bench, type Cluster, makeAccount, openBench, runPod, tokenOf } from './cluster.ts';

const LEASES = '/apis/coordination.k8s.io/v1/namespaces/imageproxy/leases';
const SUMMARY = '/apis/coordination.k8s.io/v1/namespaces/default/leases/imageproxy-summary';
const CRD = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/vmimages.imageproxy.dev';

interface Lease {
  spec: { holderIdentity: string; leaseDurationSeconds: number };
}

/** `imageproxy run --kubernetes` as a pod would run it. */
describe('the program on a cluster', () => {
  let bench: Bench;
  let server: ApiServer;
  let origin: Origin;
  let cluster: Cluster;
  let root: string;

  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), 'imageproxy-run-'));
    bench = await openBench({ audit: true });
    ({ server, origin, cluster } = bench);
  }, API_SERVER_PATIENCE_MS);
  afterEach(async () => {
    await Program.killAll();
    // What a killed one held nobody has to wait for.
    await server.request({ method: 'DELETE', path: SUMMARY }).catch(() => undefined);
  });
  afterAll(async () => {
    await bench?.close();
    rmSync(root, { recursive: true, force: true });
  });

  const run = (name: string, ...more: string[]): Program =>
    runPod(root, name, server.kubeconfig, '--telemetry', '127.0.0.1:0', ...more);
  const lease = (name = 'imageproxy') => server.request<Lease>({ method: 'GET', path: `${LEASES}/${name}` });
  const apply = async (name: string) => {
    const disk = ext4(name);
    origin.route(`/${name}`, { body: disk.bytes });
    await cluster.apply(
      vmimage(name, {
        source: { http: { urls: [`${origin.url}/${name}`] } },
        checksums: { sha256: disk.sha256 },
        sites: [{ name: 'shelf' }],
      }),
    );
  };
  /** Of a site whose controller is gone nobody takes the finalizer away. */
  const remove = async (name: string) => {
    const path = `/apis/imageproxy.dev/v1beta1/imagesites/${name}`;
    const body = { metadata: { finalizers: null } };
    await server.request({ method: 'PATCH', path, contentType: 'application/merge-patch+json', body });
    await server.request({ method: 'DELETE', path });
    await cluster.gone('ImageSite', { name });
  };
  const listensAt = async (program: Program): Promise<string> =>
    (await program.says(/"telemetry":"(http[^"]+)"/))[1] ?? '';
  const health = async (url: string, path: string) => {
    const { statusCode, body } = await request(`${url}/${path}`);
    return { statusCode, text: await body.text() };
  };

  test('holds the Lease, does the work, and gives the Lease back when it is asked to stop', async () => {
    const program = run('one');
    const url = await listensAt(program);
    await program.says(/imageproxy runs/);
    expect((await lease()).spec).toMatchObject({
      holderIdentity: expect.stringMatching(/^one_[0-9a-f]{8}$/),
      leaseDurationSeconds: 40,
    });
    expect(await health(url, 'readyz')).toMatchObject({ statusCode: 200 });
    expect(await health(url, 'livez')).toMatchObject({
      statusCode: 200,
      text: expect.stringContaining('ok api server'),
    });
    await apply('first');
    await cluster.ready('first');
    expect(await program.signal('SIGTERM')).toMatchObject({ code: 0 });
    expect((await lease()).spec.holderIdentity).toBe('');
  });

  test('a second one is ready while it waits, touches nothing, and goes on when the first has stopped', async () => {
    const first = run('first-pod');
    await first.says(/imageproxy runs/);
    const second = run('second-pod');
    const url = await listensAt(second);
    await second.says(/waits for the Lease/);
    expect(await health(url, 'readyz')).toMatchObject({ statusCode: 200 });
    await apply('second');
    const before = (await cluster.ready('second')).status.sites?.[0]?.imageID;
    const fetched = origin.requests.length;
    expect((await lease()).spec.holderIdentity).toMatch(/^first-pod_/);
    await first.signal('SIGTERM');
    await second.says(/imageproxy runs/);
    expect((await lease()).spec.holderIdentity).toMatch(/^second-pod_/);
    await apply('third');
    await cluster.ready('third');
    expect((await cluster.ready('second')).status.sites?.[0]?.imageID).toBe(before);
    expect(origin.requests.slice(fetched).filter(({ path }) => path === '/second')).toEqual([]);
  });

  test('of two releases that serve every site one works: the other waits, whatever its Lease is, and goes on when the first has stopped', async () => {
    const blue = run('blue', '--lease-name', 'blue');
    await blue.says(/imageproxy runs/);
    const green = run('green', '--lease-name', 'green', '--controller-namespace', 'default');
    const url = await listensAt(green);
    await green.says(/"lease":"default\/imageproxy-summary"[^\n]*"holder":"blue_[^\n]*another holds the lease/);
    expect(await health(url, 'readyz')).toMatchObject({ statusCode: 200 });
    await apply('one-of-two');
    await cluster.ready('one-of-two');
    const holder = async () => (await server.request<Lease>({ method: 'GET', path: SUMMARY })).spec.holderIdentity;
    expect(await holder()).toMatch(/^blue_/);
    await blue.signal('SIGTERM');
    await green.says(/imageproxy runs/);
    expect(await holder()).toMatch(/^green_/);
    await apply('one-of-two-later');
    await cluster.ready('one-of-two-later');
    const { err } = await green.signal('SIGTERM');
    expect(err.split('imageproxy runs')[0]).toMatch(/"lease":"default\/imageproxy-summary"[^\n]*"the lease is ours"/);
  });

  test('a site of its own that the API server refuses is named, and keeps nobody from work', async () => {
    const folder = mkdtempSync(join(root, 'sites-'));
    const write = (name: string, spec: object) =>
      writeFileSync(
        join(folder, `${name}.json`),
        JSON.stringify({ apiVersion: 'imageproxy.dev/v1beta1', kind: 'ImageSite', metadata: { name }, spec }),
      );
    const directory = { path: cluster.shelf };
    await cluster.apply({ kind: 'ImageSite', metadata: { name: 'a-kind' }, spec: { directory } });
    // It cannot become another kind of site.
    write('a-kind', { openstack: { cloud: 'east', secretRef: { name: 'east' } } });
    write('b-fresh', { directory });
    // What comes after looks at what is written at rest, and these two would be.
    onTestFinished(async () => {
      await Program.killAll();
      for (const name of ['a-kind', 'b-fresh']) await remove(name);
    });
    const program = run('own', '--lease-name', 'own', '--sites', folder);
    const url = await listensAt(program);
    await program.says(/imageproxy runs/);
    expect((await cluster.site('a-kind')).spec).toMatchObject({ directory });
    expect((await cluster.site('b-fresh')).spec).toMatchObject({ directory });
    expect(await health(url, 'readyz')).toMatchObject({
      statusCode: 503,
      text: expect.stringMatching(/cannot apply ImageSite a-kind: .*a site cannot become another kind of site/),
    });
    expect(await health(url, 'livez')).toMatchObject({ statusCode: 200 });
    await eventually('an event of the site tells it', async () => {
      const { items } = await server.request<{ items: { note: string; regarding: { name: string } }[] }>({
        method: 'GET',
        path: '/apis/events.k8s.io/v1/namespaces/default/events',
      });
      const told = items.filter(({ regarding }) => regarding.name === 'a-kind').map(({ note }) => note);
      expect(told.join('\n')).toContain('cannot apply ImageSite a-kind');
    });
    await apply('beside');
    await cluster.ready('beside');
  });

  test('at rest it asks the API server for nothing to be written but its Lease', async () => {
    const user = await makeAccount(server, 'controller');
    const kubeconfig = await server.writeConfig('controller', { token: await tokenOf(server, 'controller') });
    const program = runPod(root, 'quiet', kubeconfig, '--lease-name', 'quiet');
    await program.says(/imageproxy runs/);
    await apply('rest');
    await cluster.ready('rest');
    const before = new Date().toISOString();
    // A label concerns nobody, but wakes whoever looks after the object; so does a change of another object that refers to nothing.
    const body = { metadata: { labels: { seen: 'yes' } } };
    for (const path of ['namespaces/default/vmimages/rest', 'imagesites/shelf']) {
      await server.request({
        method: 'PATCH',
        path: `/apis/imageproxy.dev/v1beta1/${path}`,
        contentType: 'application/merge-patch+json',
        body,
      });
    }
    // What comes later is done when this is done: keys are handled in the order of their coming.
    await apply('later');
    await cluster.ready('later');
    const written = (await server.audit())
      .filter(({ requestReceivedTimestamp }) => requestReceivedTimestamp > before)
      .filter((event) => event.user.username === user && !['get', 'list', 'watch'].includes(event.verb))
      .map(({ verb, objectRef }) => `${verb} ${objectRef?.resource} ${objectRef?.name ?? ''}`);
    // The image that came, its event, and that the site has one more.
    const expected = /^(update leases|create events|patch vmimages later|patch imagesites shelf)/;
    expect(written.filter((line) => !expected.test(line))).toEqual([]);
    expect(written.some((line) => line === 'patch vmimages later')).toBe(true);
  });

  test('a standby that is asked to stop stops at once', async () => {
    const first = run('holder', '--lease-name', 'other');
    await first.says(/imageproxy runs/);
    const second = run('waiting', '--lease-name', 'other');
    await second.says(/waits for the Lease/);
    expect(await second.signal('SIGTERM')).toMatchObject({ code: 0 });
    expect((await lease('other')).spec.holderIdentity).toMatch(/^holder_/);
  });

  describe('what is wrong is told at the start in plain words:', () => {
    let proxy: ApiFaultProxy;
    afterEach(() => proxy?.stop());

    test('a kubeconfig that is not there, or has no such context', async () => {
      const none = await run('none', '--kubeconfig', join(root, 'none')).done;
      expect(none).toMatchObject({ code: 1, err: expect.stringMatching(/imageproxy: .*none cannot be read: ENOENT/) });
      const context = await run('context', '--kubeconfig', server.kubeconfig, '--context', 'prod').done;
      expect(context.err).toContain('the kubeconfig has no context prod; it has test');
    });

    test('an API server that is not there', async () => {
      const config = await server.writeConfig('nowhere', { server: 'https://127.0.0.1:1' });
      const { code, err } = await run('nowhere', '--kubeconfig', config).done;
      expect(code).toBe(1);
      expect(err).toContain('no connection to the API server (ECONNREFUSED)');
    });

    test('CRDs that are not installed', async () => {
      proxy = await startApiFaultProxy(server);
      proxy.fault({ path: /vmimages|openapi/, status: 404, times: 99 });
      const config = await server.writeConfig('no-crds', { server: proxy.url });
      const { code, err } = await run('no-crds', '--kubeconfig', config).done;
      expect(code).toBe(3);
      expect(err).toMatch(
        /cannot list \w+: the API server does not know the kind: .*kubectl apply --server-side -f crds\//,
      );
    });

    test('CRDs that are older than the program', async () => {
      /** Fields of the spec, as a program that starts is told them. */
      const published = async (): Promise<string[]> => {
        const { components } = await server.request<{ components: { schemas: Record<string, Schema> } }>({
          method: 'GET',
          path: '/openapi/v3/apis/imageproxy.dev/v1beta1',
        });
        const { properties } = components.schemas['dev.imageproxy.v1beta1.VMImage'] as Schema;
        return Object.keys(properties.spec.properties);
      };
      const definition = await server.request<Definition>({ method: 'GET', path: CRD });
      const older = structuredClone(definition);
      delete older.spec.versions[0]?.schema.openAPIV3Schema.properties.spec.properties['history'];
      await server.request({ method: 'PUT', path: CRD, body: older });
      try {
        await eventually('the older schema is published', async () =>
          expect(await published()).not.toContain('history'),
        );
        const { code, err } = await run('older').done;
        expect(code).toBe(1);
        expect(err).toContain('the CRDs of the cluster are older than this program, which needs VMImage spec.history');
        expect(err).toContain('helm upgrade');
      } finally {
        const { metadata } = await server.request<Definition>({ method: 'GET', path: CRD });
        await server.request({ method: 'PUT', path: CRD, body: { ...definition, metadata } });
        // The tests that follow look at it as well.
        await eventually('the schema is published again', async () => expect(await published()).toContain('history'));
      }
    });

    test('rights that are missing, all of them at once, by verb and resource', async () => {
      await server.apply('/api/v1/namespaces/imageproxy/serviceaccounts/nobody', {
        apiVersion: 'v1',
        kind: 'ServiceAccount',
        metadata: { name: 'nobody', namespace: 'imageproxy' },
      });
      const config = await server.writeConfig('nobody', { token: await tokenOf(server, 'nobody') });
      const { code, err } = await run(
        'nobody',
        '--kubeconfig',
        config,
        '--instance',
        'test',
        '--watch-namespaces',
        'default',
      ).done;
      expect(code).toBe(1);
      expect(err).toContain(
        'may not: get, list, watch, patch, create, delete vmimages.imageproxy.dev in namespace default',
      );
      expect(err).toContain('get, update leases.coordination.k8s.io imageproxy in namespace imageproxy');
      expect(err).toContain('create leases.coordination.k8s.io in namespace imageproxy');
      expect(err).toContain('patch imagesites.imageproxy.dev/status in the whole cluster');
    });
  });
});

interface Schema {
  properties: { spec: { properties: Record<string, unknown> } };
}

interface Definition {
  metadata: object;
  spec: { versions: { schema: { openAPIV3Schema: Schema } }[] };
}
