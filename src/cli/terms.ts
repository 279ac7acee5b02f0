import type { LeaseTerms, Terms } from '../runtime/lease.ts';
import { type LabelSelector, selectorText } from './label-selector.ts';

/** Whose images the one that summarizes sees. */
const WATCHED = 'imageproxy.dev/watch-namespaces';
/** The sites that it serves: all, or those of a selector. */
const SERVES = 'imageproxy.dev/serves';
const ALL = '*';

export interface Scope {
  watchNamespaces?: readonly string[];
  siteSelector?: LabelSelector;
}

/**
 * What the controllers of a cluster make of each other, as the holder of the Lease of who summarizes says it of itself. One that
 * serves every site works alone. Those of a hub work side by side, when they watch the same namespaces; they go before one that
 * does not fit to them: it would have the Lease as soon as one of them is started anew, and keep all others from work.
 */
export function termsOf({ watchNamespaces, siteSelector }: Scope): LeaseTerms {
  const watched = watchNamespaces?.toSorted().join(',') ?? ALL;
  const ours = { [WATCHED]: watched, [SERVES]: siteSelector === undefined ? ALL : selectorText(siteSelector) };
  // An older release says nothing.
  const watchesTheSame = ({ [WATCHED]: theirs = watched }: Terms): boolean => theirs === watched;
  return {
    ours,
    agree: (theirs) => siteSelector !== undefined && theirs[SERVES] !== ALL && watchesTheSame(theirs),
    yieldTo: (theirs) => {
      const isOfHub = theirs[SERVES] !== undefined && theirs[SERVES] !== ALL;
      return isOfHub && (siteSelector === undefined || !watchesTheSame(theirs));
    },
  };
}

/** Why there will be no agreement with the holder of that Lease; undefined where one only has to wait for one's turn. */
export function whyOpposed(
  { ours }: LeaseTerms,
  { holder, opposedTerms: theirs }: { holder: string | undefined; opposedTerms: Terms | undefined },
  lease: string,
): string | undefined {
  if (theirs === undefined) return undefined;
  const held = `the Lease ${lease} is held by ${holder}`;
  if (theirs[SERVES] === ALL && ours[SERVES] !== ALL)
    return `${held}, which serves every site: nothing is done here beside it; give it a --site-selector, or stop it`;
  // Who summarizes would leave out the images that it does not see, and take away the guard of sites that they are at.
  if (theirs[WATCHED] !== undefined && theirs[WATCHED] !== ours[WATCHED])
    return `${held}, which watches the namespaces ${theirs[WATCHED]} and not ${ours[WATCHED]}: nothing is done here beside it; give all controllers of a cluster the same --watch-namespaces`;
  return undefined;
}
