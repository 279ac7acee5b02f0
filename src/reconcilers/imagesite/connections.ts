import type { Cloud } from '../../clouds/cloud.ts';
import type { Format } from '../../images/format.ts';

/** Where no upload has been measured yet: a modest site, so that an upload that follows a download starts early enough. */
const DEFAULT_BYTES_PER_SECOND = 100 * 2 ** 20;

/** One target cloud, opened and proven. */
export interface Connection {
  /** Name of the ImageSite. */
  readonly name: string;
  readonly cloud: Cloud;
  /** Formats that may be sent there, in order of preference. */
  readonly formats: readonly Format[];
  /** Changes with the site's spec and Secret: a row that stalled under another hash is tried again. */
  readonly inputsHash: string;
  /** What the first good probe said, and every one since. */
  readonly identity: string;
  /** Of the last uploads. */
  bytesPerSecond: number;
}

/**
 * The open clouds of this process. The ImageSite reconciler opens and closes them; the VMImage reconciler uses those that are
 * ready. A site that is not here is not ready: nothing is sent, and nothing there is taken as gone.
 */
export class SiteConnections {
  readonly #open = new Map<string, Connection>();
  readonly #changed = new Set<string>();
  readonly #probes = new Map<string, { ticket: string; nextAt: number }>();

  get(name: string): Connection | undefined {
    return this.#open.get(name);
  }

  set(connection: Omit<Connection, 'bytesPerSecond'>): void {
    if (this.#open.get(connection.name)?.inputsHash !== connection.inputsHash) this.#changed.add(connection.name);
    const bytesPerSecond = this.#open.get(connection.name)?.bytesPerSecond ?? DEFAULT_BYTES_PER_SECOND;
    this.#open.set(connection.name, { ...connection, bytesPerSecond });
  }

  delete(name: string): void {
    if (this.#open.delete(name)) this.#changed.add(name);
  }

  /** Nothing that was known of the site counts any more: it is gone, or at rest. */
  forget(name: string): void {
    this.#probes.delete(name);
    this.#changed.delete(name);
  }

  /** Whether the connection has been opened anew or closed, or the site been tried for the first time, since the last call. */
  takeChange(name: string): boolean {
    return this.#changed.delete(name);
  }

  /** When the site is probed again, as long as the ticket (object, spec, Secret, a person's word) stays what it is. */
  schedule(name: string, ticket: string, nextAt: number): void {
    // Whatever it said: who was asked for a look there waits for that.
    if (!this.#probes.has(name)) this.#changed.add(name);
    this.#probes.set(name, { ticket, nextAt });
  }

  /** When the next probe is due: at once after a start, and with another ticket. */
  dueAt(name: string, ticket: string): number {
    const probe = this.#probes.get(name);
    return probe?.ticket === ticket ? probe.nextAt : 0;
  }

  /** Whether this process has tried the site at all. */
  isTried(name: string): boolean {
    return this.#probes.has(name);
  }

  /** Whether this process has probed what the ticket stands for. */
  isProbed(name: string, ticket: string): boolean {
    return this.#probes.get(name)?.ticket === ticket;
  }

  /** An image met trouble that may be the site's own: it is probed before its time. */
  suspect(name: string): void {
    const probe = this.#probes.get(name);
    if (probe !== undefined) probe.nextAt = 0;
  }

  /** A finished upload tells how fast the site takes bytes. Small files measure round trips, not the line. */
  measured(name: string, bytes: number, ms: number): void {
    const connection = this.#open.get(name);
    if (connection === undefined || bytes < 16 * 2 ** 20 || ms <= 0) return;
    connection.bytesPerSecond = Math.round(0.5 * connection.bytesPerSecond + 0.5 * (bytes / (ms / 1000)));
  }
}
