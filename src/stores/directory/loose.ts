import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { Failure } from '../../api/failure.ts';
import type { Change, ConfigMap, Kind, ObjectKey, Resource, Secret } from '../store.ts';
import { APART_MS } from './absence.ts';
import { deepFreeze } from './freeze.ts';
import { idOf } from './kinds.ts';
import type { ManifestObject } from './manifest.ts';
import type { ScanResult } from './scan.ts';

type Loose = Secret | ConfigMap;

/** Secrets and ConfigMaps: as the manifests have them now, else as they were given. They live in memory alone, never in the state. */
export class LooseObjects {
  readonly #instance: string;
  readonly #startedAt: string;
  readonly #given: ReadonlyMap<string, ManifestObject>;
  /** What counts of the manifests. */
  readonly #written = new Map<string, ManifestObject>();
  /** Since when one of those was found no more: milliseconds. */
  readonly #absentSince = new Map<string, number>();
  readonly #objects = new Map<string, Loose>();
  #refusals = new Map<string, string>();
  #version = 0;

  constructor(instance: string, startedAt: string, given: readonly ManifestObject[] = []) {
    this.#instance = instance;
    this.#startedAt = startedAt;
    this.#given = new Map(given.map((object) => [idOf(object.kind, object.key), object]));
    for (const [id, object] of this.#given) this.#objects.set(id, this.#object(id, object, undefined));
  }

  list(kind: Kind): Loose[] {
    return [...this.#objects.values()].filter((object) => object.kind === kind);
  }

  get(kind: Kind, key: ObjectKey): Loose | undefined {
    return this.#objects.get(idOf(kind, key));
  }

  /** @throws Failure InvalidSecret when it is there but must not be used. */
  use(kind: Kind, key: ObjectKey): Loose | undefined {
    const id = idOf(kind, key);
    const refusal = this.#refusals.get(id);
    if (refusal !== undefined) throw new Failure('InvalidSecret', refusal);
    return this.#objects.get(id);
  }

  /**
   * Takes over what a scan found. Returns what has changed.
   * @param look `at`: when the scan began, in milliseconds; `isHeld`: nothing that is absent is let go of
   */
  update(scan: ScanResult, look: { at: number; isHeld: boolean }): Change<Loose>[] {
    const changes: Change<Loose>[] = [];
    for (const [id, found] of scan.objects)
      if (found.kind === 'Secret' || found.kind === 'ConfigMap') this.#written.set(id, found);
    for (const id of this.#written.keys()) if (this.#isGone(id, scan, look)) this.#written.delete(id);
    const objects = new Map([...this.#given, ...this.#written]);
    for (const [id, found] of objects) {
      const before = this.#objects.get(id);
      if (before !== undefined && sameContent(before, found)) continue;
      const object = this.#object(id, found, before);
      this.#objects.set(id, object);
      changes.push({ type: 'Applied', object, ...(before === undefined ? {} : { previous: before }) });
    }
    for (const [id, object] of this.#objects) {
      if (objects.has(id)) continue;
      this.#objects.delete(id);
      changes.push({ type: 'Deleted', object, previous: object });
    }
    // Those who wait for a Secret wake and learn why it cannot be used.
    for (const id of scan.refusals.keys()) {
      if (this.#refusals.has(id) || changes.some(({ object }) => idOf(object.kind, object) === id)) continue;
      const [, namespace = '', name = ''] = id.split('/');
      const metadata = {
        name,
        namespace,
        uid: this.#uid(id),
        generation: 1,
        resourceVersion: '0',
        creationTimestamp: this.#startedAt,
      };
      changes.push({ type: 'Deleted', object: deepFreeze({ apiVersion: 'v1', kind: 'Secret', metadata, data: {} }) });
    }
    this.#refusals = scan.refusals;
    return changes;
  }

  /**
   * Whether it counts no more: refused, or absent at two looks, as any other object. A file that is being copied or checked out is empty
   * or missing for a moment, and a site without its Secret would be closed, with all uploads that run there.
   */
  #isGone(
    id: string,
    { refusals, present, clean }: ScanResult,
    { at, isHeld }: { at: number; isHeld: boolean },
  ): boolean {
    const isRefused = refusals.has(id);
    if (isRefused || present.has(id)) this.#absentSince.delete(id);
    if (isRefused) return true;
    if (present.has(id) || !clean) return false;
    const since = this.#absentSince.get(id) ?? at;
    this.#absentSince.set(id, since);
    if (isHeld || at - since < APART_MS) return false;
    this.#absentSince.delete(id);
    return true;
  }

  #object(id: string, found: ManifestObject, before: Loose | undefined): Loose {
    const content = found.content as Pick<Secret, 'kind' | 'data'> | Pick<ConfigMap, 'kind' | 'data'>;
    const metadata = {
      ...found.key,
      uid: this.#uid(id),
      generation: 1,
      // Counted, not derived: a hash of a Secret in some status would let it be guessed.
      resourceVersion: String(++this.#version),
      creationTimestamp: before?.metadata.creationTimestamp ?? this.#startedAt,
      labels: found.labels,
      annotations: found.annotations,
    } satisfies Resource['metadata'];
    return deepFreeze<Loose>({ apiVersion: 'v1', ...content, metadata });
  }

  /** The same in every run: there is no state to keep a random one in. */
  #uid(id: string): string {
    const hex = createHash('sha256').update(`${this.#instance}\n${id}`).digest('hex');
    return [
      hex.slice(0, 8),
      hex.slice(8, 12),
      `8${hex.slice(13, 16)}`,
      `8${hex.slice(17, 20)}`,
      hex.slice(20, 32),
    ].join('-');
  }
}

function sameContent(object: Loose, found: ManifestObject): boolean {
  return (
    isDeepStrictEqual(object.data, (found.content as Loose).data) &&
    isDeepStrictEqual(object.metadata.labels, found.labels) &&
    isDeepStrictEqual(object.metadata.annotations, found.annotations)
  );
}
