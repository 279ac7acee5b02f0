import { Failure } from '../../api/failure.ts';
import type {
  Cloud,
  CloudContext,
  CloudRecord,
  CloudTraits,
  Look,
  Ownership,
  PartRef,
  Probe,
  PublishImage,
  StagePart,
} from '../cloud.ts';
import { type CloudConfiguration, type OpenStackSpec, readConfiguration } from './configuration.ts';
import { Glance } from './glance.ts';
import { Http } from './http.ts';
import { Keystone } from './keystone.ts';
import { FORMATS_OF_GLANCE, MARK, property, recordOf } from './mapping.ts';
import { Publication } from './publication.ts';
import { belongs, Records } from './records.ts';
import { Staging } from './staging.ts';

/** `os_hidden` came with image API 2.7 (Rocky, 2018); without it a staged image would stand in everybody's list. */
const OLDEST_API = '2.7';

/** Opens a project of an OpenStack cloud. Nothing is asked of it yet. @throws Failure SecretNotFound | InvalidSecret */
export function openOpenStack(spec: OpenStackSpec, context: CloudContext): Cloud {
  return new OpenStackCloud(readConfiguration(spec, context.secret, context.ca), context);
}

class OpenStackCloud implements Cloud {
  readonly traits: CloudTraits = {
    formats: FORMATS_OF_GLANCE,
    // Glance's default. A cloud that computes another is compared by that one.
    digest: 'sha512',
    mayFollow: true,
    clientChosenIds: true,
  };
  readonly #configuration: CloudConfiguration;
  readonly #http: Http;
  readonly #keystone: Keystone;
  readonly #glance: Glance;
  readonly #records: Records;
  readonly #staging: Staging;
  readonly #publication: Publication;

  constructor(configuration: CloudConfiguration, context: CloudContext) {
    this.#configuration = configuration;
    this.#http = new Http(configuration.tls);
    this.#keystone = new Keystone(configuration, this.#http, () => context.now());
    this.#glance = new Glance(this.#keystone, this.#http, () => context.now());
    this.#records = new Records(this.#glance, this.#keystone, context.log);
    this.#publication = new Publication(this.#records);
    this.#staging = new Staging({
      records: this.#records,
      keystone: this.#keystone,
      transfers: context.transfers,
      tls: configuration.tls,
    });
  }

  async probe(signal: AbortSignal): Promise<Probe> {
    const { authUrl, cloud, warnings } = this.#configuration;
    const session = await this.#keystone.session(signal);
    const [version] = await this.#glance.versions(signal);
    if (version === undefined || version.localeCompare(OLDEST_API, 'en', { numeric: true }) < 0) {
      throw new Failure(
        'NotSupported',
        `Glance at ${session.imageEndpoint} speaks version ${version}; ${OLDEST_API} is needed`,
      );
    }
    // Versions are told to anybody. Only a call with the token shows that Glance takes it.
    await this.#glance.get('00000000-0000-0000-0000-000000000000', signal);
    return {
      identity: `${authUrl} region=${session.region} project=${session.projectId}`,
      version,
      endpoints: session.endpoints,
      details: {
        cloud,
        project: session.projectName,
        user: session.userName,
        region: session.region,
        interface: this.#configuration.interface,
        glance: session.imageEndpoint,
        ...(warnings.length === 0 ? {} : { warning: warnings.join('; ') }),
      },
    };
  }

  async find(ownership: Pick<Ownership, 'owner' | 'guid'>, signal: AbortSignal): Promise<CloudRecord[]> {
    const properties = { [MARK.owner]: ownership.owner, [MARK.guid]: ownership.guid };
    // Both questions at once: an upload waits for the answers.
    const found = await Promise.all(
      [false, true].map((hidden) => Array.fromAsync(this.#glance.owned(properties, { hidden }, signal))),
    );
    // An image that is hidden in between is told twice.
    return [...new Map(found.flat().map((image) => [image.id, recordOf(image)])).values()];
  }

  async get(id: string, signal: AbortSignal): Promise<CloudRecord | undefined> {
    const image = await this.#records.own(id, signal);
    return image === undefined ? undefined : recordOf(image);
  }

  async census(signal: AbortSignal): Promise<Set<string>> {
    const ids = new Set<string>();
    for (const hidden of [false, true]) {
      for await (const image of this.#glance.owned({}, { hidden }, signal)) {
        if (property(image, MARK.guid) !== undefined) ids.add(image.id);
      }
    }
    return ids;
  }

  async stage(part: StagePart, signal: AbortSignal): Promise<CloudRecord> {
    return await this.#staging.stage(part, signal);
  }

  async claim(id: string, ownership: Ownership, signal: AbortSignal): Promise<void> {
    const image = await this.#records.present(id, signal);
    if (!belongs(image, ownership, { strict: true })) {
      throw new Failure('ClaimedByOther', `image ${id} carries another owner or guid: it is left alone`);
    }
    if (property(image, MARK.claim) === ownership.claim) return;
    const op = Object.hasOwn(image, MARK.claim) ? 'replace' : 'add';
    await this.#glance.update(id, [{ op, path: `/${MARK.claim}`, value: ownership.claim }], signal);
  }

  async publish(image: PublishImage, signal: AbortSignal): Promise<void> {
    await this.#publication.publish(image, signal);
  }

  async look(image: PublishImage, signal: AbortSignal): Promise<Look> {
    return await this.#publication.look(image, signal);
  }

  async retire(parts: readonly PartRef[], signal: AbortSignal): Promise<void> {
    await this.#publication.retire(parts, signal);
  }

  async reactivate(parts: readonly PartRef[], signal: AbortSignal): Promise<void> {
    await this.#publication.reactivate(parts, signal);
  }

  async remove(parts: readonly PartRef[], signal: AbortSignal): Promise<void> {
    await this.#publication.remove(parts, signal);
  }

  async close(): Promise<void> {
    await this.#http.close();
  }
}
