import { API_KINDS, type ApiKind } from '../../api/crds.ts';
import type { Verdict } from '../../api/schema.ts';
import { API_VERSION, GROUP } from '../../api/types.ts';
import { type Kind, keyOf, type ObjectKey, type Resource } from '../store.ts';

/** The kinds that have a spec and a status: what is kept in the state directory. Secrets and ConfigMaps never are. */
export const STORED_KINDS = API_KINDS;
export type StoredKind = ApiKind;

export { API_VERSION, GROUP };
export const DEFAULT_NAMESPACE = 'default';

/** What the API server does on the way in (api/schema.ts); a parameter, so that this room needs no CRD to be tested. */
export type Validate = (
  kind: StoredKind,
  input: Record<string, unknown>,
  old?: Record<string, unknown>,
) => Pick<Verdict, 'object' | 'errors' | 'warnings'>;

export function isStoredKind(kind: string): kind is StoredKind {
  return (STORED_KINDS as readonly string[]).includes(kind);
}

export function isClusterScoped(kind: Kind): boolean {
  return kind === 'ImageSite';
}

/** `VMImage/default/ubuntu`: names one object among all kinds. */
export function idOf(kind: string, key: ObjectKey | Resource): string {
  return `${kind}/${keyOf(key)}`;
}

/** `VMImage default/ubuntu`: how messages name it. */
export function nameOf(kind: string, key: ObjectKey | Resource): string {
  return `${kind} ${keyOf(key)}`;
}

/** The kind of an apiVersion and kind as written in a manifest; undefined for what is not ours. */
export function kindOf(apiVersion: string, kind: string): Kind | undefined {
  if (apiVersion === 'v1' && (kind === 'Secret' || kind === 'ConfigMap')) return kind;
  return apiVersion === API_VERSION && isStoredKind(kind) ? kind : undefined;
}

// RFC 1123 as the API server applies it: names become file names of the state directory, so nothing else may get through.
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;

/** Why a name cannot be an object's, or undefined. */
export function nameFault(name: unknown): string | undefined {
  if (typeof name !== 'string' || name === '') return 'a name is required';
  if (name.length <= 253 && SUBDOMAIN.test(name)) return undefined;
  return `${quoted(name)} is no object name: use lower case letters, digits, "-" and ".", at most 253`;
}

export function namespaceFault(namespace: unknown): string | undefined {
  if (typeof namespace === 'string' && namespace.length <= 63 && LABEL.test(namespace)) return undefined;
  return `${quoted(namespace)} is no namespace: use lower case letters, digits and "-", at most 63`;
}

function quoted(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
