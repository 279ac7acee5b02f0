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
}

type Approved = NonNullable<ImageSubscription['spec']['approved']>;

/**
 * `imageproxy approve SUBSCRIPTION ENTRY…`: entries of a list become VMImages with the bytes that the list gives for them now. Where the
 * subscription comes from a manifest, the lines to add to it are printed instead: what is not in the file would not last.
 */
export async function approve(
  text: string,
  ids: readonly string[],
  options: ApproveOptions,
  context: CommandContext,
): Promise<number> {
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
  return EXIT.ok;
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
  const waiting = status.attention?.find((row) => row.id === id && row.reason === 'PendingApproval');
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
