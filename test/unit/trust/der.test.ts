import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bit, Malformed, Members, members, octetsOf, oidOf, only, TAG, timeOf } from '../../../src/trust/der.ts';

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');
const tlv = (tag: number, content: Uint8Array) => {
  const length = content.length;
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
};

describe('BER', () => {
  it.each([
    ['06 03 55 04 03', '2.5.4.3'],
    ['06 09 2a 86 48 86 f7 0d 01 07 02', '1.2.840.113549.1.7.2'],
    ['06 01 00', '0.0'],
    ['06 03 88 37 03', '2.999.3'],
  ])('%s is the object identifier %s', (bytes, oid) => {
    expect(oidOf(only(hex(bytes)))).toBe(oid);
  });

  it.each([
    ['170d 3133303431363134323235355a', '2013-04-16T14:22:55.000Z'],
    ['170d 3530303130313030303030305a', '1950-01-01T00:00:00.000Z'],
    ['180f 32303530303130313030303030305a', '2050-01-01T00:00:00.000Z'],
  ])('%s is the time %s', (bytes, time) => {
    expect(new Date(timeOf(only(hex(bytes)))).toISOString()).toBe(time);
  });

  it('of indefinite length and in pieces is put together', () => {
    const pieces = hex('24 80 04 02 6162 24 80 04 01 63 0000 04 01 64 0000');
    expect(Buffer.from(octetsOf(only(pieces))).toString()).toBe('abcd');
  });

  it('has its bits from the left', () => {
    const usage = only(hex('03 02 05 a0'));
    expect([0, 1, 2, 3, 40].map((n) => bit(usage, n))).toEqual([true, false, true, false, false]);
  });

  it.each([
    ['', 'cut short'],
    ['30', 'cut short'],
    ['30 05 02 01 01', 'cut short'],
    ['30 82 01', 'cut short'],
    ['30 85 00 00 00 00 01 00', 'absurd length'],
    ['1f 81 01 00', 'unusual tag'],
    ['05 00 00', 'follows the end'],
    ['04 80 61 00 00', 'nested'],
    ['30 80 02 01 01', 'cut short'],
  ])('%s is refused: %s', (bytes, fact) => {
    expect(() => only(hex(bytes))).toThrow(Malformed);
    expect(() => only(hex(bytes))).toThrow(fact);
  });

  it('nested without end is refused without a deep stack', () => {
    expect(() => only(Buffer.alloc(2 ** 20, Buffer.from([0x30, 0x80])))).toThrow(Malformed);
  });

  it('with pieces in pieces without end is refused without a deep stack', () => {
    const levels = Array.from({ length: 10_000 });
    const nested = levels.reduce<Buffer>((inner) => tlv(0x24, inner), Buffer.alloc(0));
    expect(() => octetsOf(only(nested))).toThrow(Malformed);
  });

  it('of another shape than expected is refused', () => {
    expect(() => members(only(hex('04 01 00')))).toThrow(Malformed);
    expect(() => members(only(hex('31 00')), TAG.sequence)).toThrow(Malformed);
    expect(() => new Members(only(hex('30 00'))).take()).toThrow(Malformed);
    expect(() => oidOf(only(hex('06 01 80')))).toThrow(Malformed);
    expect(() => oidOf(only(hex('04 00')))).toThrow(Malformed);
    expect(() => octetsOf(only(hex('02 01 00')))).toThrow(Malformed);
    expect(() => timeOf(only(tlv(TAG.utcTime, Buffer.from('1304161422Z'))))).toThrow(Malformed);
    expect(() => timeOf(only(tlv(TAG.utcTime, Buffer.from('139916142255Z'))))).toThrow(Malformed);
  });

  it('of any members is walked as it was made', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 }), (parts) => {
        const made = tlv(TAG.sequence, Buffer.concat(parts.map((part) => tlv(TAG.octetString, part))));
        expect(members(only(made)).map((member) => Array.from(octetsOf(member)))).toEqual(
          parts.map((part) => Array.from(part)),
        );
      }),
    );
  });

  it('of any bytes is read or refused, never with another error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        try {
          const walk = (element: ReturnType<typeof only>): void => {
            if ((element.tag & 0x20) !== 0) for (const member of members(element)) walk(member);
          };
          walk(only(bytes));
        } catch (error) {
          expect(error).toBeInstanceOf(Malformed);
        }
      }),
      { numRuns: 500 },
    );
  });
});
