import { ApiError } from './api-error.ts';
import type { Clock } from './clock.ts';
import { microTime } from './events.ts';
import { pause } from './pause.ts';

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
  create(spec: LeaseSpec, signal: AbortSignal, annotations?: Record<string, string>): Promise<Lease>;
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
  /** What all who stand for it must agree on: the holder writes its own as an annotation, the others look at it. */
  terms?: { annotation: string; value: string };
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
  /** The holder's terms, where another holds it and has others than we. */
  otherTerms: string | undefined;
  readonly #options: LeaseElectorOptions;
  readonly #leaseMs: number;
  readonly #listeners = new Set<(leads: boolean) => void>();
  /** When the renewal that holds was sent, by both clocks. */
  #renewed: Moment | undefined;
  /** We have asked for it, and know of nobody else who holds it: without an answer it may be ours all the same. */
  #asked = false;
  #leads = false;
  #ending: (() => void) | undefined;
  #observed: { record: string; at: Moment } | undefined;
  /** Ends the pause between two looks. */
  #look = new AbortController();

  constructor(options: LeaseElectorOptions) {
    this.#options = options;
    this.#leaseMs = options.leaseMs ?? 15_000;
    options.after?.onChange((holds) => {
      if (holds) this.#look.abort();
    });
  }

  /** Whether the lease is certain to be ours for so many milliseconds more. */
  goodForMs(ms: number): boolean {
    return this.#renewed !== undefined && this.#since(this.#renewed) + ms < this.#leaseMs * (1 - MARGIN);
  }

  /** Called when the lease becomes ours, and when it is ours no more. */
  onChange(listener: (leads: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
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
    const { client, identity, clock, after, terms, log } = this.#options;
    const before = this.#moment();
    const lease = await client.read(signal);
    const spec = lease?.spec ?? {};
    const seen = this.holder;
    this.holder = spec.holderIdentity ?? undefined;
    const mine = this.holder === identity;
    this.otherTerms = undefined;
    if (lease !== undefined && !mine && !this.#isFree(spec)) {
      if (this.holder !== seen) log.info({ identity, holder: this.holder }, 'another holds the lease: waiting for it');
      const theirs = terms && lease.metadata.annotations?.[terms.annotation];
      // A holder that writes none is an older release.
      if (theirs !== undefined && theirs !== terms?.value) this.otherTerms = theirs;
      // Written over our head: whatever our own clock says, it is not ours.
      this.#renewed = undefined;
      this.#asked = false;
      return;
    }
    if (after?.goodForMs(0) === false) return;
    const now = microTime(clock.now());
    const wanted: LeaseSpec = {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(this.#leaseMs / 1000),
      acquireTime: mine ? (spec.acquireTime ?? now) : now,
      renewTime: now,
      leaseTransitions: (spec.leaseTransitions ?? 0) + (mine || lease === undefined ? 0 : 1),
    };
    const annotations = terms === undefined ? {} : { [terms.annotation]: terms.value };
    signal.throwIfAborted();
    this.#asked = true;
    if (lease === undefined) await client.create(wanted, writing, annotations);
    else await client.update(annotated(lease, annotations), wanted, writing);
    this.#renewed = before;
    this.holder = identity;
  }

  /** Whether its holder has given it back, or has been silent for its whole time under our own eyes. */
  #isFree(spec: LeaseSpec): boolean {
    if (spec.holderIdentity === undefined || spec.holderIdentity === null || spec.holderIdentity === '') return true;
    const record = JSON.stringify([spec.holderIdentity, spec.renewTime, spec.acquireTime, spec.leaseTransitions]);
    if (this.#observed?.record !== record) this.#observed = { record, at: this.#moment() };
    const duration = (spec.leaseDurationSeconds ?? 0) * 1000;
    // By the clock that nobody sets: a jump of the other must not take the lease from somebody alive.
    return this.#monotonic() - this.#observed.at.monotonic > Math.max(duration, this.#leaseMs);
  }

  #settle(): void {
    const leads = this.goodForMs(0);
    this.#ending?.();
    // Whoever works under it hears of its end then, and not when the next renewal has failed.
    if (leads && this.#renewed !== undefined) {
      const left = this.#leaseMs * (1 - MARGIN) - this.#since(this.#renewed);
      this.#ending = this.#options.clock.after(Math.ceil(left), () => this.#settle());
    }
    if (leads === this.#leads) return;
    this.#leads = leads;
    this.#options.log.info(
      { identity: this.#options.identity, holder: this.holder },
      leads ? 'the lease is ours' : 'the lease is not ours any more',
    );
    for (const listener of [...this.#listeners]) listener(leads);
  }

  async #release(): Promise<void> {
    const { client, identity, log } = this.#options;
    const asked = this.#asked;
    this.#asked = false;
    this.#renewed = undefined;
    this.#settle();
    if (!asked) return;
    const signal = AbortSignal.timeout(LAST_ANSWER_MS);
    try {
      const lease = await client.read(signal);
      if (lease?.spec?.holderIdentity !== identity) return;
      await client.update(lease, { ...lease.spec, holderIdentity: '', leaseDurationSeconds: 1 }, signal);
    } catch (error) {
      log.warn({ err: error }, 'the lease could not be given back; the next holder waits until it runs out');
    }
  }

  #monotonic(): number {
    return this.#options.monotonic?.() ?? performance.now();
  }

  #moment(): Moment {
    return { monotonic: this.#monotonic(), wall: this.#options.clock.now() };
  }

  /** The longer of two: the monotonic clock stands still while the machine sleeps, the other may be set back. */
  #since({ monotonic, wall }: Moment): number {
    return Math.max(this.#monotonic() - monotonic, this.#options.clock.now() - wall);
  }
}

function annotated({ metadata, ...lease }: Lease, annotations: Record<string, string>): Lease {
  return { ...lease, metadata: { ...metadata, annotations: { ...metadata.annotations, ...annotations } } };
}

interface Moment {
  monotonic: number;
  wall: number;
}
