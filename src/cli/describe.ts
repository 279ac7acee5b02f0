import { sep } from 'node:path';
import { readCrd } from '../api/crds.ts';
import { kstatus, READY } from '../api/conditions.ts';
import type { ApiObject, Artifact, Condition, ImageSite, ImageSubscription, SiteRow, VMImage } from '../api/types.ts';
import { Failure } from '../api/failure.ts';
import type { RecordedEvent } from '../stores/directory/events.ts';
import type { StoredResource } from '../stores/directory/records.ts';
import type { Problem } from '../stores/directory/manifest.ts';
import { CommandError, EXIT } from './exit.ts';
import { type Target, targetOf, titleOf } from './kinds.ts';
import { appliedBy } from './applied-by.ts';
import { adviceOn, type Situation } from './advice.ts';
import { type CommandContext, type Output, printable } from './output.ts';
import { bar, paintPhase, progressText } from './progress.ts';
import { formatAge, formatBytes } from './quantity.ts';
import { withoutDefaults } from './spec-summary.ts';
import { openPlace } from './open-place.ts';
import type { Place, PlaceOptions } from './place.ts';
import { cell, renderTable } from './table.ts';
import { problemLine } from './validate.ts';

/** kubectl's own bookkeeping: the whole manifest once more. `kubectl describe` leaves it out, too. */
const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration';

/** `imageproxy describe KIND/NAME`: all that is known of one object, and what to do next. */
export async function describe(
  kindText: string,
  nameText: string | undefined,
  options: PlaceOptions,
  context: CommandContext,
): Promise<number> {
  await using place = await openPlace(options, context);
  const target = targetOf(kindText, nameText, place.namespace);
  const found = await place.get(target.kind, target.key);
  if (found === undefined) throw new CommandError(EXIT.notFound, `there is no ${titleOf(target)} in ${place.title}`);
  const object = found as unknown as ApiObject;
  const file = await place.manifestOf(target.kind, target.key);
  const problems = (await place.problems()).filter((problem) => concerns(problem, target, file));
  const { stringify } = await import('yaml');
  const spec = withoutDefaults(readCrd(target.kind).schema.properties?.['spec'], object.spec);
  const page = new Page(context.out, context.now());
  page.head(object, place.kind === 'directory' ? (file ?? '(made by a command)') : undefined);
  page.block(
    'Spec',
    stringify(spec ?? {}, { lineWidth: 0 })
      .trimEnd()
      .split('\n'),
  );
  if (object.kind === 'VMImage') page.image(object);
  if (object.kind === 'ImageSite') page.site(object);
  if (object.kind === 'ImageSubscription') page.subscription(object);
  page.conditions(object.status?.conditions ?? []);
  page.problems(problems);
  page.events(await eventsOf(place, found, context.now()));
  page.advice({
    object,
    target,
    problems,
    unattended: await place.unattended(object),
    typed: (...words) => place.typed(...words),
    verdict: kstatus(object).status,
  });
  return EXIT.ok;
}

/** Who may see an object needs not have the right to its events: they are missing then, and why is told in their place. */
async function eventsOf(place: Place, object: StoredResource, now: number): Promise<RecordedEvent[]> {
  try {
    return await place.events(object);
  } catch (error) {
    if (!(error instanceof Failure) || error.reason !== 'Forbidden') throw error;
    const at = new Date(now).toISOString();
    return [{ type: 'Warning', reason: 'Forbidden', message: error.message, count: 1, firstSeen: at, lastSeen: at }];
  }
}

/**
 * An object's problems are those that name it, and those of its file or of a folder above it that name none: what cannot be read may have
 * been meant for it.
 */
function concerns({ file, object, held }: Problem, target: Target, manifest: string | undefined): boolean {
  if (object !== undefined) return object === titleOf(target);
  if (manifest === undefined) return false;
  return held === true || file === manifest || manifest.startsWith(file.endsWith(sep) ? file : file + sep);
}

/** Characters; what is shorter is read sooner than looked up. */
const LONG = 60;

class Page {
  readonly #out: Output;
  readonly #now: number;
  /** Long messages that stand on the page already. */
  readonly #told = new Set<string>();

  constructor(out: Output, now: number) {
    this.#out = out;
    this.#now = now;
  }

  head({ kind, metadata, status }: ApiObject, file: string | undefined): void {
    const phase = (status as { phase?: string } | undefined)?.phase;
    const writer = appliedBy({ metadata });
    const { [LAST_APPLIED]: _, ...told } = metadata.annotations ?? {};
    const pairs = (map: Record<string, string> | undefined): string[] =>
      Object.entries(map ?? {}).map(([key, value]) => printable(`${key}=${value}`));
    this.#fields([
      ['Name', metadata.name],
      ['Namespace', metadata.namespace],
      ['Kind', kind],
      ['Labels', pairs(metadata.labels).join(', ')],
      ['Annotations', pairs(told).join(', ')],
      ['Created', `${metadata.creationTimestamp} (${this.#ago(metadata.creationTimestamp)})`],
      ['Deletion', metadata.deletionTimestamp === undefined ? undefined : `asked for at ${metadata.deletionTimestamp}`],
      ['Manifest', file],
      ['Applied by', writer === undefined ? undefined : printable(writer)],
      ['Phase', phase === undefined ? undefined : paintPhase(this.#out, phase)],
    ]);
  }

  image({ status }: VMImage): void {
    const { guid, artifacts = [], sites = [], progress, failure } = status ?? {};
    this.#fields([['Guid', guid]]);
    if (progress !== undefined) {
      const percent = progress.percent === undefined ? '' : `${progress.percent}%  `;
      this.#fields([['Progress', `${bar(this.#out, progress.percent)}  ${percent}${progressText(progress, '')}`]]);
    }
    if (failure !== undefined) {
      // Wrong bytes are not fetched again by the clock: the origin is asked whether it has others.
      const verdict = failure.class === 'VerificationFailed' || failure.class === 'UnsafeImage';
      const what = verdict ? 'the origin is asked for others' : 'tried again';
      const again =
        failure.nextAttemptTime === undefined ? 'only a change helps' : `${what} at ${failure.nextAttemptTime}`;
      this.block('Failure', [
        `${failure.reason}: ${this.#once(printable(failure.message ?? ''))}`,
        `attempts: ${failure.attempts ?? 1}; ${again}`,
      ]);
    }
    this.#table('Artifacts', ['Role', 'Format', 'Size', 'Disk size', 'Digest', 'Source'], artifacts.map(artifactRow));
    this.#table(
      'Sites',
      ['Name', 'Phase', 'Image ID', 'Registered', 'Message'],
      sites.map((row) => this.#siteRow(row)),
    );
    const further = sites.flatMap((row) => furtherIds(row));
    this.#table('Further ids', ['Site', 'What', 'Id', 'Digest'], further);
  }

  site({ status }: ImageSite): void {
    const { identity, controller, cloud, counts, lastProbeTime, nextAttemptTime } = status ?? {};
    this.#fields([
      ['Identity', identity],
      ['Controller', controller],
      [
        'Cloud',
        cloud === undefined ? undefined : [cloud.name, cloud.version].filter((text) => text !== undefined).join(' '),
      ],
      ['Images', countsText(counts)],
      ['Last probe', lastProbeTime],
      ['Next probe', nextAttemptTime],
    ]);
  }

  subscription({ status }: ImageSubscription): void {
    const { list, counts, lastCheckedTime, nextAttemptTime, attention = [] } = status ?? {};
    const dated = (time: string | undefined) => (time === undefined ? undefined : `${time} (${this.#ago(time)})`);
    this.#fields([
      [
        'List',
        list?.title === undefined ? list?.identity : printable(`${list.title} (${list.identity ?? list.url ?? ''})`),
      ],
      ['Version', [list?.version, list?.createdAt].filter((text) => text !== undefined).join(' of ')],
      ['Signed by', list?.endorser === undefined ? undefined : printable(list.endorser)],
      ['Accepted', dated(list?.acceptedTime)],
      ['Expires', list?.expiresAt],
      ['Last look', dated(lastCheckedTime)],
      ['Next look', nextAttemptTime],
      ['Entries', countsText(counts)],
    ]);
    if (list?.warnings !== undefined)
      this.block(
        'Warnings',
        list.warnings.map((warning) => printable(warning)),
      );
    this.#table(
      'Attention',
      ['Entry', 'Title', 'Reason', 'Image', 'Digest', 'Message'],
      attention.map(({ id, title, reason, image, digest, message }) =>
        [id, title, reason, image, digest, message].map(cell),
      ),
    );
  }

  conditions(conditions: readonly Condition[]): void {
    const ready = conditions.find(({ type }) => type === READY)?.message;
    const rows = conditions.map(({ type, status, reason, lastTransitionTime, message }) => {
      // One failure is the message of every condition that it keeps from being met: told once, it is found.
      const text = type !== READY && message === ready ? '(as Ready)' : this.#once(cell(message));
      const good = status === (type === 'Stalled' || type === 'Reconciling' ? 'False' : 'True');
      return [type, this.#out.paint(good ? 'green' : 'yellow', status), reason, this.#age(lastTransitionTime), text];
    });
    this.#table('Conditions', ['Type', 'Status', 'Reason', 'Age', 'Message'], rows);
  }

  problems(problems: readonly Problem[]): void {
    if (problems.length > 0)
      this.block(
        'Problems',
        problems.map((problem) => problemLine(this.#out, problem)),
      );
  }

  events(events: readonly RecordedEvent[]): void {
    const rows = events.map(({ lastSeen, type, reason, count, message }) => [
      this.#age(lastSeen),
      this.#out.paint(type === 'Warning' ? 'yellow' : 'reset', type),
      reason,
      String(count),
      this.#once(cell(message)),
    ]);
    this.#table('Events', ['Last seen', 'Type', 'Reason', 'Count', 'Message'], rows);
  }

  advice(situation: Situation): void {
    const lines = adviceOn(situation).map((line) => printable(line));
    const fresh = lines.filter((line) => !this.#told.has(line));
    this.block('What to do next', fresh.length > 0 ? fresh : lines);
  }

  block(title: string, lines: readonly string[]): void {
    this.#out.line(this.#title(title));
    for (const line of lines) this.#out.line(`  ${line}`);
  }

  #fields(fields: readonly (readonly [string, string | undefined])[]): void {
    for (const [name, value] of fields) {
      if (value !== undefined && value !== '')
        this.#out.line(`${this.#title(name)}${' '.repeat(Math.max(1, 13 - name.length))}${value}`);
    }
  }

  #table(title: string, titles: readonly string[], rows: readonly string[][]): void {
    if (rows.length === 0) return;
    this.#out.line(this.#title(title));
    for (const line of renderTable(titles, rows, { indent: '  ' })) this.#out.line(line);
  }

  /** One failure is the message of many things that it keeps from being well: told in full where it comes first. */
  #once(message: string): string {
    if (message.length < LONG) return message;
    if (this.#told.has(message)) return '(as above)';
    this.#told.add(message);
    return message;
  }

  #title(text: string): string {
    return this.#out.paint('bold', `${text}:`);
  }

  #siteRow({ name, phase = 'Pending', imageID, registeredAt, message, progress }: SiteRow): string[] {
    const doing = progress === undefined ? '' : `${progress.percent ?? 0}% ${progressText(progress, '')} `;
    return [
      name,
      paintPhase(this.#out, phase),
      cell(imageID),
      registeredAt === undefined ? '' : this.#ago(registeredAt),
      `${doing}${this.#once(cell(message))}`,
    ];
  }

  #age(time: string): string {
    return formatAge(this.#now - Date.parse(time));
  }

  #ago(time: string): string {
    return `${this.#age(time)} ago`;
  }
}

function countsText(counts: Readonly<Record<string, number | undefined>> | undefined): string | undefined {
  if (counts === undefined) return undefined;
  return Object.entries(counts)
    .map(([what, number]) => `${what} ${number}`)
    .join(', ');
}

function artifactRow({ role, format, size, virtualSize, digest, source }: Artifact): string[] {
  return [
    role,
    format ?? '',
    size === undefined ? '' : formatBytes(size),
    virtualSize === undefined ? '' : formatBytes(virtualSize),
    cell(digest),
    cell(source),
  ];
}

function furtherIds({ name, kernelID, ramdiskID, previous = [] }: SiteRow): string[][] {
  const parts = [['Kernel', kernelID] as const, ['Ramdisk', ramdiskID] as const];
  return [
    ...parts.flatMap(([what, id]) => (id === undefined ? [] : [[name, what, cell(id), '']])),
    ...previous.map(({ imageID, digest, retiredAt }) => [
      name,
      `retired ${retiredAt ?? ''}`.trim(),
      cell(imageID),
      cell(digest),
    ]),
  ];
}
