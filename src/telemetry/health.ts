/** What a check finds: nothing when all is well, else the reason in words for the person who looks. */
export type HealthCheck = () => string | undefined | Promise<string | undefined>;

export interface CheckResult {
  name: string;
  ok: boolean;
  reason?: string;
}

/** A check that does not answer is a failed one: a probe has a second or two (the kubelet's default is one). */
const CHECK_TIMEOUT_MS = 900;

/**
 * Named checks behind `/livez` and `/readyz`.
 *
 * Live is what only a restart can mend. Ready is what makes this process of use now. A cloud that is down is neither: its
 * ImageSite says so, and restarting the controller would help nobody.
 */
export class Health {
  readonly #live = new Map<string, HealthCheck>();
  readonly #ready = new Map<string, HealthCheck>();

  /** A failed one makes the kubelet restart the container. */
  live(name: string, check: HealthCheck): void {
    this.#live.set(name, check);
  }

  /** A failed one takes the process out of service until it is mended. */
  ready(name: string, check: HealthCheck): void {
    this.#ready.set(name, check);
  }

  checkLive(): Promise<CheckResult[]> {
    return run(this.#live);
  }

  /** What is not alive is not ready either. */
  checkReady(): Promise<CheckResult[]> {
    return run(new Map([...this.#live, ...this.#ready]));
  }
}

async function run(checks: ReadonlyMap<string, HealthCheck>): Promise<CheckResult[]> {
  return Promise.all(Array.from(checks, ([name, check]) => runOne(name, check)));
}

async function runOne(name: string, check: HealthCheck): Promise<CheckResult> {
  const { promise: late, resolve } = Promise.withResolvers<string>();
  const timer = setTimeout(() => resolve(`no answer within ${CHECK_TIMEOUT_MS} ms`), CHECK_TIMEOUT_MS);
  try {
    const reason = await Promise.race([Promise.resolve().then(check), late]);
    return reason === undefined ? { name, ok: true } : { name, ok: false, reason };
  } catch (error) {
    return { name, ok: false, reason: error instanceof Error ? error.message : String(error) };
  } finally {
    clearTimeout(timer);
  }
}
