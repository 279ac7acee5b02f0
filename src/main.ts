import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';

// Types are stripped and sources compiled once, not at every start. In a folder of the user's own: Node's default is a shared one,
// where others could leave compiled code for us to run.
enableCompileCache(join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'imageproxy', 'compiled'));
const { main } = await import('./cli/index.ts');
process.exitCode = await main(process.argv.slice(2), process);
