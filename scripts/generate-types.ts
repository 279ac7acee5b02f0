/**
 * Makes src/api/generated.ts from the CRDs; `--check` only says whether it is up to date.
 *
 * The one rule about defaults: the types describe objects as the stores give them, validated and defaulted. So a field with a
 * default is always there and not optional; a field without one is optional unless the schema requires it. What people and
 * programs write is a `Draft`, judged by the schema (src/api/schema.ts) and not by these types.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { compile } from 'json-schema-to-typescript';
import { API_KINDS, type ApiKind, readCrd, type Structural } from '../src/api/crds.ts';

const TARGET = join(import.meta.dirname, '..', 'src', 'api', 'generated.ts');

/** Which node becomes which interface; a path may be listed for a name only if its schema is the same. */
const NAMES: Record<ApiKind, Record<string, string>> = {
  VMImage: {
    spec: 'VMImageSpec',
    'spec.source': 'ImageSource',
    'spec.source.http': 'HttpSource',
    'spec.source.torrent': 'TorrentSource',
    'spec.source.s3': 'S3Source',
    'spec.source.oci': 'OciSource',
    'spec.source.file': 'FileSource',
    'spec.source.metafile': 'MetafileSource',
    'spec.source.http.secretRef': 'SecretReference',
    'spec.source.http.caRef': 'CaReference',
    'spec.checksums': 'Checksums',
    'spec.kernel': 'BootPart',
    'spec.kernel.source': 'BootPartSource',
    'spec.verification': 'VerificationPolicy',
    'spec.registration': 'RegistrationSpec',
    'spec.registration.os': 'OperatingSystem',
    'spec.sites[]': 'SiteTarget',
    'spec.sites[].registration': 'RegistrationOverrides',
    'spec.siteSelector': 'LabelSelector',
    'spec.siteSelector.matchExpressions[]': 'LabelRequirement',
    status: 'VMImageStatus',
    'status.conditions[]': 'Condition',
    'status.artifacts[]': 'Artifact',
    'status.failure': 'FailureStatus',
    'status.progress': 'ProgressStatus',
    'status.summary': 'SummaryStatus',
    'status.sites[]': 'SiteRow',
    'status.sites[].artifacts[]': 'RegisteredArtifact',
    'status.sites[].operation': 'SiteOperation',
    'status.sites[].previous[]': 'PreviousRegistration',
  },
  ImageSite: {
    spec: 'ImageSiteSpec',
    'spec.directory': 'DirectorySite',
    'spec.openstack': 'OpenStackSite',
    'spec.ec2': 'Ec2Site',
    'spec.opennebula': 'OpenNebulaSite',
    'spec.handler': 'HandlerSite',
    'spec.openstack.secretRef': 'SiteSecretReference',
    'spec.verification': 'SiteVerificationPolicy',
    'spec.limits': 'SiteLimits',
    'spec.drift': 'DriftPolicy',
    status: 'ImageSiteStatus',
  },
  ImageSubscription: {
    spec: 'ImageSubscriptionSpec',
    'spec.trust': 'SubscriptionTrust',
    'spec.trust.x509': 'X509Trust',
    'spec.trust.openpgp': 'OpenPgpTrust',
    'spec.trust.minisign': 'MinisignTrust',
    'spec.select': 'EntrySelector',
    'spec.select.matchFields[]': 'FieldRequirement',
    'spec.approved[]': 'ApprovedEntry',
    'spec.template': 'VMImageTemplate',
    'spec.template.spec': 'VMImageTemplateSpec',
    status: 'ImageSubscriptionStatus',
    'status.attention[]': 'EntryAttention',
  },
};

interface JsonSchema {
  [keyword: string]: unknown;
}

interface Named {
  name: string;
  schema: Structural;
}

/** What a node says without its prose and rules: nodes that agree in it share an interface. */
function shape(schema: Structural): unknown {
  return JSON.parse(JSON.stringify(schema, (key, value: unknown) => (isProse(key, value) ? undefined : value)));
}

function isProse(key: string, value: unknown): boolean {
  return (key === 'description' && typeof value === 'string') || key === 'x-kubernetes-validations';
}

function at(schema: Structural, path: string): Structural {
  let node: Structural | undefined = schema;
  for (const step of path.split('.')) {
    node = node?.properties?.[step.replace('[]', '')];
    if (step.endsWith('[]')) node = node?.items;
  }
  if (node === undefined) throw new Error(`the CRD has no field ${path}: correct NAMES in scripts/generate-types.ts`);
  return node;
}

function toJsonSchema(node: Structural, named: readonly Named[], self?: Structural): JsonSchema {
  const known = node === self ? undefined : named.find(({ schema }) => isDeepStrictEqual(shape(schema), shape(node)));
  if (known !== undefined) {
    return { description: node.description, allOf: [{ $ref: `#/definitions/${known.name}` }] };
  }
  const description =
    node.description === undefined && node.format === undefined ? {} : { description: node.description };
  if (node.type === 'array' && node.items) {
    return { ...description, type: 'array', items: toJsonSchema(node.items, named) };
  }
  if (node.type !== 'object')
    return { ...description, type: node.type, ...(node.enum === undefined ? {} : { enum: node.enum }) };
  const properties = Object.entries(node.properties ?? {});
  return {
    ...description,
    type: 'object',
    properties: Object.fromEntries(properties.map(([name, each]) => [name, toJsonSchema(each, named)])),
    required: properties
      .filter(([name, each]) => each.default !== undefined || node.required?.includes(name))
      .map(([name]) => name),
    additionalProperties:
      node.additionalProperties === undefined ? false : toJsonSchema(node.additionalProperties, named),
  };
}

async function generate(): Promise<string> {
  const named: Named[] = [];
  for (const kind of API_KINDS) {
    const { schema } = readCrd(kind);
    for (const [path, name] of Object.entries(NAMES[kind])) named.push({ name, schema: at(schema, path) });
  }
  const definitions = Object.fromEntries(
    named.map(({ name, schema }) => [name, toJsonSchema(schema, named, schema)] as const),
  );
  const text = await compile({ definitions, type: 'object', additionalProperties: false, properties: {} }, 'Unused', {
    additionalProperties: false,
    bannerComment:
      '/** Made from crds/ by scripts/generate-types.ts; `npm run generate` makes it anew. Do not edit. */',
    ignoreMinAndMaxItems: true,
    unreachableDefinitions: true,
    style: { singleQuote: true, printWidth: 120 },
  });
  return text
    .replace(/export interface Unused \{\}\n+/, '')
    .replaceAll(/\/\*\*\n \* This interface was referenced by[^/]*?\*\/\n/g, '')
    .replaceAll(/\n \*\n \* This interface was referenced by[^/]*?via the `definition` "[^"]*"\.?/g, '');
}

const text = await generate();
if (process.argv.includes('--check')) {
  if (readFileSync(TARGET, 'utf8') !== text) {
    console.error('src/api/generated.ts is older than the CRDs: run `npm run generate`');
    process.exitCode = 1;
  }
} else {
  writeFileSync(TARGET, text);
}
