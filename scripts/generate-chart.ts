/**
 * Completes the Helm chart from what is written elsewhere; `--check` only says whether it is up to date.
 *
 * - `files/crds/` are the CRDs, byte by byte: a chart cannot read outside of its folder.
 * - `values.schema.json`: types are written there by hand; the descriptions come from the comments of `values.yaml`, the schema of
 *   a site from the CRD of ImageSite, the names of alerts from `files/alerts.yaml`. So a mistake is told before anything is installed.
 * - the table of values in `README.md`, from the same comments.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { isMap, isScalar, type Node, type Pair, parse, parseDocument, type YAMLMap } from 'yaml';
import { CRD_DIRECTORY, readCrd, type Structural } from '../src/api/crds.ts';

const ROOT = join(import.meta.dirname, '..');
const CHART = join(ROOT, 'deploy', 'helm', 'imageproxy');

/** One value that can be set, in the order of values.yaml. */
interface Value {
  path: readonly string[];
  description: string;
  default: unknown;
}

interface JsonSchema {
  description?: string;
  properties?: Record<string, JsonSchema>;
  items?: JsonSchema;
  enum?: unknown[];
  $defs?: Record<string, JsonSchema>;
  [keyword: string]: unknown;
}

function valuesOf(map: YAMLMap, path: readonly string[] = []): Value[] {
  return map.items.flatMap((pair, index) => {
    const name = String(isScalar(pair.key) ? pair.key.value : pair.key);
    const here = [...path, name];
    // The comment above the first key of a map is the map's.
    const description = textOf((pair.key as Node).commentBefore ?? (index === 0 ? map.commentBefore : undefined));
    if (description === '' && isMap(pair.value) && pair.value.items.length > 0) return valuesOf(pair.value, here);
    if (description === '') throw new Error(`values.yaml: ${here.join('.')} has no comment that says what it means`);
    return [{ path: here, description, default: plain(pair) }];
  });
}

function plain(pair: Pair): unknown {
  return (pair.value as Node).toJSON() as unknown;
}

/** The last paragraph: what stands above it, after a blank line, is no comment on the key. */
function textOf(comment: string | null | undefined): string {
  const lines = (comment ?? '').split('\n').map((line) => line.trim());
  return lines.slice(lines.lastIndexOf('') + 1).join(' ');
}

/** Descriptions into their places. @throws Error when schema and values do not have the same fields */
function describe(schema: JsonSchema, values: readonly Value[]): void {
  const known = new Set<JsonSchema>();
  for (const { path, description } of values) {
    let node = schema;
    for (const name of path) {
      const below = node.properties?.[name];
      if (below === undefined) throw new Error(`values.schema.json does not know ${path.join('.')}`);
      known.add(below);
      node = below;
    }
    node.description = description;
  }
}

/** A schema of the API server as one of JSON: what is not named is refused there as well, and rules are the server's to judge. */
function toJsonSchema(node: Structural): JsonSchema {
  const { properties, additionalProperties, items, default: _default, nullable: _nullable, ...rest } = node;
  const keywords = Object.entries(rest).filter(
    ([keyword]) => !keyword.startsWith('x-kubernetes-') && keyword !== 'format',
  );
  return {
    ...Object.fromEntries(keywords),
    ...(node['x-kubernetes-int-or-string'] === true ? { type: ['integer', 'string'] } : {}),
    ...(items === undefined ? {} : { items: toJsonSchema(items) }),
    ...(properties === undefined
      ? {}
      : {
          properties: Object.fromEntries(Object.entries(properties).map(([name, each]) => [name, toJsonSchema(each)])),
        }),
    ...(node.type === 'object'
      ? { additionalProperties: additionalProperties === undefined ? false : toJsonSchema(additionalProperties) }
      : {}),
  };
}

function alertNames(): string[] {
  const { rules } = parse(readFileSync(join(CHART, 'files', 'alerts.yaml'), 'utf8')) as { rules: { alert: string }[] };
  return rules.map(({ alert }) => alert);
}

function schemaText(values: readonly Value[]): string {
  const schema = JSON.parse(readFileSync(join(CHART, 'values.schema.json'), 'utf8')) as JsonSchema;
  describe(schema, values);
  const disabled = schema.properties?.['prometheusRule']?.properties?.['disabled']?.items;
  if (disabled !== undefined) disabled.enum = alertNames();
  const spec = readCrd('ImageSite').schema.properties?.['spec'];
  if (spec === undefined) throw new Error('the CRD of ImageSite has no spec');
  schema.$defs = { imageSiteSpec: toJsonSchema(spec) };
  return `${JSON.stringify(schema, undefined, 2)}\n`;
}

const [BEGIN, END] = ['<!-- values: made from values.yaml by `npm run generate` -->', '<!-- end of values -->'];

function readmeText(values: readonly Value[]): string {
  const page = readFileSync(join(CHART, 'README.md'), 'utf8');
  const [before, after] = [page.split(BEGIN)[0], page.split(END)[1]];
  if (before === undefined || after === undefined)
    throw new Error(`README.md of the chart has no "${BEGIN}" … "${END}"`);
  const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
  const rows = values.map(
    ({ path, description, default: value }) =>
      `| \`${path.join('.')}\` | \`${JSON.stringify(value)}\` | ${cell(description)} |`,
  );
  return `${before}${BEGIN}\n\n| Value | Default | What it means |\n| --- | --- | --- |\n${rows.join('\n')}\n\n${END}${after}`;
}

const document = parseDocument(readFileSync(join(CHART, 'values.yaml'), 'utf8'));
if (!isMap(document.contents)) throw new Error('values.yaml is no map');
const values = valuesOf(document.contents);

const wanted = new Map<string, string>([
  ...readdirSync(CRD_DIRECTORY).map(
    (name) => [join(CHART, 'files', 'crds', name), readFileSync(join(CRD_DIRECTORY, name), 'utf8')] as const,
  ),
  [join(CHART, 'values.schema.json'), schemaText(values)],
  [join(CHART, 'README.md'), readmeText(values)],
]);
const stray = readdirSync(join(CHART, 'files', 'crds')).filter(
  (name) => !wanted.has(join(CHART, 'files', 'crds', name)),
);
for (const name of stray) {
  console.error(`${name} in the chart is no CRD of ours: remove it`);
  process.exitCode = 1;
}
for (const [path, text] of wanted) {
  if (!process.argv.includes('--check')) {
    writeFileSync(path, text);
  } else if (readFileSync(path, 'utf8') !== text) {
    console.error(`${relative(ROOT, path)} is out of date: run \`npm run generate\``);
    process.exitCode = 1;
  }
}
