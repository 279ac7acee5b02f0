import type { ChildProcess } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { eventually } from '../apiserver.ts';
import type { Archive } from '../containers/images.ts';
import { type Binaries, findBinaries, type Part, PARTS } from './binaries.ts';
import { Namespaces } from './namespaces.ts';
import { ADDRESS, clusterObjects, NAME, type NodePlan, planNode, SETUP } from './node-files.ts';

/** The programs that a node needs beside Kubernetes itself, and the Debian packages that have them. */
const PROGRAMS: Readonly<Record<string, string>> = {
  '/usr/bin/containerd': 'containerd',
  '/usr/sbin/runc': 'runc',
  '/usr/lib/cni/bridge': 'containernetworking-plugins',
  '/usr/bin/ip': 'iproute2',
  '/usr/sbin/nft': 'nftables',
  '/usr/sbin/conntrack': 'conntrack',
  '/usr/bin/buildah': 'buildah',
  '/usr/bin/mmdebstrap': 'mmdebstrap',
  '/usr/bin/busybox': 'busybox-static',
  '/usr/bin/nsenter': 'util-linux',
};

/** Why no node can run on this machine; undefined when one can. */
export function missingForNode(): string | undefined {
  if (process.platform !== 'linux') return 'a node needs Linux';
  if (process.getuid?.() !== 0) return 'a node needs root: namespaces, mounts and cgroups are made for it';
  const programs = Object.entries(PROGRAMS).filter(
    ([path]) => !existsSync(path) && !existsSync(path.replace('/usr/', '/')),
  );
  if (programs.length === 0) return undefined;
  return `a node needs programs that are not here: apt-get install --no-install-recommends ${programs.map(([, name]) => name).join(' ')}`;
}

/**
 * One node of a real cluster, and its control plane: containerd, runc, kubelet, kube-proxy and scheduler beside etcd, API server and
 * controllers, in namespaces of their own. Nothing outside leads in, and nothing inside leads out: images are those that it is
 * given, and pods reach the API server, one another, and what tests start in its network.
 */
export class KubernetesNode {
  /** Everything of it is here: volumes, logs, keys. */
  readonly directory: string;
  /** Of an administrator. */
  readonly kubeconfig: string;
  /** Where pods reach what listens in the node's network. */
  readonly address = ADDRESS;
  /** The folder with kubectl. */
  readonly programs: string;
  readonly #spaces: Namespaces;
  readonly #cgroup: string;
  readonly #binaries: Binaries;
  readonly #processes = new Map<string, ChildProcess>();

  private constructor(directory: string, spaces: Namespaces, binaries: Binaries) {
    this.directory = directory;
    this.kubeconfig = join(directory, 'admin.kubeconfig');
    this.programs = binaries.directory;
    this.#spaces = spaces;
    this.#binaries = binaries;
    this.#cgroup = basename(directory);
  }

  /** Resolves when the node is Ready and holds the images: about ten seconds. */
  static async start(pause: Archive, images: readonly Archive[]): Promise<KubernetesNode> {
    const missing = missingForNode();
    if (missing !== undefined) throw new Error(missing);
    const binaries = await findBinaries(PARTS);
    // What containerd, runc and the kubelet make must be open to those who are not root inside of pods.
    process.umask(0o022);
    const directory = await mkdtemp(join(tmpdir(), 'imageproxy-node-'));
    await chmod(directory, 0o755);
    const node = new KubernetesNode(directory, await Namespaces.make(directory), binaries);
    try {
      await node.#begin(pause, images);
    } catch (error) {
      const logs = await node.logs();
      await node.stop();
      throw new Error(`the node did not start: ${(error as Error).message}\n${logs}`, { cause: error });
    }
    return node;
  }

  /** The beginning of a command line that runs in the node's network, with the files of this machine. */
  get network(): [string, ...string[]] {
    return this.#spaces.network;
  }

  /** The command line, without the container's id, that ends a container as a power cut would. */
  get killer(): string[] {
    return ['ctr', ...this.#socket, 'task', 'kill', '--signal=SIGKILL'];
  }

  /** The end of what each part wrote. */
  async logs(): Promise<string> {
    const names = (await readdir(this.directory)).filter((name) => name.endsWith('.log'));
    const parts = names.map(async (name) => {
      const text = await readFile(join(this.directory, name), 'utf8');
      return `--- ${name}\n${text.trimEnd().split('\n').slice(-8).join('\n')}`;
    });
    return (await Promise.all(parts)).join('\n');
  }

  async stop(): Promise<void> {
    await this.#spaces.end();
    await this.#removeCgroups();
    await rm(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }

  async #begin(pause: Archive, images: readonly Archive[]): Promise<void> {
    const volumes = ['volume-1', 'volume-2', 'volume-3'];
    const snapshotter = (await this.#canOverlay()) ? 'overlayfs' : 'native';
    const plan = planNode(this.directory, { cgroup: `/${this.#cgroup}`, pause: pause.name, snapshotter });
    await this.#writeFiles(plan, volumes);
    for (const [program, ...args] of SETUP) await this.#spaces.run(program, args);
    await this.#makeCgroups();
    const load = async () => {
      await this.#start('containerd', '/usr/bin/containerd', plan);
      await this.#works('containerd', () => this.#ctr('version'));
      for (const { file } of [pause, ...images]) {
        await this.#ctr('images', 'import', `--snapshotter=${snapshotter}`, file);
      }
    };
    await Promise.all([load(), this.#startControlPlane(plan, volumes)]);
    for (const part of ['kube-scheduler', 'kubelet', 'kube-proxy'] as const) await this.#startPart(part, plan);
    await this.#works('kubelet', () =>
      this.#kubectl(['wait', '--for=condition=Ready', `node/${NAME}`, '--timeout=180s']),
    );
  }

  /** Overlays do not lie on overlays, which is where most containers have their files. */
  async #canOverlay(): Promise<boolean> {
    const at = (name: string) => join(this.directory, 'overlay', name);
    for (const name of ['lower', 'upper', 'work', 'merged']) await mkdir(at(name), { recursive: true });
    const options = `lowerdir=${at('lower')},upperdir=${at('upper')},workdir=${at('work')}`;
    return this.#spaces.run('mount', ['-t', 'overlay', 'overlay', '-o', options, at('merged')]).then(
      () => true,
      () => false,
    );
  }

  async #startControlPlane(plan: NodePlan, volumes: readonly string[]): Promise<void> {
    await this.#startPart('etcd', plan);
    await this.#startPart('kube-apiserver', plan);
    await this.#works('kube-apiserver', () => this.#kubectl(['get', '--raw', '/readyz']));
    // It waits for the API server: started before, it would cache "forbidden" and back off.
    await this.#startPart('kube-controller-manager', plan);
    const items = clusterObjects(this.directory, volumes);
    await this.#kubectl(['apply', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items }));
  }

  async #writeFiles(plan: NodePlan, volumes: readonly string[]): Promise<void> {
    for (const name of volumes) await mkdir(join(this.directory, 'volumes', name), { recursive: true });
    for (const [name, text] of Object.entries(plan.files)) {
      await mkdir(dirname(join(this.directory, name)), { recursive: true });
      await writeFile(join(this.directory, name), text, { mode: 0o600 });
    }
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    await writeFile(join(this.directory, 'sa.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }), {
      mode: 0o600,
    });
    await writeFile(join(this.directory, 'sa.pub'), publicKey.export({ type: 'spki', format: 'pem' }));
  }

  async #startPart(part: Exclude<Part, 'kubectl'>, plan: NodePlan): Promise<void> {
    await this.#start(part, join(this.#binaries.directory, part), plan);
  }

  async #start(part: keyof NodePlan['parts'], program: string, plan: NodePlan): Promise<void> {
    this.#processes.set(part, await this.#spaces.start(part, program, plan.parts[part]));
  }

  /** Asks until it works, or until the part has ended. */
  async #works(part: string, ask: () => Promise<unknown>): Promise<void> {
    await eventually(`${part} works`, ask, async () => {
      const child = this.#processes.get(part);
      return child?.exitCode === null && child.signalCode === null ? undefined : `${part} has ended`;
    });
  }

  #kubectl(args: readonly string[], input?: string): Promise<string> {
    const kubectl = join(this.#binaries.directory, 'kubectl');
    const own = ['--kubeconfig', this.kubeconfig, '--cache-dir', join(this.directory, 'kubectl')];
    return this.#spaces.run(kubectl, [...own, ...args], input);
  }

  #ctr(...args: string[]): Promise<string> {
    return this.#spaces.run('ctr', [...this.#socket, ...args]);
  }

  get #socket(): string[] {
    return ['--address', join(this.directory, 'containerd.sock'), '--namespace', 'k8s.io'];
  }

  /** One in each hierarchy (cgroup v1), or the one (v2), so that no other node and nothing of this machine is disturbed. */
  async #cgroups(): Promise<string[]> {
    const root = '/sys/fs/cgroup';
    if (existsSync(join(root, 'cgroup.controllers'))) return [join(root, this.#cgroup)];
    const entries = await readdir(root, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(root, name, this.#cgroup));
  }

  async #makeCgroups(): Promise<void> {
    for (const path of await this.#cgroups()) {
      await mkdir(path, { recursive: true });
      // A new one of cpuset allows nothing until it is told.
      for (const name of ['cpuset.cpus', 'cpuset.mems']) {
        const above = join(dirname(path), name);
        if (existsSync(above) && existsSync(join(path, name))) await writeFile(join(path, name), await readFile(above));
      }
    }
  }

  async #removeCgroups(): Promise<void> {
    for (const path of await this.#cgroups()) {
      if (!existsSync(path)) continue;
      const below = await readdir(path, { recursive: true, withFileTypes: true });
      const folders = below.filter((entry) => entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
      for (const folder of [...folders.toSorted().toReversed(), path]) await removeCgroup(folder);
    }
  }
}

/** The kernel lets go of a cgroup a moment after its last process has ended. */
async function removeCgroup(path: string): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await rmdir(path);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      if (tries === 100) throw error;
    }
    await wait(20);
  }
}
