import { systemClock } from '../../../src/runtime/clock.ts';
import { loadCredentials } from '../../../src/stores/kubernetes/credentials.ts';
import { type ApiServer, startApiServer } from '../../support/apiserver.ts';
import { House, type Manifest } from '../../support/house.ts';
import { Cluster } from '../kubernetes/cluster.ts';
import { COMPILED, imageproxy, type Outcome, Program } from './program.ts';

/** One of the two places that commands work on, with controllers at work there, and a directory site's folder. */
export interface World {
  /** What messages call the place. */
  readonly title: string;
  readonly shelf: string;
  /** As a user does it there: kubectl apply, or an editor. */
  apply(...objects: Manifest[]): Promise<void>;
  /** The real program, which takes the place from its environment. */
  run(...words: string[]): Promise<Outcome>;
  begin(...words: string[]): Program;
  /** What the controllers have logged. */
  readonly lines: readonly string[];
  close(): Promise<void>;
}

function commands(env: Readonly<Record<string, string>>): Pick<World, 'run' | 'begin'> {
  return {
    run: (...words) => imageproxy(words, { ...COMPILED, ...env }),
    begin: (...words) => new Program(words, { ...COMPILED, ...env }),
  };
}

export async function openDirectoryWorld(): Promise<World> {
  const house = await new House().start();
  return {
    title: house.state,
    shelf: house.shelf,
    lines: house.lines,
    async apply(...objects) {
      for (const object of objects) {
        const { name, namespace = '' } = object.metadata;
        await house.write(`${object.kind}_${namespace}_${name}.yaml`, object);
      }
    },
    ...commands({ IMAGEPROXY_STATE: house.state }),
    close: () => house.close(),
  };
}

export async function openClusterWorld(): Promise<World & { server: ApiServer }> {
  const server = await startApiServer();
  for (const name of ['default', 'team', 'empty', 'imageproxy']) await server.namespace(name);
  const cluster = await new Cluster(server).start();
  const credentials = await loadCredentials({ kubeconfig: server.kubeconfig, clock: systemClock });
  await credentials.close();
  return {
    server,
    title: `the cluster ${credentials.server}`,
    shelf: cluster.shelf,
    lines: cluster.lines,
    apply: (...objects) => cluster.apply(...objects),
    ...commands({ KUBECONFIG: server.kubeconfig, IMAGEPROXY_KUBERNETES: 'true' }),
    async close() {
      await cluster.close();
      await server.stop();
    },
  };
}
