import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ImageSubscription, VMImage } from '../../../src/api/types.ts';
import { PATCH } from '../../../src/stores/kubernetes/client.ts';
import { objectPath, RESOURCES } from '../../../src/stores/kubernetes/resources.ts';
import type { ObjectKey } from '../../../src/stores/store.ts';
import { rightCounts } from '../../support/accounts.ts';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually, startApiServer } from '../../support/apiserver.ts';
import { type Authority, makeAuthority } from '../../support/authority.ts';
import { ext4 } from '../../support/disks.ts';
import { vmimage } from '../../support/house.ts';
import { expectKstatus } from '../../support/kstatus.ts';
import { Helm, kubectl, objectsOf, type Values } from '../../support/kubernetes/chart.ts';
import { type ApiFaultProxy, startApiFaultProxy } from '../../support/kubernetes/fault-proxy.ts';
import { hepixList, type ListedImage } from '../../support/hepix.ts';
import { type Origin, startOrigin } from '../../support/origin.ts';
import { imageproxy, Program } from '../cli/program.ts';
import { Cluster } from '../kubernetes/cluster.ts';
import { granted, needed, wordsOf } from './granted.ts';

const ACCOUNT = { name: 'imageproxy', namespace: 'imageproxy' };
const USER = `system:serviceaccount:${ACCOUNT.namespace}:${ACCOUNT.name}`;
const CONFLICT = {
  kind: 'Status',
  apiVersion: 'v1',
  status: 'Failure',
  reason: 'Conflict',
  code: 409,
  message: 'the object has been modified',
};

const [LIST, ENTRY] = [randomUUID(), randomUUID()];
const asked = (at: string) => ({ metadata: { annotations: { 'imageproxy.dev/requestedAt': at } } });

/** Credentials of a cloud, with what its operator forgot. */
const CLOUD = {
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'cloud', namespace: 'imageproxy' },
  stringData: { 'clouds.yaml': 'clouds: {}' },
};

/**
 * The program as the chart's Deployment starts it, with the ServiceAccount's token, does what it is for; the API server's audit log
 * shows what of its rights it used.
 */
describe.skipIf((process.env['TEST_KUBECONFIG'] ?? '') !== '')('the controller as the chart starts it', () => {
  let server: ApiServer;
  let helm: Helm;
  let origin: Origin;
  /** Without TLS. */
  let plain: Origin;
  let proxy: ApiFaultProxy;
  let cluster: Cluster;
  let root: string;
  let authority: Authority;
  /** Of the ServiceAccount. */
  let kubeconfig: string;

  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), 'imageproxy-rights-'));
    authority = makeAuthority();
    [server, origin, plain] = await Promise.all([
      startApiServer({ controllerManager: true, crds: false, audit: true }),
      startOrigin({ tls: authority.issue('DNS:localhost,IP:127.0.0.1') }),
      startOrigin(),
    ]);
    helm = await Helm.start(server.kubeconfig);
    proxy = await startApiFaultProxy(server);
    cluster = new Cluster(server);
    for (const name of ['imageproxy', 'site-b', 'team-a', 'team-b']) await server.namespace(name);
  }, API_SERVER_PATIENCE_MS);
  afterEach(async () => {
    await Program.killAll();
    // Whoever comes next waits for nobody, and leaves nothing to a hub that was here.
    for (const each of ['imageproxy', 'site-b', 'default'])
      await kubectl(server.kubeconfig, ['delete', 'lease', '-n', each, '--all']);
  });
  afterAll(async () => {
    await Program.killAll();
    await cluster?.close();
    await Promise.all([helm?.close(), proxy?.stop(), origin?.close(), plain?.close()]);
    await server?.stop();
    authority?.close();
    rmSync(root, { recursive: true, force: true });
  });

  const apply = (...objects: object[]) => {
    const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
    return kubectl(server.kubeconfig, ['apply', '--server-side', '-f', '-'], list);
  };

  /** A pod would be started anew until all that helm has made of rights is known to the API server's authorizer. */
  const rightsCount = async (namespace: string): Promise<void> => {
    const release = await helm.run('get', 'manifest', 'imageproxy', '--namespace', namespace);
    const account = { ...ACCOUNT, namespace };
    for (const { group, resource, verb, name, namespace: where } of granted(objectsOf(release), account)) {
      const resourceNames = name === undefined ? [] : [name];
      const right = { apiGroups: [group], resources: [resource], verbs: [verb], resourceNames };
      await rightCounts(server, `system:serviceaccount:${namespace}:${account.name}`, right, where);
    }
  };

  /** The containers of the Deployment, outside of a pod: arguments, files, the token that the kubelet would project. */
  const startController = async (namespace = ACCOUNT.namespace): Promise<Program> => {
    const deployment = await server.request<{
      spec: { template: { spec: { containers: { name: string; args: string[] }[] } } };
    }>({ method: 'GET', path: `/apis/apps/v1/namespaces/${namespace}/deployments/imageproxy` });
    const sites = await server.request<{ data: Record<string, string> }>({
      method: 'GET',
      path: `/api/v1/namespaces/${namespace}/configmaps/imageproxy-sites`,
    });
    const folder = mkdtempSync(join(root, 'sites-'));
    const state = join(root, `state-${namespace}`);
    for (const [name, text] of Object.entries(sites.data)) writeFileSync(join(folder, name), text);
    const { status } = await server.request<{ status: { token: string } }>({
      method: 'POST',
      path: `/api/v1/namespaces/${namespace}/serviceaccounts/${ACCOUNT.name}/token`,
      body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 3600 } },
    });
    kubeconfig = await server.writeConfig(`account-${namespace}`, { token: status.token, server: proxy.url });
    await rightsCount(namespace);
    const { containers } = deployment.spec.template.spec;
    const argsOf = (wanted: string): string[] =>
      (containers.find(({ name }) => name === wanted)?.args ?? []).map((arg) =>
        arg
          .replace(/^--(socket|tool-runner)=.*/, `--$1=${folder}.sock`)
          .replace(/^--files=.*/, `--files=${join(state, 'tools')}`)
          .replace(/^--state=.*/, `--state=${state}`)
          .replace(/^--sites=.*/, `--sites=${folder}`)
          .replace(/^--telemetry=.*/, '--telemetry=127.0.0.1:0')
          .replace(/^--cache-quota=.*/, '--cache-quota=1Gi'),
      );
    const tools = new Program(argsOf('tools'));
    await tools.says(/waits for work/);
    return new Program([...argsOf('controller'), `--kubeconfig=${kubeconfig}`], {
      POD_NAME: 'imageproxy-0',
      POD_NAMESPACE: namespace,
    });
  };

  const siteIs = (name: string, reason: string) =>
    eventually(`${name} is ${reason}`, async () => {
      const { status } = await cluster.site(name);
      const ready = status.conditions?.find(({ type }) => type === 'Ready');
      if (ready?.reason !== reason) throw new Error(JSON.stringify(status, undefined, 1));
    });

  const askAgain = async (key: ObjectKey): Promise<void> => {
    const at = `again-${key.name}`;
    const path = objectPath(RESOURCES.VMImage, key);
    await server.request({ method: 'PATCH', path, contentType: PATCH.merge, body: asked(at) });
    await eventually(`${key.name} was looked at again`, async () => {
      const { status } = await cluster.get<VMImage>('VMImage', key);
      if (status.lastHandledReconcileAt !== at) throw new Error(JSON.stringify(status, undefined, 1));
    });
  };

  /** All that a controller is for, once: and what happens when others write the same objects, or look for the same again. */
  const work = async (namespace: string, program: Program): Promise<void> => {
    const key = (name: string) => ({ namespace, name });
    // Somebody was quicker: what is known of the object is read again.
    const shelf = `shelf-${namespace}`;
    for (const kind of ['vmimages/good', 'imagesubscriptions/list', `imagesites/${shelf}`])
      proxy.fault({ path: new RegExp(`/${kind}[?].*-finalizers`), status: 409, body: CONFLICT });
    const disk = ext4(namespace);
    const authorization = `Basic ${btoa('reader:secret')}`;
    origin.route(`/${namespace}`, ({ headers }) =>
      headers.authorization === authorization ? { body: disk.bytes } : { status: 401 },
    );
    const source = {
      http: {
        urls: [`${origin.url}/${namespace}`],
        secretRef: { name: 'origin' },
        caRef: { kind: 'ConfigMap', name: 'authority' },
      },
    };
    const image = (name: string, sha256: string) => {
      const { metadata, ...rest } = vmimage(name, { source, checksums: { sha256 }, sites: [{ name: shelf }] });
      return { apiVersion: 'imageproxy.dev/v1beta1', ...rest, metadata: { ...metadata, namespace } };
    };
    const publish = (version: string, images: readonly ListedImage[]) =>
      origin.route(`/${namespace}.list`, { body: Buffer.from(hepixList({ id: LIST, version, images })) });
    plain.route(`/${namespace}`, { body: disk.bytes });
    publish('1', [
      { id: ENTRY, title: 'One', url: `${plain.url}/${namespace}`, bytes: disk.bytes, more: { 'hv:format': 'raw' } },
    ]);
    const subscription = {
      apiVersion: 'imageproxy.dev/v1beta1',
      kind: 'ImageSubscription',
      metadata: key('list'),
      spec: {
        url: `${origin.url}/${namespace}.list`,
        format: 'HEPiX',
        trust: { unsigned: {} },
        caRef: { kind: 'ConfigMap', name: 'authority' },
        onRemoved: 'Delete',
        template: { spec: { sites: [{ name: shelf }] } },
      },
    };
    await apply(
      {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { ...key('origin'), annotations: { 'imageproxy.dev/hosts': 'localhost' } },
        stringData: { username: 'reader', password: 'secret' },
      },
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: key('authority'), data: { 'ca.crt': authority.ca } },
      image('good', disk.sha256),
      image('wrong', '0'.repeat(64)),
      subscription,
    );
    await program.says(/imageproxy runs/);
    const isNow = (name: string, phase: string) =>
      eventually(`${name} is ${phase}`, async () => {
        const image = await cluster.get<VMImage>('VMImage', key(name));
        if (image.status.phase !== phase) throw new Error(JSON.stringify(image.status, undefined, 1));
        expectKstatus(image);
      });
    await isNow('good', 'Ready');
    await isNow('wrong', 'Failed');
    // The same is said again, and counted.
    await askAgain(key('wrong'));
    await siteIs(`cloud-${namespace}`, 'InvalidSecret');
    for (const suspend of [true, false, true, false]) {
      const path = objectPath(RESOURCES.ImageSite, { name: shelf });
      await server.request({ method: 'PATCH', path, contentType: PATCH.merge, body: { spec: { suspend } } });
      await siteIs(shelf, suspend ? 'Suspended' : 'Probed');
    }
    // Of a list one image arrives, and is taken away when the list has it no more.
    await eventually('the list is followed', async () => {
      const { status } = await cluster.get<ImageSubscription>('ImageSubscription', key('list'));
      if (status.list?.version !== '1') throw new Error(JSON.stringify(status, undefined, 1));
    });
    await isNow(`list-${ENTRY}`, 'Ready');
    publish('2', []);
    const listed = objectPath(RESOURCES.ImageSubscription, key('list'));
    await server.request({ method: 'PATCH', path: listed, contentType: PATCH.merge, body: asked('2') });
    await cluster.gone('VMImage', key(`list-${ENTRY}`));
    await cluster.delete('ImageSubscription', key('list'));
    await cluster.gone('ImageSubscription', key('list'));
    for (const name of ['good', 'wrong']) {
      await cluster.delete('VMImage', key(name));
      await cluster.gone('VMImage', key(name));
    }
  };

  test.each<[string, Values, string]>([
    ['in the whole cluster', {}, 'default'],
    ['in chosen namespaces', { watchNamespaces: ['team-a'] }, 'team-a'],
    ['as one of several controllers', { siteSelector: 'tier=one', watchNamespaces: ['team-b'] }, 'team-b'],
  ])('uses all rights that are granted %s, and misses none', async (_where, more, namespace) => {
    const shelf = join(root, `shelf-${namespace}`);
    mkdirSync(shelf);
    const sites = {
      [`shelf-${namespace}`]: { labels: { tier: 'one' }, spec: { directory: { path: shelf } } },
      [`cloud-${namespace}`]: {
        labels: { tier: 'one' },
        spec: {
          openstack: { cloud: 'east', secretRef: { name: 'cloud' }, caRef: { kind: 'ConfigMap', name: 'authority' } },
        },
      },
    };
    const values = { allowNetworks: ['127.0.0.0/8'], sites, ...more };
    await apply(CLOUD, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'authority', namespace: 'imageproxy' },
      data: { 'ca.crt': authority.ca },
    });
    const before = new Date().toISOString();
    await helm.upgrade(values);
    const program = await startController();
    await work(namespace, program);
    expect(await program.signal('SIGTERM')).toMatchObject({ code: 0 });

    const requests = async () =>
      (await server.audit()).filter(({ requestReceivedTimestamp: at, user }) => at > before && user.username === USER);
    const rights = granted(await helm.template(values), ACCOUNT);
    // What was asked last is in the log a moment after its answer.
    const idle = async () => {
      const asked = await requests();
      return rights.filter((right) => !asked.some((event) => needed(event, right))).map(wordsOf);
    };
    await expect.poll(idle).toEqual([]);
    const forbidden = (await requests()).filter(({ responseStatus }) => responseStatus?.code === 403);
    expect(forbidden.map(({ verb, requestURI }) => `${verb} ${requestURI}`)).toEqual([]);
  });

  test('a site of the values is kept as it is written there; what they leave open is for others to say', async () => {
    const site = { labels: { region: 'east' }, spec: { directory: { path: root } } };
    await helm.upgrade({ sites: { kept: site } });
    const started = async () => {
      const program = await startController();
      await program.says(/imageproxy runs/);
      await program.signal('SIGTERM');
      return cluster.site('kept');
    };
    expect(await started()).toMatchObject({
      metadata: { labels: { region: 'east' } },
      spec: { maxParallelUploads: 2 },
    });
    const body = { metadata: { labels: { region: 'west' } }, spec: { maxParallelUploads: 7 } };
    const path = objectPath(RESOURCES.ImageSite, { name: 'kept' });
    await server.request({ method: 'PATCH', path, contentType: PATCH.merge, body });
    expect(await started()).toMatchObject({
      metadata: { labels: { region: 'east' } },
      spec: { maxParallelUploads: 7 },
    });
    // What the first container of `helm test` asks.
    const asked = await imageproxy(['get', 'imagesites', '--kubernetes', '--kubeconfig', kubeconfig]);
    expect(asked).toMatchObject({ code: 0, out: expect.stringContaining('kept') });
    // Taken out of the values it stays, for images may be registered there.
    await helm.upgrade();
    expect((await cluster.site('kept')).metadata).not.toHaveProperty('deletionTimestamp');
  });

  test('a second release with a selector does nothing and says why, until the first has one too; then each serves its own', async () => {
    const valuesOf = (name: string, more: Values = {}): Values => {
      mkdirSync(join(root, name), { recursive: true });
      const site = { labels: { tier: name }, spec: { directory: { path: join(root, name) } } };
      return { allowNetworks: ['127.0.0.0/8'], sites: { [name]: site }, ...more };
    };
    const besides = { crds: { enabled: false }, rbac: { aggregate: false } };
    const disk = ext4('both');
    plain.route('/both', { body: disk.bytes });
    await helm.upgrade(valuesOf('one'));
    await helm.upgrade(valuesOf('two', { ...besides, siteSelector: 'tier=two' }), { namespace: 'site-b' });
    const alone = await startController();
    await alone.says(/imageproxy runs/);
    const second = await startController('site-b');
    const url = (await second.says(/"telemetry":"(http[^"]+)"/))[1] ?? '';
    await eventually('the second is not ready', async () => {
      const { statusCode, body } = await request(`${url}/readyz`);
      expect([statusCode, await body.text()]).toEqual([
        503,
        expect.stringMatching(/held by imageproxy-0_\w+, which serves every site: .*--site-selector/),
      ]);
    });
    await helm.upgrade(valuesOf('one', { siteSelector: 'tier=one' }));
    expect(await alone.signal('SIGTERM')).toMatchObject({ code: 0 });
    await second.says(/imageproxy runs/);
    const first = await startController();
    await first.says(/imageproxy runs/);
    const { metadata, ...image } = vmimage('both', {
      source: { http: { urls: [`${plain.url}/both`] } },
      checksums: { sha256: disk.sha256 },
      sites: [{ name: 'one' }, { name: 'two' }],
    });
    const key = { namespace: 'default', name: 'both' };
    await apply({ apiVersion: 'imageproxy.dev/v1beta1', ...image, metadata: { ...metadata, ...key } });
    await cluster.ready('both');
    const controllers = await Promise.all(
      ['one', 'two'].map(async (name) => (await cluster.site(name)).status.controller),
    );
    expect(controllers).toEqual(['imageproxy/imageproxy', 'site-b/imageproxy']);
    await cluster.delete('VMImage', key);
    await cluster.gone('VMImage', key);
    await helm.uninstall({ namespace: 'site-b' });
  });

  test('uninstalled and installed again it goes on with all that it left, and then cleans it up', async () => {
    const shelf = join(root, 'shelf-again');
    mkdirSync(shelf);
    const values = { allowNetworks: ['127.0.0.0/8'], sites: { again: { spec: { directory: { path: shelf } } } } };
    const key = { namespace: 'default', name: 'again' };
    const published = () =>
      (JSON.parse(readFileSync(join(shelf, 'index.json'), 'utf8')) as { images: { id: string }[] }).images;
    const disk = ext4('again');
    plain.route('/again', { body: disk.bytes });
    await helm.upgrade(values);
    const { metadata, ...image } = vmimage('again', {
      source: { http: { urls: [`${plain.url}/again`] } },
      checksums: { sha256: disk.sha256 },
      sites: [{ name: 'again' }],
    });
    await apply({ apiVersion: 'imageproxy.dev/v1beta1', ...image, metadata: { ...metadata, ...key } });
    const first = await startController();
    const before = await cluster.ready('again');
    await first.signal('SIGTERM');
    await helm.uninstall();
    for (const object of [await cluster.image('again'), await cluster.site('again')]) {
      expect(object.metadata).not.toHaveProperty('deletionTimestamp');
      expect(object.metadata.finalizers).toHaveLength(1);
    }
    expect(published()).toMatchObject([{ id: before.status.sites?.[0]?.imageID }]);
    await helm.upgrade(values);
    await startController();
    await cluster.delete('VMImage', key);
    await cluster.gone('VMImage', key);
    expect(published()).toEqual([]);
  });
});
