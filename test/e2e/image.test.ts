import { afterAll, beforeAll, describe, expect, onTestFailed, test } from 'vitest';
import { apply, IMAGE, kubectl, namespace, whatIsThere } from './cluster.ts';

const NAMESPACE = 'e2e-image';

/** Runs a container to its end, as strict as a cluster can be: nobody's user, no privilege, and only /tmp to write to. */
async function output(name: string, container: object): Promise<string> {
  onTestFailed(async () => console.error(await whatIsThere(NAMESPACE)));
  const rights = {
    readOnlyRootFilesystem: true,
    allowPrivilegeEscalation: false,
    capabilities: { drop: ['ALL'] },
  };
  const volumeMounts = [{ name: 'tmp', mountPath: '/tmp' }];
  const images = { image: IMAGE, imagePullPolicy: 'Never' };
  await apply({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: NAMESPACE },
    spec: {
      restartPolicy: 'Never',
      securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
      containers: [{ name, ...images, securityContext: rights, volumeMounts, ...container }],
      volumes: [{ name: 'tmp', emptyDir: {} }],
    },
  });
  const done = '--for=jsonpath={.status.phase}=Succeeded';
  await kubectl(['wait', done, `pod/${name}`, `--namespace=${NAMESPACE}`, '--timeout=240s']);
  return kubectl(['logs', name, `--namespace=${NAMESPACE}`]);
}

describe('the container image', () => {
  beforeAll(() => namespace(NAMESPACE, { 'pod-security.kubernetes.io/enforce': 'restricted' }));
  afterAll(() => kubectl(['delete', 'namespace', NAMESPACE, '--ignore-not-found', '--wait=false']));

  test('says its version, as a user of its own in a namespace that admits restricted pods only', async () => {
    expect(await output('version', { args: ['version'] })).toMatch(/^imageproxy \d+\.\d+\.\d+ \(Node\.js v2[4-9]/);
  });

  test('has the programs that images need, its own command and the kinds, and nothing to build with', async () => {
    const needed = ['qemu-img', 'xz', 'zstd', 'bzip2', 'openssl', 'prlimit', 'imageproxy'];
    const unwanted = ['gcc', 'cc', 'make', 'python3', 'npm', 'pip3', 'curl', 'git'];
    const script = [
      `for each in ${[...needed, ...unwanted].join(' ')}; do command -v "$each" >/dev/null && echo "$each"; done`,
      'id -u',
      'touch /usr/new 2>/dev/null || echo "nothing is written"',
      'ls /opt/imageproxy/crds',
    ];
    const lines = (await output('contents', { command: ['sh', '-c', script.join('\n')] })).trim().split('\n');
    expect(lines).toEqual([
      ...needed,
      '65532',
      'nothing is written',
      'imageproxy.dev_imagesites.yaml',
      'imageproxy.dev_imagesubscriptions.yaml',
      'imageproxy.dev_vmimages.yaml',
    ]);
  });

  test('converts a disk with the libraries that it has', async () => {
    const script = 'cd /tmp && qemu-img create -q -f qcow2 a 1G && qemu-img convert -O raw a b && stat -c %s b';
    expect(await output('convert', { command: ['sh', '-c', script] })).toBe(`${2 ** 30}\n`);
  });
});
