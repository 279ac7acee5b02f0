import { EXIT } from './exit.ts';
import type { CommandContext } from './output.ts';
import { printData } from './print.ts';
import { VERSION } from './version.ts';

export interface VersionOptions {
  output?: 'json' | 'yaml';
}

export async function showVersion({ output }: VersionOptions, { out }: CommandContext): Promise<number> {
  const facts = { version: VERSION, node: process.version, platform: `${process.platform}/${process.arch}` };
  if (output === undefined) out.line(`imageproxy ${facts.version} (Node.js ${facts.node}, ${facts.platform})`);
  else await printData(out, output, facts);
  return EXIT.ok;
}
