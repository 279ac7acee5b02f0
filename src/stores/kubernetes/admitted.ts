import { admit, isFields } from '../../api/admission.ts';
import { Failure } from '../../api/failure.ts';
import { isApiKind, type Schemas } from '../../api/schema.ts';
import { type Draft, keyOf, type ObjectKey } from '../store.ts';

/** A status as the API server will have it, so that it can be compared: defaulted, pruned, without what is undefined. */
export function admittedStatus(kind: string, status: object, schemas: Schemas): unknown {
  const plain = JSON.parse(JSON.stringify(status)) as unknown;
  if (!isApiKind(kind)) return plain;
  const schema = schemas.crd(kind).schema.properties?.['status'];
  return schema === undefined || !isFields(plain) ? plain : admit(schema, plain, 'status', []);
}

/**
 * Server-side apply answers 500 to a field that the schema does not know, where every other write prunes it. So it is judged
 * here first, by the same schema; what depends on the object as it is (immutable fields) is the server's to say.
 * @throws Failure InvalidSpec
 */
export function admittedSpec(draft: Draft, key: ObjectKey, schemas: Schemas): unknown {
  const { apiVersion, kind, spec = {} } = draft;
  if (!isApiKind(kind)) return spec;
  const { object, errors, warnings } = schemas.validate(kind, { apiVersion, kind, metadata: key, spec });
  // As it was written where that can be sent: a default that we sent would be ours, and nobody else's to change.
  if (object !== undefined) return warnings.length === 0 ? spec : object['spec'];
  const faults = errors.map(({ path, message }) => `${path} ${message}`.trim()).join('; ');
  throw new Failure('InvalidSpec', `${kind} ${keyOf(key)} is not valid: ${faults}`);
}
