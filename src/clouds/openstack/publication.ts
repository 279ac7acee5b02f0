import { ALGORITHMS, type Digests, sameBytes } from '../../api/digest.ts';
import { Failure } from '../../api/failure.ts';
import type { Role } from '../../images/format.ts';
import type { Look, PartRef, PublishImage } from '../cloud.ts';
import { changesOf, fieldOf } from './changes.ts';
import type { Image, PatchOperation } from './glance.ts';
import {
  checkRegistration,
  type Desired,
  desiredOf,
  digestsOf,
  managedOf,
  managedText,
  MARK,
  memberHash,
  phaseOf,
  type RecordPhase,
  stateOf,
} from './mapping.ts';
import { assertClaim, belongs, hiddenAs, isGone, isHiddenByOthers, phaseOutside, type Records } from './records.ts';

/** A disk is never visible before what it boots from, and goes before it. */
const ORDER: readonly Role[] = ['Kernel', 'Ramdisk', 'Disk'];

/** Makes records what the registration says; takes them out of service, and back. Every step may be repeated. */
export class Publication {
  readonly #records: Records;

  constructor(records: Records) {
    this.#records = records;
  }

  async publish(image: PublishImage, signal: AbortSignal): Promise<void> {
    checkRegistration(image.registration);
    for (const part of inOrder(image.parts)) {
      const record = await this.#records.present(part.id, signal);
      assertPublishable(record, part, image);
      await this.#publishPart(record, part, image, signal);
    }
  }

  async look(image: PublishImage, signal: AbortSignal): Promise<Look> {
    const look: Look = { gone: [], changed: [] };
    const changed = new Set<string>();
    const notes: string[] = [];
    for (const part of inOrder(image.parts)) {
      const record = await this.#records.own(part.id, signal);
      if (record === undefined || isGone(record)) {
        look.gone.push(part.id);
        continue;
      }
      const state = stateOf(record.status);
      const difference = differenceOf(record, part);
      if (difference !== undefined) look.tampered ??= difference;
      const desired = desiredFor(part, image);
      if (phaseOf(record) === 'published' && state === 'Deactivated') look.held = 'Deactivated';
      else if (!desired.hidden && isHiddenByOthers(record)) look.held ??= 'Hidden';
      for (const operation of this.#operations(record, part, image, desired)) changed.add(fieldOf(operation));
      const members = await this.#memberChanges(record, desired, signal);
      if (members.add.length > 0 || members.remove.length > 0) changed.add('members');
      if (members.pending.length > 0) {
        notes.push(`image ${part.id} waits to be accepted by project ${members.pending.join(', ')}`);
      }
    }
    look.changed = [...changed].sort();
    if (notes.length > 0) look.notes = notes;
    return look;
  }

  async retire(parts: readonly PartRef[], signal: AbortSignal): Promise<void> {
    for (const part of inOrder(parts).toReversed()) {
      const record = await this.#records.own(part.id, signal);
      if (record === undefined) continue;
      const hidden = await this.#change(record, hiddenAs(record, phaseOutside(record)), signal);
      if (hidden.status === 'active') await this.#records.glance.setActive(part.id, false, signal);
    }
  }

  async reactivate(parts: readonly PartRef[], signal: AbortSignal): Promise<void> {
    const records: Image[] = [];
    for (const part of inOrder(parts)) {
      const record = await this.#records.present(part.id, signal);
      assertProven(record, part.digests);
      const deactivated = record.status === 'deactivated';
      if (deactivated && ['held', 'published'].includes(phaseOf(record))) {
        throw new Failure(
          'HeldByCloud',
          `image ${part.id} was deactivated or hidden in the cloud, not by us: ask its admin to reactivate it`,
        );
      }
      records.push(record);
    }
    for (const record of records) {
      // It never went out of service: to hide it until it is published would take it from those who use it.
      if (phaseOf(record) === 'published') continue;
      if (record.status === 'deactivated') await this.#records.glance.setActive(record.id, true, signal);
      await this.#change(record, hiddenAs(record, 'staged'), signal);
    }
  }

  async remove(parts: readonly PartRef[], signal: AbortSignal): Promise<void> {
    for (const part of inOrder(parts).toReversed()) await this.#records.remove(part.id, signal);
  }

  async #publishPart(record: Image, part: PartRef, image: PublishImage, signal: AbortSignal): Promise<void> {
    const desired = desiredFor(part, image);
    const members = await this.#memberChanges(record, desired, signal);
    let now = record;
    if (members.add.length > 0 || members.remove.length > 0) {
      // Only a shared image has members: those that go, go before it stops being one; those that come, come after.
      for (const member of members.remove) await this.#records.glance.removeMember(part.id, member, signal);
      const stillStaged = phaseOf(record) !== 'published';
      if (members.add.length > 0) {
        const before = this.#operations(record, part, image, desired).filter(
          ({ path }) => !stillStaged || (path !== '/os_hidden' && path !== `/${MARK.state}`),
        );
        if (before.length > 0) now = await this.#records.glance.update(part.id, before, signal);
      }
      for (const member of members.add) await this.#records.glance.addMember(part.id, member, signal);
    }
    for (const member of [...members.add, ...members.pending]) {
      const accepted = await this.#records.glance.acceptMember(part.id, member, signal);
      if (!accepted) this.#records.log.info({ id: part.id, member }, 'the project must accept the image itself');
    }
    const operations = this.#operations(now, part, image, desired);
    if (operations.length > 0) await this.#records.glance.update(part.id, operations, signal);
  }

  /** All that differs. What the cloud's own people have hidden stays hidden. */
  #operations(record: Image, part: PartRef, image: PublishImage, desired: Desired): PatchOperation[] {
    const sent = part.digests?.sha256;
    const marks: Record<string, string> = {
      [MARK.owner]: image.ownership.owner,
      [MARK.guid]: image.ownership.guid,
      [MARK.claim]: image.ownership.claim,
      [MARK.role]: part.role,
      ...(sent === undefined ? {} : { [MARK.sent]: sent }),
      [MARK.managed]: managedText(desired),
      [MARK.state]: 'published' satisfies RecordPhase,
    };
    return changesOf(record, { ...desired, hidden: desired.hidden || isHiddenByOthers(record), marks });
  }

  async #memberChanges(
    record: Image,
    desired: Desired,
    signal: AbortSignal,
  ): Promise<{ add: string[]; remove: string[]; pending: string[] }> {
    const wanted = desired.members;
    if (record.visibility !== 'shared') return { add: [...wanted], remove: [], pending: [] };
    const managed = managedOf(record).members;
    const there = await this.#records.glance.members(record.id, signal);
    return {
      add: wanted.filter((member) => !there.some(({ member_id }) => member_id === member)),
      remove: there
        .map(({ member_id }) => member_id)
        .filter((member) => !wanted.includes(member) && managed.includes(memberHash(member))),
      pending: there
        .filter(({ member_id, status }) => wanted.includes(member_id) && status !== 'accepted')
        .map(({ member_id }) => member_id),
    };
  }

  async #change(record: Image, operations: readonly PatchOperation[], signal: AbortSignal): Promise<Image> {
    return operations.length === 0 ? record : await this.#records.glance.update(record.id, operations, signal);
  }
}

function inOrder(parts: readonly PartRef[]): PartRef[] {
  return [...parts].sort((a, b) => ORDER.indexOf(a.role) - ORDER.indexOf(b.role));
}

function desiredFor(part: PartRef, { parts, registration }: PublishImage): Desired {
  return desiredOf(registration, part.role, {
    kernel: parts.find(({ role }) => role === 'Kernel')?.id,
    ramdisk: parts.find(({ role }) => role === 'Ramdisk')?.id,
  });
}

/** Nothing becomes visible that is not ours, not complete, or was never compared. */
function assertPublishable(record: Image, part: PartRef, { ownership }: PublishImage): void {
  if (!belongs(record, ownership, { strict: false })) {
    throw new Failure('ClaimedByOther', `image ${part.id} carries another owner or guid: it is left alone`);
  }
  assertClaim(record, ownership.claim);
  const difference = differenceOf(record, part);
  if (difference !== undefined) throw new Failure('CloudDigestMismatch', difference);
  const heldByCloud = record.status === 'deactivated' && phaseOf(record) === 'published';
  if (record.status !== 'active' && !heldByCloud) {
    throw new Failure('Conflict', `image ${part.id} is ${record.status}: it cannot be published`);
  }
  const compared = typeof record[MARK.sent] === 'string';
  const proven = part.digests !== undefined && sameBytes(part.digests, digestsOf(record));
  if (!compared && !proven) {
    throw new Failure('Conflict', `image ${part.id} was never compared with what was sent: it is not published`);
  }
}

/** What Glance tells against what we know, where both speak of the same algorithm. */
function differenceOf(record: Image, part: PartRef): string | undefined {
  const state = stateOf(record.status);
  if (state === 'Empty' || state === 'Uploading') return `image ${part.id} holds no data (${record.status})`;
  const theirs = digestsOf(record);
  const algorithm = ALGORITHMS.find((name) => theirs[name] !== undefined && part.digests?.[name] !== undefined);
  if (algorithm === undefined || theirs[algorithm] === part.digests?.[algorithm]?.toLowerCase()) return undefined;
  return `image ${part.id}: Glance's ${algorithm} is ${theirs[algorithm]}, ours ${part.digests?.[algorithm]}`;
}

function assertProven(record: Image, digests: Digests | undefined): void {
  const theirs = digestsOf(record);
  if (digests !== undefined && sameBytes(digests, theirs)) return;
  const [algorithm = 'no hash'] = Object.keys(theirs);
  throw new Failure(
    'CloudDigestMismatch',
    `image ${record.id} is not reactivated: Glance's ${algorithm} does not agree with a sha256 or sha512 known of it`,
  );
}
