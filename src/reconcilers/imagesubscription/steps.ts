import { Failure } from '../../api/failure.ts';
import { ANNOTATIONS, type EntryAttention, type VMImage } from '../../api/types.ts';
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

/** A round ends within some seconds, whatever a list holds, so that progress is seen and new words are heard. */
const STEPS_PER_ROUND = 1024;
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
  // What cannot succeed must not stand before the others in every round: it is tried again with the next reading.
  const refused = (look.memory.refused ??= new Map<string, EntryAttention>());
  const due = steps.filter((step) => !refused.has(keyOf(look, step)));
  const refusals = steps.flatMap((step) => refused.get(keyOf(look, step)) ?? []);
  const now = due.slice(0, STEPS_PER_ROUND);
  const done = new Map<Step['what'], number>();
  let passing: Failure | undefined;
  let tried = 0;
  for (let at = 0; at < now.length; at += STEPS_AT_ONCE) {
    // It may end in the middle: a stop, or a Lease that is lost, waits for no list.
    const { authority, duties } = look.deps;
    if (!authority.goodForMs(LEASE_MARGIN_MS) || !duties.summarizes) {
      lookAgain(look, look.now + AUTHORITY_LOOK_MS);
      return { more: true, refusals };
    }
    tried = Math.min(at + STEPS_AT_ONCE, now.length);
    const outcomes = await Promise.all(
      now.slice(at, at + STEPS_AT_ONCE).map(async (step) => ({ step, failure: await carry(look, step) })),
    );
    for (const { step, failure } of outcomes) {
      if (failure === undefined) done.set(step.what, (done.get(step.what) ?? 0) + 1);
      else if (failure.failureClass === 'Transient') passing ??= failure;
      else {
        const row = refusalOf(step, failure);
        refusals.push(row);
        // Whoever was quicker to take the name is seen in the next round, which tells more of it.
        if (failure.reason !== 'NameInUse') refused.set(keyOf(look, step), row);
      }
    }
  }
  if (done.size > 0) {
    const words = [...done].map(([what, count]) => `${count} ${what.toLowerCase()}`).join(', ');
    note(look, 'Normal', 'ImagesChanged', `VMImages: ${words}`);
    look.log.info({ done: Object.fromEntries(done), left: due.length - tried }, `images changed: ${words}`);
  }
  if (passing !== undefined) throw passing;
  const more = due.length > tried;
  if (more) lookAgain(look, look.now);
  return { more, refusals };
}

/** The same write, wanted by the same spec. */
function keyOf({ generation }: Look, step: Step): string {
  const hash = step.what === 'Deleted' ? '' : step.draft.metadata.annotations?.[ANNOTATIONS.entryHash];
  return JSON.stringify([generation, step.what, step.entry.id, hash]);
}

async function carry({ deps }: Look, step: Step): Promise<Failure | undefined> {
  try {
    if (step.what === 'Deleted') await deps.store.delete('VMImage', step.image.metadata, step.image.metadata.uid);
    else if (step.what === 'Made') await deps.store.create(step.draft);
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
