import { lookup as resolve } from 'node:dns';
import type { LookupFunction } from 'node:net';
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
  readonly #deny: readonly Block[];

  /** @throws Failure InvalidSpec when an entry is not CIDR notation. */
  constructor(policy: NetworkPolicy) {
    this.#allow = policy.allow.map(block);
    this.#deny = (policy.deny ?? []).map(block);
  }

  /** Whether an address, in any notation that `parseAddress` takes, may be connected to. */
  allows(text: string): boolean {
    const address = parseAddress(text);
    if (address === undefined) return false;
    const seen = [address, ...embedded(address)];
    const inside = (blocks: readonly Block[]) => (part: Address) => blocks.some((entry) => contains(entry, part));
    if (seen.some(inside(NEVER)) || seen.some(inside(this.#deny))) return false;
    if (inside(this.#allow)(address)) return true;
    // An IPv4-mapped address reaches the IPv4 host itself: its IPv6 wrapping says nothing.
    const judged = contains(MAPPED, address) ? seen.slice(1) : seen;
    return judged.every((part) => isPublic(part) || inside(this.#allow)(part));
  }

  /**
   * Node never calls `lookup` for an IP literal, so the host of a URL is checked here before it connects.
   * @throws Failure AddressForbidden
   */
  checkHost(hostname: string, where: string): void {
    if (parseAddress(hostname) !== undefined && !this.allows(hostname)) throw forbidden(where);
  }

  /** A `lookup` for net.connect that gives only the allowed ones of a name's addresses. */
  lookup(where: string): LookupFunction {
    return (hostname, options, callback) => {
      resolve(hostname, { ...options, all: true }, (error, found) => {
        if (error !== null) return callback(error, []);
        const allowed = found.filter(({ address }) => this.allows(address));
        const [first] = allowed;
        if (first === undefined) return callback(forbidden(where), []);
        if (options.all === true) callback(null, allowed);
        else callback(null, first.address, first.family);
      });
    };
  }
}

/** The same words whatever is behind the address, so that nobody maps a network by asking. */
function forbidden(where: string): Failure {
  return new Failure(
    'AddressForbidden',
    `${where}: sources may reach public addresses only, and this is another; an operator can start the controller with --allow-network CIDR (link-local and metadata addresses stay closed)`,
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

/** Link-local, and the addresses under which clouds hand out instance credentials. No flag opens them. */
const NEVER = known([
  '169.254.0.0/16',
  'fe80::/10',
  'fd00:ec2::254', // AWS, IMDS over IPv6
  'fd20:ce::254', // Google Cloud
  '168.63.129.16', // Azure, WireServer
  '100.100.100.200', // Alibaba Cloud
  '192.0.0.192', // Oracle Cloud, old images
]);

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
