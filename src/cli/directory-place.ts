import type { ApiKind } from '../api/crds.ts';
import type { RecordedEvent } from '../stores/directory/events.ts';
import type { Problem } from '../stores/directory/manifest.ts';
import type { StateReader } from '../stores/directory/reader.ts';
import type { StoredResource } from '../stores/directory/records.ts';
import type { ObjectKey, Scope } from '../stores/store.ts';
import type { Target } from './kinds.ts';
import type { CommandContext } from './output.ts';
import { type Choice, type Place, typedLine } from './place.ts';
import { type ActingOptions, openSession, type Session } from './session.ts';
import { openReader } from './state.ts';
import { keyIn, type Listener, within } from './watching.ts';

type DirectoryChoice = Extract<Choice, { kind: 'directory' }>;

const HOME = 'default';
const NEVER = Promise.withResolvers<never>().promise;

/** @throws CommandError (not found) where there is no state, unless it may be new; (failed) where this user may not look into it */
export async function openDirectory(
  choice: DirectoryChoice,
  namespace: string | undefined,
  context: CommandContext,
  mayBeNew: boolean,
): Promise<Place> {
  const reader = await openReader(choice.state, mayBeNew);
  return new DirectoryPlace(reader, choice, namespace ?? HOME, context);
}

class DirectoryPlace implements Place {
  readonly kind = 'directory';
  readonly title: string;
  readonly namespace: string;
  readonly lost = NEVER;
  readonly #reader: StateReader;
  readonly #choice: DirectoryChoice;
  readonly #context: CommandContext;

  constructor(reader: StateReader, choice: DirectoryChoice, namespace: string, context: CommandContext) {
    this.#reader = reader;
    this.#choice = choice;
    this.#context = context;
    this.title = choice.state;
    this.namespace = namespace;
  }

  set onTrouble(_tell: (message: string) => void) {
    // Files are always there to be looked at.
  }

  get(kind: ApiKind, key: ObjectKey): Promise<StoredResource | undefined> {
    return this.#reader.get(kind, key);
  }

  list(kind: ApiKind, namespace?: string): Promise<StoredResource[]> {
    return this.#reader.list(kind, namespace);
  }

  async hasAny(kind: ApiKind): Promise<boolean> {
    return (await this.#reader.list(kind)).length > 0;
  }

  async namespaces(): Promise<string[]> {
    const objects = [...(await this.#reader.list('VMImage')), ...(await this.#reader.list('ImageSubscription'))];
    return [...new Set(objects.map(({ metadata }) => metadata.namespace ?? HOME))];
  }

  events({ kind, metadata }: StoredResource): Promise<RecordedEvent[]> {
    return this.#reader.events(kind as ApiKind, metadata);
  }

  manifestOf(kind: ApiKind, key: ObjectKey): Promise<string | undefined> {
    return this.#reader.manifestOf(kind, key);
  }

  problems(): Promise<Problem[]> {
    return this.#reader.problems();
  }

  async unattended(): Promise<string | undefined> {
    if ((await this.#reader.holder()) !== undefined) return undefined;
    return `No process works on ${this.title}: start "imageproxy run" to go on.`;
  }

  act(options: ActingOptions = {}): Promise<Session> {
    const { state, manifests } = this.#choice;
    return openSession({ ...options, state, manifests, signal: this.#context.signal });
  }

  watch(kind: ApiKind, scope: Scope, listener: Listener, signal: AbortSignal): Promise<void> {
    return this.#reader.watch(kind, within(scope, listener), signal, keyIn(kind, scope));
  }

  typed(command: string, target?: Pick<Target, 'names' | 'key'>, rest?: string): string {
    return typedLine({ flags: this.#choice.flags, home: HOME }, this.#context, command, target, rest);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing is held open.
  }
}
