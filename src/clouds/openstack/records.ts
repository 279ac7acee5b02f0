import type { Logger } from 'pino';
import { Failure } from '../../api/failure.ts';
import type { Ownership } from '../cloud.ts';
import type { Glance, Image, PatchOperation } from './glance.ts';
import type { Keystone } from './keystone.ts';
import { managedOf, MARK, phaseOf, property, type RecordPhase, stateOf } from './mapping.ts';

/** What was opened for a deletion is closed again also when we were stopped: a lost Lease leaves 10 s at the least. */
const UNDO_MS = 8_000;

/** Records of our own project: what each step needs to know before it touches one. */
export class Records {
  readonly glance: Glance;
  readonly log: Logger;
  readonly #keystone: Keystone;

  constructor(glance: Glance, keystone: Keystone, log: Logger) {
    this.glance = glance;
    this.log = log;
    this.#keystone = keystone;
  }

  /** Undefined also for an image that we can see but that another project owns. */
  async own(id: string, signal: AbortSignal): Promise<Image | undefined> {
    const image = await this.glance.get(id, signal);
    if (image === undefined) return undefined;
    const { projectId } = await this.#keystone.session(signal);
    return image.owner === projectId ? image : undefined;
  }

  /** @throws Failure Gone where a look would not find it either (`isGone`). */
  async present(id: string, signal: AbortSignal): Promise<Image> {
    const image = await this.own(id, signal);
    if (image === undefined || isGone(image)) {
      const fact = image === undefined ? 'not in our project any more' : `${image.status} in Glance`;
      throw new Failure('Gone', `image ${id} is ${fact}`);
    }
    return image;
  }

  /** Removes and makes sure. A protected record is unprotected first. False when there was none. */
  async remove(id: string, signal: AbortSignal): Promise<boolean> {
    const image = await this.own(id, signal);
    if (image === undefined) return false;
    if (image.protected) {
      await this.glance.update(id, [{ op: 'replace', path: '/protected', value: false }], signal);
    }
    if (stateOf(image.status) !== 'Deleting') await this.#delete(image, signal);
    // With delayed deletion an admin still sees the record as pending_delete; it serves nobody.
    const left = await this.until(id, (now) => now === undefined || stateOf(now.status) === 'Deleting', 20_000, signal);
    if (left !== undefined && stateOf(left.status) !== 'Deleting') {
      throw new Failure('Conflict', `Glance said that image ${id} is deleted, and still shows it as ${left.status}`);
    }
    return true;
  }

  /** An answer that was lost may have been a yes: who finds the record going has succeeded. */
  async #delete(image: Image, signal: AbortSignal): Promise<void> {
    try {
      await this.#letGo(image, signal);
    } catch (error) {
      if (!isOutOfService(image) || (await this.#stays(image.id))) throw error;
    }
  }

  /**
   * With delayed deletion Glance lets an admin (whom Public needs) let go of no image that is deactivated: 400, for its
   * `valid_state_targets` have no way from there to `pending_delete`. It is activated for that one request, private and hidden.
   */
  async #letGo(image: Image, signal: AbortSignal): Promise<void> {
    const { id } = image;
    try {
      await this.glance.delete(id, signal);
      return;
    } catch (error) {
      if (image.status !== 'deactivated' || Failure.from(error).reason !== 'Rejected') throw error;
    }
    // Marked like what is retired: else it would read, where it stays, as if the cloud's people had hidden it.
    const closed = hiddenAs(image, phaseOutside(image));
    if (image.visibility !== 'private') closed.push({ op: 'replace', path: '/visibility', value: 'private' });
    if (closed.length > 0) await this.glance.update(id, closed, signal);
    await this.glance.setActive(id, true, signal);
    await this.glance.delete(id, signal);
  }

  /**
   * Whether a record that was out of service is there after its removal failed; then it is put out of service again. What fails here
   * is logged only: why it was not removed is what has to be told.
   */
  async #stays(id: string): Promise<boolean> {
    const signal = AbortSignal.timeout(UNDO_MS);
    try {
      const now = await this.own(id, signal);
      if (now === undefined || stateOf(now.status) === 'Deleting') return false;
      if (now.status === 'active') await this.glance.setActive(id, false, signal);
    } catch (error) {
      this.log.warn(
        { err: Failure.from(error), id },
        'an image that was not removed may be active: the next try closes it',
      );
    }
    return true;
  }

  /** Asks for the record, ever less often, until the condition holds or the time (in milliseconds of pauses) is over. */
  async until(
    id: string,
    holds: (image: Image | undefined) => boolean,
    withinMs: number,
    signal: AbortSignal,
  ): Promise<Image | undefined> {
    let image = await this.own(id, signal);
    for (
      let spent = 0, wait = 100;
      !holds(image) && spent < withinMs;
      spent += wait, wait = Math.min(wait * 2, 5_000)
    ) {
      await this.glance.pause(wait, signal);
      image = await this.own(id, signal);
    }
    return image;
  }
}

/** Deactivated or hidden by the cloud's own people before we came: remembered, so that going back does not undo it. */
export function phaseOutside(record: Image): 'retired' | 'held' {
  const phase = phaseOf(record);
  const isHeld = phase === 'published' && (record.status === 'deactivated' || isHiddenByOthers(record));
  return phase === 'held' || isHeld ? 'held' : 'retired';
}

/** We published it to be seen, and it is hidden: somebody else did that. */
export function isHiddenByOthers(record: Image): boolean {
  return phaseOf(record) === 'published' && record.os_hidden && !managedOf(record).hidden;
}

/** Also one that is active: we were stopped, or Glance went away, between activating it for its removal and closing it again. */
function isOutOfService(record: Image): boolean {
  return record.status === 'deactivated' || ['retired', 'held'].includes(phaseOf(record));
}

/** What makes a record hidden and of this phase. */
export function hiddenAs(record: Image, phase: RecordPhase): PatchOperation[] {
  const operations: PatchOperation[] = [];
  if (record[MARK.state] !== phase) {
    const op = Object.hasOwn(record, MARK.state) ? 'replace' : 'add';
    operations.push({ op, path: `/${MARK.state}`, value: phase });
  }
  if (!record.os_hidden) operations.push({ op: 'replace', path: '/os_hidden', value: true });
  return operations;
}

/** Whether a record that is still there can serve nobody any more: it is going away, or Glance has given it up. */
export function isGone({ status }: Image): boolean {
  return ['Deleting', 'Broken'].includes(stateOf(status));
}

/**
 * Whether a record is this owner's and guid's. Properties that were stripped behind our back count as ours where the caller
 * knows the id (`strict: false`): ids are derived from our identity.
 */
export function belongs(
  image: Image,
  ownership: Pick<Ownership, 'owner' | 'guid'>,
  { strict }: { strict: boolean },
): boolean {
  const same = (name: string, value: string): boolean => {
    const is = property(image, name);
    return is === value || (!strict && is === undefined);
  };
  return same(MARK.owner, ownership.owner) && same(MARK.guid, ownership.guid);
}

/** @throws Failure ClaimedByOther */
export function assertClaim(image: Image, claim: string): void {
  const is = property(image, MARK.claim);
  if (is !== undefined && is !== claim) {
    throw new Failure(
      'ClaimedByOther',
      `image ${image.id} belongs to another VMImage with the same guid (uid ${is}): delete that one, or use another guid`,
    );
  }
}
