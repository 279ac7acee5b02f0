import { ApiError } from './api-error.ts';
import type { Clock } from './clock.ts';
import { microTime } from './events.ts';
import { pause } from './pause.ts';
import { type Moment, Tenure } from './tenure.ts';

/** `coordination.k8s.io/v1` Lease, as far as it matters here. */
export interface Lease {
  metadata: { resourceVersion?: string; annotations?: Record<string, string> };
  spec?: LeaseSpec;
}

export interface LeaseSpec {
  holderIdentity?: string | null;
  leaseDurationSeconds?: number | null;
  /** MicroTime. */
  acquireTime?: string | null;
  /** MicroTime. */
  renewTime?: string | null;
  leaseTransitions?: number | null;
}

/** One Lease of the API server. `create` and `update` throw ApiError 409 when somebody else was quicker. */
export interface LeaseClient {
  read(signal: AbortSignal): Promise<Lease | undefined>;
  create(spec: LeaseSpec, signal: AbortSignal, annotations?: Terms): Promise<Lease>;
  /** Of the version that was read, and of no other. */
  update(lease: Lease, spec: LeaseSpec, signal: AbortSignal): Promise<Lease>;
}

export interface LeaseElectorOptions {
  client: LeaseClient;
  /** Ours alone: the pod's name and something by chance. */
  identity: string;
  clock: Clock;
  /** A clock that nobody sets, in milliseconds; default `performance.now`. */
  monotonic?(): number;
  log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  /** How long others leave a silent holder alone; default 15 s, as client-go. */
  leaseMs?: number;
  /** Pause between renewals; default a fifth of it. */
  renewMs?: number;
  /** Another Lease that goes before: this one is watched all the time, but taken and renewed only while that one is held. */
  after?: Pick<LeaseElector, 'goodForMs' | 'onChange'>;
  /** What its holders say of themselves. Default: nothing, and nobody works under another's. */
  terms?: LeaseTerms;
}

/** By the names of annotations. */
export type Terms = Readonly<Record<string, string>>;

/** What those who stand for a Lease make of each other. */
export interface LeaseTerms {
  /** Written by the holder, for the others to see. */
  readonly ours: Terms;
  /** Whether we may work while one of such terms holds it. */
  agree(theirs: Terms): boolean;
  /**
   * Whether those of such terms go before us: what the last of them left is then ours only after it has lain there for a Lease's
   * time more, in which any other of them has taken it.
   */
  yieldTo(theirs: Terms): boolean;
}

/** Of the lease's time, this much is never used: requests under way at its end must have come to theirs. */
const MARGIN = 1 / 3;

const WAITING_LOOK_MS = 2_000;
/** After the signal to stop, the answer to a write that is under way is waited for so long; then as much again to give the lease back. */
const LAST_ANSWER_MS = 5_000;

/**
 * Holds a Lease, or waits for it, with client-go's rules: nobody trusts another's clock, so a holder is taken for dead when *we* have
 * seen no change of its record for as long as it asked for; and the holder counts its own time from before it sent a renewal, and
 * stops using it well before its end. So two never act at a time, however the clocks are set. (A process that is stopped and goes on
 * later looks at `goodForMs` before each step that must not be doubled.)
 */
export class LeaseElector {
  /** Who holds it, as far as we have seen. */
  holder: string | undefined;
  /** The terms of another who holds it, with which ours do not agree. */
  opposedTerms: Terms | undefined;
  /** That it is ours. */
  readonly #ours: Tenure;
  /** That it is ours, or another's whose terms agree with ours. */
  readonly #agreement: Tenure;
  readonly #options: LeaseElectorOptions;
  readonly #leaseMs: number;
  /** We have asked for it, and know of nobody else who holds it: without an answer it may be ours all the same. */
  #asked = false;
  /** By the monotonic clock. */
  #usableFrom = Number.NEGATIVE_INFINITY;
  /** How long it is left unused once it is known to be ours, in milliseconds; undefined when that has been reckoned in. */
  #restMs: number | undefined;
  /** Who is waited for, as the log was told. */
  #waitsFor: string | undefined;
  #observed: { record: string; at: Moment } | undefined;
  /** Ends the pause between two looks. */
  #look = new AbortController();

  constructor(options: LeaseElectorOptions) {
    this.#options = options;
    this.#leaseMs = options.leaseMs ?? 15_000;
    const { clock, monotonic = () => performance.now(), identity, log } = options;
    const lastsMs = this.#leaseMs * (1 - MARGIN);
    this.#ours = new Tenure({ clock, monotonic, lastsMs });
    this.#agreement = new Tenure({ clock, monotonic, lastsMs });
    this.#ours.onChange((leads) =>
      log.info({ identity, holder: this.holder }, leads ? 'the lease is ours' : 'the lease is not ours any more'),
    );
    options.after?.onChange((holds) => {
      if (holds) this.#look.abort();
    });
  }

  /** Whether the lease is certain to be ours for so many milliseconds more. */
  goodForMs(ms: number): boolean {
    return this.#ours.goodForMs(ms);
  }

  /** That it is certain to be ours, or another's whose terms agree with ours: under the one as under the other we may work. */
  get agreement(): Pick<Tenure, 'goodForMs' | 'onChange'> {
    return this.#agreement;
  }

  /** Called when the lease becomes ours, and when it is ours no more. */
  onChange(listener: (leads: boolean) => void): () => void {
    return this.#ours.onChange(listener);
  }

  /** Works until the signal fires, then gives the lease back, so that the next need not wait. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log, renewMs = this.#leaseMs / 5 } = this.#options;
    const late = new AbortController();
    signal.addEventListener('abort', () => clock.after(LAST_ANSWER_MS, () => late.abort()), { once: true });
    while (!signal.aborted) {
      this.#look = new AbortController();
      let pauseMs = renewMs;
      try {
        const timeout = AbortSignal.timeout(Math.round(this.#leaseMs * MARGIN));
        await this.#round(AbortSignal.any([signal, timeout]), AbortSignal.any([late.signal, timeout]));
      } catch (error) {
        if (signal.aborted) break;
        // A connection that was cut is no reason to lose the lease: sooner than usual, but not at once, for all ask at the same time.
        pauseMs = renewMs / 4;
        // Somebody else was quicker: what he wrote is looked at next time.
        if (!(error instanceof ApiError && error.status === 409)) {
          log.warn({ err: error, holder: this.holder }, 'the lease could not be looked at; trying again');
        }
      }
      if (signal.aborted) break;
      this.#settle();
      // Who waits looks more often than the holder writes: a Lease that was given back is taken up soon.
      if (!this.goodForMs(0)) pauseMs = Math.min(pauseMs, WAITING_LOOK_MS);
      await pause(pauseMs * (0.9 + 0.2 * clock.random()), clock, AbortSignal.any([signal, this.#look.signal]));
      this.#settle();
    }
    await this.#release();
  }

  /** @param writing cuts off a write, which is not cut off by the stop alone: one that is on its way may be carried out after all */
  async #round(signal: AbortSignal, writing: AbortSignal): Promise<void> {
    const { client, identity, clock, after, terms } = this.#options;
    const before = this.#ours.now();
    const lease = await client.read(signal);
    const spec = lease?.spec ?? {};
    const mine = spec.holderIdentity === identity;
    const free = lease === undefined || this.#isFree(lease);
    this.holder = wordOf(spec.holderIdentity);
    this.opposedTerms = undefined;
    if (!mine && !free) {
      // Written over our head: whatever our own clock says, it is not ours.
      this.#ours.end();
      this.#asked = false;
      this.#wait(lease, before);
      return;
    }
    this.#waitsFor = undefined;
    if (after?.goodForMs(0) === false) {
      this.#agreement.end();
      return;
    }
    const now = microTime(clock.now());
    const wanted: LeaseSpec = {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(this.#leaseMs / 1000),
      acquireTime: mine ? (spec.acquireTime ?? now) : now,
      renewTime: now,
      leaseTransitions: (spec.leaseTransitions ?? 0) + (mine || lease === undefined ? 0 : 1),
    };
    signal.throwIfAborted();
    this.#asked = true;
    // One that could not look may still work in the belief that it is another's, for as long as a look is good. Noted before it is
    // ours: where the answer is lost, the next look finds it ours already.
    if (!mine) this.#restMs = this.#yields(lease) ? this.#lastsMs(spec) : 0;
    if (lease === undefined) await client.create(wanted, writing, terms?.ours);
    else await client.update(annotated(lease, terms?.ours), wanted, writing);
    if (signal.aborted) return;
    if (this.#restMs !== undefined) this.#usableFrom = this.#ours.now().monotonic + this.#restMs;
    this.#restMs = undefined;
    this.holder = identity;
    this.#ours.confirm(before, this.#usableFrom);
    this.#agreement.confirm(before, this.#usableFrom);
  }

  /** It is another's, or is left to others. */
  #wait(lease: Lease, before: Moment): void {
    const { identity, terms, log } = this.#options;
    const { holder } = this;
    const theirs = lease.metadata.annotations ?? {};
    const agreed = holder !== undefined && terms?.agree(theirs) === true;
    if (agreed) this.#agreement.confirm(before);
    else this.#agreement.end();
    if (holder !== undefined && !agreed) this.opposedTerms = theirs;
    const waitsFor = holder ?? '';
    if (this.#waitsFor === waitsFor) return;
    this.#waitsFor = waitsFor;
    log.info(
      { identity, holder },
      holder === undefined
        ? 'the lease is left to others, who go before us'
        : 'another holds the lease: waiting for it',
    );
  }

  /** Whether its holder has given it back, or has been silent for its whole time under our own eyes, and nobody goes before us. */
  #isFree(lease: Lease): boolean {
    const spec = lease.spec ?? {};
    const record = JSON.stringify([spec.holderIdentity, spec.renewTime, spec.acquireTime, spec.leaseTransitions]);
    if (this.#observed?.record !== record) this.#observed = { record, at: this.#ours.now() };
    const givenBack = wordOf(spec.holderIdentity) === undefined;
    const others = this.#yields(lease) ? this.#lastsMs(spec) : 0;
    if (givenBack && others === 0) return true;
    // By the clock that nobody sets: a jump of the other must not take the lease from somebody alive.
    const unchanged = this.#ours.now().monotonic - this.#observed.at.monotonic;
    return unchanged > (givenBack ? 0 : this.#lastsMs(spec)) + others;
  }

  #yields(lease: Lease | undefined): boolean {
    const last = lease?.metadata.annotations;
    return last !== undefined && this.#options.terms?.yieldTo(last) === true;
  }

  /** How long a holder that wrote this may be silent. */
  #lastsMs({ leaseDurationSeconds }: LeaseSpec): number {
    return Math.max((leaseDurationSeconds ?? 0) * 1000, this.#leaseMs);
  }

  #settle(): void {
    this.#ours.settle();
    this.#agreement.settle();
  }

  async #release(): Promise<void> {
    const { client, identity, log } = this.#options;
    const asked = this.#asked;
    this.#asked = false;
    this.#ours.end();
    this.#agreement.end();
    if (!asked) return;
    const signal = AbortSignal.timeout(LAST_ANSWER_MS);
    try {
      const lease = await client.read(signal);
      if (lease?.spec?.holderIdentity !== identity) return;
      await client.update(lease, { ...lease.spec, holderIdentity: '' }, signal);
    } catch (error) {
      log.warn({ err: error }, 'the lease could not be given back; the next holder waits until it runs out');
    }
  }
}

function annotated({ metadata, ...lease }: Lease, annotations: Terms = {}): Lease {
  return { ...lease, metadata: { ...metadata, annotations: { ...metadata.annotations, ...annotations } } };
}

/** Who has given a Lease back is an empty name in it. */
function wordOf(text: string | null | undefined): string | undefined {
  return text === null || text === '' ? undefined : text;
}
