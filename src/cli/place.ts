import type { ApiKind } from '../api/crds.ts';
import { shellWord } from '../api/shell.ts';
import type { ApiObject } from '../api/types.ts';
import type { RecordedEvent } from '../stores/directory/events.ts';
import type { Problem } from '../stores/directory/manifest.ts';
import type { StoredResource } from '../stores/directory/records.ts';
import type { ObjectKey } from '../stores/store.ts';
import { CommandError, EXIT } from './exit.ts';
import type { Target } from './kinds.ts';
import type { CommandContext } from './output.ts';
import type { ActingOptions, Session } from './session.ts';
import { manifestsDirectory, stateDirectory } from './state.ts';
import type { Watchable } from './watching.ts';

/** Options that every command on objects has. */
export interface PlaceOptions {
  namespace?: string | undefined;
  state?: string | undefined;
  manifests?: string | undefined;
  kubernetes?: boolean | undefined;
  kubeconfig?: string | undefined;
  context?: string | undefined;
}

/** Where the objects of a command are: a state directory or a cluster. */
export interface Place extends Watchable {
  readonly kind: 'directory' | 'cluster';
  /** For messages: the directory's path, or `the cluster https://…`. */
  readonly title: string;
  /** As `--namespace` says; else the one that is meant here where none is named. */
  readonly namespace: string;
  get(kind: ApiKind, key: ObjectKey): Promise<StoredResource | undefined>;
  list(kind: ApiKind, namespace?: string): Promise<StoredResource[]>;
  /** Whether there is one in any namespace. */
  hasAny(kind: ApiKind): Promise<boolean>;
  namespaces(): Promise<string[]>;
  /** Oldest first. */
  events(object: StoredResource): Promise<RecordedEvent[]>;
  /** The manifest file that the object was last read from; undefined where there is none. */
  manifestOf(kind: ApiKind, key: ObjectKey): Promise<string | undefined>;
  /** What is wrong with manifests. */
  problems(): Promise<Problem[]>;
  /** A sentence with the cure, where nobody works on the object. */
  unattended(object: ApiObject): Promise<string | undefined>;
  /** To change objects, with controllers at work. */
  act(options?: ActingOptions): Promise<Session>;
  /** Who draws on the terminal hears here that what is watched cannot be heard for a while; else standard error tells it. */
  set onTrouble(tell: (message: string) => void);
  /** Rejects when watches will tell nothing any more. */
  readonly lost: Promise<never>;
  /** A command line for a person to type: the program as it was called, and the options that lead here. */
  typed(command: string, target?: Pick<Target, 'names' | 'key'>, rest?: string): string;
  [Symbol.asyncDispose](): Promise<void>;
}

export type Choice =
  | { kind: 'directory'; state: string; manifests: string | undefined; flags: string[] }
  | { kind: 'cluster'; kubeconfig: string | undefined; context: string | undefined; flags: string[] };

/**
 * What the command line names counts; then the way the program was called, for who types `kubectl` means a cluster; then the
 * environment, where IMAGEPROXY_KUBERNETES goes before IMAGEPROXY_STATE: in the controller's pod both are set, and the state there
 * holds no objects.
 * @throws CommandError (usage) where both are named
 */
export function choosePlace(
  options: PlaceOptions,
  { env, calledAs }: Pick<CommandContext, 'env' | 'calledAs'>,
): Choice {
  const { state, manifests, kubernetes, kubeconfig, context } = options;
  const ofDirectory = [...flag('--state', state), ...flag('--manifests', manifests)];
  const ofCluster = [
    ...(kubernetes === true ? ['--kubernetes'] : []),
    ...flag('--kubeconfig', kubeconfig),
    ...flag('--context', context),
  ];
  if (ofDirectory.length > 0 && ofCluster.length > 0) {
    throw new CommandError(
      EXIT.usage,
      `${ofDirectory[0]} names a directory and ${ofCluster[0]} a cluster: leave one of the two out`,
    );
  }
  const isCluster = ofCluster.length > 0 || (ofDirectory.length === 0 && meansCluster({ env, calledAs }));
  if (isCluster) return { kind: 'cluster', kubeconfig, context, flags: ofCluster };
  return {
    kind: 'directory',
    state: stateDirectory({ state }, env),
    manifests: manifestsDirectory(manifests, env),
    flags: flag('--state', state),
  };
}

/** Whether a cluster is meant where no option says it. */
export function meansCluster({ env, calledAs }: Pick<CommandContext, 'env' | 'calledAs'>): boolean {
  return calledAs !== undefined || isSet(env['IMAGEPROXY_KUBERNETES']);
}

function flag(name: string, value: string | undefined): string[] {
  if (value === undefined) return [];
  return [name, shellWord(value)];
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && !['', '0', 'false', 'no'].includes(value.toLowerCase());
}

/** `imageproxy describe vmimg/ubuntu -n team --kubernetes` */
export function typedLine(
  { flags, home }: { flags: readonly string[]; home: string },
  { calledAs = 'imageproxy' }: Pick<CommandContext, 'calledAs'>,
  command: string,
  target?: Pick<Target, 'names' | 'key'>,
  rest = '',
): string {
  const namespace = target?.key.namespace;
  return [
    calledAs,
    command,
    ...(target === undefined ? [] : [`${target.names.short}/${target.key.name}`]),
    ...(rest === '' ? [] : [rest]),
    ...(namespace === undefined || namespace === home ? [] : ['-n', namespace]),
    ...flags,
  ].join(' ');
}
