import type { Health } from '../telemetry/health.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { ControllerOptions, OwnStore, RunningController } from './controller.ts';
import type { CommandError } from './exit.ts';

/** What both ways to run are given. */
export interface Setting {
  options: ControllerOptions;
  env: NodeJS.ProcessEnv;
  health: Health;
  /** Serves metrics and health, where that is wanted; resolves to the URL. */
  serve(metrics: Metrics): Promise<string | undefined>;
  /** Ends the program, with what it shall say. */
  end(reason: CommandError): void;
  signal: AbortSignal;
}

/** The controllers, and what the log shall say of them. */
export interface Started {
  controller: RunningController<OwnStore>;
  facts: Record<string, unknown>;
}
