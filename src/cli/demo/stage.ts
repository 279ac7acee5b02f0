import { findCondition, kstatus, READY } from '../../api/conditions.ts';
import type { VMImage } from '../../api/types.ts';
import type { CommandContext, Output } from '../output.ts';
import { imageLine, LiveView } from '../progress.ts';
import { wrap } from '../explain.ts';
import { watchFor, watchStore } from '../watching.ts';
import type { RunningController } from '../controller.ts';
import { CommandError, EXIT } from '../exit.ts';

const PATIENCE_MS = 60_000;

/** Tells the story: chapters, what is seen, and which promises were kept. */
export class Stage {
  readonly out: Output;
  readonly #context: CommandContext;
  readonly #begun: number;
  #chapter = 0;
  #kept = 0;
  #broken: string[] = [];

  constructor(context: CommandContext) {
    this.out = context.out;
    this.#context = context;
    this.#begun = performance.now();
  }

  chapter(title: string, text = ''): void {
    this.#chapter++;
    this.out.line();
    this.out.line(`${this.out.paint(['bold', 'cyan'], String(this.#chapter))}  ${this.out.paint('bold', title)}`);
    if (text !== '') this.say(text);
  }

  say(text: string): void {
    for (const line of wrap(text, 3)) this.out.line(line);
  }

  lines(lines: readonly string[]): void {
    for (const line of lines) this.out.line(`   ${line}`);
  }

  code(lines: readonly string[]): void {
    for (const line of lines) this.out.line(`     ${this.out.paint('gray', line)}`);
  }

  /** `12:04:31.208  what happened` */
  moment(text: string, at = new Date()): void {
    const time = at.toTimeString().slice(0, 8) + at.toISOString().slice(19, 23);
    this.out.line(`   ${this.out.paint('gray', time)}  ${text}`);
  }

  /** What ImageProxy promises; a broken one makes the demo fail. */
  promise(text: string, kept: boolean): void {
    const [yes, no] = this.out.blocks ? ['✓', '✗'] : ['ok', 'NOT KEPT'];
    this.out.line(`   ${kept ? this.out.paint('green', yes) : this.out.paint('red', no)} ${text}`);
    if (kept) this.#kept++;
    else this.#broken.push(text);
  }

  /** Live bars of all images until those named are settled as wanted. */
  async follow(
    controller: RunningController,
    names: readonly string[],
    wanted: (image: VMImage) => boolean = isReady,
    seen: (image: VMImage) => void = () => undefined,
  ): Promise<VMImage[]> {
    const view = new LiveView(this.out);
    const width = Math.max(...names.map((name) => name.length));
    const images = new Map<string, VMImage>();
    const stop = new AbortController();
    const store = watchStore(controller.store);
    await store.watch(
      'VMImage',
      {},
      ({ object }) => {
        const image = object as unknown as VMImage;
        if (!names.includes(image.metadata.name)) return;
        images.set(image.metadata.name, image);
        seen(image);
        view.show(
          names.flatMap((name) => {
            const known = images.get(name);
            if (known === undefined) return [];
            const line = imageLine(this.out, known, { nameWidth: width, brief: true });
            return [{ ...line, text: `   ${line.text}` }];
          }),
        );
      },
      stop.signal,
    );
    try {
      return await Promise.all(
        names.map((name) =>
          watchFor(store, this.#context, {
            kind: 'VMImage',
            key: { namespace: 'default', name },
            timeoutMs: PATIENCE_MS,
            ended: endOf(controller),
            decide: (object) => {
              if (object === undefined) return undefined;
              const image = object as unknown as VMImage;
              if (wanted(image)) return image;
              if (isRefused(image)) throw new CommandError(EXIT.failed, `${name} failed: ${messageOf(image)}`);
              return undefined;
            },
            onTimeout: (last) =>
              new CommandError(
                EXIT.failed,
                `the demo waited ${PATIENCE_MS / 1000} s for ${name}: ${messageOf(last as unknown as VMImage | undefined)}`,
              ),
          }),
        ),
      );
    } finally {
      stop.abort();
      view.end();
    }
  }

  /** Resolves when the named images are gone. */
  async gone(controller: RunningController, names: readonly string[]): Promise<void> {
    await Promise.all(
      names.map((name) =>
        watchFor(watchStore(controller.store), this.#context, {
          kind: 'VMImage',
          key: { namespace: 'default', name },
          timeoutMs: PATIENCE_MS,
          ended: endOf(controller),
          decide: (object) => (object === undefined ? true : undefined),
          onTimeout: () =>
            new CommandError(EXIT.failed, `the demo waited ${PATIENCE_MS / 1000} s for the end of ${name} in vain`),
        }),
      ),
    );
  }

  /** The verdict, and the exit code that goes with it. */
  verdict(): number {
    const seconds = ((performance.now() - this.#begun) / 1000).toFixed(1);
    const all = this.#kept + this.#broken.length;
    this.out.line();
    if (this.#broken.length === 0) {
      this.out.line(this.out.paint(['bold', 'green'], `All ${all} promises kept, in ${seconds} s.`));
      return EXIT.ok;
    }
    this.out.line(this.out.paint(['bold', 'red'], `${this.#broken.length} of ${all} promises were not kept:`));
    for (const text of this.#broken) this.out.line(`  ${text}`);
    return EXIT.failed;
  }
}

async function endOf(controller: RunningController): Promise<never> {
  await controller.done;
  throw new CommandError(EXIT.failed, 'the controllers ended before the demo did');
}

function messageOf(image: VMImage | undefined): string {
  return findCondition(image?.status?.conditions, READY)?.message ?? 'nothing is known of it';
}

export function isReady(image: VMImage): boolean {
  return (
    image.status?.observedGeneration === image.metadata.generation &&
    image.status.phase === 'Ready' &&
    kstatus(image).status === 'Current'
  );
}

export function isRefused(image: VMImage): boolean {
  return kstatus(image).status === 'Failed';
}
