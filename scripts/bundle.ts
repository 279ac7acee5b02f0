/**
 * Makes dist/: the program, its worker threads and child processes as plain JavaScript in one flat folder. The npm package needs
 * it, for Node.js strips no types below node_modules, and the container image wants it, for it starts faster and holds no package
 * tree.
 *
 * Entries are src/main.ts, every `*-process.ts`, every `*-worker.ts` and every `worker.ts`; the last are named for their room:
 * src/transfers/worker.ts becomes dist/transfers-worker.js. Because the folder is flat, `import.meta.url` lies in it wherever a
 * piece of code ends up (an entry or a shared chunk). What else sources say of their own place is rewritten as they are read:
 * `new URL('./worker.ts', import.meta.url)`, `import.meta.dirname`, and `createRequire(import.meta.url)`.
 */
import { chmod, readdir, readFile, rm } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { build, type Plugin } from 'esbuild';

const root = resolve(import.meta.dirname, '..');
const src = join(root, 'src');
const dist = join(root, 'dist');

async function findEntries(): Promise<Map<string, string>> {
  const files = await readdir(src, { recursive: true });
  const entries = new Map([['main', join(src, 'main.ts')]]);
  for (const file of files.filter((name) => /(?:\/|-)(?:worker|process)\.ts$/.test(name)).toSorted()) {
    const base = basename(file, '.ts');
    const name = base === 'worker' || base === 'process' ? `${basename(dirname(file))}-${base}` : base;
    if (entries.has(name))
      throw new Error(`${file}: dist/${name}.js is taken by ${entries.get(name)}; give one another name`);
    entries.set(name, join(src, file));
  }
  return entries;
}

const URL_OF_FILE = /new URL\(\s*(['"`])(?<path>[^'"`$]+)\1,?\s*import\.meta\.url,?\s*\)/g;

/**
 * Text of a source as it is true in dist/. A folder is told by the way from dist/ to where it was (`join` never looks whether the
 * parts of it exist); esbuild bundles what is asked of a plain `require`, still when it is first asked for.
 */
function rewrite(path: string, source: string, entries: ReadonlyMap<string, string>): string {
  const names = new Map(Array.from(entries, ([name, file]) => [file, name]));
  return source
    .replaceAll(URL_OF_FILE, (_all, _quote, wanted: string) => {
      const target = resolve(dirname(path), wanted);
      const name = names.get(target);
      const beside = relative(root, target);
      if (name !== undefined) return `new URL('./${name}.js', import.meta.url)`;
      if (beside.startsWith('..') || beside.startsWith('src/')) {
        throw new Error(`${relative(root, path)}: ${wanted} is no entry of the bundle, and no file beside src`);
      }
      return `new URL('../${beside}${wanted.endsWith('/') ? '/' : ''}', import.meta.url)`;
    })
    .replaceAll(/^const require = createRequire\(import\.meta\.url\);$/gm, '')
    .replaceAll('import.meta.dirname', `(import.meta.dirname + '/../${relative(root, dirname(path))}')`);
}

function keepPlaces(entries: ReadonlyMap<string, string>): Plugin {
  return {
    name: 'keep-places',
    setup({ onLoad }) {
      onLoad({ filter: /\/src\/.*\.ts$/ }, async ({ path }) => {
        const contents = rewrite(path, await readFile(path, 'utf8'), entries);
        if (contents.includes('import.meta.filename')) {
          return { errors: [{ text: `${relative(root, path)}: import.meta.filename means another file in a bundle` }] };
        }
        return { contents, loader: 'ts' };
      });
    },
  };
}

const entries = await findEntries();
await rm(dist, { recursive: true, force: true });
const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: Object.fromEntries(entries),
  outdir: dist,
  chunkNames: 'chunk-[hash]',
  bundle: true,
  // Keeps `await import()` lazy: what a command does not need is not even read.
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node24',
  plugins: [keepPlaces(entries)],
  // Stack traces must stay readable, and a megabyte is no concern here.
  minify: false,
  keepNames: true,
  legalComments: 'inline',
  // CommonJS packages (pino, ajv) ask for Node's own modules with require, which an ES module has not.
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module';\nconst require = __createRequire(import.meta.url);",
  },
  metafile: true,
  logLevel: 'warning',
});
await chmod(join(dist, 'main.js'), 0o755);
const bytes = Object.values(metafile.outputs).reduce((sum, output) => sum + output.bytes, 0);
console.log(`bundle: dist/, ${Object.keys(metafile.outputs).length} files, ${(bytes / 1e6).toFixed(1)} MB`);
