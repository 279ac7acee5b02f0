import { findCondition, isTrue, READY, STALLED } from '../../api/conditions.ts';
import { ANNOTATIONS, type EntryAttention, type ImageSubscriptionStatus, type VMImage } from '../../api/types.ts';
import type { Summary } from './summary.ts';

/** As many as the status has room for (crds/). */
const MAX_ROWS = 100;

export function countsOf(images: readonly VMImage[], summary: Summary): NonNullable<ImageSubscriptionStatus['counts']> {
  const { entries, skipped, selected, pendingApproval, retired } = summary;
  return {
    entries,
    skipped,
    selected,
    pendingApproval,
    images: images.length,
    retired,
    ready: images.filter((image) => isInService(image)).length,
    failed: images.filter((image) => isTrue(image.status?.conditions, STALLED)).length,
  };
}

/** Ready, and not only ready to be out of service. */
function isInService(image: VMImage): boolean {
  return isTrue(image.status?.conditions, READY) && isTrue(image.status?.conditions, 'Available');
}

/** The rows of status: what concerns the list first, then images that are Stalled; each entry once, in an order that stays. */
export function attentionOf(images: readonly VMImage[], { attention }: Summary): EntryAttention[] {
  const rows = new Map<string, EntryAttention>();
  for (const row of [...attention, ...stalledRows(images)]) {
    if (rows.size >= MAX_ROWS) break;
    const id = row.id.slice(0, 253);
    if (!rows.has(id)) rows.set(id, { ...row, id });
  }
  return [...rows.values()];
}

function* stalledRows(images: readonly VMImage[]): Generator<EntryAttention> {
  for (const image of images) {
    const stalled = findCondition(image.status?.conditions, STALLED);
    if (stalled?.status !== 'True') continue;
    const { annotations = {}, name } = image.metadata;
    const title = annotations[ANNOTATIONS.entryTitle];
    yield {
      id: annotations[ANNOTATIONS.entry] ?? name,
      ...(title === undefined ? {} : { title: title.slice(0, 1024) }),
      image: name,
      reason: stalled.reason,
      message: stalled.message.slice(0, 4096),
    };
  }
}
