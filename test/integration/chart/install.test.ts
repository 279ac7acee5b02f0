import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { API_SERVER_PATIENCE_MS, type ApiServer, eventually, startApiServer } from '../../support/apiserver.ts';
import { CHART, Helm, kubectl, type Rendered } from '../../support/kubernetes/chart.ts';
import { findMonitoringCrds } from '../../support/kubernetes/monitoring.ts';
import { VALUE_SETS } from './values.ts';

const SITE = { directory: { path: '/srv/images' } };
const OURS = ['vmimages', 'imagesubscriptions', 'imagesites'].map((plural) => `${plural}.imageproxy.dev`);
const FINALIZED = { finalizers: ['imageproxy.dev/site-in-use'] };

describe('the chart on an API server', () => {
  let server: ApiServer;
  let helm: Helm;

  beforeAll(async () => {
    server = await startApiServer({ controllerManager: true, crds: false });
    helm = await Helm.start(server.kubeconfig);
    for (const name of ['team-a', 'team-b', 'imageproxy', 'dry']) await server.namespace(name);
    // A pod is taken only where its ServiceAccount is there, which a dry run does not make.
    for (const name of ['imageproxy', 'images', 'imageproxy-images'])
      await run('create', 'serviceaccount', name, '-n', 'dry');
    for (const file of await findMonitoringCrds()) await run('apply', '--server-side', '-f', file);
    await run('wait', '--for=condition=Established', 'crd', '--all', '--timeout=120s');
  }, API_SERVER_PATIENCE_MS);
  afterAll(async () => {
    await helm?.close();
    await server?.stop();
  });
  afterEach(async () => {
    for (const each of JSON.parse(await helm.run('list', '-A', '-o', 'json')) as { name: string; namespace: string }[])
      await helm.uninstall({ release: each.name, namespace: each.namespace });
    // To its end: the next release would take up what is on its way out.
    await run('delete', 'pvc', '-A', '--all', '--timeout=90s');
  });

  const run = (...args: string[]) => kubectl(server.kubeconfig, args);
  const read = async <T = Rendered>(...args: string[]) => JSON.parse(await run('get', ...args, '-o', 'json')) as T;
  const names = async (...args: string[]) => (await run('get', ...args, '-o', 'name')).split('\n').filter(Boolean);
  const apply = (object: object) =>
    kubectl(server.kubeconfig, ['apply', '--server-side', '-f', '-'], JSON.stringify(object));
  /** The API server's authorizer follows its own watch of roles and bindings: what was made or taken away counts a moment later. */
  const expectRight = (is: boolean, verb: string, resource: string, ...args: string[]) => {
    const asker = '--as=system:serviceaccount:imageproxy:imageproxy';
    const may = async () => {
      // `auth can-i` exits 1 with "no".
      const answer = await run('auth', 'can-i', verb, resource, asker, ...args).catch((error: Error) => error.message);
      return answer.startsWith('yes');
    };
    return expect.poll(may, { message: `${verb} ${resource} ${args.join(' ')}` }).toBe(is);
  };
  const may = (...words: [string, string, ...string[]]) => expectRight(true, ...words);
  const mayNot = (...words: [string, string, ...string[]]) => expectRight(false, ...words);

  test.each(Object.entries(VALUE_SETS))('the API server takes every object of it: %s', async (_name, values) => {
    const objects = await helm.template(values, { namespace: 'dry' });
    const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
    const args = ['apply', '--server-side', '--dry-run=server', '--validate=strict', '-f', '-'];
    const answer = await kubectl(server.kubeconfig, args, list);
    expect(answer.trim().split('\n')).toHaveLength(objects.length);
  });

  test('its pods are taken where only restricted ones are', async () => {
    const labels = ['pod-security.kubernetes.io/enforce=restricted', '--overwrite'];
    await run('label', 'namespace', 'dry', ...labels);
    const objects = await helm.template(VALUE_SETS['one OpenStack site'], { namespace: 'dry' });
    const deployment = objects.find(({ kind }) => kind === 'Deployment') as unknown as {
      spec: { template: { metadata: object; spec: object } };
    };
    const { metadata, spec } = deployment.spec.template;
    const pods = [
      ...objects.filter(({ kind }) => kind === 'Pod'),
      { apiVersion: 'v1', kind: 'Pod', metadata: { ...metadata, name: 'controller', namespace: 'dry' }, spec },
    ];
    const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: pods });
    const answer = await kubectl(server.kubeconfig, ['apply', '--server-side', '--dry-run=server', '-f', '-'], list);
    expect(answer.trim().split('\n')).toHaveLength(2);
    await run('label', 'namespace', 'dry', 'pod-security.kubernetes.io/enforce-');
  });

  test('an upgrade brings new fields of the kinds', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'imageproxy-chart-'));
    try {
      await cp(CHART, folder, { recursive: true });
      const file = join(folder, 'files', 'crds', 'imageproxy.dev_imagesites.yaml');
      const crd = await readFile(file, 'utf8');
      const older = crd.replace(/^ {16}suspend:\n(?: {18}.*\n)+/m, '');
      expect(older).not.toBe(crd);
      await writeFile(file, older);
      await helm.upgrade({}, { chart: folder });
      await eventually('the kinds are published', () => run('explain', 'imagesite.spec.drift'));
      await expect(run('explain', 'imagesite.spec.suspend')).rejects.toThrow('suspend');
      await helm.upgrade();
      await eventually('the new field is published', () => run('explain', 'imagesite.spec.suspend'));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  test('a release that brings the kinds no more leaves them, and the volume likewise', async () => {
    await helm.upgrade();
    await helm.upgrade({ crds: { enabled: false }, persistence: { enabled: false } });
    expect(await names('crd', ...OURS)).toHaveLength(3);
    expect(await names('pvc', '-n', 'imageproxy')).toEqual(['persistentvolumeclaim/imageproxy']);
    await helm.upgrade();
  });

  test('the notes say what comes next: the site, its Secret, an image of a namespace that is looked at', async () => {
    const site = { nova: { spec: { openstack: { cloud: 'east', secretRef: { name: 'credentials' } } } } };
    const notes = await helm.upgrade({ sites: site, watchNamespaces: ['team-b'] });
    for (const each of [
      'helm test imageproxy -n imageproxy',
      'kubectl -n imageproxy get secret credentials',
      'kubectl get imagesites',
      'namespace: team-b',
      '- name: nova',
      'Uninstalling deletes nothing in any cloud.',
    ])
      expect(notes).toContain(each);
    const [, example = ''] = /^ {2}kubectl apply -f - <<EOF\n([^]*?)^ {2}EOF$/m.exec(notes) ?? [];
    const image = example
      .replaceAll(/^ {2}/gm, '')
      .replace('https://…', 'https://images.example.org/debian.qcow2')
      .replace('sha512: …', `sha512: ${'ab'.repeat(64)}`);
    await kubectl(
      server.kubeconfig,
      ['apply', '--server-side', '--dry-run=server', '--validate=strict', '-f', '-'],
      image,
    );
    expect(await helm.upgrade()).toContain('It has no site yet.');
  });

  test('kinds that another release has left are taken over only when that is asked for', async () => {
    await helm.upgrade();
    await helm.uninstall();
    const other = { release: 'other', namespace: 'imageproxy' };
    await expect(helm.upgrade({}, other)).rejects.toThrow('cannot be imported into the current release');
    await helm.upgrade({}, { ...other, flags: ['--take-ownership'] });
    expect((await read('crd', 'vmimages.imageproxy.dev')).metadata.annotations).toMatchObject({
      'meta.helm.sh/release-name': 'other',
    });
    await helm.uninstall(other);
    await helm.upgrade({}, { flags: ['--take-ownership'] });
  });

  test('uninstalling leaves kinds, images, sites and the volume, and nothing that waits for its end', async () => {
    await helm.upgrade({ sites: { shelf: { spec: SITE } } });
    await apply({
      apiVersion: 'imageproxy.dev/v1beta1',
      kind: 'ImageSite',
      metadata: { name: 'shelf', ...FINALIZED },
      spec: SITE,
    });
    const said = await helm.uninstall();
    for (const kept of ['vmimages.imageproxy.dev', '[PersistentVolumeClaim] imageproxy']) expect(said).toContain(kept);
    const site = await read('imagesite', 'shelf');
    expect(site.metadata).toMatchObject(FINALIZED);
    expect(site.metadata).not.toHaveProperty('deletionTimestamp');
    expect(await names('crd', ...OURS)).toHaveLength(3);
    expect(await names('pvc', '-n', 'imageproxy')).toEqual(['persistentvolumeclaim/imageproxy']);
    const left = await names('deployment,service,serviceaccount,role,rolebinding,configmap,secret', '-n', 'imageproxy');
    expect(left.filter((name) => name.includes('imageproxy'))).toEqual([]);
    expect(await names('clusterrole,clusterrolebinding', '-l', 'app.kubernetes.io/instance=imageproxy')).toEqual([]);
    // And what was left is taken up again.
    const before = await read('pvc', 'imageproxy', '-n', 'imageproxy');
    await helm.upgrade();
    expect((await read('pvc', 'imageproxy', '-n', 'imageproxy')).metadata).toHaveProperty(
      'uid',
      (before.metadata as unknown as { uid: string }).uid,
    );
    await run('patch', 'imagesite', 'shelf', '--type=merge', '-p', '{"metadata":{"finalizers":null}}');
    await run('delete', 'imagesite', 'shelf');
  });

  test('releases of one name in two namespaces share nothing', async () => {
    await helm.upgrade();
    await helm.upgrade(VALUE_SETS['a second release'], { namespace: 'site-b' });
    await helm.upgrade({ crds: { enabled: false } }, { release: 'west', namespace: 'imageproxy' });
    expect(await names('deployment', '-n', 'imageproxy')).toEqual([
      'deployment.apps/imageproxy',
      'deployment.apps/west-imageproxy',
    ]);
    await helm.uninstall({ namespace: 'site-b' });
    await may('list', 'vmimages.imageproxy.dev', '-A');
    expect(await names('clusterrolebinding', '-l', 'app.kubernetes.io/name=imageproxy')).toEqual([
      'clusterrolebinding.rbac.authorization.k8s.io/imageproxy:imageproxy',
      'clusterrolebinding.rbac.authorization.k8s.io/imageproxy:west-imageproxy',
    ]);
  });

  test('with chosen namespaces it may read nothing of others, and no Secret but theirs and its own', async () => {
    await helm.upgrade({ watchNamespaces: ['team-a'] });
    await may('list', 'secrets', '-n', 'team-a');
    await may('list', 'secrets', '-n', 'imageproxy');
    await mayNot('list', 'secrets', '-n', 'team-b');
    await mayNot('get', 'secrets', '-n', 'kube-system');
    await mayNot('list', 'vmimages.imageproxy.dev', '-n', 'team-b');
    await may('patch', 'vmimages.imageproxy.dev', '-n', 'team-a', '--subresource=status');
  });

  test('nowhere it may make or delete what people write, or grant itself more', async () => {
    await helm.upgrade({ sites: { shelf: { spec: SITE } } });
    // The sites of its values, and no others.
    await may('create', 'imagesites.imageproxy.dev/shelf');
    await mayNot('create', 'imagesites.imageproxy.dev/another');
    for (const verb of ['create', 'update', 'delete']) {
      for (const resource of ['imagesubscriptions.imageproxy.dev', 'secrets', 'configmaps'])
        await mayNot(verb, resource, '-n', 'imageproxy');
    }
    await mayNot('delete', 'imagesites.imageproxy.dev');
    // Images of subscriptions come and go one by one.
    await mayNot('deletecollection', 'vmimages.imageproxy.dev', '-n', 'team-a');
    await mayNot('create', 'clusterrolebindings');
    await mayNot('create', 'pods', '-n', 'imageproxy');
  });

  test('who may edit a namespace may write its images, and who may view it may read them', async () => {
    await helm.upgrade();
    for (const role of ['edit', 'view']) {
      const name = `${role}or`;
      await run('create', 'rolebinding', name, `--clusterrole=${role}`, `--user=${name}`, '-n', 'team-a');
    }
    const can = (user: string, verb: string, resource: string) =>
      run('auth', 'can-i', verb, resource, `--as=${user}`, '-n', 'team-a').catch((error: Error) => error.message);
    await eventually('the rights have been added up', async () => {
      expect(await can('editor', 'create', 'vmimages.imageproxy.dev')).toMatch(/^yes/);
      expect(await can('viewor', 'list', 'imagesubscriptions.imageproxy.dev')).toMatch(/^yes/);
    });
    expect(await can('viewor', 'create', 'vmimages.imageproxy.dev')).toMatch(/^no/);
    expect(await can('editor', 'create', 'imagesites.imageproxy.dev')).toMatch(/^no$/m);
  });

  // Of Kubernetes' own role `view` only newer versions contain the events of this group.
  test('the role that is added to view has by itself all that describe asks for', async () => {
    await helm.upgrade();
    const role = '--clusterrole=imageproxy:imageproxy:view';
    await run('create', 'rolebinding', 'describer', role, '--user=describer', '-n', 'team-a');
    const can = (verb: string, resource: string) =>
      run('auth', 'can-i', verb, resource, '--as=describer', '-n', 'team-a').catch((error: Error) => error.message);
    await eventually('the binding counts', async () => {
      expect(await can('get', 'vmimages.imageproxy.dev')).toMatch(/^yes/);
    });
    expect(await can('list', 'events.events.k8s.io')).toMatch(/^yes/);
    expect(await can('create', 'events.events.k8s.io')).toMatch(/^no/);
  });
});
