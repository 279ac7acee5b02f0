/**
 * When this process last looked at each registration. It is kept here, and in a row only with what a look has found: with ten
 * thousand images the dates alone would be five writes a second to the API server, for ever.
 */
export class Looks {
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly #at = new Map<string, Map<string, number>>();
  /** When what is waited for is looked for again, where that is later than the row says. */
  readonly #waits = new Map<string, Map<string, number>>();

  /** Looks that somebody waits for. */
  readonly #asked = new Map<string, Map<string, string>>();
  readonly #heard = new Map<string, string>();

  constructor(startedAt: number) {
    this.startedAt = startedAt;
  }

  /** @param image `namespace/name` */
  note(image: string, site: string, at: number): void {
    const sites = this.#at.get(image) ?? new Map<string, number>();
    this.#at.set(image, sites.set(site, at));
  }

  /** Undefined: what the row says counts. */
  wait(image: string, site: string, until: number | undefined): void {
    if (until === undefined) return removeFrom(this.#waits, image, site);
    const sites = this.#waits.get(image) ?? new Map<string, number>();
    this.#waits.set(image, sites.set(site, until));
  }

  waitsUntil(image: string, site: string): number | undefined {
    return this.#waits.get(image)?.get(site);
  }

  at(image: string, site: string): number | undefined {
    return this.#at.get(image)?.get(site);
  }

  /** Somebody asks for a look: whatever runs already began before. @param request what tells it from the one before */
  ask(image: string, site: string, request: string): void {
    const sites = this.#asked.get(image) ?? new Map<string, string>();
    this.#asked.set(image, sites.set(site, request));
  }

  /** The request that waits for a look at this site. */
  asked(image: string, site: string): string | undefined {
    return this.#asked.get(image)?.get(site);
  }

  /** What came of a look that began for this request is written. */
  answer(image: string, site: string, request: string): void {
    if (this.asked(image, site) === request) removeFrom(this.#asked, image, site);
  }

  /** The image's back-offs were ended for this request, though the looks that it asks for may not have ended yet. */
  hear(image: string, request: string): void {
    this.#heard.set(image, request);
  }

  hasHeard(image: string, request: string): boolean {
    return this.#heard.get(image) === request;
  }

  /** The image has gone, or its row at this site. */
  forget(image: string, site?: string): void {
    for (const map of [this.#at, this.#waits, this.#asked]) removeFrom(map, image, site);
    if (site === undefined) this.#heard.delete(image);
  }
}

function removeFrom(map: Map<string, Map<string, unknown>>, image: string, site: string | undefined): void {
  const sites = map.get(image);
  if (site !== undefined) sites?.delete(site);
  if (site === undefined || sites?.size === 0) map.delete(image);
}
