/**
 * When this process last looked at each registration. It is kept here, and in a row only with what a look has found: with ten
 * thousand images the dates alone would be five writes a second to the API server, for ever.
 */
export class Looks {
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly #at = new Map<string, Map<string, number>>();

  constructor(startedAt: number) {
    this.startedAt = startedAt;
  }

  /** @param image `namespace/name` */
  note(image: string, site: string, at: number): void {
    const sites = this.#at.get(image) ?? new Map<string, number>();
    this.#at.set(image, sites.set(site, at));
  }

  at(image: string, site: string): number | undefined {
    return this.#at.get(image)?.get(site);
  }

  /** The image has gone, or its row at this site. */
  forget(image: string, site?: string): void {
    const sites = this.#at.get(image);
    if (site !== undefined) sites?.delete(site);
    if (site === undefined || sites?.size === 0) this.#at.delete(image);
  }
}
