import { onTestFailed } from 'vitest';
import { Helm, type Values } from '../support/kubernetes/chart.ts';
import { ADDRESS, get, IMAGE, KUBECONFIG, kubectl, namespace, whatIsThere } from './cluster.ts';

const [, REPOSITORY = '', TAG = ''] = /^(.+):([^:/]+)$/.exec(IMAGE) ?? [];

interface ContainerStatus {
  name: string;
  containerID: string;
  restartCount: number;
  ready: boolean;
}

interface Pod {
  metadata: { name: string; uid: string; deletionTimestamp?: string };
  status: { containerStatuses?: ContainerStatus[] };
}

/** The chart, installed as a site's admin does it. */
export class Release {
  readonly namespace: string;
  readonly helm: Helm;

  private constructor(name: string, helm: Helm) {
    this.namespace = name;
    this.helm = helm;
  }

  /** With its namespace, which is not there yet, and admits restricted pods only. */
  static async prepare(name: string): Promise<Release> {
    await namespace(name, { 'pod-security.kubernetes.io/enforce': 'restricted' });
    return new Release(name, await Helm.start(KUBECONFIG));
  }

  /** Installs or upgrades, and waits until the new pod is ready. @returns the notes */
  async upgrade(values: Values = {}): Promise<string> {
    const own = {
      image: { repository: REPOSITORY, tag: TAG, pullPolicy: 'Never' },
      // What tests serve is at a private address.
      allowNetworks: [`${ADDRESS}/32`],
      persistence: { size: '10Gi' },
      cache: { quota: '8Gi' },
    };
    const options = { namespace: this.namespace, flags: ['--wait', '--timeout=270s'] };
    try {
      return await this.helm.upgrade({ ...own, ...values }, options);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${await whatIsThere(this.namespace)}`, { cause: error });
    }
  }

  /** The one pod that is not on its way out. */
  async pod(): Promise<Pod> {
    const { items } = await get<{ items: Pod[] }>(
      'pods',
      `--namespace=${this.namespace}`,
      '--selector=app.kubernetes.io/component=controller',
    );
    const [pod, ...others] = items.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
    if (pod === undefined || others.length > 0) throw new Error(`${items.length} pods instead of one`);
    return pod;
  }

  /** A container of it, as the kubelet sees it. */
  async container(name: string): Promise<ContainerStatus> {
    const { status } = await this.pod();
    const found = status.containerStatuses?.find((each) => each.name === name);
    if (found === undefined) throw new Error(`no container ${name}: ${JSON.stringify(status)}`);
    return found;
  }

  /** Prints what there is to see when this test fails. */
  watchTest(): void {
    onTestFailed(async () => console.error(await whatIsThere(this.namespace)));
  }

  /** Also what an uninstall leaves by intention. Finalizers are cut: clouds of tests end with the tests. */
  async remove(): Promise<void> {
    await this.helm.uninstall({ namespace: this.namespace }).catch(() => undefined);
    const kinds = ['vmimages', 'imagesubscriptions', 'imagesites'].map((plural) => `${plural}.imageproxy.dev`);
    for (const kind of kinds) {
      const { items } = await get<{ items: { metadata: { name: string; namespace?: string } }[] }>(
        kind,
        '--all-namespaces',
      ).catch(() => ({ items: [] }));
      for (const { metadata } of items) {
        const where = metadata.namespace === undefined ? [] : [`--namespace=${metadata.namespace}`];
        const patch = ['--type=merge', '--patch={"metadata":{"finalizers":null}}'];
        await kubectl(['patch', kind, metadata.name, ...where, ...patch]).catch(() => undefined);
      }
    }
    await kubectl(['delete', 'crd', ...kinds, '--timeout=120s']);
    await kubectl(['delete', 'namespace', this.namespace, '--timeout=120s']);
    await this.helm.close();
  }
}
