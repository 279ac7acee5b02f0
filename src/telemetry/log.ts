import { isatty } from 'node:tty';
import pino, { type DestinationStream, type Logger } from 'pino';
import { prettyLine } from './pretty.ts';
import { redact, redactText } from './redact.ts';

export type { Logger } from 'pino';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface LogOptions {
  /** Default: info. */
  level?: LogLevel;
  /** For people instead of JSON lines. Default: when the destination is a terminal. */
  pretty?: boolean;
  /** A file descriptor, or anything that takes lines. Default: standard error, so that standard output stays the commands' own. */
  destination?: number | DestinationStream;
  /** Milliseconds since the epoch. */
  now?(): number;
}

/**
 * The program's log: one JSON object a line (`time`, `level`, `msg`, then fields), written synchronously so that the last words
 * before a crash are there. Secrets are taken out by field name at every depth and by what strings hold (`redact.ts`); child
 * loggers' fields too.
 */
export function createLogger(options: LogOptions = {}): Logger {
  const { level = 'info', destination = 2, now = Date.now } = options;
  const terminal = typeof destination === 'number' && isatty(destination);
  const pretty = options.pretty ?? terminal;
  const lines = typeof destination === 'number' ? pino.destination({ fd: destination, sync: true }) : destination;
  const colour = terminal && process.env['NO_COLOR'] === undefined;

  const logger = pino(
    {
      level,
      // No process id and host name: the pod's own log has them.
      base: null,
      timestamp: () => `,"time":"${new Date(now()).toISOString()}"`,
      formatters: {
        level: (label) => ({ level: label }),
        log: redactFields,
      },
      // Errors are made plain by `redactFields`, with their causes and without what a Failure must not show.
      serializers: { err: (plain: unknown) => plain },
      hooks: { streamWrite: redactText },
    },
    pretty ? { write: (line: string) => lines.write(prettyLine(line, colour)) } : lines,
  );

  // pino formats the fields of the root logger alone, not those of children. Children inherit from the logger they come from,
  // so this one place covers children of children.
  const child = logger.child as unknown as (this: Logger, bindings: object, childOptions?: object) => Logger;
  const redactedChild = function (this: Logger, bindings: object, childOptions?: object): Logger {
    return child.call(this, redactFields(bindings), childOptions);
  };
  logger.child = redactedChild as unknown as typeof logger.child;
  return logger;
}

/** The child logger of one resource: every line of it carries `kind`, `namespace` and `name`. */
export function forResource(
  log: Logger,
  resource: { kind: string; namespace?: string | undefined; name: string },
): Logger {
  const { kind, namespace, name } = resource;
  return log.child(namespace === undefined ? { kind, name } : { kind, namespace, name });
}

function redactFields(fields: object): Record<string, unknown> {
  const plain = redact(fields);
  // pino hands over objects only; an Error logged as the object itself was wrapped as `err` before.
  return typeof plain === 'object' && plain !== null ? (plain as Record<string, unknown>) : {};
}
