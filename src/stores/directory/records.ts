import { createHash } from 'node:crypto';
import type { ObjectKey, Resource } from '../store.ts';
import { isStoredKind, type StoredKind } from './kinds.ts';
import { isMapping } from './seams.ts';

/** Version of everything in the state directory. A newer one is refused, an older one would be converted at start. */
export const FORMAT = 1;

export interface StoredResource extends Resource {
  spec?: unknown;
  status?: Record<string, unknown>;
}

/** One object as it lies in `state/objects/`: all that controllers have written of it, and its last good spec. */
export interface ObjectRecord {
  format: typeof FORMAT;
  /** `manifest`: it is deleted when it is no longer in the manifests. `applied`: it was made by a request. */
  origin: 'manifest' | 'applied';
  /** The manifest that it was last read from. */
  file?: string;
  /** Annotations as its manifest or its maker wrote them. */
  annotations: Record<string, string>;
  /** Annotations set by others; null hides one. */
  overlay: Record<string, string | null>;
  /** What readers see, annotations merged. */
  object: StoredResource;
}

/**
 * Progress is written beside its object, not into it: it changes often and need not survive, and a rename without fsync over the
 * record could leave an empty file after a power cut. It counts only for the very record that it was written for.
 */
export interface ProgressRecord {
  uid: string;
  /** resourceVersion of the record. */
  base: string;
  resourceVersion: string;
  status: Record<string, unknown>;
}

/** `VMImage_default_ubuntu-24.04.json`: "_" is in no object name. Names too long for a file system end with a hash. */
export function recordFile(kind: string, { namespace, name }: ObjectKey): string {
  const file = `${kind}_${namespace ?? ''}_${name}`;
  if (file.length <= 200) return `${file}.json`;
  return `${file.slice(0, 160)}~${createHash('sha256').update(file).digest('hex').slice(0, 32)}.json`;
}

/** @throws Error that says what is wrong with the record. */
export function decodeRecord(text: string, file: string): ObjectRecord & { object: { kind: StoredKind } } {
  const record: unknown = JSON.parse(text);
  if (!isMapping(record) || record.format !== FORMAT) throw new Error('it is no record of this format');
  const { object, origin, overlay, annotations } = record;
  if (origin !== 'manifest' && origin !== 'applied') throw new Error('its origin is missing');
  if (!isMapping(overlay) || !isMapping(annotations)) throw new Error('its annotations are missing');
  if (!isMapping(object) || !isMapping(object.metadata)) throw new Error('its object is missing');
  const { kind, metadata } = object;
  const { name, namespace, uid, generation, resourceVersion, creationTimestamp } = metadata;
  if (typeof kind !== 'string' || !isStoredKind(kind)) throw new Error('its kind is not known');
  if (typeof name !== 'string' || (namespace !== undefined && typeof namespace !== 'string'))
    throw new Error('its name is missing');
  if (recordFile(kind, namespace === undefined ? { name } : { namespace, name }) !== file)
    throw new Error('it is under another name');
  if (typeof uid !== 'string' || typeof generation !== 'number' || typeof creationTimestamp !== 'string') {
    throw new Error('its metadata are not complete');
  }
  if (typeof resourceVersion !== 'string' || !/^\d+$/.test(resourceVersion))
    throw new Error('its resourceVersion is missing');
  return record as unknown as ObjectRecord & { object: { kind: StoredKind } };
}

/** The object with its newest progress; as it is where the progress is of another state of it, or unreadable. */
export function withProgress(object: StoredResource, text: string | undefined): StoredResource {
  if (text === undefined) return object;
  let progress: unknown;
  try {
    progress = JSON.parse(text);
  } catch {
    return object;
  }
  const { uid, resourceVersion } = object.metadata;
  if (!isMapping(progress) || progress.uid !== uid || progress.base !== resourceVersion) return object;
  if (typeof progress.resourceVersion !== 'string' || !isMapping(progress.status)) return object;
  const metadata = { ...object.metadata, resourceVersion: progress.resourceVersion };
  return { ...object, metadata, status: progress.status };
}

/** The annotations that readers see. */
export function mergeAnnotations(
  own: Record<string, string>,
  overlay: Record<string, string | null>,
): Record<string, string> {
  const merged = { ...own };
  for (const [key, value] of Object.entries(overlay)) {
    if (value === null) delete merged[key];
    else merged[key] = value;
  }
  return merged;
}
