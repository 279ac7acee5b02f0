import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createProgram } from '../../../src/cli/program.ts';

const page = readFileSync(join(import.meta.dirname, '..', '..', '..', 'docs', 'cli.md'), 'utf8');
const commands = createProgram(async () => undefined).commands.filter((command) => !command.name().startsWith('__'));

describe.each(commands.map((command) => [command.name(), command] as const))('imageproxy %s', (name, command) => {
  const section = page.split(/^###? /m).find((text) => text.startsWith(`${name}\n`)) ?? '';
  const everywhere = page.slice(0, page.indexOf('## Doing the work'));

  it('has its section on the page of the command line', () => {
    expect(section).not.toBe('');
  });

  it('has every option of its own there', () => {
    const options = command.options.map(({ long }) => long ?? '');
    const missing = options.filter((option) => !section.includes(option) && !everywhere.includes(option));
    expect(missing).toEqual([]);
  });

  it('has examples in its help, each of which calls it', () => {
    let help = '';
    command.configureOutput({ writeOut: (text) => (help += text) });
    command.outputHelp();
    const examples = (help.split('Examples:\n')[1] ?? '').trim().split('\n');
    expect(examples[0]).not.toBe('');
    for (const example of examples) expect(example).toContain(`imageproxy ${name}`);
  });
});
