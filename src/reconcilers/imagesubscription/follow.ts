import { createHash } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { Failure } from '../../api/failure.ts';
import { listRemovalWord } from '../../api/removal.ts';
import { shellWord } from '../../api/shell.ts';
import { ANNOTATIONS, type EntryAttention, type VMImage } from '../../api/types.ts';
import type { Entry, Skipped } from '../../catalogs/catalog.ts';
import type { KeptEntries, KeptList } from '../../catalogs/kept.ts';
import { approvalOf, digestOf } from './approval.ts';
import { byClaim, isEven } from './claims.ts';
import { draftOf, existingDraft, isAsDrafted, type Making, type Retirement } from './draft.ts';
import { faultsOf } from './faults.ts';
import { type Inventory, inventoryOf, isOf, makerOf, nameOf } from './inventory.ts';
import type { Look } from './look.ts';
import type { Choice } from './expression.ts';
import { carryOut, type Step } from './steps.ts';
import type { Summary } from './summary.ts';

/** So long entries are compared before other work gets its turn, in milliseconds. */
const TURN_MS = 10;
/** Entries that a selection is asked for at a time: an entry is about 1 KiB, and up to half a MiB where somebody means harm. */
const QUESTION = 64;

/** Images may vanish from an unsigned list by a server's mistake; so many of them are no mistake to be made silently. */
const MASS_COUNT = 10;
const MASS_SHARE = 0.25;

/**
 * Brings the VMImages of a subscription a step nearer to its list. Nothing is compared where nothing has changed since the last time,
 * and nothing is written that is as it should be. With `inForce` false nothing is made or changed: images may only go.
 *
 * @returns undefined when the entries are lost and have to be read again; `more` when another round is needed
 * @throws Failure InvalidSpec for a selection that cannot be evaluated; what a store could not write and may the next time
 */
export async function follow(
  look: Look,
  kept: KeptList,
  inForce: boolean,
): Promise<{ summary: Summary; more: boolean } | undefined> {
  const { subscription, deps, memory, now } = look;
  const inventory = inventoryOf(subscription, deps.store);
  const ticket = ticketOf(look, kept, inventory, inForce);
  const known = memory.followed;
  if (known?.ticket === ticket && (known.summary.dueAt ?? Infinity) > now)
    return { summary: known.summary, more: false };
  // An expression that takes too long does so with every look: it is told without being tried again.
  const question = `${look.generation} ${kept.revision}`;
  if (memory.unanswered?.question === question && kept.distrust === undefined) throw memory.unanswered.failure;
  const entries = await deps.lists.entries(look.uid);
  if (entries === undefined) return undefined;
  const comparison = new Comparison(look, kept, inventory, inForce);
  try {
    await comparison.run(entries);
  } catch (error) {
    const failure = Failure.from(error);
    if (failure.reason === 'InvalidSpec') memory.unanswered = { question, failure };
    throw failure;
  }
  const { more, refusals } = await carryOut(look, comparison.steps);
  const summary = comparison.summary(entries, refusals);
  // Our own writes are seen in the next round; one that was refused is tried again with the next reading.
  if (!more) memory.followed = { ticket, summary };
  return { summary, more };
}

function ticketOf(
  { subscription, generation }: Look,
  kept: KeptList,
  { fingerprint }: Inventory,
  inForce: boolean,
): string {
  const { annotations = {} } = subscription.metadata;
  const parts = [
    generation,
    kept.revision,
    kept.list,
    kept.distrust,
    annotations[ANNOTATIONS.confirmListRemoval],
    fingerprint,
    inForce,
  ];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

class Comparison {
  readonly steps: Step[] = [];
  readonly #look: Look;
  readonly #kept: KeptList;
  readonly #inventory: Inventory;
  readonly #inForce: boolean;
  readonly #making: Making;
  readonly #conflicts: EntryAttention[] = [];
  readonly #pending: EntryAttention[] = [];
  #selected = 0;
  #retired = 0;
  #dueAt: number | undefined;
  #held: Summary['held'];

  constructor(look: Look, kept: KeptList, inventory: Inventory, inForce: boolean) {
    const { subscription, deps } = look;
    this.#look = look;
    this.#kept = kept;
    this.#inventory = inventory;
    this.#inForce = inForce;
    this.#making = { subscription, instance: deps.settings.instance, list: kept.list };
  }

  async run({ entries, skipped }: KeptEntries): Promise<void> {
    // Who signed the list is trusted no longer: what he says now or said before makes and changes nothing, whatever is chosen of it.
    if (this.#kept.distrust !== undefined) {
      this.#retireOurs();
      return;
    }
    const { spec } = this.#look.subscription;
    const isApproved = approvalOf(spec);
    const { ours } = this.#inventory;
    /** Entries whose image stays, or has been dealt with. */
    const seen = new Set<string>();
    const names = new Set<string>();
    for await (const [entry, choice] of this.#judged(entries)) {
      if (choice !== true) {
        if (choice !== false) {
          this.#conflict(entry, 'InvalidSpec', `spec.select.expression: ${choice.fault}`);
          seen.add(entry.id);
        }
        continue;
      }
      this.#selected++;
      const image = ours.get(entry.id);
      if (entry.deprecated !== undefined) continue;
      seen.add(entry.id);
      if (this.#isExpired(entry)) {
        if (image !== undefined) this.#retire(image, 'Expired');
        continue;
      }
      if (!isApproved(entry)) {
        this.#wait(entry, image);
        continue;
      }
      this.#bring(entry, image, names);
    }
    this.#retireTheRest(seen, new Set(entries.map(({ id }) => id)), skipped);
  }

  /** Each entry and whether it is chosen; other work has its turns in between. */
  async *#judged(entries: readonly Entry[]): AsyncGenerator<readonly [Entry, Choice]> {
    const { subscription, deps } = this.#look;
    const { select } = subscription.spec;
    const selection = select === undefined ? undefined : deps.selections.begin(select, this.#kept.list.signer);
    let since = performance.now();
    for (let at = 0; at < entries.length; at += QUESTION) {
      const some = entries.slice(at, at + QUESTION);
      const choices = await selection?.choose(some);
      for (const [i, entry] of some.entries()) {
        if (performance.now() - since > TURN_MS) {
          await turn();
          since = performance.now();
        }
        yield [entry, choices?.[i] ?? true];
      }
    }
  }

  summary({ entries, skipped }: KeptEntries, refusals: readonly EntryAttention[]): Summary {
    const rows = skipped.slice(0, 100).map(
      ({ id, title, reason, message }): EntryAttention => ({
        id,
        ...(title === undefined ? {} : { title: title.slice(0, 1024) }),
        reason,
        message: message.slice(0, 4096),
      }),
    );
    return {
      entries: entries.length + skipped.length,
      skipped: skipped.length,
      selected: this.#selected,
      pendingApproval: this.#pending.length,
      retired: this.#retired,
      attention: [...refusals, ...this.#conflicts, ...this.#pending.slice(0, 100), ...rows],
      ...(this.#dueAt === undefined ? {} : { dueAt: this.#dueAt }),
      ...(this.#held === undefined ? {} : { held: this.#held }),
    };
  }

  #isExpired({ expiresAt }: Entry): boolean {
    const at = expiresAt === undefined ? Number.NaN : Date.parse(expiresAt);
    if (at <= this.#look.now) return true;
    if (at < (this.#dueAt ?? Infinity)) this.#dueAt = at;
    return false;
  }

  /** What is there already stays as it is while its next version waits for a person. */
  #wait(entry: Entry, image: VMImage | undefined): void {
    const digest = digestOf(entry);
    const what =
      image === undefined ? 'it is new' : 'its bytes are others than those approved; what is there stays in service';
    // An id that looks like an option would be one: --all approves all.
    const id = `${entry.id.startsWith('-') ? '-- ' : ''}${shellWord(entry.id)}`;
    const how = `imageproxy approve ${this.#look.subscription.metadata.name} -n ${this.#look.namespace} ${id}`;
    this.#pending.push({
      ...this.#row(entry, image),
      ...(digest === undefined ? {} : { digest }),
      reason: 'PendingApproval',
      message: `${what}; approve it in spec.approved, or with: ${how}`,
    });
  }

  #bring(entry: Entry, image: VMImage | undefined, names: Set<string>): void {
    // It is on its way out; when it has gone, it is made again.
    if (image?.metadata.deletionTimestamp !== undefined) return;
    const draft = draftOf(entry, image, this.#making);
    const { name, namespace = 'default' } = draft.metadata;
    if (names.has(name)) {
      this.#conflict(
        entry,
        'NameInUse',
        `another entry of the list has the same name ${name}: its publisher must give one of them another id`,
      );
      return;
    }
    names.add(name);
    const { guid } = draft.spec as { guid: string };
    const rival = this.#inventory.others.get(guid)?.find((other) => this.#goesFirst(other, image));
    if (rival !== undefined) {
      this.#yield(entry, image, rival, guid);
      return;
    }
    const { store } = this.#look.deps;
    const there = store.get<VMImage>('VMImage', { namespace, name });
    if (there !== undefined && there !== image) {
      this.#conflict(
        entry,
        'NameInUse',
        `${nameOf(there)} was made by somebody else and is left alone: delete it, or leave the entry out by spec.select.exclude`,
      );
      return;
    }
    if (!this.#inForce || (image !== undefined && isAsDrafted(image, draft))) return;
    this.steps.push({ what: image === undefined ? 'Made' : 'Updated', entry, draft });
  }

  /** Whether a guid is the other image's before it is ours: a person's always, another subscription's if that one goes first. */
  #goesFirst(other: VMImage, ours: VMImage | undefined): boolean {
    const { subscription, deps } = this.#look;
    const maker = makerOf(other, deps.store);
    if (maker === undefined || maker.metadata.deletionTimestamp !== undefined) return true;
    // Of two made in the same second the one that has the image keeps it, whatever chance made of their uids.
    return (ours === undefined && isEven(maker, subscription)) || byClaim(maker, subscription) < 0;
  }

  #yield(entry: Entry, image: VMImage | undefined, rival: VMImage, guid: string): void {
    const maker = makerOf(rival, this.#look.deps.store);
    const whose = maker === undefined ? 'made by somebody else' : `of the ImageSubscription ${maker.metadata.name}`;
    const cure =
      maker === undefined
        ? 'delete that one to have it follow this list, or leave the entry out by spec.select.exclude'
        : 'an image belongs to one list: leave the entry out by spec.select.exclude in one of the two subscriptions';
    this.#conflict(entry, 'GuidInUse', `${nameOf(rival)}, ${whose}, has the guid ${guid}: ${cure}`, image);
    // A person's image is Stalled or served as the guids' own rule says; between subscriptions, ours hands over what it has.
    if (image !== undefined && maker !== undefined) this.steps.push({ what: 'Deleted', entry, image });
  }

  #retireOurs(): void {
    for (const [, image] of this.#owned()) this.#retire(image, 'Untrusted');
  }

  #retireTheRest(seen: ReadonlySet<string>, listed: ReadonlySet<string>, skipped: readonly Skipped[]): void {
    const faultOf = faultsOf(skipped, this.#look.subscription.spec);
    const left = this.#owned().filter(([id]) => !seen.has(id));
    const gone = left.filter(([id, image]) => !listed.has(id) && !isRetired(image) && faultOf(id, image) === undefined);
    this.#held = this.#heldBack(gone.length, listed.size);
    for (const [id, image] of left) {
      // What a believed entry says of the image goes before what is wrong with others of its id: anybody may have written those.
      const fault = listed.has(id) ? undefined : faultOf(id, image);
      if (fault === 'Distrust') this.#retire(image, 'Untrusted');
      // Something is wrong with the entry, and nobody has said that the image must go.
      else if (fault === 'Defect') continue;
      else if (listed.has(id) || this.#held === undefined || isRetired(image)) this.#retire(image, 'Removed');
    }
  }

  /** What a former subscription of this name has left is taken up where an entry asks for it, and else left alone. */
  #owned(): [string, VMImage][] {
    const { subscription } = this.#look;
    return [...this.#inventory.ours].filter(([, image]) => isOf(image, subscription));
  }

  /**
   * An empty list is how a publisher retires one, if he has signed it. From one that nobody has signed as a whole (a Marketplace's answer
   * never is, whatever its entries are), a person has to say that it is meant.
   */
  #heldBack(gone: number, listed: number): Summary['held'] {
    const { list } = this.#kept;
    const living = [...this.#inventory.ours.values()].filter((image) => !isRetired(image)).length;
    // A query that finds nothing, or a server that has lost its entries, answers as a Marketplace would from which all was taken.
    const most = list.format === 'Marketplace' && listed === 0 ? 0 : Math.max(MASS_COUNT, MASS_SHARE * living);
    if (list.signer !== undefined || gone <= most) return undefined;
    const word = listRemovalWord(list.digest);
    if (this.#look.subscription.metadata.annotations?.[ANNOTATIONS.confirmListRemoval] === word) return undefined;
    return {
      reason: 'ConfirmationRequired',
      message: `${gone} of ${living} images are no longer in the list, which nobody has signed: nothing is taken out of service until you say that it is meant, by the annotation ${ANNOTATIONS.confirmListRemoval}: "${word}" on the ImageSubscription (imageproxy confirm-removal)`,
    };
  }

  #retire(image: VMImage, why: Retirement): void {
    const { subscription } = this.#look;
    const { onRemoved, onExpired, onUntrusted } = subscription.spec;
    const policy = { Removed: onRemoved, Expired: onExpired, Untrusted: onUntrusted }[why];
    if (image.metadata.deletionTimestamp !== undefined) return;
    if (policy !== 'Delete') this.#retired++;
    const entry = { id: image.metadata.annotations?.[ANNOTATIONS.entry] ?? image.metadata.name };
    if (policy === 'Delete') this.steps.push({ what: 'Deleted', entry, image });
    if (policy !== 'Deactivate' || image.spec.state === 'Deactivated') return;
    this.steps.push({
      what: 'Retired',
      entry,
      draft: existingDraft(image, subscription, { retired: why, owned: true }),
    });
  }

  #conflict(entry: Entry, reason: string, message: string, image?: VMImage): void {
    if (this.#conflicts.length >= 100) return;
    this.#conflicts.push({ ...this.#row(entry, image), reason, message });
  }

  #row({ id, title }: Entry, image: VMImage | undefined): EntryAttention {
    return {
      id,
      ...(title === undefined ? {} : { title: title.slice(0, 1024) }),
      ...(image === undefined ? {} : { image: image.metadata.name }),
    };
  }
}

function isRetired({ spec, metadata }: VMImage): boolean {
  return metadata.annotations?.[ANNOTATIONS.retired] !== undefined || spec.state === 'Deactivated';
}
