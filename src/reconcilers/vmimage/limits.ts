import { Failure } from '../../api/failure.ts';
import type { SiteWork } from './operations.ts';
import { recordSiteFailure } from './rows.ts';
import { checkLimits } from './targets.ts';

/**
 * What the site's owner does not allow is told in the row. Asked before each step that ends in a `publish`: an edit may come to the
 * cloud by any of them. What is there already, as it is, was allowed when it came.
 * @param isRepair whether a look has begun it: another is made after a pause, since what serves must not go unseen meanwhile
 */
export function isAllowed(work: SiteWork, { isRepair = false } = {}): boolean {
  const { round, row, site, registration } = work;
  try {
    checkLimits(round.image, registration, site);
    return true;
  } catch (error) {
    recordSiteFailure(round, row, Failure.from(error), work.inputsHash, { isRepair });
    return false;
  }
}
