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

  describe('with a closed place', () => {
    const guard = (...places: string[]) =>
      new NetworkGuard({ allow: ['10.0.0.0/8', '127.0.0.0/8', '::1'], closed: places });
    const verdict = (places: NetworkGuard, url: string) =>
      places.check(new URL(url), url).then(
        () => 'open',
        (failure: { reason: string }) => failure.reason,
      );

    it.each([
      'http://10.0.0.5:5000/v3',
      'https://10.0.0.5:5000/other/path',
      'http://[::ffff:10.0.0.5]:5000/',
      'http://167772165:5000/',
    ])('refuses its address and port as %s, before what is allowed', async (url) => {
      expect(await verdict(guard('http://10.0.0.5:5000/v3'), url)).toBe('AddressForbidden');
    });

    it.each(['http://10.0.0.5:5001/', 'http://10.0.0.5/', 'http://10.0.0.6:5000/'])('leaves %s open', async (url) => {
      expect(await verdict(guard('http://10.0.0.5:5000/v3'), url)).toBe('open');
    });

    it('knows the port that a scheme stands for', async () => {
      const places = guard('https://10.0.0.5/identity');
      expect(await verdict(places, 'https://10.0.0.5:443/x')).toBe('AddressForbidden');
      expect(await verdict(places, 'http://10.0.0.5:443/x')).toBe('AddressForbidden');
      expect(await verdict(places, 'http://10.0.0.5/x')).toBe('open');
    });

    it.each(['127.0.0.1', '127.0.0.2', '[::1]', '[::ffff:127.0.0.9]'])(
      'takes %s for this machine, whatever name the place has',
      async (host) => {
        expect(await verdict(guard('http://localhost:9292'), `http://${host}:9292/`)).toBe('AddressForbidden');
        expect(await verdict(guard('http://localhost:9292'), `http://${host}:9293/`)).toBe('open');
      },
    );

    it('refuses its name, a public one too, in every way to write it', async () => {
      const places = guard('https://glance.example.org:9292');
      for (const host of ['glance.example.org', 'GLANCE.example.org', 'glance.example.org.'])
        expect(await verdict(places, `https://${host}:9292/v2`)).toBe('AddressForbidden');
      expect(await verdict(places, 'https://glance.example.org/image.qcow2')).toBe('open');
    });

    it('leaves another host at the same public address open', async () => {
      expect(await verdict(guard('https://8.8.8.8'), 'https://[::ffff:8.8.8.8]/')).toBe('open');
    });

    it('gives a socket only the addresses that are not closed', async () => {
      const resolved = (places: NetworkGuard, url: string) =>
        new Promise((resolve) =>
          places.lookup(new URL(url), url)('localhost', {}, (error, address) =>
            resolve(error === null ? address : error),
          ),
        );
      const places = guard('http://127.0.0.1:9292');
      expect(await resolved(places, 'http://localhost:9292/')).toMatchObject({ reason: 'AddressForbidden' });
      expect(['127.0.0.1', '::1']).toContain(await resolved(places, 'http://localhost:9293/'));
    });
  });

  it.each(['10.0.0.0/33', '10.0.0/8', 'fd00::/129', 'example.com', '10.0.0.0/8/8', '10.0.0.0/', '[fd00::1]/64'])(
    'does not take %s for a network',
    (text) => {
      expect(() => new NetworkGuard({ allow: [text] })).toThrow(expect.objectContaining({ reason: 'InvalidSpec' }));
    },
  );

  it('refuses with the same words whatever is behind the address', async () => {
    const guard = new NetworkGuard({ allow: ['10.9.0.0/16'], closed: ['http://10.9.0.1:5000'] });
    const urls = [
      'http://127.0.0.1',
      'http://169.254.169.254',
      'http://[fd00::1]',
      'http://10.0.0.1',
      'http://10.9.0.1:5000',
    ];
    const messages = await Promise.all(
      urls.map((url) => guard.check(new URL(url), 'http://x/').catch((error: Error) => error.message)),
    );
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
