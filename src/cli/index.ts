import { CommanderError } from 'commander';
import { EXIT, exitCodeOf, Interrupted, SIGNALS } from './exit.ts';
import { type CommandContext, Output, printable } from './output.ts';
import { createProgram } from './program.ts';

/** kubectl runs a program of this name for `kubectl imageproxy`. */
const PLUGIN = 'kubectl-imageproxy';
/** And one of this name to complete its words. */
const COMPLETER = 'kubectl_complete-imageproxy';

/** Runs one command line. Resolves to the process's exit code; what went wrong has been told on standard error then, in one line. */
export async function main(words: readonly string[], host: NodeJS.Process): Promise<number> {
  const { env } = host;
  const out = new Output(host.stdout, { env });
  const err = new Output(host.stderr, { env });
  host.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // `imageproxy get | head`: the reader has seen enough.
    if (error.code === 'EPIPE') host.exit(EXIT.ok);
    tell(err, `standard output cannot be written: ${error.message}`);
    host.exit(EXIT.failed);
  });
  // The launcher gives the process the name that it was called by itself.
  const calledAs = host.title === PLUGIN || host.title === COMPLETER ? 'kubectl imageproxy' : undefined;
  const context: CommandContext = { out, err, env, now: Date.now, signal: interruption(host), calledAs };
  let exitCode: number = EXIT.ok;
  let errors = '';
  const program = createProgram(async (run) => {
    exitCode = await run(context);
  }, calledAs);
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({
      writeErr: (text) => {
        errors += text;
      },
      outputError: (text, write) => write(text),
    });
  }
  try {
    if (host.title === COMPLETER) await program.parseAsync(['__complete', '--', ...words], { from: 'user' });
    else if (words.length === 0) program.outputHelp();
    else await program.parseAsync([...words], { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return EXIT.ok;
      const command = program.commands.find((each) => each.name() === words[0])?.name();
      const help = `${program.name()} ${command === undefined ? '' : `${command} `}--help`;
      tell(err, `${oneLine(errors === '' ? error.message : errors)} (see "${help}")`);
      return EXIT.usage;
    }
    if (context.signal.aborted && !(error instanceof Interrupted)) return exitCodeOf(context.signal.reason);
    if (!(error instanceof Interrupted)) tell(err, error instanceof Error ? error.message : String(error));
    if (env['IMAGEPROXY_DEBUG'] !== undefined && error instanceof Error) err.line(error.stack ?? '');
    return exitCodeOf(error);
  }
}

function tell(err: Output, message: string): void {
  err.line(`${err.paint('red', 'imageproxy:')} ${printable(message)}`);
}

function oneLine(text: string): string {
  return text
    .replace(/^error: /, '')
    .trim()
    .replaceAll(/\s*\n\s*/g, ' ');
}

/** The first signal asks for a safe end; the second one ends at once. */
function interruption(host: NodeJS.Process): AbortSignal {
  const stop = new AbortController();
  for (const name of Object.keys(SIGNALS) as (keyof typeof SIGNALS)[]) {
    host.on(name, () => {
      const reason = new Interrupted(name);
      if (stop.signal.aborted) host.exit(reason.exitCode);
      stop.abort(reason);
    });
  }
  return stop.signal;
}
