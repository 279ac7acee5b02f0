/**
 * The arrows of the house, held by a check: who may import whom. `node scripts/check-architecture.ts` prints what breaks them.
 * Type-only imports count as well: a room that knows another's types knows the room. The exceptions are named here.
 */
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join, normalize, relative } from 'node:path';

/** What a room may import: a whole room, one file of it (`stores/store.ts`), or one file's types (`type stores/store.ts`). */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  main: ['cli', 'telemetry', 'api'],
  cli: [
    'controllers',
    'reconcilers',
    'runtime',
    'stores',
    'transfers',
    'catalogs',
    'sources',
    'clouds',
    'cache',
    'images',
    'trust',
    'programs',
    'telemetry',
    'api',
  ],
  controllers: [
    'reconcilers',
    'runtime',
    'stores',
    'transfers',
    'catalogs',
    'sources',
    'clouds',
    'cache',
    'images',
    'trust',
    'telemetry',
    'api',
  ],
  reconcilers: [
    'runtime',
    'stores/store.ts',
    'transfers',
    'catalogs',
    'sources',
    'clouds',
    'cache',
    'images',
    'trust',
    'telemetry',
    'api',
  ],
  // The machinery and the stores know resources, never images.
  runtime: ['stores/store.ts', 'telemetry', 'api'],
  stores: ['runtime', 'telemetry', 'api'],
  catalogs: ['sources', 'trust', 'telemetry', 'api'],
  transfers: ['sources', 'type cache/cache.ts', 'programs/scheduling.ts', 'telemetry', 'api'],
  // A cloud is given plain values: no store, no Kubernetes, no cache. `images/format.ts` is the vocabulary of roles and formats.
  clouds: ['images/format.ts', 'type transfers/transfers.ts', 'telemetry', 'api'],
  sources: ['type cache/cache.ts', 'images/format.ts', 'trust', 'telemetry', 'api'],
  cache: ['images/format.ts', 'telemetry', 'api'],
  images: ['programs', 'telemetry', 'api'],
  trust: ['programs', 'telemetry', 'api'],
  programs: ['api'],
  telemetry: ['api'],
  api: ['type stores/store.ts'],
};

/** Packages that only some rooms may know. */
const GUARDED_PACKAGES: Readonly<Record<string, readonly RegExp[]>> = {
  '@kubernetes/client-node': [/^stores\/kubernetes/, /^runtime\//],
  'prom-client': [/^telemetry\//],
};

/** Rooms by these names become attics. */
const FORBIDDEN_NAMES = new Set([
  'utils',
  'util',
  'helpers',
  'helper',
  'common',
  'manager',
  'managers',
  'misc',
  'shared',
  'lib',
]);

export interface Violation {
  /** Relative to src. */
  file: string;
  line: number;
  message: string;
}

interface Import {
  specifier: string;
  line: number;
  typeOnly: boolean;
}

const STATEMENT = /^(?:import|export)\b(?<clause>[^'";]*?)\bfrom\s*['"](?<specifier>[^'"]+)['"]/gm;
const SIDE_EFFECT = /^import\s*['"](?<specifier>[^'"]+)['"]/gm;
const DYNAMIC = /\bimport\(\s*['"](?<specifier>[^'"]+)['"]/g;

/** Every import of a source as biome formats it: statements begin their line, which comments' and strings' lines do not. */
export function importsOf(source: string): Import[] {
  const found: Import[] = [];
  for (const pattern of [STATEMENT, SIDE_EFFECT, DYNAMIC]) {
    for (const match of source.matchAll(pattern)) {
      const { clause = '', specifier = '' } = match.groups ?? {};
      const before = source.slice(0, match.index);
      if (pattern === DYNAMIC && /^\s*(?:\/\/|\/?\*)/.test(before.slice(before.lastIndexOf('\n') + 1))) continue;
      found.push({ specifier, line: before.split('\n').length, typeOnly: isTypeOnly(clause) });
    }
  }
  return found;
}

function isTypeOnly(clause: string): boolean {
  if (/^\s+type\s+[^\s,]/.test(clause)) return true;
  const named = /^\s*\{(?<names>[^}]*)\}\s*$/.exec(clause)?.groups?.['names'];
  if (named === undefined) return false;
  return named
    .split(',')
    .map((name) => name.trim())
    .every((name) => name === '' || name.startsWith('type '));
}

/** All violations in a set of sources, by path relative to src (`cache/cache.ts`). */
export function violations(sources: ReadonlyMap<string, string>): Violation[] {
  const found: Violation[] = [];
  const graph = new Map<string, string[]>();
  for (const [file, source] of sources) {
    found.push(...nameViolations(file));
    const targets: string[] = [];
    for (const imported of importsOf(source)) {
      const say = (message: string) => found.push({ file, line: imported.line, message });
      if (!imported.specifier.startsWith('.')) {
        const problem = packageViolation(file, imported.specifier);
        if (problem !== undefined) say(problem);
        continue;
      }
      const target = normalize(join(dirname(file), imported.specifier));
      if (!sources.has(target)) {
        if (target.startsWith('..')) say(`imports ${imported.specifier}, outside of src`);
        continue;
      }
      targets.push(target);
      const problem = arrowViolation(file, target, imported.typeOnly);
      if (problem !== undefined) say(problem);
    }
    graph.set(file, targets);
  }
  for (const cycle of cycles(graph)) {
    found.push({ file: cycle[0] ?? '', line: 1, message: `import cycle: ${[...cycle, cycle[0]].join(' -> ')}` });
  }
  return found;
}

function roomOf(file: string): string {
  const slash = file.indexOf('/');
  return slash === -1 ? file.replace(/\.ts$/, '') : file.slice(0, slash);
}

function nameViolations(file: string): Violation[] {
  const names = file.replace(/\.ts$/, '').split('/');
  const found: Violation[] = [];
  const bad = names.find((name) => FORBIDDEN_NAMES.has(name));
  if (bad !== undefined)
    found.push({ file, line: 1, message: `"${bad}" says nothing about what is inside: name it for what it does` });
  if (ARROWS[roomOf(file)] === undefined)
    found.push({ file, line: 1, message: `${roomOf(file)} is no room of the house: add it and its arrows here` });
  return found;
}

function packageViolation(file: string, specifier: string): string | undefined {
  for (const [name, allowed] of Object.entries(GUARDED_PACKAGES)) {
    if ((specifier === name || specifier.startsWith(`${name}/`)) && !allowed.some((pattern) => pattern.test(file))) {
      return `imports ${name}, which only ${allowed.map((pattern) => pattern.source.replaceAll(/[\\^]/g, '')).join(' and ')} may`;
    }
  }
  return undefined;
}

function arrowViolation(file: string, target: string, typeOnly: boolean): string | undefined {
  const [from, to] = [roomOf(file), roomOf(target)];
  if (from === to) return undefined;
  const arrows = ARROWS[from] ?? [];
  if (arrows.includes(to) || arrows.includes(target)) return undefined;
  if (arrows.includes(`type ${target}`)) {
    return typeOnly ? undefined : `imports values of ${target}; ${from} may know its types only (import type)`;
  }
  return `${from} must not import ${target}: it may import ${arrows.join(', ')}`;
}

/** Every cycle that a depth-first walk closes, each once. */
function cycles(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const found: string[][] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const walk = (file: string): void => {
    const at = path.indexOf(file);
    if (at !== -1) found.push(path.slice(at));
    if (at !== -1 || done.has(file)) return;
    path.push(file);
    for (const target of graph.get(file) ?? []) walk(target);
    path.pop();
    done.add(file);
  };
  for (const file of graph.keys()) walk(file);
  return found;
}

/** Every TypeScript source below a folder, by path relative to it. */
export async function readSources(folder: string): Promise<Map<string, string>> {
  const sources = new Map<string, string>();
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.ts')) continue;
    const path = join(entry.parentPath, entry.name);
    sources.set(relative(folder, path), await readFile(path, 'utf8'));
  }
  return sources;
}

if (import.meta.main) {
  const found = violations(await readSources(join(import.meta.dirname, '../src')));
  for (const { file, line, message } of found) console.log(`src/${file}:${line}: ${message}`);
  process.exitCode = found.length === 0 ? 0 : 1;
}
