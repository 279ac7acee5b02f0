import { parseDigest } from '../api/digest.ts';
import type { ImageSubscription } from '../api/types.ts';
import { appliedBy } from './applied-by.ts';
import { CommandError, EXIT } from './exit.ts';
import { nameLine, type Target, targetOf, titleOf } from './kinds.ts';
import { openPlace } from './open-place.ts';
import { type CommandContext, printable } from './output.ts';
import type { Place, PlaceOptions } from './place.ts';

export interface ApproveOptions extends PlaceOptions {
  /** Of the one entry that is named. */
  digest?: string;
  anyDigest?: boolean;
  /** All that wait, as far as the status shows them. */
  all?: boolean;
}

const PENDING = 'PendingApproval';

type Approved = NonNullable<ImageSubscription['spec']['approved']>;

/**
 * `imageproxy approve SUBSCRIPTION ENTRY…|--all`: entries of a list become VMImages with the bytes that the list gives for them now. Where the
 * subscription comes from a manifest, the lines to add to it are printed instead: what is not in the file would not last.
 */
export async function approve(
  text: string,
  named: readonly string[],
  options: ApproveOptions,
  context: CommandContext,
): Promise<number> {
  if ((options.all === true) === named.length > 0 || (options.all === true && options.digest !== undefined)) {
    throw new CommandError(
      EXIT.usage,
      'name the entries to approve, or give --all (without --digest) for all that wait',
    );
  }
  await using place = await openPlace(options, context);
  const target = targetOf(text.includes('/') ? text : `imgsub/${text}`, undefined, place.namespace);
  if (target.kind !== 'ImageSubscription') {
    throw new CommandError(
      EXIT.usage,
      `entries are approved for an ImageSubscription: write imgsub/${target.key.name}`,
    );
  }
  const found = await place.get(target.kind, target.key);
  if (found === undefined) throw new CommandError(EXIT.notFound, `there is no ${titleOf(target)} in ${place.title}`);
  const subscription = found as unknown as ImageSubscription;
  if (subscription.spec.approval === 'Automatic') {
    throw new CommandError(
      EXIT.usage,
      `${titleOf(target)} asks for no approval (spec.approval: Automatic): all chosen entries become VMImages`,
    );
  }
  const ids = options.all === true ? waitingIn(subscription, options, target) : named;
  const rows = ids.map((id) => rowOf(id, ids.length, subscription, options, target, place));
  const before = subscription.spec.approved ?? [];
  const approved = [...before.filter(({ id }) => !ids.includes(id)), ...rows];
  const file = await place.manifestOf(target.kind, target.key);
  if (file !== undefined) return printLines(file, approved, target, context);
  const writer = appliedBy(found);
  const session = await place.act();
  try {
    await session.change(found, { approved });
  } finally {
    await session.close();
  }
  for (const { id, digest } of rows) {
    context.out.line(printable(`${nameLine(target)} approved ${id}${digest === undefined ? '' : ` with ${digest}`}`));
  }
  if (writer !== undefined) {
    context.err.line(
      `${titleOf(target)} is applied by ${printable(writer)}: add it to spec.approved there too, else it may be lost`,
    );
  }
  const left = (subscription.status.counts?.pendingApproval ?? 0) - rows.length;
  if (options.all !== true || left <= 0) return EXIT.ok;
  context.err.line(
    `${left} more entries wait: a status shows only some at a time. Run this again when it shows the next`,
  );
  return EXIT.failed;
}

/** Ids of the entries that wait, each once. @throws CommandError when there are none, or none can be seen */
function waitingIn({ status }: ImageSubscription, { anyDigest }: ApproveOptions, target: Target): string[] {
  const rows = (status.attention ?? []).filter(
    ({ reason, digest }) => reason === PENDING && (digest !== undefined || anyDigest === true),
  );
  if (rows.length > 0) return [...new Set(rows.map(({ id }) => id))];
  const count = status.counts?.pendingApproval ?? 0;
  throw new CommandError(
    EXIT.notFound,
    count === 0
      ? `no entry of ${titleOf(target)} waits for approval`
      : `${count} entries of ${titleOf(target)} wait for approval, but other troubles stand before them in its status: mend these first, or name the entries with --digest or --any-digest`,
  );
}

function rowOf(
  id: string,
  count: number,
  { status }: ImageSubscription,
  { digest, anyDigest }: ApproveOptions,
  target: Target,
  place: Place,
): Approved[number] {
  if (anyDigest === true) {
    if (digest !== undefined) throw new CommandError(EXIT.usage, '--digest and --any-digest exclude each other');
    return { id };
  }
  if (digest !== undefined) {
    if (count > 1) throw new CommandError(EXIT.usage, '--digest is of one entry: name only one');
    if (parseDigest(digest) === undefined) {
      throw new CommandError(EXIT.usage, `"${digest}" is no digest: write algorithm:hex, e.g. sha256:9f86d081…`);
    }
    return { id, digest: digest.toLowerCase() };
  }
  const waiting = status.attention?.find((row) => row.id === id && row.reason === PENDING);
  if (waiting?.digest !== undefined) return { id, digest: waiting.digest };
  throw new CommandError(
    EXIT.notFound,
    `${titleOf(target)} has no entry ${id} among those that it shows as waiting for approval: see "${place.typed('describe', target)}", or give --digest or --any-digest`,
  );
}

/** What is not done is no success: whoever scripts this must see that a person has to edit the file. */
async function printLines(
  file: string,
  approved: Approved,
  target: Target,
  { out, err }: CommandContext,
): Promise<number> {
  const { stringify } = await import('yaml');
  err.line(
    `${titleOf(target)} comes from ${file}: put these lines under its spec, in place of approved if it is there`,
  );
  for (const line of stringify({ approved }, { lineWidth: 0 }).trimEnd().split('\n')) out.line(printable(`  ${line}`));
  return EXIT.failed;
}
