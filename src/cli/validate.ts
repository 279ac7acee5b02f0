import { idOf } from '../stores/directory/kinds.ts';
import type { Mention, ParsedManifest, Problem } from '../stores/directory/manifest.ts';
import { inOrder, secondOf } from '../stores/directory/scan.ts';
import { EXIT } from './exit.ts';
import { manifestFiles, readManifest } from './manifest-files.ts';
import { type CommandContext, type Output, printable } from './output.ts';
import type { PlaceOptions } from './place.ts';
import { printData } from './print.ts';
import type { ServerJudge } from './validate-server.ts';

export interface ValidateOptions extends Pick<PlaceOptions, 'namespace' | 'kubernetes' | 'kubeconfig' | 'context'> {
  output?: 'json' | 'yaml';
  strict?: boolean;
}

/** `imageproxy validate FILE|DIR…`: the verdict that `run` and the API server would give. */
export async function validate(
  paths: readonly string[],
  options: ValidateOptions,
  context: CommandContext,
): Promise<number> {
  const { out, err } = context;
  await using judge = await openJudge(options, context);
  const problems: Problem[] = [];
  const seen = new Map<string, Mention>();
  let files = 0;
  for (const path of paths) {
    const found = await manifestFiles(path);
    problems.push(...found.problems);
    for (const file of found.files) {
      files++;
      const parsed = await readManifest(file, options.namespace ?? judge?.namespace);
      problems.push(...parsed.problems, ...seconds(parsed, seen));
      if (judge !== undefined) problems.push(...(await judge.problemsOf(file, parsed.objects)));
    }
  }
  if (options.output !== undefined) await printData(out, options.output, problems);
  else for (const problem of problems) out.line(problemLine(out, problem));
  const errors = problems.filter(({ severity }) => severity === 'error').length;
  const warnings = problems.length - errors;
  const verdict = `${count(files, 'file')}, ${count([...seen.values()].filter((each) => 'content' in each).length, 'object')}: ${errors === 0 && warnings === 0 ? 'all well' : `${count(errors, 'error')}, ${count(warnings, 'warning')}`}`;
  err.line(err.paint(errors > 0 ? 'red' : warnings > 0 ? 'yellow' : 'green', verdict));
  return errors > 0 || (options.strict === true && warnings > 0) ? EXIT.failed : EXIT.ok;
}

/** The API server's opinion, where a cluster is named: the schemas alone judge elsewhere, without any cluster. */
async function openJudge(
  { kubernetes, kubeconfig, context: name }: ValidateOptions,
  { signal }: CommandContext,
): Promise<ServerJudge | undefined> {
  if (kubernetes !== true && kubeconfig === undefined && name === undefined) return undefined;
  const { ServerJudge } = await import('./validate-server.ts');
  return ServerJudge.open({ kubeconfig, context: name, signal });
}

/** `shelf.yaml:7: error: document 2: spec.directory.path: must be …`: editors find the place by it. */
export function problemLine(out: Output, { file, document, line, field, message, severity }: Problem): string {
  const place = line > 0 ? `${file}:${line}` : file;
  const mark = out.paint(severity === 'error' ? 'red' : 'yellow', severity);
  const what = [document > 0 ? `document ${document}` : '', field].filter((text) => text !== '').join(': ');
  return printable(place) + `: ${mark}: ` + printable(`${what === '' ? '' : `${what}: `}${message}`);
}

/** Documents of objects that an earlier one is of, right or wrong: of these `run` takes none. */
function seconds(parsed: ParsedManifest, seen: Map<string, Mention>): Problem[] {
  const problems: Problem[] = [];
  for (const mention of inOrder(parsed)) {
    const id = idOf(mention.kind, mention.key);
    const first = seen.get(id);
    if (first === undefined) seen.set(id, mention);
    else if ('content' in mention) problems.push(secondOf(mention, first));
  }
  return problems;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}
