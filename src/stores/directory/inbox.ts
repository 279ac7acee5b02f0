import { randomBytes } from 'node:crypto';
import { readdir, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure, type PlainFailure, REASONS } from '../../api/failure.ts';
import type { Draft, Kind, ObjectKey, Resource } from '../store.ts';
import { Disk } from './disk.ts';
import { holderOf } from './lock.ts';
import { codeOf, isMapping, type Log, type Now } from './seams.ts';
import { readJson } from './state.ts';

/** What another process may ask of the one that holds the state. */
export type StateRequest =
  | { type: 'apply'; object: Draft }
  /** With a uid only that very object is deleted. */
  | { type: 'delete'; kind: Kind; key: ObjectKey; uid?: string }
  | { type: 'annotate'; kind: Kind; key: ObjectKey; annotations: Record<string, string | null> }
  | { type: 'confirm-deletions' }
  /** Which of these it has not: they are in nobody's state, so only the holder knows. */
  | { type: 'missing'; objects: LooseName[] };

/** Names a Secret or ConfigMap. */
export interface LooseName {
  kind: 'Secret' | 'ConfigMap';
  key: ObjectKey;
}

export interface StateAnswer {
  /** The object as it is after `apply`. */
  object?: Resource;
  /** What `confirm-deletions` lets go: `VMImage/default/ubuntu`. */
  confirmed?: string[];
  /** What is `missing`: `Secret imageproxy/nova`. */
  missing?: string[];
}

interface Envelope {
  /** The asker waits no longer than this; afterwards it must not happen any more. */
  until: number;
  request: StateRequest;
}

type Reply = { answer: StateAnswer } | { failure: PlainFailure };

const REQUEST = /^\d{15}-[0-9a-f]{16}\.json$/;
const TAKEN = '.taken';
const LOOK_EVERY_MS = 50;

/**
 * Asks the process that holds the state directory, and waits for its answer.
 * Resolves to undefined when no process holds it: then the caller opens the store itself.
 * @throws Failure the holder's own; Timeout when there is no answer in time; Aborted.
 */
export async function requestState(
  state: string,
  request: StateRequest,
  { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal },
): Promise<StateAnswer | undefined> {
  if ((await holderOf(state)) === undefined) return undefined;
  const until = Date.now() + timeoutMs;
  const id = requestName();
  const path = join(state, 'inbox', id);
  const answer = join(state, 'answers', id);
  await new Disk().replace(path, JSON.stringify({ until, request } satisfies Envelope), false);
  try {
    for (;;) {
      const reply = await readJson(answer);
      if (isReply(reply)) {
        if ('answer' in reply) return reply.answer;
        throw Failure.fromPlain(reply.failure);
      }
      if (Date.now() >= until) break;
      if ((await holderOf(state)) === undefined) return await withdrawn(path, 'the process that was asked has ended');
      await sleep(LOOK_EVERY_MS, undefined, signal === undefined ? {} : { signal });
    }
    await withdrawn(path, `no answer within ${timeoutMs} ms`);
    throw new Failure(
      'Timeout',
      `the process that holds ${state} did not answer within ${timeoutMs} ms, and nothing was changed: is it stuck, or stopped?`,
    );
  } catch (error) {
    await unlink(path).catch(() => undefined);
    throw Failure.from(error);
  } finally {
    await unlink(answer).catch(() => undefined);
  }
}

let asked = 0;

/** In the order of asking: by the millisecond, and within it by this process's count. */
function requestName(): string {
  const count = (asked++ % 0x10000).toString(16).padStart(4, '0');
  return `${String(Date.now()).padStart(15, '0')}-${count}${randomBytes(6).toString('hex')}.json`;
}

/** Takes the request back; once it is taken up, nobody knows what became of it. */
async function withdrawn(path: string, why: string): Promise<undefined> {
  try {
    await unlink(path);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    throw new Failure('Timeout', `${why}, but the request had been taken up: look at the object before asking again`);
  }
}

export interface InboxOptions {
  state: string;
  disk: Disk;
  now: Now;
  log: Log;
  handle(request: StateRequest): Promise<StateAnswer>;
}

/** The holder's side: requests in the order of their names, which begin with the time. */
export class Inbox {
  readonly #options: InboxOptions;

  constructor(options: InboxOptions) {
    this.#options = options;
  }

  /** Requests that a crash cut short are answered so, not carried out again: what they meant may be something else by now. */
  async recover(): Promise<void> {
    const { state } = this.#options;
    for (const name of await readdir(join(state, 'answers'))) await this.#drop('answers', name);
    for (const name of await readdir(join(state, 'inbox'))) {
      if (!name.endsWith(TAKEN)) continue;
      const failure = new Failure(
        'Aborted',
        'the process was restarted while it was at this request: look at the object, then ask again',
      );
      await this.#reply(name.slice(0, -TAKEN.length), { failure: failure.toPlain() });
      await this.#drop('inbox', name);
    }
  }

  /** Carries out all that is there. Never rejects for what a request holds. */
  async process(): Promise<undefined> {
    const { state } = this.#options;
    const names = (await readdir(join(state, 'inbox'))).filter((name) => REQUEST.test(name)).sort();
    for (const name of names) {
      const path = join(state, 'inbox', name);
      const taken = path + TAKEN;
      try {
        // From here on the asker can no longer take it back.
        await rename(path, taken);
      } catch (error) {
        if (codeOf(error) === 'ENOENT') continue;
        throw error;
      }
      const reply = await this.#answer(await readJson(taken));
      if (reply !== undefined) await this.#reply(name, reply);
      await this.#drop('inbox', name + TAKEN);
    }
  }

  async #answer(envelope: unknown): Promise<Reply | undefined> {
    const { log, now, handle } = this.#options;
    try {
      if (!isMapping(envelope) || typeof envelope.until !== 'number')
        throw new Failure('Rejected', 'this is no request');
      if (envelope.until < now()) return undefined;
      const request = decodeRequest(envelope.request);
      log.info({ request: request.type }, 'a request from another process');
      return { answer: await handle(request) };
    } catch (error) {
      const failure = Failure.from(error);
      log.warn({ err: error }, `a request from another process failed: ${failure.message}`);
      return { failure: failure.toPlain() };
    }
  }

  async #reply(name: string, reply: Reply): Promise<void> {
    const { state, disk } = this.#options;
    await disk.replace(join(state, 'answers', name), JSON.stringify(reply), false);
  }

  async #drop(folder: 'inbox' | 'answers', name: string): Promise<void> {
    const { state, disk } = this.#options;
    await disk.remove(join(state, folder, name), false);
  }
}

function isReply(value: unknown): value is Reply {
  if (!isMapping(value)) return false;
  if (isMapping(value.answer)) return true;
  return isMapping(value.failure) && typeof value.failure.reason === 'string' && value.failure.reason in REASONS;
}

function isLooseName(value: unknown): value is LooseName {
  if (!isMapping(value) || !isMapping(value.key) || typeof value.key.name !== 'string') return false;
  return value.kind === 'Secret' || value.kind === 'ConfigMap';
}

function decodeRequest(value: unknown): StateRequest {
  if (!isMapping(value)) throw new Failure('Rejected', 'this is no request');
  const { type, object, objects, kind, key, annotations, uid } = value;
  if (type === 'confirm-deletions') return { type };
  if (type === 'missing' && Array.isArray(objects) && objects.every(isLooseName)) return { type, objects };
  if (type === 'apply' && isMapping(object) && isMapping(object.metadata))
    return { type, object: object as unknown as Draft };
  if (typeof kind === 'string' && isMapping(key) && typeof key.name === 'string') {
    const target = { kind: kind as Kind, key: key as unknown as ObjectKey };
    if (type === 'delete') return { type, ...target, ...(typeof uid === 'string' ? { uid } : {}) };
    if (type === 'annotate' && isMapping(annotations)) {
      return { type, ...target, annotations: annotations as Record<string, string | null> };
    }
  }
  throw new Failure(
    'Rejected',
    `this process knows no such request (${String(type).slice(0, 40)}): is it of another version?`,
  );
}
