import { Argument, Command, Option } from 'commander';
import { address, duration, fileRoots, hex, networks, positive, properties, quota, texts } from './arguments.ts';
import type { CommandContext } from './output.ts';

/** Runs a command's function with the context; `index.ts` has it, so that building the program starts nothing. */
export type Invoke = (run: (context: CommandContext) => Promise<number>) => Promise<void>;

const EXIT_CODES = `
Exit codes:
  0  done        1  failed          2  wrong usage    3  not found
  4  timed out   5  state in use    130, 143  interrupted (SIGINT, SIGTERM)

Environment:
  IMAGEPROXY_STATE      default of --state (else ~/.local/state/imageproxy, or under XDG_STATE_HOME)
  IMAGEPROXY_MANIFESTS  default of --manifests
  NO_COLOR              no colours

"imageproxy COMMAND --help" has examples. See it at work: imageproxy demo`;

const KINDS = 'Kinds: vmimages (vmimg), imagesites (imgsite), imagesubscriptions (imgsub).';

/**
 * The command line: words, options and help. What a command does is imported when it is called, so that `--help` and `get` start
 * at once.
 */
export function createProgram(invoke: Invoke): Command {
  const program = new Command('imageproxy')
    .description("The same verified VM image on every cloud site, and the site's own image id back.")
    .usage('COMMAND [options]')
    .helpOption('-h, --help', 'show help')
    .helpCommand(false)
    .showSuggestionAfterError(true)
    .addHelpText('after', EXIT_CODES);
  addWork(program, invoke);
  addLooking(program, invoke);
  addActing(program, invoke);
  addTools(program, invoke);
  return program;
}

function command(program: Command, words: string, summary: string, details: string, examples: string): Command {
  return program
    .command(words)
    .summary(summary)
    .description(`${summary[0]?.toUpperCase()}${summary.slice(1)}.${details === '' ? '' : `\n\n${details}`}`)
    .helpOption('-h, --help', 'show this help')
    .addHelpText('after', `\nExamples:\n${examples.trim().replaceAll(/^ */gm, '  ')}`);
}

const stateOption = () => new Option('--state <dir>', 'the state directory (IMAGEPROXY_STATE)');
const namespaceOption = () => new Option('-n, --namespace <name>', 'the namespace').default('default');
const manifestsOption = () =>
  new Option('--manifests <dir>', 'folder with Secrets, where no process runs on the state yet (IMAGEPROXY_MANIFESTS)');
const timeoutOption = (text: string) =>
  new Option('--timeout <duration>', 'give up after').argParser(duration).default(duration(text), text);
const networkOption = () =>
  new Option('--allow-network <cidr>', 'private network that images may be fetched from; repeatable').argParser(
    networks,
  );

function addWork(program: Command, invoke: Invoke): void {
  command(
    program,
    'run',
    'run the controllers on a folder of manifests',
    'The folder is watched: edit it while this runs. SIGTERM and SIGINT stop at a safe point, a second one at once.',
    `imageproxy run --manifests ./manifests
     imageproxy run --manifests /etc/imageproxy --state /var/lib/imageproxy --cache-quota 200Gi --telemetry :9464
     imageproxy run --manifests ./manifests --allow-network 10.0.0.0/8 --file-root archive=/srv/images`,
  )
    .addOption(new Option('--manifests <dir>', 'folder of YAML or JSON manifests (IMAGEPROXY_MANIFESTS)'))
    .addOption(stateOption())
    .addOption(new Option('--cache <dir>', 'folder of the cache (default: "cache" in the state)'))
    .addOption(
      new Option('--cache-quota <size>', 'what the cache may use, e.g. 20Gi or 80%; 80% of its volume else').argParser(
        quota,
      ),
    )
    .addOption(
      new Option('--instance <name>', 'name of this installation in clouds; made once and kept in the state else'),
    )
    .addOption(networkOption())
    .addOption(
      new Option('--file-root <name=folder>', 'folder that source.file may read from; repeatable').argParser(fileRoots),
    )
    .addOption(
      new Option('--telemetry <address>', 'HOST:PORT of /metrics, /healthz and /readyz, or off')
        .argParser(address)
        .default({ host: '127.0.0.1', port: 9464 }, '127.0.0.1:9464'),
    )
    .addOption(
      new Option('--log-level <level>', 'least level to log')
        .choices(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
        .default('info'),
    )
    .addOption(new Option('--log-format <format>', 'default: pretty on a terminal').choices(['json', 'pretty']))
    .addOption(new Option('--max-parallel-downloads <n>', 'downloads at the same time').argParser(positive).default(4))
    .action((options) => invoke(async (context) => (await import('./run.ts')).run(options, context)));

  command(
    program,
    'register',
    'register one image with sites, and print its id there',
    'Asking again for the same digest is asking for the same object: its id is printed at once. Where no "imageproxy run" works on the state, this command does the work itself.',
    `imageproxy register https://example.org/noble.img --sha256 4a6b… --site shelf.yaml
     imageproxy register https://example.org/noble.img --sha512 9f8e… --site east --site west -o json
     id=$(imageproxy register https://example.org/noble.img --sha256 4a6b… --site shelf)
     imageproxy register http://orca.example.org/debian.xml --metafile --sha1 0beec7b5… --site shelf.yaml`,
  )
    .argument('<url>', 'where the image is, http or https')
    .addOption(new Option('--sha256 <hex>', 'checksum of the file as it is published').argParser(hex('sha256')))
    .addOption(new Option('--sha512 <hex>', 'checksum of the file as it is published').argParser(hex('sha512')))
    .addOption(new Option('--sha1 <hex>', 'checksum of a metafile').argParser(hex('sha1')))
    .addOption(new Option('--metafile', 'the URL is an ORCA metafile: disk, kernel and ramdisk'))
    .addOption(
      new Option(
        '--site <file-or-name>',
        'file with an ImageSite (and its Secret), or the name of a known one; repeatable',
      )
        .argParser(texts)
        .makeOptionMandatory(),
    )
    .addOption(new Option('--name <name>', 'name of the image in the cloud (default: the file name of the URL)'))
    .addOption(new Option('--visibility <who>', 'who may use it').choices(['Private', 'Shared', 'Community', 'Public']))
    .addOption(
      new Option('--property <key=value>', 'property of the image in the cloud; repeatable').argParser(properties),
    )
    .addOption(namespaceOption())
    .addOption(stateOption())
    .addOption(manifestsOption())
    .addOption(networkOption())
    .addOption(timeoutOption('2h'))
    .addOption(new Option('--no-wait', 'ask for it, and do not wait for it'))
    .addOption(
      new Option('-o, --output <format>', 'default: the id; one line for each site and part').choices([
        'json',
        'yaml',
        'name',
      ]),
    )
    .addOption(
      new Option('--log-level <level>', 'log what happens, on standard error').choices([
        'debug',
        'info',
        'warn',
        'error',
      ]),
    )
    .action((url, options) =>
      invoke(async (context) => (await import('./register.ts')).register(url, options, context)),
    );

  command(
    program,
    'demo',
    'see the main job done on this machine, in half a minute',
    'Needs no root, no Docker and no cluster. All that it makes is temporary and removed at the end.',
    `imageproxy demo
     imageproxy demo --fast`,
  )
    .addOption(new Option('--fast', 'no throttled download, no pauses'))
    .addOption(new Option('--offline', 'do not look for a Debian installer image'))
    .addOption(new Option('--keep <dir>', 'leave everything in this folder, to look at'))
    .action((options) => invoke(async (context) => (await import('./demo/index.ts')).demo(options, context)));
}

function addLooking(program: Command, invoke: Invoke): void {
  command(
    program,
    'get',
    'show objects in a table, as kubectl does',
    KINDS,
    `imageproxy get vmimg
     imageproxy get vmimg/ubuntu-24.04 -o json
     imageproxy get -A -o wide
     imageproxy get vmimages -w`,
  )
    .addArgument(new Argument('[kind]', 'kind, or KIND/NAME; all kinds else'))
    .argument('[name]', 'name of one object')
    .addOption(namespaceOption())
    .addOption(new Option('-A, --all-namespaces', 'of all namespaces'))
    .addOption(new Option('-o, --output <format>', 'format').choices(['wide', 'json', 'yaml', 'name']))
    .addOption(new Option('-w, --watch', 'go on printing changes'))
    .addOption(stateOption())
    .action((kind, name, options) =>
      invoke(async (context) => (await import('./get.ts')).get(kind, name, options, context)),
    );

  command(
    program,
    'describe',
    'show all that is known of one object, and what to do next',
    KINDS,
    `imageproxy describe vmimg/ubuntu-24.04
     imageproxy describe imgsite nova-east`,
  )
    .argument('<kind>', 'kind, or KIND/NAME')
    .argument('[name]', 'name of the object')
    .addOption(namespaceOption())
    .addOption(stateOption())
    .action((kind, name, options) =>
      invoke(async (context) => (await import('./describe.ts')).describe(kind, name, options, context)),
    );

  command(
    program,
    'watch',
    'follow the work with live progress bars',
    'Until Ctrl-C. Where the output is no terminal, a line at every milestone.',
    `imageproxy watch
     imageproxy watch vmimg/ubuntu-24.04
     imageproxy watch -A`,
  )
    .argument('[kind]', 'kind, or KIND/NAME; vmimages else')
    .argument('[name]', 'name of one object')
    .addOption(namespaceOption())
    .addOption(new Option('-A, --all-namespaces', 'of all namespaces'))
    .addOption(stateOption())
    .action((kind, name, options) =>
      invoke(async (context) => (await import('./watch.ts')).watch(kind, name, options, context)),
    );

  command(
    program,
    'wait',
    'wait for a condition of objects',
    'Ends at once, with exit code 1, when an object is stalled: then only a change can help.',
    `imageproxy wait vmimg/ubuntu-24.04 --for=condition=Ready --timeout 30m
     imageproxy wait vmimg/a vmimg/b --for=condition=Available
     imageproxy wait vmimg/old --for=delete
     imageproxy wait vmimg/a --for=jsonpath='{.status.phase}'=Ready`,
  )
    .argument('<objects...>', 'KIND/NAME')
    .addOption(
      new Option('--for <what>', 'condition=NAME[=VALUE], delete, create or jsonpath={PATH}[=VALUE]').default(
        'condition=Ready',
      ),
    )
    .addOption(timeoutOption('30m'))
    .addOption(namespaceOption())
    .addOption(stateOption())
    .action((objects, options) =>
      invoke(async (context) => (await import('./wait.ts')).wait(objects, options, context)),
    );
}

function addActing(program: Command, invoke: Invoke): void {
  command(
    program,
    'delete',
    'delete objects, and what is registered of them',
    'An object from a manifest is taken out of its file first. Registrations go or stay as spec.deletionPolicy says.',
    `imageproxy delete vmimg/ubuntu-24.04
     imageproxy delete vmimg/a vmimg/b --no-wait`,
  )
    .argument('<objects...>', 'KIND/NAME')
    .addOption(namespaceOption())
    .addOption(new Option('--no-wait', 'do not wait until they are gone'))
    .addOption(timeoutOption('10m'))
    .addOption(stateOption())
    .addOption(manifestsOption())
    .action((objects, options) =>
      invoke(async (context) => (await import('./delete.ts')).deleteObjects(objects, options, context)),
    );

  command(
    program,
    'reconcile',
    'try again now: clear every back-off of an object and look at it',
    '',
    `imageproxy reconcile vmimg/ubuntu-24.04
     imageproxy reconcile imgsite/nova-east --no-wait`,
  )
    .argument('<object>', 'KIND/NAME')
    .addOption(namespaceOption())
    .addOption(new Option('--no-wait', 'do not wait for the result'))
    .addOption(timeoutOption('10m'))
    .addOption(stateOption())
    .addOption(manifestsOption())
    .action((object, options) =>
      invoke(async (context) => (await import('./reconcile.ts')).reconcile(object, options, context)),
    );

  command(
    program,
    'confirm-deletions',
    'let objects go whose manifests vanished in great number',
    'When many manifests are gone at once (a volume that is not mounted?), nothing is deleted until you say that it is meant.',
    'imageproxy confirm-deletions',
  )
    .addOption(stateOption())
    .action((options) => invoke(async (context) => (await import('./confirm.ts')).confirmDeletions(options, context)));

  command(
    program,
    'confirm-removal',
    'remove an image from a site that no longer matches or admits it',
    'Such a row stays, and nothing is deleted, until you say that it is meant.',
    'imageproxy confirm-removal vmimg/ubuntu-24.04 nova-east',
  )
    .argument('<object>', 'vmimg/NAME')
    .argument('<site>', 'name of the ImageSite')
    .addOption(namespaceOption())
    .addOption(timeoutOption('10m'))
    .addOption(stateOption())
    .addOption(manifestsOption())
    .action((object, site, options) =>
      invoke(async (context) => (await import('./confirm.ts')).confirmRemoval(object, site, options, context)),
    );
}

function addTools(program: Command, invoke: Invoke): void {
  command(
    program,
    'validate',
    'judge manifest files as the API server would',
    'Says file, line, document and field. Unknown fields are warnings, for they are ignored; with --strict they are errors.',
    `imageproxy validate manifests/
     imageproxy validate a.yaml b.yaml --strict
     imageproxy validate manifests/ -o json`,
  )
    .argument('<paths...>', 'files or folders')
    .addOption(new Option('--strict', 'warnings count as errors'))
    .addOption(new Option('-o, --output <format>', 'format').choices(['json', 'yaml']))
    .action((paths, options) =>
      invoke(async (context) => (await import('./validate.ts')).validate(paths, options, context)),
    );

  command(
    program,
    'explain',
    'say what a field of a kind means',
    KINDS,
    `imageproxy explain vmimage
     imageproxy explain vmimage.spec.source.http
     imageproxy explain imagesite.spec --recursive`,
  )
    .argument('<path>', 'KIND or KIND.FIELD.FIELD')
    .addOption(new Option('--recursive', 'all fields below, without their texts'))
    .action((path, options) =>
      invoke(async (context) => (await import('./explain.ts')).explain(path, options, context)),
    );

  command(
    program,
    'completion',
    'print a script that completes commands, options and names',
    '',
    `source <(imageproxy completion bash)
     imageproxy completion zsh > "\${fpath[1]}/_imageproxy"
     imageproxy completion fish > ~/.config/fish/completions/imageproxy.fish`,
  )
    .addArgument(new Argument('<shell>', 'shell').choices(['bash', 'zsh', 'fish']))
    .action((shell) => invoke(async (context) => (await import('./completion.ts')).completion(shell, context)));

  program
    .command('__complete', { hidden: true })
    .argument('[words...]')
    .allowUnknownOption(true)
    .helpOption(false)
    .action((words: string[]) =>
      invoke(async (context) => (await import('./completion.ts')).complete(program, words, context)),
    );

  command(program, 'version', 'print the version', '', 'imageproxy version -o json')
    .addOption(new Option('-o, --output <format>', 'format').choices(['json', 'yaml']))
    .action((options) => invoke(async (context) => (await import('./show-version.ts')).showVersion(options, context)));
}
