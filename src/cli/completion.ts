import type { Command, Option } from 'commander';
import type { ApiKind } from '../api/crds.ts';
import { isPlainWord } from '../api/shell.ts';
import type { ImageSubscription } from '../api/types.ts';
import { EXIT } from './exit.ts';
import { KINDS } from './kinds.ts';
import type { CommandContext } from './output.ts';
import { openPlace } from './open-place.ts';
import type { Place, PlaceOptions } from './place.ts';

/** A cluster that has not answered by then is not waited for. */
const PATIENCE_MS = 3_000;

/** The scripts hand the words before the cursor to `imageproxy __complete`, which prints what may follow, a candidate a line. */
const SCRIPTS = {
  bash: `# bash completion of imageproxy
_imageproxy() {
  local words=("\${COMP_WORDS[@]:1:COMP_CWORD}") candidates candidate quoted
  COMPREPLY=()
  mapfile -t candidates < <("\${COMP_WORDS[0]}" __complete -- "\${words[@]//\\\\/}" 2>/dev/null)
  # Names may come from strangers: none is expanded, neither here (as compgen -W would) nor in the command line.
  for candidate in "\${candidates[@]}"; do
    printf -v quoted %q "$candidate"
    COMPREPLY+=("$quoted")
  done
  case \${COMPREPLY[0]} in
    '') compopt -o default ;;
    */) compopt -o nospace ;;
  esac
}
complete -F _imageproxy imageproxy
`,
  zsh: `#compdef imageproxy
# zsh completion of imageproxy
_imageproxy() {
  local -a candidates
  candidates=("\${(@f)$("\${words[1]}" __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "\${candidates[*]}" ]]; then
    compadd -- $candidates
  else
    _files
  fi
}
if [ "$funcstack[1]" = _imageproxy ]; then
  _imageproxy "$@"
else
  compdef _imageproxy imageproxy
fi
`,
  fish: `# fish completion of imageproxy
function __imageproxy_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l candidates ($words[1] __complete -- $words[2..-1] 2>/dev/null)
  if test (count $candidates) -gt 0
    printf '%s\\n' $candidates
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c imageproxy -f -a '(__imageproxy_complete)'
`,
} as const;

export async function completion(shell: keyof typeof SCRIPTS, { out }: CommandContext): Promise<number> {
  out.write(SCRIPTS[shell]);
  return EXIT.ok;
}

/** Commands that take objects, and whether as KIND/NAME alone. */
const TAKES_OBJECTS: Readonly<Record<string, 'pairs' | 'kinds'>> = {
  get: 'kinds',
  watch: 'kinds',
  describe: 'kinds',
  wait: 'pairs',
  delete: 'pairs',
  reconcile: 'pairs',
  'confirm-removal': 'pairs',
};

/** `imageproxy __complete -- WORD…`: the last word is the one being typed. Nothing printed means: complete file names. */
export async function complete(program: Command, words: readonly string[], context: CommandContext): Promise<number> {
  const found = await candidatesFor(program, words, context);
  // kubectl's script puts them into the command line as they are.
  const candidates = context.calledAs === undefined ? found : found.filter(isPlainWord);
  for (const candidate of candidates) context.out.line(candidate);
  if (context.calledAs !== undefined) context.out.line(`:${directiveFor(candidates)}`);
  return EXIT.ok;
}

/**
 * How kubectl goes on, in cobra's numbers (https://pkg.go.dev/github.com/spf13/cobra#ShellCompDirective): 0, it completes file names;
 * 4, it does not; 2 more, no blank follows, for a name comes after the slash.
 */
function directiveFor(candidates: readonly string[]): number {
  if (candidates.length === 0) return 0;
  return candidates.every((each) => each.endsWith('/')) ? 6 : 4;
}

async function candidatesFor(program: Command, words: readonly string[], context: CommandContext): Promise<string[]> {
  const typed = words.at(-1) ?? '';
  const [name, ...before] = words.slice(0, -1);
  const starting = (candidates: readonly string[]): string[] => candidates.filter((each) => each.startsWith(typed));
  const commands = program.commands.filter((each) => !each.name().startsWith('__'));
  if (name === undefined) return starting([...commands.map((each) => each.name()), '--help']);
  const command = commands.find((each) => each.name() === name);
  if (command === undefined) return [];

  const option = optionNamed(command, before.at(-1));
  const lookup = new Lookup(before, context);
  if (option !== undefined && (option.required || option.optional)) return starting(await valuesOf(option, lookup));
  if (typed.startsWith('-')) {
    return starting([
      ...command.options.flatMap(({ long, hidden }) => (hidden || long == null ? [] : [long])),
      '--help',
    ]);
  }
  const given = positionals(command, before);
  const takes = TAKES_OBJECTS[name];
  if (takes !== undefined) return starting(await objects(takes, typed, given, lookup));
  if (name === 'approve') return starting(await approvable(given, lookup));
  if (name === 'explain') return starting(await fields(typed));
  const argument = command.registeredArguments[given.length];
  return starting(argument?.argChoices ?? []);
}

function optionNamed(command: Command, word: string | undefined): Option | undefined {
  return word === undefined ? undefined : command.options.find(({ long, short }) => word === long || word === short);
}

function positionals(command: Command, words: readonly string[]): string[] {
  return words.filter((word, i) => {
    const before = optionNamed(command, words[i - 1]);
    return !word.startsWith('-') && !(before !== undefined && (before.required || before.optional));
  });
}

async function valuesOf(option: Option, lookup: Lookup): Promise<string[]> {
  if (option.argChoices !== undefined) return [...option.argChoices];
  if (option.long === '--namespace') return lookup.namespaces();
  if (option.long === '--context') return lookup.contexts();
  if (option.long === '--site') return lookup.names('ImageSite');
  if (option.long === '--for')
    return ['condition=Ready', 'condition=Available', 'condition=Stalled', 'delete', 'create', 'jsonpath='];
  return [];
}

async function objects(
  takes: 'pairs' | 'kinds',
  typed: string,
  given: readonly string[],
  lookup: Lookup,
): Promise<string[]> {
  const slash = typed.indexOf('/');
  if (slash >= 0) {
    const prefix = typed.slice(0, slash);
    const kind = namedKind(prefix)?.kind;
    return kind === undefined ? [] : (await lookup.names(kind)).map((name) => `${prefix}/${name}`);
  }
  const kind = given[0] === undefined ? undefined : namedKind(given[0])?.kind;
  if (takes === 'kinds' && given.length === 1) return kind === undefined ? [] : lookup.names(kind);
  if (given[0]?.includes('/') === true && given.length === 1 && takes === 'pairs' && lookup.removal)
    return lookup.names('ImageSite');
  const kinds = KINDS.flatMap(({ plural, singular, short }) => [short, singular, plural]);
  if (takes === 'kinds') return given.length > 0 ? [] : kinds;
  return kinds.map((each) => `${each}/`);
}

/** A subscription, then what waits in it for approval. */
async function approvable([subscription, ...entries]: readonly string[], lookup: Lookup): Promise<string[]> {
  if (subscription === undefined) return lookup.names('ImageSubscription');
  const ids = await lookup.pending(subscription.replace(/^imgsub\//, ''));
  // One that looks like an option would be taken as that: --all approves all.
  return ids.filter((id) => !id.startsWith('-') && !entries.includes(id));
}

function namedKind(text: string) {
  return KINDS.find(({ plural, singular, short }) => [plural, singular, short].includes(text.toLowerCase()));
}

async function fields(typed: string): Promise<string[]> {
  const [kindText = '', ...path] = typed.split('.');
  const names = namedKind(kindText);
  if (path.length === 0 || names === undefined) return KINDS.map(({ singular }) => singular);
  const { readCrd } = await import('../api/crds.ts');
  let node = readCrd(names.kind).schema;
  for (const name of path.slice(0, -1)) {
    const next = (node.items ?? node).properties?.[name];
    if (next === undefined) return [];
    node = next;
  }
  const stem = [kindText, ...path.slice(0, -1)].join('.');
  return Object.keys((node.items ?? node).properties ?? {}).map((name) => `${stem}.${name}`);
}

/** Names from the place that the words before name. What cannot be had at once has none: the user is waiting for the key. */
class Lookup {
  readonly removal: boolean;
  readonly #before: readonly string[];
  readonly #everywhere: boolean;
  readonly #context: CommandContext;

  constructor(before: readonly string[], context: CommandContext) {
    this.#before = before;
    this.#everywhere = before.includes('-A') || before.includes('--all-namespaces');
    this.removal = before.some((word) => /^(?:vmimg|vmimages?)\//.test(word));
    this.#context = context;
  }

  names(kind: ApiKind): Promise<string[]> {
    return this.#ask(async (place) => {
      const namespace = this.#everywhere || kind === 'ImageSite' ? undefined : place.namespace;
      return (await place.list(kind, namespace)).map(({ metadata }) => metadata.name);
    });
  }

  pending(name: string): Promise<string[]> {
    return this.#ask(async (place) => {
      const found = await place.get('ImageSubscription', { namespace: place.namespace, name });
      const { attention = [] } = (found?.status ?? {}) as Partial<ImageSubscription['status']>;
      return attention.filter(({ reason }) => reason === 'PendingApproval').map(({ id }) => id);
    });
  }

  async contexts(): Promise<string[]> {
    const { contextsOf } = await import('../stores/kubernetes/credentials.ts');
    return contextsOf(this.#options().kubeconfig).catch(() => []);
  }

  namespaces(): Promise<string[]> {
    return this.#ask((place) => place.namespaces());
  }

  async #ask(look: (place: Place) => Promise<string[]>): Promise<string[]> {
    const impatience = new AbortController();
    const signal = AbortSignal.any([this.#context.signal, impatience.signal]);
    let timer: NodeJS.Timeout | undefined;
    try {
      await using place = await openPlace(this.#options(), { ...this.#context, signal }, { mayBeNew: true });
      // From here on: a busy machine may take as long to load the program.
      timer = setTimeout(() => impatience.abort(), PATIENCE_MS);
      return await look(place);
    } catch {
      return [];
    } finally {
      clearTimeout(timer);
    }
  }

  #options(): PlaceOptions {
    const valueOf = (...names: string[]): string | undefined => {
      const at = this.#before.findLastIndex((word) => names.includes(word));
      return at < 0 ? undefined : this.#before[at + 1];
    };
    return {
      namespace: valueOf('-n', '--namespace'),
      state: valueOf('--state'),
      kubernetes: this.#before.includes('--kubernetes'),
      kubeconfig: valueOf('--kubeconfig'),
      context: valueOf('--context'),
    };
  }
}
