/**
 * What the API server does with an object on its way in, from the same CRD files: validate, default, prune, CEL. The directory
 * store and `imageproxy validate` use it, so both stores give the same verdict.
 */
export interface FieldNote {
  /** `spec.source.http.urls[0]`; empty for the object itself. */
  path: string;
  message: string;
}

export interface Verdict {
  /** Defaulted and pruned; absent when there are errors. */
  object?: Record<string, unknown>;
  errors: FieldNote[];
  /** Unknown fields that were pruned. */
  warnings: FieldNote[];
}
