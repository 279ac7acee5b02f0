import { resolve } from 'node:path';
import { imageJobs } from '../images/served.ts';
import { serveTools } from '../programs/runner/server.ts';
import { createToolbox } from '../programs/toolbox.ts';
import { createLogger, type LogLevel } from '../telemetry/log.ts';
import { EXIT } from './exit.ts';
import type { CommandContext } from './output.ts';
import { VERSION } from './version.ts';

export interface ToolRunnerOptions {
  socket: string;
  files: string;
  logLevel: LogLevel;
  logFormat?: 'json' | 'pretty';
}

/** `imageproxy tool-runner`: converts and unpacks for a controller, until SIGTERM or SIGINT. */
export async function toolRunner(options: ToolRunnerOptions, { signal }: CommandContext): Promise<number> {
  const log = createLogger({
    level: options.logLevel,
    ...(options.logFormat === undefined ? {} : { pretty: options.logFormat === 'pretty' }),
  });
  const socket = resolve(options.socket);
  // Beside the socket is where it may write.
  const scratch = `${socket}.scratch`;
  const jobs = imageJobs(createToolbox(), scratch);
  log.info({ version: VERSION }, 'the tool runner starts');
  await serveTools({ socket, files: resolve(options.files), jobs, scratch, log }, signal);
  log.info('stopped');
  return EXIT.ok;
}
