/**
 * Makes the reference pages in docs/reference from the CRDs; `--check` only says whether they are up to date.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { API_KINDS, type ApiKind, type Crd, readCrd, type Rule, type Structural } from '../src/api/crds.ts';

const DIRECTORY = join(import.meta.dirname, '..', 'docs', 'reference');

interface Row {
  path: string;
  schema: Structural;
  required: boolean;
}

/** Every field below a node, in the order of the CRD. */
function rows(node: Structural, path: string): Row[] {
  const fields = node.type === 'array' ? (node.items ?? {}) : node;
  const base = node.type === 'array' ? `${path}[]` : path;
  return Object.entries(fields.properties ?? {}).flatMap(([name, schema]) => {
    const below = `${base}.${name}`;
    return [{ path: below, schema, required: fields.required?.includes(name) ?? false }, ...rows(schema, below)];
  });
}

function typeName(schema: Structural): string {
  if (schema.enum !== undefined) return schema.enum.map((each) => `\`${String(each)}\``).join(', ');
  if (schema.type === 'array') return `list of ${typeName(schema.items ?? {})}`;
  if (schema.additionalProperties !== undefined) return `map of ${typeName(schema.additionalProperties)}`;
  if (schema.format === 'date-time') return 'date-time';
  return schema.type ?? 'any';
}

function defaultOf({ schema, required }: Row): string {
  if (required) return '*required*';
  return schema.default === undefined ? '' : `\`${JSON.stringify(schema.default)}\``;
}

/** Prose as a cell of a Markdown table. */
function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
}

function table(fields: readonly Row[]): string[] {
  return [
    '| Field | Type | Default | Description |',
    '| --- | --- | --- | --- |',
    ...fields.map((row) => {
      const { path, schema } = row;
      return `| \`${path}\` | ${typeName(schema)} | ${defaultOf(row)} | ${cell(schema.description ?? '')} |`;
    }),
  ];
}

interface PlacedRule {
  path: string;
  rule: Rule;
}

function rulesBelow(node: Structural, path: string): PlacedRule[] {
  const own = (node['x-kubernetes-validations'] ?? []).map((rule) => ({
    path: path + (rule.fieldPath ?? ''),
    rule,
  }));
  const { items, additionalProperties } = node;
  return [
    ...own,
    ...Object.entries(node.properties ?? {}).flatMap(([name, each]) => rulesBelow(each, `${path}.${name}`)),
    ...(items === undefined ? [] : rulesBelow(items, `${path}[]`)),
    ...(additionalProperties === undefined ? [] : rulesBelow(additionalProperties, `${path}[…]`)),
  ];
}

/** One line for each message, with all places where it may come from. */
function rules(schema: Structural): string[] {
  const places = new Map<string, string[]>();
  for (const { path, rule } of rulesBelow(schema, 'spec')) {
    const message = rule.message ?? rule.rule;
    places.set(message, [...(places.get(message) ?? []), path]);
  }
  return [...places].map(
    ([message, paths]) => `| ${paths.map((path) => `\`${path}\``).join('<br>')} | ${cell(message)} |`,
  );
}

function page(crd: Crd): string {
  const { spec, status } = crd.schema.properties ?? {};
  if (spec === undefined || status === undefined) throw new Error(`the CRD of ${crd.kind} lacks spec or status`);
  return [
    `# ${crd.kind}`,
    '',
    '<!-- Made from crds/ by scripts/generate-reference.ts; `npm run generate` makes it anew. Do not edit. -->',
    '',
    crd.schema.description ?? '',
    '',
    `\`apiVersion: ${crd.group}/${crd.version}\`, \`kind: ${crd.kind}\`, short name \`${crd.shortName}\`, ${
      crd.namespaced ? 'in a namespace' : 'not in a namespace'
    }. The same text on a cluster: \`kubectl explain ${crd.shortName} --recursive\`.`,
    '',
    '## spec',
    '',
    ...table(rows(spec, 'spec')),
    '',
    '## Rules',
    '',
    'What is refused, beside wrong types and unknown values, and what the refusal says:',
    '',
    '| Field | Message |',
    '| --- | --- |',
    ...rules(spec),
    '',
    '## status',
    '',
    status.description ?? '',
    '',
    ...table(rows(status, 'status')),
    '',
  ].join('\n');
}

function fileOf(kind: ApiKind): string {
  return join(DIRECTORY, `${kind.toLowerCase()}.md`);
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

for (const kind of API_KINDS) {
  const text = page(readCrd(kind));
  if (process.argv.includes('--check')) {
    if (readIfThere(fileOf(kind)) !== text) {
      console.error(`${fileOf(kind)} is older than the CRD: run \`npm run generate\``);
      process.exitCode = 1;
    }
  } else {
    mkdirSync(DIRECTORY, { recursive: true });
    writeFileSync(fileOf(kind), text);
  }
}
