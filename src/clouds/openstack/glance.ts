import { setTimeout as timer } from 'node:timers/promises';
import { z } from 'zod';
import { Failure } from '../../api/failure.ts';
import { type ErrorAnswer, failureOf } from './errors.ts';
import type { Http, HttpAnswer, HttpCall } from './http.ts';
import type { Keystone } from './keystone.ts';

/** An image as Glance v2 tells it: the core attributes, and the free properties flat beside them. */
const Image = z.looseObject({
  id: z.string(),
  name: z.string().nullish(),
  status: z.string(),
  visibility: z.string(),
  os_hidden: z.boolean().default(false),
  protected: z.boolean().default(false),
  owner: z.string().nullish(),
  tags: z.array(z.string()).default([]),
  size: z.number().nullish(),
  disk_format: z.string().nullish(),
  container_format: z.string().nullish(),
  min_disk: z.number().default(0),
  min_ram: z.number().default(0),
  checksum: z.string().nullish(),
  os_hash_algo: z.string().nullish(),
  os_hash_value: z.string().nullish(),
  created_at: z.string(),
});
export type Image = z.infer<typeof Image>;

const Page = z.looseObject({ images: z.array(Image), next: z.string().optional() });
const Member = z.looseObject({ member_id: z.string(), status: z.string() });
export type Member = z.infer<typeof Member>;
const Members = z.looseObject({ members: z.array(Member) });
const Versions = z.looseObject({ versions: z.array(z.looseObject({ id: z.string() })) });

/** One step of `application/openstack-images-v2.1-json-patch`. */
export interface PatchOperation {
  op: 'add' | 'replace' | 'remove';
  path: string;
  value?: unknown;
}

const PAGE_SIZE = 200;
/** A project with more images than this is not one that this client can keep. */
const MAX_PAGES = 500;
const TRIES = 3;
const PAUSE_MS = 400;
/** A longer Retry-After goes to the caller, whose queue waits without holding anything. */
const MAX_PAUSE_MS = 5_000;

/** A pause that a signal ends. */
export type Pause = (ms: number, signal: AbortSignal) => Promise<void>;

export const realPause: Pause = async (ms, signal) => {
  await timer(ms, undefined, { signal });
};

/** The calls of Glance's v2 API that registering images takes. */
export class Glance {
  readonly #keystone: Keystone;
  readonly #http: Http;
  readonly #now: () => number;
  readonly pause: Pause;

  constructor(keystone: Keystone, http: Http, now: () => number, pause: Pause = realPause) {
    this.#keystone = keystone;
    this.#http = http;
    this.#now = now;
    this.pause = pause;
  }

  /** API versions, e.g. `2.16`; the newest first. Needs no token. */
  async versions(signal: AbortSignal): Promise<string[]> {
    const answer = await this.#call('GET', '/versions', signal);
    if (answer.status !== 200 && answer.status !== 300) throw await this.#failure('does not tell its versions', answer);
    return this.#parse(Versions, answer)
      .versions.map(({ id }) => id.replace(/^v/, ''))
      .sort((a, b) => b.localeCompare(a, 'en', { numeric: true }));
  }

  async get(id: string, signal: AbortSignal): Promise<Image | undefined> {
    const answer = await this.#call('GET', `/v2/images/${encodeURIComponent(id)}`, signal);
    if (answer.status === 404) return undefined;
    if (answer.status !== 200) throw await this.#failure(`does not show image ${id}`, answer);
    return this.#parse(Image, answer);
  }

  /**
   * Every image that our project owns and whose properties have these values. Glance's lists leave hidden ones out unless asked for
   * them, and the others then. The owner is compared again here, whatever the server made of the filter: images of other projects
   * (community, shared, public) may carry properties that look like ours.
   */
  async *owned(
    properties: Readonly<Record<string, string>>,
    { hidden }: { hidden: boolean },
    signal: AbortSignal,
  ): AsyncGenerator<Image> {
    const { projectId } = await this.#keystone.session(signal);
    let marker: string | undefined;
    for (let page = 0; ; page++) {
      if (page === MAX_PAGES) throw new Failure('ServerError', 'Glance lists images without end');
      const query = new URLSearchParams({ owner: projectId, os_hidden: `${hidden}`, visibility: 'all', ...properties });
      query.set('limit', String(PAGE_SIZE));
      if (marker !== undefined) query.set('marker', marker);
      const answer = await this.#call('GET', `/v2/images?${query.toString()}`, signal);
      if (answer.status !== 200) throw await this.#failure('does not list images', answer);
      const { images, next } = this.#parse(Page, answer);
      for (const image of images) {
        const wanted = Object.entries(properties).every(([name, value]) => image[name] === value);
        if (wanted && image.owner === projectId) yield image;
      }
      // Only the fact that there is a next page is believed; the marker is our own, so that no answer leads elsewhere.
      marker = images.at(-1)?.id;
      if (next === undefined || marker === undefined) break;
    }
  }

  /** Undefined when the id is taken: by an image of ours, of another project, or by one that was deleted long ago. */
  async create(body: Readonly<Record<string, unknown>>, signal: AbortSignal): Promise<Image | undefined> {
    const answer = await this.#call('POST', '/v2/images', signal, body);
    if (answer.status === 409) return undefined;
    if (answer.status !== 201) throw await this.#failure('could not make the image', answer);
    return this.#parse(Image, answer);
  }

  async update(id: string, operations: readonly PatchOperation[], signal: AbortSignal): Promise<Image> {
    const answer = await this.#call('PATCH', `/v2/images/${encodeURIComponent(id)}`, signal, operations);
    if (answer.status === 404) throw gone(id);
    if (answer.status !== 200) {
      const publishing = operations.some(({ path, value }) => path === '/visibility' && value === 'public');
      const hint =
        answer.status === 403 && publishing ? ' (registration.visibility: Public needs the admin role here)' : '';
      throw await this.#failure(`could not change image ${id}${hint}`, answer);
    }
    return this.#parse(Image, answer);
  }

  /** False when it was gone already. */
  async delete(id: string, signal: AbortSignal): Promise<boolean> {
    const answer = await this.#call('DELETE', `/v2/images/${encodeURIComponent(id)}`, signal);
    if (answer.status === 404) return false;
    if (answer.status !== 204) throw await this.#failure(`could not delete image ${id}`, answer);
    return true;
  }

  async setActive(id: string, active: boolean, signal: AbortSignal): Promise<void> {
    const action = active ? 'reactivate' : 'deactivate';
    const answer = await this.#call('POST', `/v2/images/${encodeURIComponent(id)}/actions/${action}`, signal);
    if (answer.status === 404) throw gone(id);
    if (answer.status !== 204) throw await this.#failure(`could not ${action} image ${id}`, answer);
  }

  async members(id: string, signal: AbortSignal): Promise<Member[]> {
    const answer = await this.#call('GET', `/v2/images/${encodeURIComponent(id)}/members`, signal);
    if (answer.status !== 200) throw await this.#failure(`does not show the members of image ${id}`, answer);
    return this.#parse(Members, answer).members;
  }

  async addMember(id: string, member: string, signal: AbortSignal): Promise<void> {
    const answer = await this.#call('POST', `/v2/images/${encodeURIComponent(id)}/members`, signal, { member });
    if (answer.status !== 200 && answer.status !== 201 && answer.status !== 409) {
      throw await this.#failure(`could not share image ${id} with project ${member}`, answer);
    }
  }

  async removeMember(id: string, member: string, signal: AbortSignal): Promise<void> {
    const path = `/v2/images/${encodeURIComponent(id)}/members/${encodeURIComponent(member)}`;
    const answer = await this.#call('DELETE', path, signal);
    if (answer.status !== 204 && answer.status !== 404) {
      throw await this.#failure(`could not end the sharing of image ${id} with project ${member}`, answer);
    }
  }

  /** In the member's name; only an admin may. False when we may not. */
  async acceptMember(id: string, member: string, signal: AbortSignal): Promise<boolean> {
    const path = `/v2/images/${encodeURIComponent(id)}/members/${encodeURIComponent(member)}`;
    const answer = await this.#call('PUT', path, signal, { status: 'accepted' });
    if (answer.status === 200) return true;
    if (answer.status === 403 || answer.status === 404) return false;
    throw await this.#failure(`could not accept image ${id} for project ${member}`, answer);
  }

  /** Where `transfers` sends the bytes, and the token that it sends them with. */
  async uploadTarget(id: string, signal: AbortSignal): Promise<{ url: string; token: string }> {
    const { imageEndpoint, token } = await this.#keystone.session(signal);
    return { url: `${imageEndpoint}/v2/images/${encodeURIComponent(id)}/file`, token };
  }

  /** The upload's answer as a Failure. */
  async uploadFailure(id: string, answer: ErrorAnswer): Promise<Failure> {
    return await this.#failure(`did not take the bytes of image ${id}`, answer);
  }

  /**
   * With a token, and once more with a new one after 401. A GET is tried again after what passes by itself; anything that
   * changes is not, because an answer that was lost does not say whether the change was made.
   */
  async #call(method: HttpCall['method'], path: string, signal: AbortSignal, body?: object): Promise<HttpAnswer> {
    let renewed = false;
    for (let attempt = 1; ; attempt++) {
      const last = method !== 'GET' || attempt >= TRIES;
      let wait = PAUSE_MS * attempt;
      try {
        const { token, imageEndpoint } = await this.#keystone.session(signal);
        const call: HttpCall = { method, url: `${imageEndpoint}${path}`, headers: { 'x-auth-token': token } };
        if (body !== undefined) {
          call.body = JSON.stringify(body);
          call.headers = { ...call.headers, 'content-type': contentType(method) };
        }
        const answer = await this.#http.call(call, signal);
        if (answer.status === 401 && !renewed) {
          this.#keystone.forget(token);
          renewed = true;
          attempt -= 1;
          continue;
        }
        if (last || ![500, 502, 503, 504].includes(answer.status)) return answer;
        wait = (await this.#failure('', answer)).retryAfterMs ?? wait;
        if (wait > MAX_PAUSE_MS) return answer;
      } catch (error) {
        if (last || !(error instanceof Failure) || error.reason !== 'NetworkError') throw error;
      }
      await this.pause(wait, signal);
    }
  }

  async #failure(what: string, answer: ErrorAnswer): Promise<Failure> {
    const { imageEndpoint } = await this.#keystone.session(new AbortController().signal);
    return failureOf(`Glance at ${imageEndpoint} ${what}`, answer, this.#now());
  }

  #parse<T>(schema: z.ZodType<T>, answer: HttpAnswer): T {
    let content: unknown;
    try {
      content = JSON.parse(answer.body);
    } catch {
      throw new Failure(
        'ServerError',
        'Glance answers with something that is not JSON: does the endpoint lead to Glance?',
      );
    }
    const parsed = schema.safeParse(content);
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    throw new Failure(
      'ServerError',
      `Glance's answer is not as documented: ${issue?.path.join('.')}: ${issue?.message}`,
    );
  }
}

/** Somebody deleted it between two of our requests. No input of the user's is wrong, so it must not read as NotFound, which stalls. */
function gone(id: string): Failure {
  return new Failure('Conflict', `Glance has no image ${id} any more: it was deleted there, looking again`);
}

function contentType(method: HttpCall['method']): string {
  return method === 'PATCH' ? 'application/openstack-images-v2.1-json-patch' : 'application/json';
}
