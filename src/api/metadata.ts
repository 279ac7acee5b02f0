import { type Fields, fieldPath, isFields } from './admission.ts';
import type { FieldNote } from './verdict.ts';
import { show } from './structural.ts';

const DNS_LABEL = '[a-z0-9]([-a-z0-9]*[a-z0-9])?';
const SUBDOMAIN = new RegExp(`^${DNS_LABEL}(\\.${DNS_LABEL})*$`);
const NAMESPACE = new RegExp(`^${DNS_LABEL}$`);
const LABEL_VALUE = /^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/;
const QUALIFIED = /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;
/** TotalAnnotationSizeLimitB of apimachinery. */
const ANNOTATIONS_LIMIT = 256 * 1024;

const KNOWN = new Set([
  'name',
  'namespace',
  'generateName',
  'labels',
  'annotations',
  'finalizers',
  'ownerReferences',
  'uid',
  'generation',
  'resourceVersion',
  'creationTimestamp',
  'deletionTimestamp',
  'deletionGracePeriodSeconds',
  'managedFields',
  'selfLink',
]);

/** What the API server's ObjectMeta is to us: its known fields, the namespace filled in as kubectl would. */
export function admitMetadata(metadata: unknown, namespaced: boolean, warnings: FieldNote[]): Fields {
  const kept: [string, unknown][] = [];
  for (const [name, value] of Object.entries(isFields(metadata) ? metadata : {})) {
    if (!KNOWN.has(name)) warnings.push({ path: `metadata.${name}`, message: 'unknown field, it is ignored' });
    else if (value !== null) kept.push([name, value]);
  }
  const admitted: Fields = Object.fromEntries(kept);
  if (namespaced && admitted['namespace'] === undefined) admitted['namespace'] = 'default';
  return admitted;
}

/** apimachinery's ValidateObjectMeta, as far as people write it. */
export function metadataErrors(metadata: Fields, namespaced: boolean): FieldNote[] {
  const errors: FieldNote[] = [];
  const report = (path: string, message: string): void => {
    errors.push({ path: fieldPath('metadata', path), message });
  };
  const { name, namespace } = metadata;
  if (name === undefined) report('name', 'is required');
  else if (typeof name !== 'string' || name.length > 253 || !SUBDOMAIN.test(name)) {
    report('name', `${show(name)} is not a name: at most 253 lower case letters, digits, - and ., e.g. ubuntu-24.04`);
  }
  if (namespaced) {
    if (typeof namespace !== 'string' || namespace.length > 63 || !NAMESPACE.test(namespace)) {
      report('namespace', `${show(namespace)} is not a namespace: at most 63 lower case letters, digits and -`);
    }
  } else if (namespace !== undefined) {
    report('namespace', 'the kind is not in a namespace: remove it');
  }
  labelErrors(metadata['labels'], report);
  annotationErrors(metadata['annotations'], report);
  finalizerErrors(metadata['finalizers'], report);
  return errors;
}

type ReportAt = (path: string, message: string) => void;

function labelErrors(labels: unknown, report: ReportAt): void {
  for (const [key, value] of strings('labels', labels, report)) {
    if (!isQualified(key)) report('labels', `${show(key)} ${NOT_A_KEY}`);
    if (value.length > 63 || !LABEL_VALUE.test(value)) {
      report('labels', `${show(value)} is no value of the label ${key}: at most 63 letters, digits, -, _ and .`);
    }
  }
}

function annotationErrors(annotations: unknown, report: ReportAt): void {
  let size = 0;
  for (const [key, value] of strings('annotations', annotations, report)) {
    if (!isQualified(key.toLowerCase())) report('annotations', `${show(key)} ${NOT_A_KEY}`);
    size += Buffer.byteLength(key) + Buffer.byteLength(value);
  }
  if (size > ANNOTATIONS_LIMIT) report('annotations', `must be at most ${ANNOTATIONS_LIMIT} bytes, they are ${size}`);
}

function finalizerErrors(finalizers: unknown, report: ReportAt): void {
  if (finalizers === undefined) return;
  if (!Array.isArray(finalizers)) {
    report('finalizers', `must be a list, not ${show(finalizers)}`);
    return;
  }
  finalizers.forEach((each: unknown, i) => {
    if (typeof each !== 'string' || !isQualified(each)) report(`finalizers[${i}]`, `${show(each)} is not a name`);
  });
}

const NOT_A_KEY =
  'is not a key: at most 63 letters, digits, -, _ and ., after a DNS prefix and / or without, e.g. example.org/team';

function isQualified(key: string): boolean {
  const slash = key.indexOf('/');
  const prefix = key.slice(0, Math.max(slash, 0));
  const name = key.slice(slash + 1);
  if (slash >= 0 && (prefix.length > 253 || !SUBDOMAIN.test(prefix))) return false;
  return name.length <= 63 && QUALIFIED.test(name);
}

/** The entries of a map of strings; what is no string is reported. */
function strings(field: string, map: unknown, report: ReportAt): [string, string][] {
  if (map === undefined) return [];
  if (!isFields(map)) {
    report(field, `must be an object (key: value), not ${show(map)}`);
    return [];
  }
  const entries: [string, string][] = [];
  for (const [key, value] of Object.entries(map)) {
    if (typeof value === 'string') entries.push([key, value]);
    else report(field, `the value of ${key} must be a string, not ${show(value)}: put it in quotes`);
  }
  return entries;
}
