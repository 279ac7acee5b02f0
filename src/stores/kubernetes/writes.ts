import { isFields } from '../../api/admission.ts';
import { Failure } from '../../api/failure.ts';
import type { Schemas } from '../../api/schema.ts';
import { ApiError } from '../../runtime/api-error.ts';
import type { Clock } from '../../runtime/clock.ts';
import { pause } from '../../runtime/pause.ts';
import { Serial } from '../directory/concurrency.ts';
import { type Draft, type Kind, keyOf, type ObjectKey, type Resource, type StatusShare } from '../store.ts';
import { admittedSpec, admittedStatus } from './admitted.ts';
import { type ApiClient, type ApiRequest, PATCH } from './client.ts';
import type { LocalCopy } from './copy.ts';
import { failureOf } from './errors.ts';
import { collectionPath, fullKey, objectPath, RESOURCES, type ResourceType } from './resources.ts';
import { isWritten, partsOf, type StatusPart } from './status-parts.ts';

/** Somebody else was quicker so many times in a row: the caller may come again later. */
const TRIES = 6;
/**
 * No write is waited for any longer, its client's retries among it: the last third of a Lease is never used, and the shortest has 30 s.
 * So a write that was begun under the Lease has come to its end before another can hold it.
 */
const ANSWER_MS = 10_000;

/** An object as the server answers it; the copy keeps no managedFields. */
type Managed<T extends Resource> = T & {
  metadata: { managedFields?: { manager?: string; operation?: string; subresource?: string }[] };
};

export interface WriterOptions {
  client: Pick<ApiClient, 'request'>;
  copies: Readonly<Record<Kind, LocalCopy>>;
  schemas: Schemas;
  /** Field manager of what we write. */
  fieldOwner: string;
  /** Field manager of status; another one for each controller that shares an API server. Default: as the rest. */
  statusOwner?: string;
  clock: Clock;
  signal: AbortSignal;
  /** Whether what a reconcile decided may still be written; looked at before each try. Default: always. */
  mayWrite?(): boolean;
  /** How long a request may take, in milliseconds, where `mayWrite` may end; default 10 s. */
  answerMs?: number;
}

/** Everything that changes objects of the API server. Writes on one object are made one after the other, in the order of asking. */
export class Writer {
  readonly #options: WriterOptions;
  readonly #serial = new Serial();

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  idle(): Promise<void> {
    return this.#serial.idle();
  }

  /**
   * By server-side apply: fields and rows that we wrote before and leave out now are removed, those of others stay. `force` takes
   * over what somebody edited by hand. The uid in it makes the server refuse another object of the same name.
   */
  applyStatus<T extends Resource>(object: T, status: object, share?: StatusShare): Promise<T | undefined> {
    return this.#onObject(object, 'write the status of', async (type, key) => {
      const { fieldOwner, statusOwner = fieldOwner } = this.#options;
      const wanted = admittedStatus(object.kind, status, this.#options.schemas);
      let now = this.#sameAsKnown(object);
      for (const part of partsOf(isFields(wanted) ? wanted : {}, share, statusOwner)) {
        if (now !== undefined && isWritten(part, statusOf(now))) continue;
        now = await this.#applyPart(type, key, object, part);
        // What others wrote under another name before us (an earlier release, a person) does not go by being left out.
        if (!isWritten(part, statusOf(now))) now = await this.#takeOver(type, key, now, part);
      }
      return now ?? this.#read<T>(type, key, object);
    });
  }

  async #applyPart<T extends Resource>(type: ResourceType, key: ObjectKey, object: T, part: StatusPart): Promise<T> {
    const { kind, metadata } = object;
    const written = await this.#send<T>({
      method: 'PATCH',
      path: `${objectPath(type, key)}/status`,
      query: { fieldManager: part.fieldManager, force: 'true' },
      contentType: PATCH.apply,
      body: { apiVersion: type.apiVersion, kind, metadata: { ...key, uid: metadata.uid }, status: part.fields },
    });
    return this.#take(kind as Kind, written) as T;
  }

  /** By replacing it as a whole, in the very version that was seen: a field that is gone so is gone for all who had it. */
  #takeOver<T extends Resource>(type: ResourceType, key: ObjectKey, now: T, part: StatusPart): Promise<T> {
    return this.#send<T>({
      method: 'PATCH',
      path: `${objectPath(type, key)}/status`,
      query: { fieldManager: part.fieldManager },
      contentType: PATCH.json,
      body: [
        { op: 'test', path: '/metadata/uid', value: now.metadata.uid },
        { op: 'test', path: '/metadata/resourceVersion', value: now.metadata.resourceVersion },
        { op: 'add', path: '/status', value: part.into(statusOf(now)) },
      ],
    });
  }

  addFinalizer<T extends Resource>(object: T, finalizer: string): Promise<T | undefined> {
    return this.#changeFinalizers(object, 'add a finalizer to', (finalizers, deleting) =>
      // The API server takes no new finalizer on what is being deleted.
      deleting || finalizers.includes(finalizer) ? undefined : [...finalizers, finalizer],
    );
  }

  removeFinalizer<T extends Resource>(
    object: T,
    finalizer: string,
    onlyIf: (now: T) => boolean = () => true,
  ): Promise<T | undefined> {
    return this.#changeFinalizers(object, 'remove a finalizer from', (finalizers, _deleting, now) =>
      finalizers.includes(finalizer) && onlyIf(now) ? finalizers.filter((name) => name !== finalizer) : undefined,
    );
  }

  /**
   * By POST: the one request that makes an object and touches none that is there, not even one that has come this very moment.
   * (A server-side apply without `force` would add our owner reference to it, wherever the rest agrees.)
   */
  async create<T extends Resource>(draft: Draft): Promise<T> {
    const { type, key } = this.#typeOf(draft.kind, draft.metadata);
    const what = `create ${draft.kind} ${keyOf(key)}`;
    const made = await this.#serial.run(`${draft.kind}/${keyOf(key)}`, async () => {
      this.#expectMayWrite(what);
      try {
        const object = await this.#send<Managed<T>>({
          method: 'POST',
          path: collectionPath(type, key.namespace),
          query: { fieldManager: this.#options.fieldOwner },
          body: this.#bodyOf(draft, key),
        });
        this.#take(type.kind, object);
        return object;
      } catch (error) {
        if (error instanceof ApiError && error.reason === 'AlreadyExists')
          throw new Failure(
            'NameInUse',
            `cannot ${what}: there is one already, made by somebody else; it is left alone`,
          );
        throw failureOf(error, what);
      }
    });
    return (await this.#asApplied(made)) ?? made;
  }

  /**
   * Makes of the fields that our POST has written such as `apply` has: of those alone it takes away what a later draft leaves out.
   * Who writes what stands in managedFields, by manager and operation; client-go's csaupgrade turns entries in the same way.
   */
  #asApplied<T extends Resource>(made: Managed<T>): Promise<T | undefined> {
    return this.#onObject<T>(made, 'own the fields of', async (type, key, attempt) => {
      const now = attempt === 1 ? made : await this.#send<Managed<T>>({ method: 'GET', path: objectPath(type, key) });
      const { fieldOwner } = this.#options;
      const { resourceVersion, managedFields = [] } = now.metadata;
      const posted = managedFields.findIndex(
        ({ manager, operation, subresource }) =>
          manager === fieldOwner && operation === 'Update' && subresource === undefined,
      );
      if (posted === -1) return now;
      return this.#send<T>({
        method: 'PATCH',
        path: objectPath(type, key),
        query: { fieldManager: fieldOwner },
        contentType: PATCH.json,
        body: [
          { op: 'test', path: '/metadata/uid', value: made.metadata.uid },
          { op: 'test', path: '/metadata/resourceVersion', value: resourceVersion },
          { op: 'replace', path: `/metadata/managedFields/${posted}/operation`, value: 'Apply' },
        ],
      });
    });
  }

  /**
   * Server-side apply: what we applied before and leave out is removed; what others added (labels of Argo CD) stays. A uid in the draft
   * makes the API server refuse another object of the name, and refuse to make one.
   */
  async apply<T extends Resource>(draft: Draft): Promise<T> {
    const { type, key } = this.#typeOf(draft.kind, draft.metadata);
    const what = `apply ${draft.kind} ${keyOf(key)}`;
    return this.#serial.run(`${draft.kind}/${keyOf(key)}`, async () => {
      this.#expectMayWrite(what);
      try {
        const object = await this.#send<T>({
          method: 'PATCH',
          path: objectPath(type, key),
          query: { fieldManager: this.#options.fieldOwner, force: 'true' },
          contentType: PATCH.apply,
          body: this.#bodyOf(draft, key),
        });
        return (this.#options.copies[type.kind].applied(object) ?? object) as T;
      } catch (error) {
        if (isAnotherObject(error))
          throw new Failure('Conflict', `cannot ${what}: another object has its name by now: read it again`);
        throw failureOf(error, what);
      }
    });
  }

  #bodyOf(draft: Draft, key: ObjectKey): object {
    const { apiVersion, kind, metadata } = draft;
    return {
      apiVersion,
      kind,
      metadata: { ...metadata, ...key },
      spec: admittedSpec(draft, key, this.#options.schemas),
    };
  }

  async annotate(kind: Kind, ref: ObjectKey, annotations: Record<string, string | null>): Promise<void> {
    const { type, key } = this.#typeOf(kind, ref);
    await this.#serial.run(`${kind}/${keyOf(key)}`, async () => {
      this.#expectMayWrite(`annotate ${kind} ${keyOf(key)}`);
      // Its own manager: `apply` of the same program must not take these for annotations that it has left out.
      const object = await this.#request<Resource>(
        {
          method: 'PATCH',
          path: objectPath(type, key),
          query: { fieldManager: `${this.#options.fieldOwner}-annotations` },
          contentType: PATCH.merge,
          body: { metadata: { annotations } },
        },
        `annotate ${kind} ${keyOf(key)}`,
      );
      if (!type.metadataOnly) this.#options.copies[kind].applied(object);
    });
  }

  /** With a uid that very object alone. */
  async delete(kind: Kind, ref: ObjectKey, uid?: string): Promise<void> {
    const { type, key } = this.#typeOf(kind, ref);
    await this.#serial.run(`${kind}/${keyOf(key)}`, async () => {
      this.#expectMayWrite(`delete ${kind} ${keyOf(key)}`);
      const copy = this.#options.copies[kind];
      const before = copy.get(key);
      try {
        const answer = await this.#request<Resource | { kind: 'Status'; details?: { uid?: string } }>(
          {
            method: 'DELETE',
            path: objectPath(type, key),
            body: { kind: 'DeleteOptions', apiVersion: 'v1', ...(uid === undefined ? {} : { preconditions: { uid } }) },
          },
          `delete ${kind} ${keyOf(key)}`,
        );
        // The object itself while finalizers hold it; a Status, with the uid, when it is gone.
        if ('metadata' in answer && answer.kind === kind) this.#take(kind, answer);
        else if (
          before !== undefined &&
          (answer as { details?: { uid?: string } }).details?.uid === before.metadata.uid
        )
          copy.removed(before);
      } catch (error) {
        if (!(error instanceof Failure && error.reason === 'NotFound')) throw error;
        if (before !== undefined) copy.removed(before);
      }
    });
  }

  /**
   * By JSON patch that first tests the version it was made from: the list of finalizers is everybody's, so a change of it by
   * somebody else in between must not be undone.
   */
  #changeFinalizers<T extends Resource>(
    object: T,
    what: string,
    change: (finalizers: readonly string[], deleting: boolean, now: T) => string[] | undefined,
  ): Promise<T | undefined> {
    return this.#onObject(object, what, async (type, key, attempt) => {
      const known = attempt === 1 ? this.#sameAsKnown(object) : undefined;
      const now = known ?? (await this.#read<T>(type, key, object));
      const { finalizers = [], deletionTimestamp, resourceVersion } = now.metadata;
      const wanted = change(finalizers, deletionTimestamp !== undefined, now);
      if (wanted === undefined) return now;
      const { fieldOwner } = this.#options;
      return this.#send({
        method: 'PATCH',
        path: objectPath(type, key),
        query: { fieldManager: `${fieldOwner}-finalizers` },
        contentType: PATCH.json,
        body: [
          { op: 'test', path: '/metadata/uid', value: object.metadata.uid },
          { op: 'test', path: '/metadata/resourceVersion', value: resourceVersion },
          // The API server drops an empty list, so there is no removing it twice.
          { op: 'add', path: '/metadata/finalizers', value: wanted },
        ],
      });
    });
  }

  /**
   * One write on one object: undefined when it has gone, the copy brought up to date, tried again where somebody else was quicker.
   * @throws Failure Conflict when another object has its name
   */
  #onObject<T extends Resource>(
    object: T,
    what: string,
    write: (type: ResourceType, key: ObjectKey, attempt: number) => Promise<T>,
  ): Promise<T | undefined> {
    const { clock, signal } = this.#options;
    const kind = object.kind as Kind;
    const { type, key } = this.#typeOf(kind, object.metadata);
    const name = `${kind} ${keyOf(key)}`;
    return this.#serial.run(`${kind}/${keyOf(key)}`, async () => {
      for (let attempt = 1; ; attempt++) {
        this.#expectMayWrite(`${what} ${name}`);
        try {
          return this.#take(kind, await write(type, key, attempt)) as T;
        } catch (error) {
          if (isGone(error)) {
            this.#options.copies[kind].removed(object);
            return undefined;
          }
          if (!isLostRace(error)) throw failureOf(error, `${what} ${name}`);
          // Throws when it is another object now, and comes back here as gone when there is none.
          const now = await this.#readAgain<T>(type, key, object, `${what} ${name}`);
          if (now === undefined) return undefined;
          if (attempt >= TRIES) throw failureOf(error, `${what} ${name}`);
          await pause(20 * attempt * clock.random(), clock, signal);
        }
      }
    });
  }

  async #readAgain<T extends Resource>(
    type: ResourceType,
    key: ObjectKey,
    object: T,
    what: string,
  ): Promise<T | undefined> {
    try {
      return await this.#read<T>(type, key, object);
    } catch (error) {
      if (!isGone(error)) throw failureOf(error, what);
      this.#options.copies[type.kind].removed(object);
      return undefined;
    }
  }

  /** @throws Failure Conflict when it is another object of the same name */
  async #read<T extends Resource>(type: ResourceType, key: ObjectKey, object: T): Promise<T> {
    const now = await this.#send<T>({ method: 'GET', path: objectPath(type, key) });
    if (now.metadata.uid !== object.metadata.uid) throw replaced(now);
    return this.#options.copies[type.kind].applied(now) as T;
  }

  /** The newest we know of the object. @throws Failure Conflict when another one has its name by now */
  #sameAsKnown<T extends Resource>(object: T): T | undefined {
    const known = this.#options.copies[object.kind as Kind].get(object.metadata);
    if (known !== undefined && known.metadata.uid !== object.metadata.uid) throw replaced(known);
    return known as T | undefined;
  }

  /** Into the copy; out of it where the answer shows that the last finalizer of something deleted has gone. */
  #take(kind: Kind, object: Resource): Resource {
    const { deletionTimestamp, finalizers = [] } = object.metadata;
    const copy = this.#options.copies[kind];
    if (deletionTimestamp !== undefined && finalizers.length === 0) {
      copy.removed(object);
      return object;
    }
    return copy.applied(object) ?? object;
  }

  #typeOf(kind: string, ref: ObjectKey): { type: ResourceType; key: ObjectKey } {
    const type = (RESOURCES as Readonly<Record<string, ResourceType | undefined>>)[kind];
    if (type === undefined) throw new Failure('InvalidSpec', `${kind} ${keyOf(ref)}: this kind is not kept here`);
    return { type, key: fullKey(type, ref) };
  }

  /**
   * A write that waited for its turn, or for the server, must not undo what the next holder of the Lease has written.
   * @throws Failure Aborted
   */
  #expectMayWrite(what: string): void {
    if (this.#options.mayWrite?.() === false)
      throw new Failure('Aborted', `did not ${what}: this controller does not hold the Lease`);
  }

  #send<T>(call: ApiRequest): Promise<T> {
    const { client, mayWrite, answerMs = ANSWER_MS } = this.#options;
    return client.request<T>(mayWrite === undefined ? call : { ...call, signal: AbortSignal.timeout(answerMs) });
  }

  async #request<T>(call: ApiRequest, what: string): Promise<T> {
    try {
      return await this.#send<T>(call);
    } catch (error) {
      throw failureOf(error, what);
    }
  }
}

function statusOf(object: Resource): Record<string, unknown> {
  const { status } = object as { status?: unknown };
  return isFields(status) ? status : {};
}

function replaced(now: Resource): Failure {
  return new Failure(
    'Conflict',
    `${now.kind} ${keyOf(now)} was replaced by another object of the same name (uid ${now.metadata.uid}): read it again`,
  );
}

function isGone(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404 && error.reason === 'NotFound';
}

/** The uid that was sent is not that of the object which is there: of custom resources the API server says 422 Invalid to that. */
function isAnotherObject(error: unknown): boolean {
  return error instanceof ApiError && error.status === 422 && error.causes.some(({ path }) => path === 'metadata.uid');
}

/** A conflict, or the test of a JSON patch that failed: the API server says 422 Invalid to that. */
function isLostRace(error: unknown): boolean {
  if (!(error instanceof ApiError)) return false;
  return (
    isAnotherObject(error) ||
    error.status === 409 ||
    (error.status === 422 && error.message.includes('error in our request'))
  );
}
