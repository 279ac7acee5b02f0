import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

/** A node of a structural schema (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema). */
export interface Structural {
  type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean';
  description?: string;
  default?: unknown;
  nullable?: boolean;
  enum?: unknown[];
  format?: string;
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  minItems?: number;
  maxItems?: number;
  minProperties?: number;
  maxProperties?: number;
  required?: string[];
  properties?: Record<string, Structural>;
  additionalProperties?: Structural;
  items?: Structural;
  'x-kubernetes-int-or-string'?: boolean;
  'x-kubernetes-preserve-unknown-fields'?: boolean;
  'x-kubernetes-list-type'?: 'atomic' | 'set' | 'map';
  'x-kubernetes-list-map-keys'?: string[];
  'x-kubernetes-validations'?: Rule[];
}

/** A CEL rule of a schema. */
export interface Rule {
  rule: string;
  message?: string;
  /** `.checksums`: the field that the error names, below the node of the rule. */
  fieldPath?: string;
}

export interface Crd {
  group: string;
  version: string;
  kind: ApiKind;
  shortName: string;
  namespaced: boolean;
  schema: Structural;
}

/** The kinds of this API, in the order of the reference pages. */
export const API_KINDS = ['VMImage', 'ImageSite', 'ImageSubscription'] as const;
export type ApiKind = (typeof API_KINDS)[number];

const FILES = {
  VMImage: 'imageproxy.dev_vmimages.yaml',
  ImageSite: 'imageproxy.dev_imagesites.yaml',
  ImageSubscription: 'imageproxy.dev_imagesubscriptions.yaml',
} as const satisfies Record<ApiKind, string>;

/** The folder of the CRDs that belong to this program. */
export const CRD_DIRECTORY = join(import.meta.dirname, '..', '..', 'crds');

/** Reads one CRD of ours. @throws Error when the file is missing or is not a CRD: the installation is broken. */
export function readCrd(kind: ApiKind, directory = CRD_DIRECTORY): Crd {
  const path = join(directory, FILES[kind]);
  const document = parse(readFileSync(path, 'utf8'), { merge: true, maxAliasCount: -1 }) as CrdDocument;
  const version = document.spec.versions.find((each) => each.storage);
  if (version === undefined || document.spec.names.kind !== kind) {
    throw new Error(`${path} is not the CRD of ${kind}: reinstall imageproxy, or correct the file`);
  }
  return {
    group: document.spec.group,
    version: version.name,
    kind,
    shortName: document.spec.names.shortNames[0] ?? '',
    namespaced: document.spec.scope === 'Namespaced',
    schema: version.schema.openAPIV3Schema,
  };
}

interface CrdDocument {
  spec: {
    group: string;
    scope: 'Namespaced' | 'Cluster';
    names: { kind: string; shortNames: string[] };
    versions: { name: string; storage: boolean; schema: { openAPIV3Schema: Structural } }[];
  };
}
