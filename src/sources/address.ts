import { isIP, isIPv4 } from 'node:net';

/** An IP address as a number: IPv4 below 2^32, IPv6 below 2^128. */
export interface Address {
  family: 4 | 6;
  value: bigint;
}

export interface Block {
  family: 4 | 6;
  value: bigint;
  prefix: number;
}

/** Parses an IPv4 or IPv6 literal in the notations that getaddrinfo and WHATWG URL give; a zone (`%eth0`) and brackets are dropped. */
export function parseAddress(text: string): Address | undefined {
  const bare = text.replace(/^\[(.*)\]$/, '$1').replace(/%.*$/, '');
  switch (isIP(bare)) {
    case 4:
      return { family: 4, value: parseV4(bare) };
    case 6:
      return { family: 6, value: parseV6(bare) };
    default:
      return undefined;
  }
}

/** Parses `10.0.0.0/8`, `fd00::/8`, or a single address. Undefined for anything else. */
export function parseBlock(text: string): Block | undefined {
  const [host = '', length, ...rest] = text.split('/');
  const address = parseAddress(host);
  if (address === undefined || rest.length > 0 || /[[\]%]/.test(host)) return undefined;
  const bits = address.family === 4 ? 32 : 128;
  if (length === undefined) return { ...address, prefix: bits };
  if (!/^\d{1,3}$/.test(length) || Number(length) > bits) return undefined;
  return { ...address, prefix: Number(length) };
}

export function contains(block: Block, address: Address): boolean {
  if (block.family !== address.family) return false;
  const shift = BigInt((block.family === 4 ? 32 : 128) - block.prefix);
  return block.value >> shift === address.value >> shift;
}

/** `length` bits of an IPv6 address, the first of them being bit `from` (0 is the most significant). */
export function bits(address: Address, from: number, length: number): bigint {
  return (address.value >> BigInt(128 - from - length)) & ((1n << BigInt(length)) - 1n);
}

function parseV4(text: string): bigint {
  return text.split('.').reduce((value, octet) => (value << 8n) | BigInt(octet), 0n);
}

function parseV6(text: string): bigint {
  // A dotted quad may stand for the last two groups (RFC 4291 §2.2).
  const quad = text.slice(text.lastIndexOf(':') + 1);
  let plain = text;
  if (isIPv4(quad)) {
    const v4 = parseV4(quad);
    plain = `${text.slice(0, -quad.length)}${(v4 >> 16n).toString(16)}:${(v4 & 0xffffn).toString(16)}`;
  }
  const [left = '', right] = plain.split('::');
  const head = left === '' ? [] : left.split(':');
  const tail = right === undefined || right === '' ? [] : right.split(':');
  const zeros = Array.from({ length: 8 - head.length - tail.length }, () => '0');
  return [...head, ...zeros, ...tail].reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n);
}
