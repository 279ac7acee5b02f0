import { InvalidArgumentError } from 'commander';
import type { VMImage } from '../api/types.ts';

export type LabelSelector = NonNullable<VMImage['spec']['siteSelector']>;

const KEY = /^(?:[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?$/;
const VALUE = /^(?:[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?)?$/;
/** One requirement: `key`, `!key`, `key=value`, `key==value`, `key!=value`, `key in (a, b)`, `key notin (a, b)`. */
const REQUIREMENT =
  /^(?<not>!)?\s*(?<key>[^\s!=(),]+)(?:\s*(?<sign>==?|!=)\s*(?<value>[^\s!=(),]*)|\s+(?<verb>in|notin)\s*\((?<values>[^()]*)\))?$/;

/** A label selector as kubectl takes it: requirements divided by commas, all of which must hold. */
export function labelSelector(text: string): LabelSelector {
  const matchLabels: Record<string, string> = {};
  const matchExpressions: NonNullable<LabelSelector['matchExpressions']> = [];
  // A comma within parentheses divides values.
  for (const part of text.split(/,(?![^(]*\))/)) {
    const { not, key, sign, value, verb, values } = REQUIREMENT.exec(part.trim())?.groups ?? {};
    const all = values?.split(',').map((each) => each.trim()) ?? (value === undefined ? [] : [value]);
    const comparing = sign !== undefined || verb !== undefined;
    if (
      key === undefined ||
      !KEY.test(key) ||
      !all.every((each) => VALUE.test(each)) ||
      (not !== undefined && comparing)
    ) {
      throw new InvalidArgumentError(
        `"${part.trim()}" is no requirement. Write e.g. region=east,tier!=lab, region in (east,west), or !retired.`,
      );
    }
    if ((sign === '=' || sign === '==') && matchLabels[key] === undefined) matchLabels[key] = value ?? '';
    else if (sign === '=' || sign === '==') matchExpressions.push({ key, operator: 'In', values: all });
    else if (sign === '!=' || verb === 'notin') matchExpressions.push({ key, operator: 'NotIn', values: all });
    else if (verb === 'in') matchExpressions.push({ key, operator: 'In', values: all });
    else matchExpressions.push({ key, operator: not === undefined ? 'Exists' : 'DoesNotExist' });
  }
  return {
    ...(Object.keys(matchLabels).length === 0 ? {} : { matchLabels }),
    ...(matchExpressions.length === 0 ? {} : { matchExpressions }),
  };
}

/** The same as text again. */
export function selectorText({ matchLabels = {}, matchExpressions = [] }: LabelSelector): string {
  const equal = Object.entries(matchLabels).map(([key, value]) => `${key}=${value}`);
  const others = matchExpressions.map(({ key, operator, values = [] }) => {
    if (operator === 'Exists') return key;
    if (operator === 'DoesNotExist') return `!${key}`;
    return `${key} ${operator.toLowerCase()} (${values.join(',')})`;
  });
  return [...equal, ...others].join(',');
}
