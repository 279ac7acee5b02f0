/**
 * `make cluster`: a control plane to play with (etcd, API server, controllers of Kubernetes, our kinds), on loopback. No node, so no pods:
 * the controllers of ImageProxy run in a terminal, from the sources. Ctrl-C stops it, and nothing stays.
 */
import { existsSync } from 'node:fs';
import { join, relative } from 'node:path';
import { startApiServer } from '../test/support/apiserver.ts';
import { findBinaries } from '../test/support/kubernetes/binaries.ts';

if ((process.env['TEST_KUBECONFIG'] ?? '') !== '') {
  console.error('cluster: TEST_KUBECONFIG names a cluster already: use that one, or unset it');
  process.exit(64);
}
const stopped = Promise.withResolvers<void>();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stopped.resolve());

const server = await startApiServer({ controllerManager: true });
try {
  await server.namespace('imageproxy');
  const { directory } = await findBinaries();
  const program = relative(process.cwd(), join(import.meta.dirname, '..', 'bin', 'imageproxy'));
  console.log(`The cluster is at ${server.url}, with the kinds of ImageProxy and the namespaces default and imageproxy.

  export KUBECONFIG=${server.kubeconfig}
  export PATH=${directory}:$PATH

See the kinds, run the controllers, and use them from a third terminal:

  kubectl explain vmimage.spec
  ${program} run --kubernetes --state ./demo-state --allow-network 127.0.0.0/8
  kubectl apply -f FILE; kubectl get imageproxy -w

Ctrl-C stops it; nothing of it stays.`);
  // Until a signal: the servers are children, and nothing else would hold this process.
  const hold = setInterval(() => existsSync(server.kubeconfig) || stopped.resolve(), 5000);
  await stopped.promise;
  clearInterval(hold);
} finally {
  await server.stop();
}
