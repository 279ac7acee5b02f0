import { isFields } from '../../api/admission.ts';
import { Failure } from '../../api/failure.ts';
import type { Schemas } from '../../api/schema.ts';
import { ApiError } from '../../runtime/api-error.ts';
import { type Draft, type Kind, keyOf, type ObjectKey, type Resource, type StatusShare } from '../store.ts';
import { admittedSpec, admittedStatus } from './admitted.ts';
import { PATCH } from './client.ts';
import { failureOf } from './errors.ts';
import { collectionPath, objectPath, type ResourceType } from './resources.ts';
import { isWritten, partsOf, type StatusPart } from './status-parts.ts';
import { isAnotherObject, Turns, type TurnsOptions } from './turns.ts';

/** An object as the server answers it; the copy keeps no managedFields. */
type Managed<T extends Resource> = T & {
  metadata: { managedFields?: { manager?: string; operation?: string; subresource?: string }[] };
};

export interface WriterOptions extends TurnsOptions {
  schemas: Schemas;
  /** Field manager of what we write. */
  fieldOwner: string;
  /** Field manager of status; another one for each controller that shares an API server. Default: as the rest. */
  statusOwner?: string;
}

/** Everything that changes objects of the API server. */
export class Writer {
  readonly #options: WriterOptions;
  readonly #turns: Turns;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#turns = new Turns(options);
  }

  idle(): Promise<void> {
    return this.#turns.idle();
  }

  /**
   * By server-side apply: fields and rows that we wrote before and leave out now are removed, those of others stay. `force` takes
   * over what somebody edited by hand. The uid in it makes the server refuse another object of the same name.
   */
  applyStatus<T extends Resource>(object: T, status: object, share?: StatusShare): Promise<T | undefined> {
    return this.#turns.onObject(object, 'write the status of', async (type, key) => {
      const { fieldOwner, statusOwner = fieldOwner } = this.#options;
      const wanted = admittedStatus(object.kind, status, this.#options.schemas);
      let now = this.#turns.sameAsKnown(object);
      for (const part of partsOf(isFields(wanted) ? wanted : {}, share, statusOwner)) {
        if (now !== undefined && isWritten(part, statusOf(now))) continue;
        now = await this.#applyPart(type, key, object, part);
        // What others wrote under another name before us (an earlier release, a person) does not go by being left out.
        if (!isWritten(part, statusOf(now))) now = await this.#takeOver(type, key, now, part);
      }
      return now ?? this.#turns.read<T>(type, key, object);
    });
  }

  async #applyPart<T extends Resource>(type: ResourceType, key: ObjectKey, object: T, part: StatusPart): Promise<T> {
    const { kind, metadata } = object;
    const written = await this.#turns.send<T>({
      method: 'PATCH',
      path: `${objectPath(type, key)}/status`,
      query: { fieldManager: part.fieldManager, force: 'true' },
      contentType: PATCH.apply,
      body: { apiVersion: type.apiVersion, kind, metadata: { ...key, uid: metadata.uid }, status: part.fields },
    });
    return this.#turns.take(kind as Kind, written) as T;
  }

  /** By replacing it as a whole, in the very version that was seen: a field that is gone so is gone for all who had it. */
  #takeOver<T extends Resource>(type: ResourceType, key: ObjectKey, now: T, part: StatusPart): Promise<T> {
    return this.#turns.send<T>({
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
    const { type, key } = this.#turns.typeOf(draft.kind, draft.metadata);
    const what = `create ${draft.kind} ${keyOf(key)}`;
    const made = await this.#turns.inTurn(type.kind, key, async () => {
      this.#turns.expectMayWrite(what);
      try {
        const object = await this.#turns.send<Managed<T>>({
          method: 'POST',
          path: collectionPath(type, key.namespace),
          query: { fieldManager: this.#options.fieldOwner },
          body: this.#bodyOf(draft, key),
        });
        this.#turns.take(type.kind, object);
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
    return this.#turns.onObject<T>(made, 'own the fields of', async (type, key, attempt) => {
      const now =
        attempt === 1 ? made : await this.#turns.send<Managed<T>>({ method: 'GET', path: objectPath(type, key) });
      const { fieldOwner } = this.#options;
      const { resourceVersion, managedFields = [] } = now.metadata;
      const posted = managedFields.findIndex(
        ({ manager, operation, subresource }) =>
          manager === fieldOwner && operation === 'Update' && subresource === undefined,
      );
      if (posted === -1) return now;
      return this.#turns.send<T>({
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
    const { type, key } = this.#turns.typeOf(draft.kind, draft.metadata);
    const what = `apply ${draft.kind} ${keyOf(key)}`;
    return this.#turns.inTurn(type.kind, key, async () => {
      this.#turns.expectMayWrite(what);
      try {
        const object = await this.#turns.send<T>({
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
    const { type, key } = this.#turns.typeOf(kind, ref);
    await this.#turns.inTurn(kind, key, async () => {
      this.#turns.expectMayWrite(`annotate ${kind} ${keyOf(key)}`);
      // Its own manager: `apply` of the same program must not take these for annotations that it has left out.
      const object = await this.#turns.request<Resource>(
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
    const { type, key } = this.#turns.typeOf(kind, ref);
    await this.#turns.inTurn(kind, key, async () => {
      this.#turns.expectMayWrite(`delete ${kind} ${keyOf(key)}`);
      const copy = this.#options.copies[kind];
      const before = copy.get(key);
      try {
        const answer = await this.#turns.request<Resource | { kind: 'Status'; details?: { uid?: string } }>(
          {
            method: 'DELETE',
            path: objectPath(type, key),
            body: { kind: 'DeleteOptions', apiVersion: 'v1', ...(uid === undefined ? {} : { preconditions: { uid } }) },
          },
          `delete ${kind} ${keyOf(key)}`,
        );
        // The object itself while finalizers hold it; a Status, with the uid, when it is gone.
        if ('metadata' in answer && answer.kind === kind) this.#turns.take(kind, answer);
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
    return this.#turns.onObject(object, what, async (type, key, attempt) => {
      const known = attempt === 1 ? this.#turns.sameAsKnown(object) : undefined;
      const now = known ?? (await this.#turns.read<T>(type, key, object));
      const { finalizers = [], deletionTimestamp, resourceVersion } = now.metadata;
      const wanted = change(finalizers, deletionTimestamp !== undefined, now);
      if (wanted === undefined) return now;
      const { fieldOwner } = this.#options;
      return this.#turns.send({
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
}

function statusOf(object: Resource): Record<string, unknown> {
  const { status } = object as { status?: unknown };
  return isFields(status) ? status : {};
}
