import { Failure } from '../api/failure.ts';

/** What the program's end tells a script. Listed in `imageproxy --help` and docs/cli.md. */
export const EXIT = {
  ok: 0,
  /** It was tried and did not work out; the message says why. */
  failed: 1,
  /** The command line itself is wrong. */
  usage: 2,
  notFound: 3,
  timedOut: 4,
  /** Another process has the state directory. */
  inUse: 5,
} as const;

/** Ends the command with one line on standard error: what, where, and the cure. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly exitCode: number;

  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** Signals that ask for an end, with the exit codes that a shell would give them: 128 + the signal's number. */
export const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

/** Stopped by one of {@link SIGNALS}. */
export class Interrupted extends CommandError {
  constructor(signal: keyof typeof SIGNALS) {
    super(SIGNALS[signal], `stopped by ${signal}`);
  }
}

export function exitCodeOf(error: unknown): number {
  if (error instanceof CommandError) return error.exitCode;
  if (!(error instanceof Failure)) return EXIT.failed;
  if (error.reason === 'NotFound') return EXIT.notFound;
  if (error.reason === 'Timeout') return EXIT.timedOut;
  return error.reason === 'ClaimedByOther' ? EXIT.inUse : EXIT.failed;
}
