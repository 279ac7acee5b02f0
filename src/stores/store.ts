/**
 * Where resources live. Controllers and reconcilers see this interface alone, so they run unchanged on a Kubernetes API server
 * (`stores/kubernetes.ts`) and on a directory of manifests (`stores/directory/`).
 *
 * Reads come from a local copy that is complete once `start` resolved. A read object is frozen: change a copy.
 */

export interface ObjectMeta {
  name: string;
  /** Absent for cluster-scoped kinds. */
  namespace?: string;
  uid: string;
  /** Counts changes of spec, as the API server counts them. */
  generation: number;
  resourceVersion: string;
  creationTimestamp: string;
  deletionTimestamp?: string;
  finalizers?: string[];
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: OwnerReference[];
}

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

export interface Resource {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
}

export interface Secret extends Resource {
  kind: 'Secret';
  /** Decoded values. */
  data: Record<string, Uint8Array>;
}

export interface ConfigMap extends Resource {
  kind: 'ConfigMap';
  data: Record<string, string>;
}

/** The kinds that controllers may ask for. */
export type Kind = 'VMImage' | 'ImageSubscription' | 'ImageSite' | 'Secret' | 'ConfigMap';

export interface ObjectKey {
  namespace?: string;
  name: string;
}

/** What is looked at of a kind: all of it, what is in one namespace, or one object. */
export interface Scope {
  namespace?: string | undefined;
  name?: string | undefined;
}

/** `namespace/name`, or `name` for cluster-scoped kinds: the key of queues and maps. */
export function keyOf(object: ObjectKey | Resource): string {
  const { namespace, name } = 'metadata' in object ? object.metadata : object;
  return namespace === undefined ? name : `${namespace}/${name}`;
}

export interface Change<T extends Resource = Resource> {
  type: 'Applied' | 'Deleted';
  object: T;
  /** The copy before, if there was one. */
  previous?: T;
}

/** What is told to the user about an object, beside its status. Deduplicated and rate-limited by the store. */
export interface EventNote {
  type: 'Normal' | 'Warning';
  reason: string;
  message: string;
}

/** What of a status is ours to write, where several controllers write it. */
export interface StatusShare {
  /** The field that holds the rows: a list of objects, each with a `name`. */
  rows: string;
  isOurs(row: string): boolean;
  /** Whether all the other fields are ours as well. */
  rest: boolean;
}

export interface Store {
  /** Reads everything once, then keeps watching until the signal fires. Resolves after the first complete read. */
  start(signal: AbortSignal): Promise<void>;

  get<T extends Resource>(kind: Kind, key: ObjectKey): T | undefined;
  /** All of a kind; of one namespace where it is given. */
  list<T extends Resource>(kind: Kind, namespace?: string): readonly T[];
  /** Calls the listener at every change, and once for each object that is there already. Returns the way to end it. */
  subscribe<T extends Resource>(kind: Kind, listener: (change: Change<T>) => void): () => void;

  /**
   * Reads one Secret or ConfigMap; undefined when there is none. Never cached in plain text on disk.
   * @throws Failure InvalidSecret when it is there but may not be used (a file that others can read), with the cure.
   */
  secret(key: Required<ObjectKey>): Promise<Secret | undefined>;
  configMap(key: Required<ObjectKey>): Promise<ConfigMap | undefined>;

  /**
   * Writes the status of an object, once, and only where it differs. On return it is durable, except where nothing but
   * `progress` changed. Resolves to the object as it is now, or undefined when it has gone.
   * Of a status that several controllers write only our share is written; the rest stays as it is, whatever `status` says of it.
   * @throws Failure Conflict when the object was replaced by another of the same name (uid differs).
   */
  applyStatus<T extends Resource>(object: T, status: object, share?: StatusShare): Promise<T | undefined>;

  addFinalizer<T extends Resource>(object: T, finalizer: string): Promise<T | undefined>;
  /**
   * The object disappears when it was the last one and deletion had been asked for. With `onlyIf` it is removed from an object of
   * which that holds as it is then, and from no other: somebody may have written something since `object` was read.
   */
  removeFinalizer<T extends Resource>(
    object: T,
    finalizer: string,
    onlyIf?: (now: T) => boolean,
  ): Promise<T | undefined>;

  /**
   * Makes an object that we own, and never changes one that is there.
   * @throws Failure NameInUse when there is one of its name
   */
  create<T extends Resource>(object: Draft): Promise<T>;
  /**
   * Creates or updates an object that we own (subscriptions, the command line). Labels, annotations and spec are replaced whole.
   * @throws Failure Conflict when the draft has a uid, and the object of that uid has gone or was replaced
   */
  apply<T extends Resource>(object: Draft): Promise<T>;
  /** Sets annotations (null removes one) on any object, whoever wrote it. */
  annotate(kind: Kind, key: ObjectKey, annotations: Record<string, string | null>): Promise<void>;
  /**
   * One that has gone is no failure.
   * @throws Failure Conflict when a uid is given, and it is another object that has the name
   */
  delete(kind: Kind, key: ObjectKey, uid?: string): Promise<void>;

  event(object: Resource, note: EventNote): void;
}

/** An object as a user would write it. */
export interface Draft {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace?: string;
    /** The very object that is to be changed: it is neither made again when it has gone, nor is another of its name changed. */
    uid?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    ownerReferences?: OwnerReference[];
  };
  spec?: unknown;
}
