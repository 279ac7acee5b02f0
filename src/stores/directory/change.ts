import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { Failure } from '../../api/failure.ts';
import type { FieldNote } from '../../api/schema.ts';
import type { Draft, ObjectKey, OwnerReference } from '../store.ts';
import { isStoredKind, nameOf, type StoredKind, type Validate } from './kinds.ts';
import type { ManifestObject } from './manifest.ts';
import { mergeAnnotations, type ObjectRecord, type StoredResource } from './records.ts';
import { isMapping, timestamp } from './seams.ts';
import type { Outcome } from './table.ts';

/**
 * What each request makes of a record. Pure but for the new uid: the rules of the API server (generation, finalizers, immutable
 * fields), without files and without a clock of its own.
 */

const UNCHANGED: Outcome = { type: 'Unchanged' };

/** What a manifest or a maker says of an object. The draft has been validated and defaulted. */
export interface Intent {
  origin: ObjectRecord['origin'];
  file?: string;
  draft: Draft;
}

export function intentOf(object: ManifestObject): Intent {
  return { origin: 'manifest', file: object.file, draft: object.content as Draft };
}

/** The record with an intent carried out. An object that is being deleted takes a new spec (its `deletionPolicy`), and stays so. */
export function withIntent(record: ObjectRecord | undefined, intent: Intent, now: number): Outcome {
  if (record === undefined) return created(intent, now);
  const { object } = record;
  const { metadata, spec = {} } = intent.draft;
  const annotations = metadata.annotations ?? {};
  const labels = metadata.labels ?? {};
  // What its author has changed since wins over what others had set before.
  const overlay = Object.fromEntries(
    Object.entries(record.overlay).filter(([key]) => annotations[key] === record.annotations[key]),
  );
  const owners = intent.origin === 'manifest' ? object.metadata.ownerReferences : metadata.ownerReferences;
  const specChanged = !isDeepStrictEqual(object.spec, spec);
  const next = {
    ...object,
    metadata: withOwners(
      {
        ...object.metadata,
        generation: object.metadata.generation + (specChanged ? 1 : 0),
        labels,
        annotations: mergeAnnotations(annotations, overlay),
      },
      owners,
    ),
    spec,
  };
  const { file: _, ...rest } = record;
  const written = { ...rest, ...source(intent), annotations, overlay, object: next };
  if (!isDeepStrictEqual(next, object)) return { type: 'Write', record: written };
  return isDeepStrictEqual(written, record) ? UNCHANGED : { type: 'Quiet', record: written };
}

function created(intent: Intent, now: number): Outcome {
  const { apiVersion, kind, metadata, spec = {} } = intent.draft;
  const annotations = metadata.annotations ?? {};
  const object: StoredResource = {
    apiVersion,
    kind,
    metadata: withOwners(
      {
        name: metadata.name,
        ...(metadata.namespace === undefined ? {} : { namespace: metadata.namespace }),
        uid: randomUUID(),
        generation: 1,
        resourceVersion: '0',
        creationTimestamp: timestamp(now),
        labels: metadata.labels ?? {},
        annotations,
      },
      metadata.ownerReferences,
    ),
    spec,
    // The schema's own default, so that "not yet looked at" is never taken for healthy.
    status: { observedGeneration: -1 },
  };
  return { type: 'Write', record: { ...source(intent), annotations, overlay: {}, object } };
}

function source({ origin, file }: Intent): Pick<ObjectRecord, 'origin' | 'file'> {
  return file === undefined ? { origin } : { origin, file };
}

function withOwners(
  metadata: StoredResource['metadata'],
  owners: OwnerReference[] | undefined,
): StoredResource['metadata'] {
  const { ownerReferences: _, ...rest } = metadata;
  return owners === undefined || owners.length === 0 ? rest : { ...rest, ownerReferences: owners };
}

/** @throws Failure Conflict when it has gone, or is another object of the same name. */
export function expectObject(record: ObjectRecord | undefined, kind: string, key: ObjectKey, uid: string): void {
  if (record === undefined)
    throw new Failure('Conflict', `${nameOf(kind, key)} has gone (uid ${uid}) and is not made again`);
  sameObject(record, uid);
}

/** @throws Failure Conflict when it is another object of the same name. */
export function sameObject(record: ObjectRecord, uid: string): void {
  const { kind, metadata } = record.object;
  if (metadata.uid === uid) return;
  throw new Failure(
    'Conflict',
    `${nameOf(kind, metadata)} was replaced by another object of the same name (uid ${metadata.uid}): read it again`,
  );
}

export function withStatus(record: ObjectRecord, status: Record<string, unknown>): Outcome {
  const { object } = record;
  if (isDeepStrictEqual(object.status, status)) return UNCHANGED;
  if (isDeepStrictEqual(withoutProgress(object.status), withoutProgress(status))) return { type: 'Progress', status };
  return { type: 'Write', record: { ...record, object: { ...object, status } } };
}

function withoutProgress(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutProgress);
  if (!isMapping(value)) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, part]) => (key === 'progress' ? [] : [[key, withoutProgress(part)]])),
  );
}

export function withFinalizer(record: ObjectRecord, finalizer: string): Outcome {
  const finalizers = record.object.metadata.finalizers ?? [];
  // As the API server has it: what is being deleted takes no new finalizers.
  if (finalizers.includes(finalizer) || record.object.metadata.deletionTimestamp !== undefined) return UNCHANGED;
  return withMetadata(record, { finalizers: [...finalizers, finalizer] });
}

export function withoutFinalizer(record: ObjectRecord, finalizer: string): Outcome {
  const { finalizers = [], deletionTimestamp } = record.object.metadata;
  const left = finalizers.filter((name) => name !== finalizer);
  if (left.length === 0 && deletionTimestamp !== undefined) return { type: 'Remove' };
  return left.length === finalizers.length ? UNCHANGED : withMetadata(record, { finalizers: left });
}

export function withAnnotations(record: ObjectRecord, changes: Record<string, string | null>): Outcome {
  const overlay = { ...record.overlay };
  for (const [key, value] of Object.entries(changes)) {
    // What the author wrote needs no overlay, and what is nowhere needs no hiding.
    if ((record.annotations[key] ?? null) === value) delete overlay[key];
    else overlay[key] = value;
  }
  const annotations = mergeAnnotations(record.annotations, overlay);
  if (isDeepStrictEqual(overlay, record.overlay)) return UNCHANGED;
  const { object } = record;
  return {
    type: 'Write',
    record: { ...record, overlay, object: { ...object, metadata: { ...object.metadata, annotations } } },
  };
}

export function withDeletion(record: ObjectRecord, now: number): Outcome {
  const { finalizers = [], deletionTimestamp, generation } = record.object.metadata;
  if (finalizers.length === 0) return { type: 'Remove' };
  if (deletionTimestamp !== undefined) return UNCHANGED;
  // The API server counts the request to delete as a change of what is wanted, too.
  return withMetadata(record, { deletionTimestamp: timestamp(now), generation: generation + 1 });
}

function withMetadata(record: ObjectRecord, changes: Partial<StoredResource['metadata']>): Outcome {
  const { object } = record;
  return { type: 'Write', record: { ...record, object: { ...object, metadata: { ...object.metadata, ...changes } } } };
}

/** Faults that only show against the object as it is: immutable fields. */
export function transitionFaults(record: ObjectRecord, draft: Draft, validate: Validate): FieldNote[] {
  if (!isStoredKind(record.object.kind)) return [];
  return validate(record.object.kind, { ...draft }, { ...record.object }).errors;
}

/**
 * The status as the schema has it (defaulted, pruned).
 * @throws Failure InternalError naming the field that the schema refuses, as the API server would.
 */
export function checkedStatus(object: StoredResource, status: object, validate: Validate): Record<string, unknown> {
  const plain = JSON.parse(JSON.stringify(status)) as Record<string, unknown>;
  const verdict = validate(object.kind as StoredKind, { ...object, status: plain });
  // A spec that an older schema had let in must not stand in the way of a status.
  const fault = verdict.errors.find(
    ({ path }) => path === 'status' || path.startsWith('status.') || path.startsWith('status['),
  );
  if (fault !== undefined) {
    throw new Failure(
      'InternalError',
      `the status of ${nameOf(object.kind, object)} is not valid: ${fault.path} ${fault.message}`,
    );
  }
  return isMapping(verdict.object?.status) ? verdict.object.status : plain;
}
