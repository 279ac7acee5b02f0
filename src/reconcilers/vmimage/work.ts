import { findCondition, isTrue, READY } from '../../api/conditions.ts';
import { Failure } from '../../api/failure.ts';
import type { ImageSite, SiteRow } from '../../api/types.ts';
import { type Deps, LEASE_MARGIN_MS } from '../deps.ts';
import { howToConfirm } from './held.ts';
import { hashOf } from './identity.ts';
import { holdsAnything } from './named.ts';
import { type OperationResult, type OperationView, registrationHashOf, type SiteWork, inWords } from './operations.ts';
import { showProgress } from './progress.ts';
import { answer, jobKey, lookAgain, type Round } from './round.ts';
import { clearFailure, isSiteTrouble, isStanding, tell, tellWaiting } from './rows.ts';
import { settle } from './settle.ts';
import { admits, notAdmitted, type Target } from './targets.ts';

/** By then a first probe has ended, or tells by its silence. */
const FIRST_PROBE_MS = 60_000;

/**
 * Opens the work of an image at a site, or says in the row why nothing can be done there now. A row that serves already goes on
 * serving: what is in the way then concerns only what would come next. Whom a site admits decides what may come, never what may
 * be cleaned up.
 */
export function openWork(
  round: Round,
  target: Target,
  row: SiteRow,
  plan: { inputsHash: string },
  purpose: 'Serve' | 'Leave' = 'Serve',
): SiteWork | undefined {
  const { deps, image } = round;
  const { site } = target;
  if (!deps.authority.goodForMs(LEASE_MARGIN_MS)) {
    // Nothing is begun that another may have to end; the row stays as it is.
    lookAgain(round, round.now + LEASE_MARGIN_MS);
    return undefined;
  }
  const wait = (reason: string, message: string): undefined => {
    // What has failed there is told no more, so it is tried again when this is over: else the row would stay as it is until its date,
    // or for ever, and go on saying this.
    clearFailure(row);
    if (!isStillTried(deps, site)) answer(round, row.name);
    // Nor is what has been altered told to be anything else: it would be Ready when this is over.
    if (purpose === 'Leave' || row.reason !== 'Tampered') tellWaiting(row, reason, message);
    return undefined;
  };
  if (site === undefined)
    return wait('SiteNotFound', `there is no ImageSite ${target.name}: create it, or correct spec.sites`);
  if (purpose === 'Serve' && !admits(site, image)) {
    const fact = notAdmitted(site, round.namespace);
    if (!holdsAnything(row)) return wait('NamespaceNotAllowed', fact);
    const stays = `${row.imageID ?? 'what was begun'} stays as it is until you ${howToConfirm(round, row)}`;
    return wait('NamespaceNotAllowed', `${fact}; ${stays}`);
  }
  const connection = deps.sites.get(target.name);
  const isWell = isTrue(site.status.conditions, READY);
  // The first look after a start: the site was well, and its first probe wakes us, whatever that says. To tell so much would be two
  // writes for each image at every start.
  if (connection === undefined && isWell && row.phase !== undefined) {
    if (purpose === 'Serve') return undefined;
    // Nor does that hold a removal: the ways out are not for who need only wait a moment. What has failed there is tried again then.
    // (A folder on a mount that hangs keeps its probe from ever ending.)
    const toldFrom = deps.looks.startedAt + FIRST_PROBE_MS;
    if (isStillTried(deps, site) && round.now < toldFrom) {
      clearFailure(row);
      lookAgain(round, toldFrom);
      return undefined;
    }
  }
  if (connection === undefined || !isWell) {
    // What only a change can mend stays told, and is not sent again each time that the site was away.
    const isStalled = row.inputsHash !== undefined && row.nextAttemptTime === undefined;
    if (purpose === 'Serve' && isStalled && !isSiteTrouble(row.reason)) return undefined;
    if (purpose === 'Serve' && isStanding(row)) {
      clearFailure(row);
      if (!isStillTried(deps, site)) answer(round, row.name);
      return undefined;
    }
    const ready = isWell ? undefined : findCondition(site.status.conditions, READY);
    const reason = ready?.reason === 'IdentityChanged' ? 'IdentityChanged' : 'SiteNotReady';
    return wait(reason, `ImageSite ${target.name} is not ready: ${ready?.message ?? 'it has not been looked at yet'}`);
  }
  if (row.siteIdentity !== undefined && row.siteIdentity !== connection.identity && holdsAnything(row)) {
    return wait(
      'IdentityChanged',
      `ImageSite ${target.name} was ${row.siteIdentity} when ${row.imageID ?? 'the image'} was registered, and is ${connection.identity} now; nothing is done there until it is what it was. To leave behind what is there and register it anew, ${howToConfirm(round, row)}`,
    );
  }
  const inputsHash = hashOf([
    plan.inputsHash,
    registrationHashOf(target.registration),
    connection.inputsHash,
    site.metadata.generation,
    image.metadata.generation,
  ]);
  return { round, row, site, connection, registration: target.registration, inputsHash };
}

/** Whether this process has yet to try the site, as it will: what is said of it is from before, and no answer to who asks for a look. */
function isStillTried({ sites }: Deps, site: ImageSite | undefined): boolean {
  return site !== undefined && !site.spec.suspend && !site.spec.abandoned && !sites.isTried(site.metadata.name);
}

/** Looks at the job that may be running for this row. True when there is nothing more to decide in this round. */
export function attend(work: SiteWork): { busy: boolean; result?: OperationResult } {
  const { round, row } = work;
  const { jobs } = round.deps;
  const key = jobKey(round, row.name);
  const view = jobs.view<OperationView>(key);
  const outcome = jobs.take<OperationResult>(key, round.key);
  if (outcome !== undefined) {
    const result = settle(work, outcome, view);
    // A look that was cut is no answer: another follows.
    const isCut = !outcome.ok && Failure.from(outcome.error).reason === 'Aborted';
    if (view?.asked !== undefined && !isCut) answer(round, row.name, view.asked);
    return result === undefined ? { busy: false } : { busy: false, result };
  }
  if (!jobs.runs(key)) return { busy: false };
  if (view?.kind === 'Check') return { busy: true };
  const { phase, message } = inWords(view?.kind ?? '');
  if (phase === 'Ready' && isStanding(row)) return { busy: true };
  if (view?.kind === 'Update' && row.phase === 'Held') return { busy: true };
  tell(row, phase, row.operation?.kind ?? 'Busy', message);
  showProgress(row, view);
  return { busy: true };
}
