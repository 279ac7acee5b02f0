import { findCondition, kstatus, READY } from '../api/conditions.ts';
import { ANNOTATIONS, type ApiObject } from '../api/types.ts';
import { CommandError, EXIT } from './exit.ts';
import { nameLine, targetOf, titleOf, typedName } from './kinds.ts';
import { type CommandContext, printable } from './output.ts';
import { openSession } from './session.ts';
import { manifestsDirectory, openReader, stateDirectory, type StateOptions } from './state.ts';
import { watchFor } from './watching.ts';

export interface ReconcileOptions extends StateOptions {
  namespace: string;
  wait: boolean;
  timeout: number;
  manifests?: string;
}

/** `imageproxy reconcile KIND/NAME`: clears every back-off, looks again, and says what came of it. */
export async function reconcile(text: string, options: ReconcileOptions, context: CommandContext): Promise<number> {
  const target = targetOf(text, undefined, options.namespace);
  const state = stateDirectory(options, context.env);
  const reader = await openReader(state);
  if ((await reader.get(target.kind, target.key)) === undefined) {
    throw new CommandError(EXIT.notFound, `there is no ${titleOf(target)} in ${state}`);
  }
  const requestedAt = new Date(context.now()).toISOString();
  const manifests = manifestsDirectory(options.manifests, context.env);
  const session = await openSession({ state, manifests, signal: context.signal });
  try {
    await session.annotate(target.kind, target.key, { [ANNOTATIONS.requestedAt]: requestedAt });
    if (!options.wait) {
      context.out.line(`${nameLine(target)} reconcile requested`);
      return EXIT.ok;
    }
    const settled = await watchFor(session, context, {
      ...target,
      timeoutMs: options.timeout,
      ended: session.ended,
      decide: (object) => {
        if (object === undefined) throw new CommandError(EXIT.notFound, `${titleOf(target)} is gone`);
        const api = object as unknown as ApiObject;
        if (api.status?.lastHandledReconcileAt !== requestedAt) return undefined;
        return api.spec.suspend || kstatus(api).status !== 'InProgress' ? api : undefined;
      },
      onTimeout: (last) => {
        const message =
          findCondition((last as unknown as ApiObject | undefined)?.status?.conditions, READY)?.message ??
          'nothing is known yet';
        return new CommandError(
          EXIT.timedOut,
          `${titleOf(target)} is not settled after ${options.timeout / 1000} s: ${printable(message)}; follow it with "imageproxy watch ${typedName(target)}"`,
        );
      },
    });
    const message = printable(findCondition(settled.status.conditions, READY)?.message ?? '');
    if (kstatus(settled).status === 'Failed') {
      throw new CommandError(EXIT.failed, `${titleOf(target)} is stalled: ${message}`);
    }
    context.out.line(`${nameLine(target)} reconciled: ${settled.spec.suspend ? 'it is suspended' : message}`);
    return EXIT.ok;
  } finally {
    await session.close();
  }
}
