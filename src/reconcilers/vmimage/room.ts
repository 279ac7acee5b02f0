import { parseDigest } from '../../api/digest.ts';
import { hashOf } from './identity.ts';
import type { Round } from './round.ts';

/**
 * The name under which space is asked for to unpack and to convert what was published as this blob. One for both: what was unpacked
 * and evicted is unpacked again in the place of the conversion that waits, and not behind it.
 */
export function spaceFor(sha256: string): string {
  return `prepare ${sha256}`;
}

/**
 * Whether what was refused room to be unpacked or converted would get it now: beside all that the image has here, of every part, and
 * what was made of that. It is unpinned while the image waits, and pinned again as soon as it goes on: counted as room, the image
 * would ask, be refused, and ask again without a pause.
 */
export function isRoomToPrepare(round: Round): boolean {
  const { cache } = round.deps;
  const all = published(round);
  const kept = cache.withResults(all);
  return all.some((sha256) => cache.isRoomFor(spaceFor(sha256), kept));
}

/**
 * What has to be fetched first is not unpacked now. Its place in the queue for space would else be before that of its own download,
 * and both, and all behind them, would wait until it lapses.
 */
export function giveUpRoomToPrepare(round: Round): void {
  for (const sha256 of published(round)) round.deps.cache.giveUp(spaceFor(sha256));
}

function published({ status }: Round): string[] {
  return (status.artifacts ?? []).flatMap(({ digest }) => {
    const found = digest === undefined ? undefined : parseDigest(digest);
    return found === undefined ? [] : [found.hex];
  });
}

/**
 * What a failure is recorded for. One of size stands for the bounds as well that it has run into: with a larger cache, or at sites that
 * take more, there may be room.
 * @param bounds those beside the cache's own, in bytes
 */
export function recordedFor({ deps }: Round, reason: string, inputsHash: string, ...bounds: number[]): string {
  if (reason !== 'TooLarge') return inputsHash;
  return [inputsHash, hashOf([deps.cache.stats().quotaBytes]), ...bounds.map((each) => hashOf([each]))].join('/');
}

/** Whether a failure that was recorded for this still stands. `bounds` undefined: whatever they are now, beside the cache's own. */
export function standsFor(round: Round, recorded: string, inputsHash: string, bounds: number[] | undefined): boolean {
  const current = recordedFor(round, 'TooLarge', inputsHash, ...(bounds ?? []));
  const isOfAnyBounds = bounds === undefined && recorded.startsWith(`${current}/`);
  return recorded === inputsHash || recorded === current || isOfAnyBounds;
}
