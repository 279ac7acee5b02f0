import { Failure } from '../../api/failure.ts';
import { ApiError } from '../../runtime/api-error.ts';
import type { Clock } from '../../runtime/clock.ts';
import { pause } from '../../runtime/pause.ts';
import { Serial } from '../directory/concurrency.ts';
import { type Kind, keyOf, type ObjectKey, type Resource } from '../store.ts';
import type { ApiClient, ApiRequest } from './client.ts';
import type { LocalCopy } from './copy.ts';
import { failureOf } from './errors.ts';
import { fullKey, objectPath, RESOURCES, type ResourceType } from './resources.ts';

/** Somebody else was quicker so many times in a row: the caller may come again later. */
const TRIES = 6;
/**
 * No write is waited for any longer, its client's retries among it: the last third of a Lease is never used, and the shortest has 30 s.
 * So a write that was begun under the Lease has come to its end before another can hold it.
 */
const ANSWER_MS = 10_000;

export interface TurnsOptions {
  client: Pick<ApiClient, 'request'>;
  copies: Readonly<Record<Kind, LocalCopy>>;
  clock: Clock;
  signal: AbortSignal;
  /** Whether what a reconcile decided may still be written; looked at before each try. Default: always. */
  mayWrite?(): boolean;
  /** How long a request may take, in milliseconds, where `mayWrite` may end; default 10 s. */
  answerMs?: number;
}

/**
 * How anything is written: on one object one write after the other, in the order of asking; only while we may; tried again where
 * somebody else was quicker; and what the server answers goes into the copy.
 */
export class Turns {
  readonly #options: TurnsOptions;
  readonly #serial = new Serial();

  constructor(options: TurnsOptions) {
    this.#options = options;
  }

  idle(): Promise<void> {
    return this.#serial.idle();
  }

  /** Works when all that was asked for on this object before has ended. */
  inTurn<T>(kind: Kind, key: ObjectKey, work: () => Promise<T>): Promise<T> {
    return this.#serial.run(`${kind}/${keyOf(key)}`, work);
  }

  /**
   * One write on one object: undefined when it has gone, the copy brought up to date, tried again where somebody else was quicker.
   * @throws Failure Conflict when another object has its name
   */
  onObject<T extends Resource>(
    object: T,
    what: string,
    write: (type: ResourceType, key: ObjectKey, attempt: number) => Promise<T>,
  ): Promise<T | undefined> {
    const { clock, signal } = this.#options;
    const kind = object.kind as Kind;
    const { type, key } = this.typeOf(kind, object.metadata);
    const name = `${kind} ${keyOf(key)}`;
    return this.inTurn(kind, key, async () => {
      for (let attempt = 1; ; attempt++) {
        this.expectMayWrite(`${what} ${name}`);
        try {
          return this.take(kind, await write(type, key, attempt)) as T;
        } catch (error) {
          if (isGone(error)) {
            this.#options.copies[kind].removed(object);
            return undefined;
          }
          if (!isLostRace(error)) throw failureOf(error, `${what} ${name}`);
          // Throws when it is another object now, and comes back here as gone when there is none.
          const now = await this.#readAgain<T>(type, key, object, `${what} ${name}`);
          if (now === undefined) return undefined;
          if (attempt >= TRIES) throw failureOf(error, `${what} ${name}`);
          await pause(20 * attempt * clock.random(), clock, signal);
        }
      }
    });
  }

  async #readAgain<T extends Resource>(
    type: ResourceType,
    key: ObjectKey,
    object: T,
    what: string,
  ): Promise<T | undefined> {
    try {
      return await this.read<T>(type, key, object);
    } catch (error) {
      if (!isGone(error)) throw failureOf(error, what);
      this.#options.copies[type.kind].removed(object);
      return undefined;
    }
  }

  /** @throws Failure Conflict when it is another object of the same name */
  async read<T extends Resource>(type: ResourceType, key: ObjectKey, object: T): Promise<T> {
    const now = await this.send<T>({ method: 'GET', path: objectPath(type, key) });
    if (now.metadata.uid !== object.metadata.uid) throw replaced(now);
    return this.#options.copies[type.kind].applied(now) as T;
  }

  /** The newest we know of the object. @throws Failure Conflict when another one has its name by now */
  sameAsKnown<T extends Resource>(object: T): T | undefined {
    const known = this.#options.copies[object.kind as Kind].get(object.metadata);
    if (known !== undefined && known.metadata.uid !== object.metadata.uid) throw replaced(known);
    return known as T | undefined;
  }

  /** Into the copy; out of it where the answer shows that the last finalizer of something deleted has gone. */
  take(kind: Kind, object: Resource): Resource {
    const { deletionTimestamp, finalizers = [] } = object.metadata;
    const copy = this.#options.copies[kind];
    if (deletionTimestamp !== undefined && finalizers.length === 0) {
      copy.removed(object);
      return object;
    }
    return copy.applied(object) ?? object;
  }

  typeOf(kind: string, ref: ObjectKey): { type: ResourceType; key: ObjectKey } {
    const type = (RESOURCES as Readonly<Record<string, ResourceType | undefined>>)[kind];
    if (type === undefined) throw new Failure('InvalidSpec', `${kind} ${keyOf(ref)}: this kind is not kept here`);
    return { type, key: fullKey(type, ref) };
  }

  /**
   * A write that waited for its turn, or for the server, must not undo what the next holder of the Lease has written.
   * @throws Failure Aborted
   */
  expectMayWrite(what: string): void {
    if (this.#options.mayWrite?.() === false)
      throw new Failure('Aborted', `did not ${what}: this controller does not hold the Lease`);
  }

  send<T>(call: ApiRequest): Promise<T> {
    const { client, mayWrite, answerMs = ANSWER_MS } = this.#options;
    return client.request<T>(mayWrite === undefined ? call : { ...call, signal: AbortSignal.timeout(answerMs) });
  }

  async request<T>(call: ApiRequest, what: string): Promise<T> {
    try {
      return await this.send<T>(call);
    } catch (error) {
      throw failureOf(error, what);
    }
  }
}

function replaced(now: Resource): Failure {
  return new Failure(
    'Conflict',
    `${now.kind} ${keyOf(now)} was replaced by another object of the same name (uid ${now.metadata.uid}): read it again`,
  );
}

function isGone(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404 && error.reason === 'NotFound';
}

/** The uid that was sent is not that of the object which is there: of custom resources the API server says 422 Invalid to that. */
export function isAnotherObject(error: unknown): boolean {
  return error instanceof ApiError && error.status === 422 && error.causes.some(({ path }) => path === 'metadata.uid');
}

/** A conflict, or the test of a JSON patch that failed: the API server says 422 Invalid to that. */
function isLostRace(error: unknown): boolean {
  if (!(error instanceof ApiError)) return false;
  return (
    isAnotherObject(error) ||
    error.status === 409 ||
    (error.status === 422 && error.message.includes('error in our request'))
  );
}
