import type { Kind, Resource } from '../store.ts';
import { idOf, isClusterScoped } from './kinds.ts';
import type { ObjectTable } from './table.ts';

/** What only the removed object owned goes with it, as the API server's garbage collector has it. */
export class GarbageCollector {
  readonly #table: ObjectTable;
  readonly #delete: (object: Resource) => Promise<void>;
  /** Ids that are being removed: owners in a circle must not wait for each other. */
  readonly #removing = new Set<string>();

  constructor(table: ObjectTable, remove: (object: Resource) => Promise<void>) {
    this.#table = table;
    this.#delete = remove;
  }

  /**
   * To be awaited before the owner goes: a crash in between leaves the owner, and all is done again. Dependents of an owner that
   * is missing for any other reason (a damaged state file) are never touched.
   */
  async collect(owner: Resource): Promise<void> {
    const id = idOf(owner.kind, owner);
    this.#removing.add(id);
    try {
      for (const { object } of this.#table.records()) {
        const owners = object.metadata.ownerReferences ?? [];
        if (!owners.some(({ uid }) => uid === owner.metadata.uid) || this.#removing.has(idOf(object.kind, object)))
          continue;
        const alive = owners.some((other) => other.uid !== owner.metadata.uid && this.#isThere(other, object));
        if (!alive) await this.#delete(object);
      }
    } finally {
      this.#removing.delete(id);
    }
  }

  #isThere(owner: { kind: string; name: string; uid: string }, dependent: Resource): boolean {
    const { name, uid } = owner;
    const { namespace } = dependent.metadata;
    const key = isClusterScoped(owner.kind as Kind) || namespace === undefined ? { name } : { namespace, name };
    return this.#table.get(owner.kind as Kind, key)?.object.metadata.uid === uid;
  }
}
