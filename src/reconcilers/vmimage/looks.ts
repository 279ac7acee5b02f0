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

  /** The image has gone, or its row at this site. */
  forget(image: string, site?: string): void {
    for (const map of [this.#at, this.#waits]) removeFrom(map, image, site);
  }
}

function removeFrom(map: Map<string, Map<string, number>>, image: string, site: string | undefined): void {
  const sites = map.get(image);
  if (site !== undefined) sites?.delete(site);
  if (site === undefined || sites?.size === 0) map.delete(image);
}
