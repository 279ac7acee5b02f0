import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { InvalidArgumentError } from 'commander';
import { parseBytes, parseDuration, parseShare } from './quantity.ts';

/** Parsers of option values for commander: it puts the option's name before what they throw. */

export type Quota = { bytes: number } | { share: number };

export function quota(text: string): Quota {
  const share = parseShare(text);
  if (share !== undefined) return { share };
  const bytes = parseBytes(text);
  if (bytes !== undefined && bytes > 0) return { bytes };
  throw new InvalidArgumentError('Write a size or a share of the volume, e.g. 20Gi or 80%.');
}

export function duration(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined) throw new InvalidArgumentError('Write a duration, e.g. 90s, 10m or 1h30m.');
  return ms;
}

/** Milliseconds since the epoch of an RFC 3339 time, or a day. */
export function time(text: string): number {
  const shape = /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?$/;
  const at = shape.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(at))
    throw new InvalidArgumentError('Write a time, e.g. 2013-10-20T00:00:00Z, or a day, 2013-10-20.');
  return at;
}

export function positive(text: string): number {
  const number = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (number < 1) throw new InvalidArgumentError('Write a whole number from 1 to 9999.');
  return number;
}

/** Steps at a cloud are begun only when the Lease is good for another 10 s: shorter ones would stand still between renewals. */
const SHORTEST_LEASE_MS = 30_000;

export function leaseDuration(text: string): number {
  const ms = duration(text);
  if (ms < SHORTEST_LEASE_MS) throw new InvalidArgumentError('Write at least 30s.');
  return ms;
}

/** Names of Kubernetes, divided by commas. */
export function names(text: string): string[] {
  const all = text.split(',').map((name) => name.trim());
  const wrong = all.find((name) => !/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(name));
  if (wrong !== undefined) throw new InvalidArgumentError(`Write names divided by commas; "${wrong}" is none.`);
  return [...new Set(all)];
}

/** Collects a repeatable option. */
export function networks(text: string, before: readonly string[] = []): string[] {
  const [address = '', bits, ...more] = text.split('/');
  const version = isIP(address);
  const most = version === 4 ? 32 : 128;
  if (version === 0 || more.length > 0 || bits === undefined || !/^\d{1,3}$/.test(bits) || Number(bits) > most) {
    throw new InvalidArgumentError('Write an address and a prefix length, e.g. 10.0.0.0/8 or fd00::/8.');
  }
  return [...before, text];
}

export function texts(text: string, before: readonly string[] = []): string[] {
  return [...before, text];
}

export function fileRoots(text: string, before: ReadonlyMap<string, string> = new Map()): Map<string, string> {
  const { name, folder } = /^(?<name>[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)=(?<folder>.+)$/.exec(text)?.groups ?? {};
  if (name === undefined || folder === undefined)
    throw new InvalidArgumentError('Write NAME=FOLDER, e.g. archive=/srv/images.');
  if (before.has(name)) throw new InvalidArgumentError(`"${name}" is given twice.`);
  return new Map([...before, [name, resolve(folder)]]);
}

export function properties(text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> {
  const equals = text.indexOf('=');
  if (equals < 1) throw new InvalidArgumentError('Write KEY=VALUE, e.g. hw_disk_bus=virtio.');
  return { ...before, [text.slice(0, equals)]: text.slice(equals + 1) };
}

export type Address = { host: string; port: number } | 'off';

export function address(text: string): Address {
  if (text === 'off') return 'off';
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3] ?? -1);
  if (match === null || port < 0 || port > 65_535) {
    throw new InvalidArgumentError('Write HOST:PORT, e.g. 127.0.0.1:9464, or off.');
  }
  return { host: match[1] ?? (match[2] === '' ? '0.0.0.0' : (match[2] ?? '')), port };
}

const DIGITS = { sha256: 64, sha512: 128, sha1: 40 } as const;

/** A checksum in hexadecimal; upper case means the same. */
export function hex(algorithm: keyof typeof DIGITS): (text: string) => string {
  return (text) => {
    const digits = text.trim().toLowerCase().replace(`${algorithm}:`, '');
    if (digits.length !== DIGITS[algorithm] || !/^[0-9a-f]+$/.test(digits)) {
      throw new InvalidArgumentError(
        `A ${algorithm} checksum is ${DIGITS[algorithm]} hexadecimal digits; this one has ${digits.length} characters.`,
      );
    }
    return digits;
  };
}
