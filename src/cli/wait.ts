import { findCondition, kstatus } from '../api/conditions.ts';
import { requestOf } from '../api/request.ts';
import type { Condition } from '../api/types.ts';
import type { StoredResource } from '../stores/directory/records.ts';
import { CommandError, EXIT } from './exit.ts';
import { evaluate, type JsonPath, parseJsonPath } from './jsonpath.ts';
import { nameLine, type Target, targetOf, titleOf } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import { openPlace } from './open-place.ts';
import type { PlaceOptions } from './place.ts';
import { isForDecision } from './somebody.ts';
import { tellUnattended } from './unattended.ts';
import { watchFor } from './watching.ts';

export interface WaitOptions extends PlaceOptions {
  for: string;
  timeout: number;
}

/** What is waited for, as `kubectl wait --for` spells it. */
export type Goal =
  | { type: 'condition'; condition: string; status: string }
  | { type: 'jsonpath'; path: JsonPath; value: string | undefined }
  | { type: 'delete' }
  | { type: 'create' };

/** @throws CommandError (usage) */
export function parseGoal(text: string): Goal {
  if (text === 'delete' || text === 'create') return { type: text };
  const condition = /^condition=([A-Za-z][\w.-]*)(?:=(\w+))?$/.exec(text);
  if (condition?.[1] !== undefined) {
    return { type: 'condition', condition: condition[1], status: (condition[2] ?? 'true').toLowerCase() };
  }
  const path = /^jsonpath=('?)(\{.*\})(?:=(.*))?\1$/.exec(text);
  if (path?.[2] === undefined) {
    throw new CommandError(
      EXIT.usage,
      `--for=${text} is not understood: write condition=Ready, condition=Available, condition=Stalled=False, delete, create or jsonpath={.status.phase}=Ready`,
    );
  }
  try {
    return { type: 'jsonpath', path: parseJsonPath(path[2]), value: path[3] };
  } catch (error) {
    throw new CommandError(EXIT.usage, `--for: ${(error as Error).message}`);
  }
}

/** `imageproxy wait KIND/NAME… --for=…` */
export async function wait(texts: readonly string[], options: WaitOptions, context: CommandContext): Promise<number> {
  const goal = parseGoal(options.for);
  const until = context.now() + options.timeout;
  await using place = await openPlace(options, context);
  const targets = texts.map((text) => targetOf(text, undefined, place.namespace));
  for (const target of targets) {
    const verdict = await watchFor(place, context, {
      ...target,
      ended: place.lost,
      onOverdue: tellUnattended(place, (why) => context.err.line(why)),
      timeoutMs: Math.max(0, until - context.now()),
      decide: (object) => verdictOf(goal, object, target),
      onTimeout: (last) => timedOut(target, options, last),
    });
    context.out.line(`${nameLine(target)} ${verdict}`);
  }
  return EXIT.ok;
}

/** What is printed when the goal is reached; undefined as long as it is not. @throws CommandError when it never will be */
export function verdictOf(goal: Goal, object: StoredResource | undefined, target: Target): string | undefined {
  if (goal.type === 'delete') return object === undefined ? 'deleted' : undefined;
  if (goal.type === 'create') return object === undefined ? undefined : 'created';
  if (object === undefined)
    throw new CommandError(EXIT.notFound, `there is no ${titleOf(target)}; --for=create waits for one to come`);
  const { generation } = object.metadata;
  const status = (object.status ?? {}) as {
    observedGeneration?: number;
    conditions?: Condition[];
    lastHandledReconcileAt?: string;
  };
  if (goal.type === 'jsonpath') {
    const values = evaluate(goal.path, object).map((value) =>
      typeof value === 'string' ? value : JSON.stringify(value),
    );
    const met = goal.value === undefined ? values.length > 0 : values.includes(goal.value);
    return met ? 'condition met' : undefined;
  }
  const condition = status.conditions?.find(({ type }) => type.toLowerCase() === goal.condition.toLowerCase());
  // A condition of an older generation says nothing of what was asked for since.
  const current = condition !== undefined && (condition.observedGeneration ?? generation) === generation;
  if (current && condition.status.toLowerCase() === goal.status) return 'condition met';
  const wantsSuccess = goal.status === 'true' && !['stalled', 'reconciling'].includes(goal.condition.toLowerCase());
  const verdict = kstatus({ metadata: object.metadata, status });
  if (wantsSuccess && verdict.status === 'Failed') {
    throw new CommandError(EXIT.failed, `${titleOf(target)} is stalled: ${printable(verdict.message)}`);
  }
  // Who has asked for another look a moment ago shall not be told what the last one has found.
  const request = requestOf(object.metadata.annotations);
  const isAnswered = request === undefined || request === status.lastHandledReconcileAt;
  if (wantsSuccess && isAnswered && isForDecision({ metadata: object.metadata, status })) {
    throw new CommandError(EXIT.failed, `${titleOf(target)} waits for somebody to act: ${printable(verdict.message)}`);
  }
  return undefined;
}

function timedOut(target: Target, options: WaitOptions, last: StoredResource | undefined): CommandError {
  const conditions = (last?.status as { conditions?: Condition[] } | undefined)?.conditions;
  const message = findCondition(conditions, 'Ready')?.message;
  const where = message === undefined ? '' : `: ${printable(message)}`;
  return new CommandError(EXIT.timedOut, `timed out waiting for ${options.for} of ${titleOf(target)}${where}`);
}
