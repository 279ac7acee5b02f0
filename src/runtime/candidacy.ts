import type { LeaseElector, Terms } from './lease.ts';

/** What this process may do while it holds a Lease: from `stand` to `withdraw`, held, lost and held again in between. */
export interface Standing {
  /** Who holds it, as far as we have seen. */
  readonly holder: string | undefined;
  /** Whether it is certain to be ours for so many milliseconds more. */
  goodForMs(ms: number): boolean;
  /** Called when it becomes ours, and when it is ours no more. */
  onChange(listener: (holds: boolean) => void): () => void;
  /** Begins to ask for it. Asking twice is asking once. */
  stand(): void;
  /** Resolves when it is ours; rejects with the signal's reason when that comes first. */
  held(signal: AbortSignal): Promise<void>;
  /** Gives it back, so that the next one need not wait for it to run out. */
  withdraw(): Promise<void>;
}

/** One Lease. */
export class Candidacy implements Standing {
  readonly #elector: LeaseElector;
  #stop: AbortController | undefined;
  #ended: Promise<void> = Promise.resolve();

  constructor(elector: LeaseElector) {
    this.#elector = elector;
  }

  get holder(): string | undefined {
    return this.#elector.holder;
  }

  /** The terms of another who holds it, with which ours do not agree. */
  get opposedTerms(): Terms | undefined {
    return this.#elector.opposedTerms;
  }

  get agreement(): LeaseElector['agreement'] {
    return this.#elector.agreement;
  }

  goodForMs(ms: number): boolean {
    return this.#elector.goodForMs(ms);
  }

  onChange(listener: (holds: boolean) => void): () => void {
    return this.#elector.onChange(listener);
  }

  stand(): void {
    if (this.#stop !== undefined) return;
    const { signal } = (this.#stop = new AbortController());
    // Only when what was given back before is given back: it would be given back under the feet of the new holder.
    this.#ended = this.#ended.then(() => this.#elector.run(signal));
  }

  held(signal: AbortSignal): Promise<void> {
    return untilHeld(this, signal);
  }

  async withdraw(): Promise<void> {
    this.#stop?.abort();
    this.#stop = undefined;
    await this.#ended;
  }
}

/** One Lease again, for who may work also while another holds it, as long as their terms agree. */
export class Agreement implements Standing {
  readonly #lease: Candidacy;

  constructor(lease: Candidacy) {
    this.#lease = lease;
  }

  /** Only one who is in our way: any other may hold it as well as we. */
  get holder(): string | undefined {
    return this.#lease.opposedTerms === undefined ? undefined : this.#lease.holder;
  }

  goodForMs(ms: number): boolean {
    return this.#lease.agreement.goodForMs(ms);
  }

  onChange(listener: (holds: boolean) => void): () => void {
    return this.#lease.agreement.onChange(listener);
  }

  stand(): void {
    this.#lease.stand();
  }

  held(signal: AbortSignal): Promise<void> {
    return untilHeld(this, signal);
  }

  withdraw(): Promise<void> {
    return this.#lease.withdraw();
  }
}

/**
 * Two Leases that are of use only together. The second is to be one that is taken `after` the first: two processes that hold one
 * each would wait for each other for ever.
 */
export class JointCandidacy implements Standing {
  readonly #first: Standing;
  readonly #second: Standing;
  readonly #listeners = new Set<(holds: boolean) => void>();
  #holds = false;

  constructor(first: Standing, second: Standing) {
    this.#first = first;
    this.#second = second;
    for (const each of [first, second]) each.onChange(() => this.#settle());
  }

  /** Of the one that is not ours. */
  get holder(): string | undefined {
    return this.#first.goodForMs(0) ? this.#second.holder : this.#first.holder;
  }

  goodForMs(ms: number): boolean {
    return this.#first.goodForMs(ms) && this.#second.goodForMs(ms);
  }

  onChange(listener: (holds: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** For both at once: a holder that died is seen to be dead in the time of one Lease, and not of two. */
  stand(): void {
    this.#first.stand();
    this.#second.stand();
  }

  held(signal: AbortSignal): Promise<void> {
    return untilHeld(this, signal);
  }

  async withdraw(): Promise<void> {
    await this.#second.withdraw();
    await this.#first.withdraw();
  }

  #settle(): void {
    const holds = this.goodForMs(0);
    if (holds === this.#holds) return;
    this.#holds = holds;
    for (const listener of [...this.#listeners]) listener(holds);
  }
}

async function untilHeld(lease: Pick<Standing, 'goodForMs' | 'onChange'>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  if (lease.goodForMs(0)) return;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const give = (): void => reject(signal.reason);
  signal.addEventListener('abort', give, { once: true });
  const end = lease.onChange((holds) => {
    if (holds) resolve();
  });
  try {
    await promise;
  } finally {
    end();
    signal.removeEventListener('abort', give);
  }
}
