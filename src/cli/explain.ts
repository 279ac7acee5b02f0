import { readCrd, type Structural } from '../api/crds.ts';
import { CommandError, EXIT } from './exit.ts';
import { kindNamed } from './kinds.ts';
import type { CommandContext, Output } from './output.ts';

export interface ExplainOptions {
  recursive?: boolean;
}

const WIDTH = 100;

/** `imageproxy explain vmimage.spec.source`: what a field means, from the CRD. */
export async function explain(path: string, options: ExplainOptions, { out }: CommandContext): Promise<number> {
  const [kindText = '', ...fields] = path.split('.').filter((part) => part !== '');
  const { kind, singular } = kindNamed(kindText);
  const crd = readCrd(kind);
  let node: Structural = crd.schema;
  let below = singular;
  for (const name of fields) {
    const holder = itemsOf(node);
    const next = holder.properties?.[name] ?? holder.additionalProperties;
    if (next === undefined) {
      const known = Object.keys(holder.properties ?? {});
      const has = known.length > 0 ? `it has ${known.join(', ')}` : 'it has no fields';
      throw new CommandError(EXIT.notFound, `there is no field "${name}" in ${below}: ${has}`);
    }
    node = next;
    below += `.${name}`;
  }
  const title = (text: string): string => out.paint('bold', text);
  out.line(`${title('KIND:')}       ${kind}`);
  out.line(`${title('VERSION:')}    ${crd.group}/${crd.version}`);
  if (fields.length > 0) out.line(`${title('FIELD:')}      ${fields.join('.')} <${typeOf(node)}>`);
  out.line();
  out.line(title('DESCRIPTION:'));
  for (const line of wrap(node.description ?? itemsOf(node).description ?? 'none', 4)) out.line(line);
  const holder = itemsOf(node);
  const bounds = boundsOf(node);
  if (bounds.length > 0) {
    out.line();
    for (const line of bounds) out.line(`    ${line}`);
  }
  const rules = (node['x-kubernetes-validations'] ?? []).flatMap(({ message }) =>
    message === undefined ? [] : [message],
  );
  if (rules.length > 0) {
    out.line();
    out.line(title('RULES:'));
    for (const rule of rules) for (const line of wrap(`- ${rule}`, 4, 6)) out.line(line);
  }
  if (holder.properties !== undefined) {
    out.line();
    out.line(title('FIELDS:'));
    printFields(out, holder, 2, options.recursive === true);
  }
  return EXIT.ok;
}

function printFields(out: Output, node: Structural, indent: number, recursive: boolean): void {
  const required = new Set(node.required ?? []);
  for (const [name, field] of Object.entries(node.properties ?? {})) {
    const mark = required.has(name) ? out.paint('yellow', ' -required-') : '';
    out.line(`${' '.repeat(indent)}${out.paint('cyan', name)} <${typeOf(field)}>${mark}`);
    const holder = itemsOf(field);
    if (recursive) printFields(out, holder, indent + 2, true);
    else {
      for (const line of wrap(field.description ?? holder.description ?? '', indent + 2)) out.line(line);
      out.line();
    }
  }
}

function itemsOf(node: Structural): Structural {
  return node.items ?? node;
}

function typeOf(node: Structural): string {
  if (node.type === 'array') return `[]${node.items === undefined ? 'any' : typeOf(node.items)}`;
  if (node['x-kubernetes-int-or-string'] === true) return 'integer or string';
  if (node.type !== 'object') return node.type ?? 'any';
  if (node.additionalProperties !== undefined) return `map[string]${typeOf(node.additionalProperties)}`;
  return 'Object';
}

function boundsOf(node: Structural): string[] {
  const bounds: string[] = [];
  const say = (name: string, value: unknown): void => {
    if (value !== undefined) bounds.push(`${name}: ${typeof value === 'string' ? value : JSON.stringify(value)}`);
  };
  say('one of', node.enum?.join(', '));
  if (typeof node.default !== 'object') say('default', node.default);
  say('at least', node.minimum);
  say('at most', node.maximum);
  say('shortest', node.minLength);
  say('longest', node.maxLength);
  say('fewest items', node.minItems);
  say('most items', node.maxItems);
  say('pattern', node.pattern);
  return bounds;
}

/** Breaks text at blanks; the first line and the others are indented by so many. */
export function wrap(text: string, indent: number, hanging = indent): string[] {
  const lines: string[] = [];
  let line = ' '.repeat(indent);
  for (const word of text.split(/\s+/).filter((each) => each !== '')) {
    if (line.trim() !== '' && line.length + word.length + 1 > WIDTH) {
      lines.push(line);
      line = ' '.repeat(hanging);
    }
    line += line.trim() === '' ? word : ` ${word}`;
  }
  return line.trim() === '' ? lines : [...lines, line];
}
