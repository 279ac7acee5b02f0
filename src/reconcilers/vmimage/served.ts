import { type Algorithm, contradicted, parseDigest } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { PreviousRegistration, SiteRow } from '../../api/types.ts';
import { type Content, sourceDigestOf } from './content.ts';
import { refsOf } from './named.ts';
import type { Part, Plan } from './plan.ts';
import type { Round } from './round.ts';

/** What a site shall serve; the digests are known before the bytes are. */
export interface Wanted {
  plan: Plan;
  /** `alg:hex` that the row is known by: the disk's, or the metafile's that names all parts. */
  digest: string | undefined;
  /** Brings the bytes; called only when a site needs them. */
  content(): Promise<Content>;
}

export async function serves(row: SiteRow, wanted: Wanted, round: Round): Promise<'Yes' | 'No' | 'Unknown'> {
  if (row.imageID === undefined) return 'No';
  if (round.image.spec.source.metafile !== undefined) return row.digest === wanted.digest ? 'Yes' : 'No';
  const there = row.artifacts ?? [];
  if (there.length !== wanted.plan.parts.length) return 'No';
  let unknown = false;
  for (const part of wanted.plan.parts) {
    const artifact = there.find((each) => each.role === part.role);
    if (artifact?.digest === undefined) return 'No';
    const verdict = matches(artifact.digest, part, round);
    if (verdict === 'No') return 'No';
    if (verdict === 'Unknown') unknown = true;
  }
  return unknown ? 'Unknown' : 'Yes';
}

/** Whether a registered part, known by one digest, is the part that is declared. */
function matches(digest: string, part: Part, round: Round): 'Yes' | 'No' | 'Unknown' {
  const [algorithm, hex] = digest.split(':') as [Algorithm, string];
  const declared =
    part.declared[algorithm] ?? (Object.keys(part.declared).length === 0 ? part.content[algorithm] : undefined);
  if (declared !== undefined) return declared === hex ? 'Yes' : 'No';
  const kept = round.status.artifacts?.find((artifact) => artifact.role === part.role);
  // Without any checksum the source is all there is to go by.
  if (Object.keys(part.declared).length + Object.keys(part.content).length === 0) {
    return kept?.inputsHash === part.key && kept.digest === digest ? 'Yes' : 'Unknown';
  }
  return 'Unknown';
}

/**
 * A checksum that what serves does not have, though another names it. Told without the bytes where the file was sent as it was published:
 * then what the cloud was given is the file, and its content.
 */
export function contradictionOf(row: SiteRow, wanted: Wanted, round: Round): Failure | undefined {
  for (const part of wanted.plan.parts) {
    const [sent] = refsOf(row.artifacts?.filter(({ role }) => role === part.role));
    const kept = round.status.artifacts?.find(({ role }) => role === part.role);
    const published = [part.declared.sha256, parseDigest(kept?.digest ?? '')?.hex];
    const has = sent?.digests ?? {};
    if (has.sha256 === undefined || !published.includes(has.sha256)) continue;
    for (const [field, declared] of [
      ['checksums', part.declared],
      ['contentChecksums', part.content],
    ] as const) {
      const algorithm = contradicted(declared, has);
      if (algorithm === undefined) continue;
      return new Failure(
        'DigestMismatch',
        `${part.field}.${field}.${algorithm}: what is registered at ${row.name} as ${sent?.id} has ${algorithm} ${has[algorithm]}, not ${declared[algorithm]}: correct it`,
      );
    }
  }
  return undefined;
}

export function sameAsBytes(row: SiteRow, plan: Plan, content: Extract<Content, { step: 'Ready' }>): boolean {
  return plan.parts.every((part) => {
    const blob = content.blobs.get(part.role);
    const artifact = row.artifacts?.find((each) => each.role === part.role);
    const [algorithm, hex] = (artifact?.digest ?? ':').split(':') as [Algorithm, string];
    return blob !== undefined && blob.digests[algorithm] === hex;
  });
}

/** The row is known by what is declared now: else the bytes would be asked for in every round, and kept here for it. */
export function knowByDeclared(row: SiteRow, wanted: Wanted, content: Extract<Content, { step: 'Ready' }>): void {
  row.digest = wanted.digest ?? row.digest ?? '';
  for (const part of wanted.plan.parts) {
    const artifact = row.artifacts?.find((each) => each.role === part.role);
    const digest = sourceDigestOf(part, content.blobs.get(part.role));
    if (artifact !== undefined && digest !== undefined) artifact.digest = digest;
  }
}

/** The kernel and ramdisk as well as the disk; a metafile's digest stands for all of its parts. */
function sameParts(former: PreviousRegistration, wanted: Wanted): boolean {
  const there = former.artifacts ?? [];
  const { parts } = wanted.plan;
  return (
    parts.length === 0 ||
    (there.length === parts.length &&
      parts.every((part) =>
        there.some(
          (each) =>
            each.role === part.role &&
            Object.values(part.declared).some((hex) => each.digest?.endsWith(`:${hex}`) === true),
        ),
      ))
  );
}

/**
 * A former registration of the very thing that is wanted, which we have sent; also one that is on its way back already, or not retired
 * yet. One that was only found is claimed by an image that is
 * no more, and nothing here can prove its bytes: it is taken up where the image is registered anew.
 */
export function formerOf(row: SiteRow, wanted: Wanted): PreviousRegistration | undefined {
  if (wanted.digest === undefined) return undefined;
  return (row.previous ?? []).find(
    (each) =>
      each.digest === wanted.digest &&
      each.artifacts?.every((part) => part.sentDigest !== undefined) === true &&
      sameParts(each, wanted),
  );
}
