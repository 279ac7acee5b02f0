/**
 * `node scripts/e2e.ts [ARGUMENT…]`: the product on a cluster, as its users meet it. Arguments go to vitest.
 *
 * With E2E_KUBECONFIG and E2E_IMAGE: on that cluster, whose nodes have that image; E2E_ADDRESS is where its pods reach this machine,
 * and E2E_KILLER, where it is set, a command line that kills the container whose id is put behind it. Without: the image is built
 * from the Dockerfile, and a node of our own runs it. That needs root, and says what else it misses.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { pauseImage, productImage } from '../test/support/containers/images.ts';
import { findHelm } from '../test/support/kubernetes/helm.ts';
import { KubernetesNode, missingForNode } from '../test/support/kubernetes/node.ts';

const root = join(import.meta.dirname, '..');
const VITEST = [join('node_modules', 'vitest', 'vitest.mjs'), 'run', '--project=e2e', ...process.argv.slice(2)];

// A signal ends vitest, and then what was started is stopped. Ctrl-C reaches it by itself. Before, there is nothing to stop but the
// processes of a node, which end with this one.
let tests: ChildProcess | undefined;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (tests === undefined) process.exit(1);
    else if (signal !== 'SIGINT') tests.kill(signal);
  });
}

if ((process.env['E2E_KUBECONFIG'] ?? '') === '') process.exitCode = await onOwnNode();
else process.exitCode = await vitest([], {});

async function onOwnNode(): Promise<number> {
  const missing = missingForNode();
  if (missing !== undefined) {
    say(`${missing}. With Docker, \`make e2e-kind\` runs the same tests; E2E_KUBECONFIG names a cluster`);
    return 69;
  }
  const pause = await pauseImage();
  const image = await productImage(say);
  const helm = await findHelm(say);
  const started = Date.now();
  const node = await KubernetesNode.start(pause, [image]);
  // kubectl and helm keep what they find out in the home directory: not in the user's.
  const home = await mkdtemp(join(tmpdir(), 'imageproxy-e2e-'));
  try {
    say(`the node is ready after ${((Date.now() - started) / 1000).toFixed(1)} s`);
    return await vitest(node.network, {
      E2E_KUBECONFIG: node.kubeconfig,
      E2E_IMAGE: image.name,
      E2E_ADDRESS: node.address,
      E2E_KILLER: node.killer.join(' '),
      PATH: [node.programs, process.env['PATH']].join(delimiter),
      HELM: helm,
      HOME: home,
    });
  } finally {
    await node.stop();
    await rm(home, { recursive: true, force: true });
  }
}

async function vitest(
  prefix: readonly [string, ...string[]] | readonly [],
  environment: Record<string, string>,
): Promise<number> {
  const [command, ...args] = [...prefix, process.execPath, '--disable-warning=ExperimentalWarning', ...VITEST] as const;
  const env = { ...process.env, ...environment };
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], env });
  tests = child;
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  child.on('error', reject);
  child.on('close', (code) => resolve(code ?? 1));
  return promise;
}

function say(line: string): void {
  process.stderr.write(`e2e: ${line}\n`);
}
