import { BlockList } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { contains, parseAddress, parseBlock } from '../../../src/sources/address.ts';
import { NetworkGuard } from '../../../src/sources/network.ts';

const closed = new NetworkGuard({ allow: [] });
const v4 = fc.nat({ max: 0xffffffff });
const octets = (n: number) => [24, 16, 8, 0].map((shift) => (n >>> shift) & 255);
const dotted = (n: number) => octets(n).join('.');
const groups = (n: number) => `${(n >>> 16).toString(16)}:${(n & 0xffff).toString(16)}`;

/** Private and public addresses both often enough. */
const interesting = fc.oneof(
  v4,
  fc
    .tuple(
      fc.constantFrom(0x0a000000, 0x7f000000, 0xa9fe0000, 0xac100000, 0xc0a80000, 0x64400000, 0xe0000000, 0xc6120000),
      fc.nat({ max: 0xffff }),
    )
    .map(([net, host]) => (net | host) >>> 0),
);

/** Node's own block list, as a second opinion. */
const second = new BlockList();
for (const [net, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['168.63.129.16', 32],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
] as const) {
  second.addSubnet(net, prefix);
}

describe('the network guard', () => {
  it('says of every IPv4 address what the registry of special addresses says', () => {
    fc.assert(
      fc.property(interesting, (n) => {
        expect(closed.allows(dotted(n))).toBe(!second.check(dotted(n)));
      }),
      { numRuns: 2000 },
    );
  });

  it('says the same of an IPv4 address in every notation that a URL may have', () => {
    fc.assert(
      fc.property(interesting, (n) => {
        const [a = 0, b = 0, c = 0, d = 0] = octets(n);
        const verdict = closed.allows(dotted(n));
        for (const host of [
          String(n),
          `0x${n.toString(16)}`,
          `0${a.toString(8)}.0${b.toString(8)}.0${c.toString(8)}.0${d.toString(8)}`,
          `${a}.${b}.${c * 256 + d}`,
          `0x${a.toString(16)}.${b * 65536 + c * 256 + d}`,
          `${dotted(n)}.`,
          `[::ffff:${dotted(n)}]`,
          `[::FFFF:${groups(n)}]`,
          `[0:0:0:0:0:ffff:${groups(n)}]`,
        ]) {
          expect(closed.allows(new URL(`http://${host}/`).hostname), host).toBe(verdict);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('judges an IPv6 address by the IPv4 address that it leads to', () => {
    fc.assert(
      fc.property(interesting, (n) => {
        const verdict = closed.allows(dotted(n));
        expect(closed.allows(`64:ff9b::${dotted(n)}`)).toBe(verdict);
        expect(closed.allows(`2002:${groups(n)}::1`)).toBe(verdict);
      }),
    );
  });

  it.each([
    '::',
    '::1',
    '::127.0.0.1',
    '::8.8.8.8',
    'fc00::1',
    'fd12:3456::1',
    'fe80::1',
    'fe80::1%eth0',
    'fec0::1',
    'ff02::1',
    '100::1',
    '2001:db8::1',
    '2001:0:808:808::',
    '2001:20::1',
    '3fff::1',
    '5f00::1',
    '64:ff9b:1::808:808',
    '4000::1',
    'not an address',
    '',
  ])('refuses %s', (address) => {
    expect(closed.allows(address)).toBe(false);
  });

  it.each(['2606:4700::1111', '2a00:1450:4001:81c::200e', '8.8.8.8', '192.31.196.1', '64:ff9b::8.8.8.8'])(
    'lets %s pass',
    (address) => {
      expect(closed.allows(address)).toBe(true);
    },
  );

  it('opens what the operator names, also where it is reached through another notation', () => {
    const guard = new NetworkGuard({ allow: ['10.20.0.0/16', 'fd12::/16', '127.0.0.1'] });
    for (const address of ['10.20.3.4', '::ffff:10.20.3.4', '64:ff9b::10.20.3.4', 'fd12::5', '127.0.0.1']) {
      expect(guard.allows(address), address).toBe(true);
    }
    for (const address of ['10.21.0.1', '127.0.0.2', 'fd13::1', '::1'])
      expect(guard.allows(address), address).toBe(false);
  });

  it('never opens link-local and metadata addresses, however they are written and whatever is allowed', () => {
    const guard = new NetworkGuard({ allow: ['0.0.0.0/0', '::/0'] });
    expect(guard.allows('10.1.2.3')).toBe(true);
    for (const address of [
      '169.254.169.254',
      '169.254.0.1',
      '::ffff:169.254.169.254',
      '::169.254.169.254',
      '64:ff9b::169.254.169.254',
      '64:ff9b:1::169.254.169.254',
      '64:ff9b:1:a9fe:a9:fe00::', // RFC 6052 with a /48 prefix
      '2002:a9fe:a9fe::1',
      'fe80::1',
      'febf::1',
      'fd00:ec2::254',
      'fd20:ce::254',
      '168.63.129.16',
      '100.100.100.200',
      '192.0.0.192',
    ]) {
      expect(guard.allows(address), address).toBe(false);
    }
  });

  it('sees the server and the client inside a Teredo address', () => {
    const guard = new NetworkGuard({ allow: ['2001::/32'] });
    expect(guard.allows('2001:0:808:808::f7f7:f7f7')).toBe(true);
    expect(guard.allows('2001:0:a9fe:a9fe::f7f7:f7f7')).toBe(false);
    expect(guard.allows(`2001:0:808:808::${groups(~0xa9fea9fe >>> 0)}`)).toBe(false);
  });

  it('keeps closed what is denied, before what is allowed', () => {
    const guard = new NetworkGuard({ allow: ['10.0.0.0/8'], deny: ['10.96.0.1'] });
    expect(guard.allows('10.96.0.2')).toBe(true);
    expect(guard.allows('10.96.0.1')).toBe(false);
    expect(guard.allows('::ffff:10.96.0.1')).toBe(false);
  });

  it.each(['10.0.0.0/33', '10.0.0/8', 'fd00::/129', 'example.com', '10.0.0.0/8/8', '10.0.0.0/', '[fd00::1]/64'])(
    'does not take %s for a network',
    (text) => {
      expect(() => new NetworkGuard({ allow: [text] })).toThrow(expect.objectContaining({ reason: 'InvalidSpec' }));
    },
  );

  it('refuses with the same words whatever is behind the address', () => {
    const messages = ['127.0.0.1', '169.254.169.254', '[fd00::1]', '10.0.0.1'].map((host) => {
      try {
        closed.checkHost(host, 'http://x/');
        return 'passed';
      } catch (error) {
        return (error as Error).message;
      }
    });
    expect(new Set(messages).size).toBe(1);
    expect(messages[0]).toContain('--allow-network');
  });
});

describe('addresses', () => {
  it('are read the same in every way to write IPv6', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.constant(0), fc.nat({ max: 0xffff })), { minLength: 8, maxLength: 8 }),
        (parts) => {
          const value = parts.reduce((sum, part) => (sum << 16n) | BigInt(part), 0n);
          const full = parts.map((part) => part.toString(16).padStart(4, '0')).join(':');
          const canonical = new URL(`http://[${full}]/`).hostname;
          for (const text of [full, full.toUpperCase(), canonical, canonical.slice(1, -1)]) {
            expect(parseAddress(text)).toEqual({ family: 6, value });
          }
        },
      ),
    );
  });

  it('are in a block exactly when their first bits are its bits', () => {
    fc.assert(
      fc.property(v4, v4, fc.nat({ max: 32 }), (net, host, prefix) => {
        const block = parseBlock(`${dotted(net)}/${prefix}`);
        const address = parseAddress(dotted(host));
        const bits = (n: number) => n.toString(2).padStart(32, '0').slice(0, prefix);
        expect(block && address && contains(block, address)).toBe(bits(net) === bits(host));
      }),
    );
  });
});
