import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { CRD_DIRECTORY } from '../../../src/api/crds.ts';
import { CHART, Helm, objectsOf, type Rendered, type Values } from '../../support/kubernetes/chart.ts';
import { API_SERVER_PATIENCE_MS } from '../../support/apiserver.ts';
import { VALUE_SETS } from './values.ts';

interface Container {
  name: string;
  image: string;
  args: string[];
  env: { name: string }[];
  resources: Record<string, unknown>;
  securityContext: Record<string, unknown>;
  volumeMounts: { name: string; mountPath: string; subPath?: string; readOnly?: boolean }[];
}

interface PodSpec {
  automountServiceAccountToken: boolean;
  securityContext: Record<string, unknown>;
  initContainers?: Container[];
  containers: Container[];
  volumes: { name: string; persistentVolumeClaim?: { claimName: string }; emptyDir?: object; projected?: object }[];
}

describe('the chart', () => {
  let helm: Helm;

  beforeAll(async () => {
    helm = await Helm.start();
  }, API_SERVER_PATIENCE_MS);
  afterAll(() => helm?.close());

  const podOf = (objects: Rendered[]): PodSpec => {
    const deployment = one(objects, 'Deployment') as unknown as { spec: { template: { spec: PodSpec } } };
    return deployment.spec.template.spec;
  };
  const one = (objects: Rendered[], kind: string): Rendered => {
    const found = objects.filter((each) => each.kind === kind);
    expect(found.map(({ metadata }) => metadata.name)).toHaveLength(1);
    return found[0] as Rendered;
  };
  const argsOf = (objects: Rendered[]): string[] => podOf(objects).containers[0]?.args ?? [];

  test('passes the strict judgement of helm lint', async () => {
    await expect(helm.run('lint', '--strict', CHART)).resolves.toContain('0 chart(s) failed');
  });

  test('brings the CRDs as they are in crds/, to be kept at uninstall', async () => {
    const brought = (await helm.template()).filter(({ kind }) => kind === 'CustomResourceDefinition');
    const ours = readdirSync(CRD_DIRECTORY).map((name) => {
      return parse(readFileSync(join(CRD_DIRECTORY, name), 'utf8'), { merge: true, maxAliasCount: -1 }) as Rendered;
    });
    const byName = (objects: Rendered[]) =>
      Object.fromEntries(objects.map(({ metadata, apiVersion, spec }) => [metadata.name, { apiVersion, spec }]));
    expect(ours).toHaveLength(3);
    expect(byName(brought)).toEqual(byName(ours));
    for (const { metadata } of brought)
      expect(metadata.annotations).toMatchObject({ 'helm.sh/resource-policy': 'keep' });
  });

  test.each(Object.entries(VALUE_SETS))(
    'with %s, all objects have the labels of the release',
    async (_name, values) => {
      const objects = await helm.template(values, { release: 'blue' });
      expect(objects.length).toBeGreaterThan(3);
      for (const { kind, metadata } of objects) {
        expect(metadata.labels, `${kind} ${metadata.name}`).toMatchObject({
          'app.kubernetes.io/instance': 'blue',
          'app.kubernetes.io/managed-by': 'Helm',
          ...(values['commonLabels'] as Record<string, string> | undefined),
        });
      }
      const names = objects.map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`);
      expect(new Set(names).size, 'each object once').toBe(names.length);
    },
  );

  test('runs one pod without privileges, with a read-only root', async () => {
    const pod = podOf(await helm.template());
    expect(pod.securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 65532,
      seccompProfile: { type: 'RuntimeDefault' },
    });
    const containers = [...(pod.initContainers ?? []), ...pod.containers];
    expect(containers.map(({ name }) => name)).toEqual(['folders', 'controller', 'tools']);
    for (const { name, securityContext, resources } of containers) {
      expect(securityContext, name).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
      const memory = name === 'controller' ? '384Mi' : '128Mi';
      expect(resources, name).toMatchObject({ requests: { memory }, limits: { memory: '2Gi' } });
    }
  });

  test('gives the container of the tools no token, no setting of others, and of the volume what is lent to it', async () => {
    const everything = VALUE_SETS['everything that can be switched on'] ?? {};
    const pod = podOf(await helm.template(everything));
    const [controller, tools] = pod.containers;
    expect(pod.automountServiceAccountToken).toBe(false);
    expect(controller?.volumeMounts).toContainEqual({
      name: 'token',
      mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
      readOnly: true,
    });
    const [, socket = ''] = /--tool-runner=(\S+)/.exec(controller?.args.join(' ') ?? '') ?? [];
    expect(tools?.args).toEqual([
      'tool-runner',
      `--socket=${socket}`,
      '--files=/var/lib/imageproxy/tools',
      '--log-level=debug',
      '--log-format=pretty',
    ]);
    expect(tools?.env.map(({ name }) => name)).toEqual(['TMPDIR']);
    expect(tools?.volumeMounts).toEqual([
      { name: 'state', mountPath: '/var/lib/imageproxy/tools/in', subPath: 'tools/in', readOnly: true },
      { name: 'state', mountPath: '/var/lib/imageproxy/tools/out', subPath: 'tools/out' },
      { name: 'tools-socket', mountPath: dirname(socket) },
      { name: 'tools-tmp', mountPath: '/tmp' },
    ]);
    expect(controller?.volumeMounts).toContainEqual({ name: 'tools-socket', mountPath: dirname(socket) });
    expect(controller?.volumeMounts.map(({ name }) => name)).not.toContain('tools-tmp');
  });

  test('kubectl shows the controller by default, unless somebody wants another container', async () => {
    const key = 'kubectl.kubernetes.io/default-container';
    const annotations = async (values: Values) => {
      const deployment = one(await helm.template(values), 'Deployment') as unknown as {
        spec: { template: { metadata: { annotations: Record<string, string> } } };
      };
      return deployment.spec.template.metadata.annotations;
    };
    expect(await annotations({})).toEqual({ [key]: 'controller' });
    expect(await annotations({ podAnnotations: { a: 'b', [key]: 'tools' } })).toEqual({ a: 'b', [key]: 'tools' });
  });

  test('runs the tools as children of the controller where that is wished', async () => {
    const pod = podOf(await helm.template({ tools: { separate: false } }));
    expect(pod.initContainers).toBeUndefined();
    expect(pod.containers.map(({ name }) => name)).toEqual(['controller']);
    expect(pod.containers[0]?.args.join(' ')).not.toContain('--tool-runner');
    expect(pod.volumes.map(({ name }) => name)).toEqual(['state', 'tmp', 'token']);
  });

  test('runs as the user that the Dockerfile names, on the folder that it makes', async () => {
    const dockerfile = readFileSync(join(CHART, '..', '..', '..', 'Dockerfile'), 'utf8');
    const [, user] = /^USER (\d+):\d+$/m.exec(dockerfile) ?? [];
    const [, state] = /^WORKDIR (\/var\S+)$/m.exec(dockerfile) ?? [];
    const [, port] = /^EXPOSE (\d+)$/m.exec(dockerfile) ?? [];
    const objects = await helm.template();
    const pod = podOf(objects);
    expect(pod.securityContext).toMatchObject({ runAsUser: Number(user), fsGroup: Number(user) });
    expect(pod.containers[0]?.volumeMounts).toContainEqual({ name: 'state', mountPath: state });
    expect(argsOf(objects)).toEqual(expect.arrayContaining([`--state=${state}`, `--telemetry=0.0.0.0:${port}`]));
  });

  test('helm test asks the controller until it is ready, by the program that the image holds', async () => {
    const text = await helm.run('template', 'west', CHART, '-s', 'templates/tests/ready.yaml');
    const [pod] = objectsOf(text) as unknown as [{ spec: { containers: { name: string; command: string[] }[] } }];
    const [program = '', ...args] = pod.spec.containers.find(({ name }) => name === 'ready')?.command ?? [];
    const root = join(CHART, '..', '..', '..');
    expect(readFileSync(join(root, 'Dockerfile'), 'utf8')).toContain(`ENTRYPOINT ["${program}"`);
    const states = [503, 200];
    const server = createServer((_request, response) => {
      response.statusCode = states.shift() ?? 500;
      response.end('ok running');
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const { port } = server.address() as AddressInfo;
    try {
      const env = { WEST_IMAGEPROXY_SERVICE_HOST: '127.0.0.1' };
      const asked = await promisify(execFile)(process.execPath, [...args.slice(0, -1), String(port)], { env });
      expect(asked.stdout).toContain('ok running');
      expect(states).toEqual([]);
      expect(args.at(-1)).toBe('9464');
    } finally {
      server.close();
    }
  });

  test('takes words as they are, whatever they mean in YAML', async () => {
    const values = { instance: 'grid: "north" #1', fileRoots: { archive: '/srv/a: b' }, nameOverride: '1' };
    const objects = await helm.template(values, { release: '2' });
    expect(argsOf(objects)).toEqual(
      expect.arrayContaining(['--instance=grid: "north" #1', '--file-root=archive=/srv/a: b']),
    );
    expect(one(objects, 'Deployment').metadata.labels).toMatchObject({
      'app.kubernetes.io/name': '1',
      'app.kubernetes.io/instance': '2',
    });
  });

  test('is whole when it is packed', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'imageproxy-package-'));
    try {
      await helm.run('package', CHART, '--destination', folder);
      const [archive = ''] = await readdir(folder);
      const everything = VALUE_SETS['monitoring as it comes'] ?? {};
      expect(await helm.template(everything, { chart: join(folder, archive) })).toEqual(
        await helm.template(everything),
      );
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  test('has the version of the program', () => {
    const chart = parse(readFileSync(join(CHART, 'Chart.yaml'), 'utf8')) as { version: string; appVersion: string };
    const root = join(CHART, '..', '..', '..');
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    expect(chart).toMatchObject({ version, appVersion: version });
  });

  test('without a volume of its own it works on an emptyDir, or on the claim that it is given', async () => {
    const state = async (values: object) => {
      const objects = await helm.template({ persistence: values });
      expect(objects.some(({ kind }) => kind === 'PersistentVolumeClaim')).toBe(false);
      return podOf(objects).volumes.find(({ name }) => name === 'state');
    };
    await expect(state({ enabled: false })).resolves.toMatchObject({ emptyDir: {} });
    const claim = { persistentVolumeClaim: { claimName: 'images' } };
    await expect(state({ existingClaim: 'images' })).resolves.toMatchObject(claim);
  });

  test('a site of the values is an ImageSite as one would write it, and a change of it starts the pod anew', async () => {
    const site = VALUE_SETS['one OpenStack site'] as { sites: { 'nova-east': Record<string, unknown> } };
    const objects = await helm.template(site);
    const { data } = one(objects, 'ConfigMap') as unknown as { data: Record<string, string> };
    const { labels, annotations, spec } = site.sites['nova-east'];
    expect(objectsOf(data['nova-east.yaml'] ?? '')).toEqual([
      {
        apiVersion: 'imageproxy.dev/v1beta1',
        kind: 'ImageSite',
        metadata: { name: 'nova-east', labels, annotations },
        spec,
      },
    ]);
    const template = (rendered: Rendered[]) => JSON.stringify(one(rendered, 'Deployment')['spec']);
    const changed = structuredClone(site);
    changed.sites['nova-east']['labels'] = { region: 'west' };
    expect(template(await helm.template(changed))).not.toBe(template(objects));
  });

  test.each([
    ['a value that is not known', { replicaCount: 3 }, /replicaCount/],
    ['a nested one', { persistence: { sise: '1Gi' } }, /sise/],
    ['two pods', { replicas: 2 }, /replicas/],
    ['a level of the log', { log: { level: 'loud' } }, /level/],
    ['a network without its length', { allowNetworks: ['10.0.0.0'] }, /allowNetworks/],
    ['a site without a spec', { sites: { east: {} } }, /spec/],
    ['a misspelt field of a site', { sites: { east: { spec: { openstak: {} } } } }, /openstak/],
    ['a wrong value of a site', { sites: { east: { spec: { directory: { path: 7 } } } } }, /path/],
    ['a name of a site', { sites: { East_1: { spec: { directory: { path: '/srv' } } } } }, /East_1/],
    ['a tag with a colon', { image: { tag: 'a:b' } }, /tag/],
    ['a privileged port', { telemetry: { port: 80 } }, /port/],
    ['ServiceMonitor without Service', { serviceMonitor: { enabled: true }, service: { enabled: false } }, /service/],
  ])('refuses %s, and names it', async (_what, values, message) => {
    await expect(helm.template(values)).rejects.toThrow(message);
  });
});
