import { Failure } from '../../api/failure.ts';
import type { EntryAttention, VMImage } from '../../api/types.ts';
import type { Draft } from '../../stores/store.ts';
import { LEASE_MARGIN_MS } from '../deps.ts';
import { type Look, lookAgain, note } from './look.ts';

/** One write. */
export type Step =
  | {
      readonly what: 'Made' | 'Updated' | 'Retired' | 'Released';
      readonly entry: { id: string; title?: string };
      readonly draft: Draft;
    }
  | { readonly what: 'Deleted'; readonly entry: { id: string; title?: string }; readonly image: VMImage };

/** A round ends within seconds, whatever a list holds: a stop is not kept waiting, and progress is seen. */
const STEPS_PER_ROUND = 256;
/** Enough to share an fsync of the state, or to keep a connection to the API server busy. */
const STEPS_AT_ONCE = 16;
const AUTHORITY_LOOK_MS = 5000;

/**
 * Carries out what was decided, up to a bound. A write that cannot succeed is told, and the others go on.
 * @throws Failure when a write may succeed the next time
 */
export async function carryOut(
  look: Look,
  steps: readonly Step[],
): Promise<{ more: boolean; refusals: readonly EntryAttention[] }> {
  const refusals: EntryAttention[] = [];
  if (steps.length === 0) return { more: false, refusals };
  if (!look.deps.authority.goodForMs(LEASE_MARGIN_MS)) {
    lookAgain(look, look.now + AUTHORITY_LOOK_MS);
    return { more: true, refusals };
  }
  const now = steps.slice(0, STEPS_PER_ROUND);
  const done = new Map<Step['what'], number>();
  let passing: Failure | undefined;
  for (let at = 0; at < now.length; at += STEPS_AT_ONCE) {
    const outcomes = await Promise.all(
      now.slice(at, at + STEPS_AT_ONCE).map(async (step) => ({ step, failure: await carry(look, step) })),
    );
    for (const { step, failure } of outcomes) {
      if (failure === undefined) done.set(step.what, (done.get(step.what) ?? 0) + 1);
      else if (failure.failureClass === 'Transient') passing ??= failure;
      else refusals.push(refusalOf(step, failure));
    }
  }
  if (done.size > 0) {
    const words = [...done].map(([what, count]) => `${count} ${what.toLowerCase()}`).join(', ');
    note(look, 'Normal', 'ImagesChanged', `VMImages: ${words}`);
    look.log.info({ done: Object.fromEntries(done), left: steps.length - now.length }, `images changed: ${words}`);
  }
  if (passing !== undefined) throw passing;
  return { more: steps.length > now.length, refusals };
}

async function carry({ deps }: Look, step: Step): Promise<Failure | undefined> {
  try {
    if (step.what === 'Deleted') await deps.store.delete('VMImage', step.image.metadata);
    else await deps.store.apply(step.draft);
    return undefined;
  } catch (error) {
    return Failure.from(error);
  }
}

function refusalOf(step: Step, { reason, message }: Failure): EntryAttention {
  const { id, title } = step.entry;
  const { name } = step.what === 'Deleted' ? step.image.metadata : step.draft.metadata;
  return {
    id,
    ...(title === undefined ? {} : { title: title.slice(0, 1024) }),
    image: name,
    reason,
    message: message.slice(0, 4096),
  };
}
