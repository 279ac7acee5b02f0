import { describe, expect, it } from 'vitest';
import { labelSelector } from '../../../src/cli/label-selector.ts';

describe('A label selector on the command line', () => {
  it.each([
    ['region=east', { matchLabels: { region: 'east' } }],
    ['region==east', { matchLabels: { region: 'east' } }],
    ['a=1,b=2', { matchLabels: { a: '1', b: '2' } }],
    ['example.org/tier=gold', { matchLabels: { 'example.org/tier': 'gold' } }],
    ['tier!=lab', { matchExpressions: [{ key: 'tier', operator: 'NotIn', values: ['lab'] }] }],
    ['region in (east, west)', { matchExpressions: [{ key: 'region', operator: 'In', values: ['east', 'west'] }] }],
    ['region notin (east)', { matchExpressions: [{ key: 'region', operator: 'NotIn', values: ['east'] }] }],
    ['gpu', { matchExpressions: [{ key: 'gpu', operator: 'Exists' }] }],
    ['!retired', { matchExpressions: [{ key: 'retired', operator: 'DoesNotExist' }] }],
    [
      'a=1, region in (east,west), !b',
      {
        matchLabels: { a: '1' },
        matchExpressions: [
          { key: 'region', operator: 'In', values: ['east', 'west'] },
          { key: 'b', operator: 'DoesNotExist' },
        ],
      },
    ],
    ['a=1,a=2', { matchLabels: { a: '1' }, matchExpressions: [{ key: 'a', operator: 'In', values: ['2'] }] }],
    ['empty=', { matchLabels: { empty: '' } }],
  ])('%s is what kubectl means by it', (text, selector) => {
    expect(labelSelector(text)).toEqual(selector);
  });

  it.each(['', 'a=1,', '=x', 'a b', '!a=1', 'region in ()x', 'a in (b', 'a=b=c', 'a in (b c)', 'UPPER.org/=x', 'a=-'])(
    '"%s" is refused, with examples',
    (text) => {
      expect(() => labelSelector(text)).toThrow(/is no requirement. Write e.g. region=east/);
    },
  );
});
