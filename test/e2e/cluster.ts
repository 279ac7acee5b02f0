import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/**
 * The cluster under test, as its users see it: kubectl, and what its pods can reach. scripts/e2e.ts says which one it is.
 */

function named(variable: string): string {
  const value = process.env[variable];
  if (value !== undefined && value !== '') return value;
  throw new Error(`${variable} is not set: run these tests with \`make e2e\``);
}

/** The container image under test; the nodes have it. */
export const IMAGE = named('E2E_IMAGE');
/** Where pods reach what this process listens on. */
export const ADDRESS = named('E2E_ADDRESS');
export const KUBECONFIG = named('E2E_KUBECONFIG');

const ENVIRONMENT = { ...process.env, KUBECONFIG };

/** @returns what it prints. What it says when it fails is in the error's message. */
export async function kubectl(args: readonly string[], input?: object): Promise<string> {
  const running = promisify(execFile)('kubectl', args, { env: ENVIRONMENT, maxBuffer: 2 ** 26 });
  running.child.stdin?.end(input === undefined ? '' : JSON.stringify(input));
  const { stdout } = await running.catch((error: { stdout: string; stderr: string }) => {
    throw new Error(`kubectl ${args.join(' ')}:\n${error.stderr}${error.stdout}`);
  });
  return stdout;
}

export async function get<T>(...args: string[]): Promise<T> {
  return JSON.parse(await kubectl(['get', ...args, '--output=json'])) as T;
}

export async function apply(...items: object[]): Promise<string> {
  return kubectl(['apply', '--filename=-'], { apiVersion: 'v1', kind: 'List', items });
}

/** Resolves when pods may be made in it. */
export async function namespace(name: string, labels: Record<string, string> = {}): Promise<void> {
  await apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } });
  await kubectl(['wait', '--for=create', 'serviceaccount/default', `--namespace=${name}`, '--timeout=120s']);
}

/**
 * Ends a container of a pod as a power cut would. Where nobody says how (E2E_KILLER), the pod is deleted without grace, and another
 * one takes its place.
 */
export async function killContainer(place: string, name: string, container: string): Promise<void> {
  const [program, ...args] = (process.env['E2E_KILLER'] ?? '').split(' ');
  if (program === undefined || program === '') {
    await kubectl(['delete', 'pod', name, `--namespace=${place}`, '--grace-period=0', '--force']);
    return;
  }
  const id = `--output=jsonpath={.status.containerStatuses[?(@.name=="${container}")].containerID}`;
  const found = await kubectl(['get', 'pod', name, `--namespace=${place}`, id]);
  await promisify(execFile)(program, [...args, found.replace(/^\w+:\/\//, '')]);
}

/** What somebody would look at who is told that a test failed. */
export async function whatIsThere(namespace: string): Promise<string> {
  const looks = [
    ['get', 'pods,pvc,imagesites,vmimages', '--all-namespaces', '--output=wide'],
    ['describe', 'pods', `--namespace=${namespace}`],
    ['get', 'events', '--all-namespaces', '--sort-by=.lastTimestamp'],
    [
      'logs',
      `--namespace=${namespace}`,
      '--selector=app.kubernetes.io/name=imageproxy',
      '--tail=60',
      '--prefix',
      '--all-containers',
    ],
    ['logs', `--namespace=${namespace}`, '--selector=app.kubernetes.io/name=imageproxy', '--tail=30', '--previous'],
  ];
  const texts = await Promise.all(looks.map((args) => kubectl(args).catch((error: Error) => error.message)));
  return looks.map((args, index) => `$ kubectl ${args.join(' ')}\n${texts[index]}`).join('\n');
}
