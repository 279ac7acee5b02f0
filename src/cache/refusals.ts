import { Failure } from '../api/failure.ts';
import { formatBytes } from './sizes.ts';

/** Why space was refused, for people: what was wanted, what is there, who has the rest, and the cure. */

export const YIELDS = ', and the youngest of those that grow yields';

export function waitsBehind(earlier: number): string {
  if (earlier === 0) return '';
  return earlier === 1 ? ', and 1 earlier request goes first' : `, and ${earlier} earlier requests go first`;
}

export function tooLarge(bytes: number, quotaBytes: number): Failure {
  return new Failure(
    'TooLarge',
    `${formatBytes(bytes)} wanted, and the whole cache may hold ${formatBytes(quotaBytes)}: give it more (--cache-quota), or a larger volume`,
  );
}

export function diskFull(bytes: number, room: number, reserveFreeBytes: number): Failure {
  return new Failure(
    'DiskFull',
    `${formatBytes(bytes)} wanted, and the volume of the cache has room for ${formatBytes(room)} (${formatBytes(reserveFreeBytes)} are kept free for state): free space on it, or give it more`,
  );
}

export function notGivenBack(bytes: number, missing: number): Failure {
  return new Failure(
    'DiskFull',
    `${formatBytes(bytes)} wanted, and the volume still lacks ${formatBytes(missing)} after an eviction: files that are open give their space back when they are closed; free space on the volume, or give it more`,
  );
}

export function cacheFull(state: {
  bytes: number;
  room: number;
  quotaBytes: number;
  pinnedBytes: number;
  holders: { holder: string; bytes: number }[];
  why: string;
}): Failure {
  const { bytes, room, quotaBytes, pinnedBytes, holders, why } = state;
  const held = holders
    .sort((a, b) => b.bytes - a.bytes)
    .map((entry) => `${formatBytes(entry.bytes)} by ${entry.holder}`);
  if (held.length > 3) held.splice(3, held.length, `and ${held.length - 3} more`);
  const reserved = held.length === 0 ? 'nothing is reserved' : `reserved are ${held.join(', ')}`;
  return new Failure(
    'CacheFull',
    `${formatBytes(bytes)} wanted, ${formatBytes(room)} of ${formatBytes(quotaBytes)} can be had now (${reserved}; ${formatBytes(pinnedBytes)} are blobs in use)${why}: it goes on when these end, or with a larger cache (--cache-quota)`,
  );
}
