import { Failure } from '../../api/failure.ts';
import type { Draft, Kind, ObjectKey } from '../store.ts';
import {
  API_VERSION,
  DEFAULT_NAMESPACE,
  isClusterScoped,
  isStoredKind,
  nameFault,
  namespaceFault,
  type StoredKind,
} from './kinds.ts';

/** The uid says of which object a draft is; it is nothing that is written. @throws Failure NotSupported for kinds that live in manifests alone; InvalidSpec for a name that is none. */
export function checkDraft({ apiVersion, kind, metadata }: Draft): {
  kind: StoredKind;
  key: ObjectKey;
  metadata: Omit<Draft['metadata'], 'uid'>;
} {
  if (!isStoredKind(kind) || apiVersion !== API_VERSION) {
    throw new Failure(
      'NotSupported',
      `${kind} of ${apiVersion} cannot be applied here: put it in a file among the manifests`,
    );
  }
  const key = withNamespace(kind, metadata);
  const fault = nameFault(key.name) ?? (key.namespace === undefined ? undefined : namespaceFault(key.namespace));
  if (fault !== undefined) throw new Failure('InvalidSpec', `metadata: ${fault}`);
  const { namespace: _, uid: __, ...rest } = metadata;
  return { kind, key, metadata: { ...rest, ...key } };
}

export function withNamespace(kind: Kind, { namespace, name }: ObjectKey): ObjectKey {
  return isClusterScoped(kind) ? { name } : { namespace: namespace ?? DEFAULT_NAMESPACE, name };
}
