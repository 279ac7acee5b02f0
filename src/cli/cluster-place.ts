import type { ApiKind } from '../api/crds.ts';
import { requestOf } from '../api/request.ts';
import type { ApiObject } from '../api/types.ts';
import type { RecordedEvent } from '../stores/directory/events.ts';
import type { Problem } from '../stores/directory/manifest.ts';
import type { StoredResource } from '../stores/directory/records.ts';
import { type ClusterObjects, openClusterObjects } from '../stores/kubernetes/objects.ts';
import type { Draft, ObjectKey, Scope } from '../stores/store.ts';
import type { Target } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import { type Choice, type Place, typedLine } from './place.ts';
import type { Session } from './session.ts';
import { type Listener, OVERDUE_MS } from './watching.ts';

type ClusterChoice = Extract<Choice, { kind: 'cluster' }>;

/** Nothing is asked of the API server yet. @throws Failure where no cluster is configured */
export async function openCluster(
  choice: ClusterChoice,
  namespace: string | undefined,
  context: CommandContext,
): Promise<Place> {
  const { kubeconfig, context: name } = choice;
  const { err, signal } = context;
  const objects = await openClusterObjects({ kubeconfig, context: name, signal });
  objects.onTrouble = (message) => err.line(`${err.paint('yellow', 'imageproxy:')} ${printable(message)}`);
  return new ClusterPlace(objects, choice, namespace, context);
}

class ClusterPlace implements Place {
  readonly kind = 'cluster';
  readonly title: string;
  readonly namespace: string;
  readonly #objects: ClusterObjects;
  readonly #choice: ClusterChoice;
  readonly #context: CommandContext;

  constructor(objects: ClusterObjects, choice: ClusterChoice, namespace: string | undefined, context: CommandContext) {
    this.#objects = objects;
    this.#choice = choice;
    this.#context = context;
    this.title = `the cluster ${objects.server}`;
    this.namespace = namespace ?? objects.namespace;
  }

  set onTrouble(tell: (message: string) => void) {
    this.#objects.onTrouble = tell;
  }

  get lost(): Promise<never> {
    return this.#objects.refused;
  }

  get(kind: ApiKind, key: ObjectKey): Promise<StoredResource | undefined> {
    return this.#objects.get(kind, key);
  }

  list(kind: ApiKind, namespace?: string): Promise<StoredResource[]> {
    return this.#objects.list(kind, namespace);
  }

  hasAny(kind: ApiKind): Promise<boolean> {
    return this.#objects.hasAny(kind);
  }

  namespaces(): Promise<string[]> {
    return this.#objects.namespaces();
  }

  events(object: StoredResource): Promise<RecordedEvent[]> {
    return this.#objects.events(object);
  }

  async manifestOf(): Promise<undefined> {
    // Where an object of a cluster is written, the cluster does not know.
  }

  async problems(): Promise<Problem[]> {
    // What is not valid never gets into a cluster.
    return [];
  }

  async unattended(object: ApiObject): Promise<string | undefined> {
    return unheard(object, this.#context.now());
  }

  async act(): Promise<Session> {
    return new ClusterSession(this.#objects);
  }

  watch(kind: ApiKind, scope: Scope, listener: Listener, signal: AbortSignal): Promise<void> {
    return this.#objects.watch(kind, scope, listener, signal);
  }

  typed(command: string, target?: Pick<Target, 'names' | 'key'>, rest?: string): string {
    return typedLine(
      { flags: this.#choice.flags, home: this.#objects.namespace },
      this.#context,
      command,
      target,
      rest,
    );
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#objects.close();
  }
}

/**
 * What of an object nobody has taken up, or answered. Whether a controller runs, a user may not see; what it should have done is to be
 * seen. A request is answered when the looks that it asked for have ended, so one without an answer does not tell that nobody works on it.
 */
export function unheard({ metadata, status }: Pick<ApiObject, 'metadata' | 'status'>, now: number): string | undefined {
  const cure = 'see whether ImageProxy runs in this cluster, and looks at this namespace';
  const waitsSince = (time: string | undefined): boolean => now - Date.parse(time ?? '') >= OVERDUE_MS;
  if ((status?.observedGeneration ?? -1) < 0) {
    return waitsSince(metadata.creationTimestamp) ? `No controller has looked at it yet: ${cure}.` : undefined;
  }
  const requestedAt = requestOf(metadata.annotations);
  const isPending = requestedAt !== undefined && status.lastHandledReconcileAt !== requestedAt;
  return isPending && waitsSince(requestedAt)
    ? `What was asked for at ${requestedAt} is not answered yet: a look at a site or the reading of a list may take that long, or no controller runs; ${cure}.`
    : undefined;
}

/** The cluster has controllers of its own; this only asks. */
class ClusterSession implements Session {
  readonly elsewhere = "the cluster's controller";
  readonly ended: Promise<never>;
  readonly #objects: ClusterObjects;

  constructor(objects: ClusterObjects) {
    this.#objects = objects;
    this.ended = objects.refused;
  }

  get(kind: ApiKind, key: ObjectKey): Promise<StoredResource | undefined> {
    return this.#objects.get(kind, key);
  }

  watch(kind: ApiKind, scope: Scope, listener: Listener, signal: AbortSignal): Promise<void> {
    return this.#objects.watch(kind, scope, listener, signal);
  }

  apply(object: Draft): Promise<StoredResource> {
    return this.#objects.apply(object);
  }

  change(object: StoredResource, spec: Record<string, unknown>): Promise<StoredResource> {
    return this.#objects.change(object, spec);
  }

  annotate(kind: ApiKind, key: ObjectKey, annotations: Record<string, string | null>): Promise<void> {
    return this.#objects.annotate(kind, key, annotations);
  }

  delete(kind: ApiKind, key: ObjectKey, uid: string): Promise<void> {
    return this.#objects.delete(kind, key, uid);
  }

  async close(): Promise<void> {
    // The connections are the place's.
  }
}
