import type { LookupAddress, LookupOptions } from 'node:dns';
import { lookup } from 'node:dns/promises';
import type { LookupFunction } from 'node:net';
import { callbackify } from 'node:util';
import { Failure } from '../api/failure.ts';
import { type Address, type Block, bits, contains, parseAddress, parseBlock } from './address.ts';
import type { NetworkPolicy } from './source.ts';

/**
 * Which addresses a source may reach. A tenant names the URL, so without this he could read what only the controller can reach:
 * cloud metadata with credentials in it, the API server, a database on loopback (server-side request forgery).
 *
 * The check stands inside the connector and runs on every hop, on what is really connected to: a name that resolves to a public
 * address when it is looked at and to a private one when it is used (DNS rebinding) gets nowhere.
 */
export class NetworkGuard {
  readonly #allow: readonly Block[];
  readonly #closed: readonly Place[];

  /** @throws Failure InvalidSpec when an entry is not CIDR notation. */
  constructor(policy: NetworkPolicy) {
    this.#allow = policy.allow.map(block);
    this.#closed = (policy.closed ?? []).flatMap((text) => {
      const url = URL.parse(text);
      return url === null ? [] : [placeOf(url)];
    });
  }

  /** Whether an address, in any notation that `parseAddress` takes, may be connected to. */
  allows(text: string): boolean {
    const address = parseAddress(text);
    if (address === undefined) return false;
    const seen = [address, ...embedded(address)];
    const inside = (blocks: readonly Block[]) => (part: Address) => blocks.some((entry) => contains(entry, part));
    if (seen.some(inside(NEVER))) return false;
    if (inside(this.#allow)(address)) return true;
    // An IPv4-mapped address reaches the IPv4 host itself: its IPv6 wrapping says nothing.
    const judged = contains(MAPPED, address) ? seen.slice(1) : seen;
    return judged.every((part) => isPublic(part) || inside(this.#allow)(part));
  }

  /**
   * Call it before each connection: a closed place is refused by its name here, and Node never calls `lookup` for an IP literal.
   * @throws Failure AddressForbidden
   */
  async check(url: URL, where: string): Promise<void> {
    const { host, port } = placeOf(url);
    if (this.#closed.some((place) => place.host === host && place.port === port)) throw forbidden(where);
    if (parseAddress(host) === undefined) return;
    if (!this.allows(host) || (await this.#closedAt([host], port)).has(host)) throw forbidden(where);
  }

  /** A `lookup` for net.connect that gives only the allowed ones of the addresses that the URL's host has. */
  lookup(url: URL, where: string): LookupFunction {
    const find = callbackify((hostname: string, options: LookupOptions) =>
      this.#resolve(hostname, options, url, where),
    );
    return (hostname, options, callback) =>
      find(hostname, options, (error, found) => {
        if (error !== null) callback(error, []);
        else if (options.all === true) callback(null, found);
        else callback(null, found[0].address, found[0].family);
      });
  }

  async #resolve(hostname: string, options: LookupOptions, url: URL, where: string): Promise<Found> {
    const open = (await lookup(hostname, { ...options, all: true })).filter(({ address }) => this.allows(address));
    const addresses = open.map(({ address }) => address);
    const closed = await this.#closedAt(addresses, placeOf(url).port);
    const [first, ...others] = open.filter(({ address }) => !closed.has(address));
    if (first === undefined) throw forbidden(where);
    return [first, ...others];
  }

  /**
   * Which of these addresses lead, at this port, to a closed place under another name. Public ones do not count: there anybody may
   * ask, and a cloud's object store or a content network often stands at the same address and port.
   */
  async #closedAt(addresses: readonly string[], port: number): Promise<Set<string>> {
    const hidden = addresses.filter((text) => reachOf(text).some((part) => !isPublic(part)));
    const places = this.#closed.filter((place) => place.port === port);
    if (hidden.length === 0 || places.length === 0) return new Set();
    const closed = (await Promise.all(places.map(({ host }) => addressesOf(host)))).flat().flatMap(reachOf);
    return new Set(hidden.filter((text) => reachOf(text).some((part) => closed.some((other) => isSame(part, other)))));
  }
}

type Found = [LookupAddress, ...LookupAddress[]];

/** Host (a name without its final dot, or an address without brackets) and port. */
interface Place {
  host: string;
  port: number;
}

function placeOf({ hostname, port, protocol }: URL): Place {
  const host = hostname
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/\.$/, '')
    .toLowerCase();
  return { host, port: port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port) };
}

/** What cannot be resolved now cannot be compared; the cloud client does not get there either. */
async function addressesOf(host: string): Promise<string[]> {
  const found = await lookup(host, { all: true }).catch(() => []);
  return found.map(({ address }) => address);
}

/** An address and what a packet to it may end at. */
function reachOf(text: string): Address[] {
  const address = parseAddress(text);
  if (address === undefined) return [];
  const ends = embedded(address);
  return contains(MAPPED, address) ? ends : [address, ...ends];
}

/** Every loopback address leads to this machine, where a server may listen on all of them. */
function isSame(one: Address, other: Address): boolean {
  const here = (address: Address) => SELF.some((entry) => contains(entry, address));
  return (one.family === other.family && one.value === other.value) || (here(one) && here(other));
}

/** The same words whatever is behind the address, so that nobody maps a network by asking. */
function forbidden(where: string): Failure {
  return new Failure(
    'AddressForbidden',
    `${where}: sources may reach public addresses only, and this is another; an operator can start the controller with --allow-network CIDR (link-local and metadata addresses and the sites' own APIs stay closed)`,
  );
}

function block(text: string): Block {
  const parsed = parseBlock(text);
  if (parsed === undefined) {
    throw new Failure('InvalidSpec', `--allow-network ${text}: not a network in CIDR notation, e.g. 10.20.0.0/16`);
  }
  return parsed;
}

const known = (texts: readonly string[]): readonly Block[] => texts.map(block);

/**
 * Link-local, and the addresses under which clouds hand out instance credentials. No flag opens them, and the chart's NetworkPolicy
 * leaves out the same.
 */
export const NEVER_REACHED = [
  '169.254.0.0/16',
  'fe80::/10',
  'fd00:ec2::254', // AWS, IMDS over IPv6
  'fd20:ce::254', // Google Cloud
  '168.63.129.16', // Azure, WireServer
  '100.100.100.200', // Alibaba Cloud
  '192.0.0.192', // Oracle Cloud, old images
] as const;
const NEVER = known(NEVER_REACHED);

/** What a connection takes for this machine (RFC 1122 §3.2.1.3, RFC 4291 §2.5). */
const SELF = known(['127.0.0.0/8', '0.0.0.0/8', '::1', '::']);

/** IANA IPv4 Special-Purpose Address Registry: what is not globally reachable; multicast and class E. */
const PRIVATE_V4 = known([
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/4',
  '240.0.0.0/4',
]);

/** Global unicast is 2000::/3 (RFC 4291 §2.4) without these; everything else (ULA, multicast, loopback, …) is not public. */
const PRIVATE_V6 = known(['2001::/23', '2001:db8::/32', '3fff::/20']);
const GLOBAL_V6 = known(['2000::/3', '64:ff9b::/96']);

function isPublic(address: Address): boolean {
  const inside = (blocks: readonly Block[]) => blocks.some((entry) => contains(entry, address));
  return address.family === 4 ? !inside(PRIVATE_V4) : inside(GLOBAL_V6) && !inside(PRIVATE_V6);
}

const [MAPPED, COMPATIBLE, NAT64, NAT64_LOCAL, SIX_TO_FOUR, TEREDO] = known([
  '::ffff:0:0/96',
  '::/96',
  '64:ff9b::/96',
  '64:ff9b:1::/48',
  '2002::/16',
  '2001::/32',
]) as [Block, Block, Block, Block, Block, Block];

/** The IPv4 addresses that a packet to this IPv6 address may end at. */
function embedded(address: Address): Address[] {
  if (address.family === 4) return [];
  const v4 = (value: bigint): Address => ({ family: 4, value });
  const low = v4(bits(address, 96, 32));
  if (contains(MAPPED, address) || contains(NAT64, address)) return [low];
  if (contains(COMPATIBLE, address) && address.value > 1n) return [low];
  if (contains(SIX_TO_FOUR, address)) return [v4(bits(address, 16, 32))];
  if (contains(TEREDO, address)) {
    return [v4(bits(address, 32, 32)), v4(low.value ^ 0xffffffffn)]; // the server, and the client, whose bits are inverted (RFC 4380 §4)
  }
  if (contains(NAT64_LOCAL, address)) {
    // The operator's own prefix may have any length from /48 on, and where the IPv4 bits stand depends on it (RFC 6052 §2.2).
    return [
      v4((bits(address, 48, 16) << 16n) | bits(address, 72, 16)),
      v4((bits(address, 56, 8) << 24n) | bits(address, 72, 24)),
      v4(bits(address, 72, 32)),
      low,
    ];
  }
  return [];
}
