/** One remark on one field. */
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
