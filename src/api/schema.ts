import { admit, type Fields, isFields } from './admission.ts';
import { API_KINDS, type ApiKind, type Crd, CRD_DIRECTORY, readCrd } from './crds.ts';
import { admitMetadata, metadataErrors } from './metadata.ts';
import { brokenRules } from './rules.ts';
import { show, violations } from './structural.ts';

import type { FieldNote, Verdict } from './verdict.ts';

export type { FieldNote, Verdict } from './verdict.ts';

/**
 * What the API server does with an object on its way in, from the same CRD files: validate, default, prune, CEL. The directory
 * store and `imageproxy validate` use it, so both stores give the same verdict.
 */
export interface Schemas {
  /** Kinds that can be judged. */
  readonly kinds: readonly ApiKind[];
  /** The kind's CRD: its scope, short name and schema. */
  crd(kind: ApiKind): Crd;
  /**
   * The verdict on an object as somebody wrote it, or, with `old` (the object as it is stored), on an update of it. Neither is
   * changed. Never throws, whatever the input is.
   */
  validate(kind: ApiKind, input: unknown, old?: Record<string, unknown>): Verdict;
}

export function isApiKind(kind: unknown): kind is ApiKind {
  return API_KINDS.some((each) => each === kind);
}

/** The schemas in a folder of CRDs, ours unless told otherwise. Each file is read when its kind is first asked for. */
export function loadSchemas(directory: string = CRD_DIRECTORY): Schemas {
  const crds = new Map<ApiKind, Crd>();
  const crd = (kind: ApiKind): Crd => {
    let known = crds.get(kind);
    if (known === undefined) {
      known = readCrd(kind, directory);
      crds.set(kind, known);
    }
    return known;
  };
  return {
    kinds: API_KINDS,
    crd,
    validate: (kind, input, old) => judge(crd(kind), input, old),
  };
}

function judge(crd: Crd, input: unknown, old: Fields | undefined): Verdict {
  const warnings: FieldNote[] = [];
  if (!isFields(input)) {
    return { errors: [{ path: '', message: `must be an object (field: value), not ${show(input)}` }], warnings };
  }
  const metadata = admitMetadata(input['metadata'], crd.namespaced, warnings);
  const admitted = { ...(admit(crd.schema, withoutMetadata(input), '', warnings) as Fields), metadata };
  const errors = [...headErrors(crd, input), ...metadataErrors(metadata, crd.namespaced)];

  // An object may have been stored before a field and its default existed: the API server defaults what it reads, too.
  const before = old === undefined ? undefined : admit(crd.schema, withoutMetadata(old), '', []);
  const structural = violations(crd.schema, admitted, before, '');
  errors.push(...structural.map(({ path, message }) => ({ path, message })));
  if (!structural.some(({ blocking }) => blocking)) errors.push(...brokenRules(crd.schema, admitted, before, ''));
  return errors.length === 0 ? { object: inOrder(admitted), errors, warnings } : { errors, warnings };
}

function headErrors(crd: Crd, input: Fields): FieldNote[] {
  const errors: FieldNote[] = [];
  const apiVersion = `${crd.group}/${crd.version}`;
  if (input['apiVersion'] !== apiVersion) {
    errors.push({ path: 'apiVersion', message: `must be ${apiVersion}, not ${show(input['apiVersion'])}` });
  }
  if (input['kind'] !== crd.kind) {
    errors.push({ path: 'kind', message: `must be ${crd.kind}, not ${show(input['kind'])}` });
  }
  return errors;
}

/** ObjectMeta has rules of its own, and the CRD says nothing of its fields: they must not be pruned by it. */
function withoutMetadata(input: Fields): Fields {
  return Object.fromEntries(Object.entries(input).filter(([name]) => name !== 'metadata'));
}

function inOrder({ apiVersion, kind, metadata, ...rest }: Fields): Fields {
  return { apiVersion, kind, metadata, ...rest };
}
