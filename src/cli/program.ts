import { Argument, Command, Option } from 'commander';
import {
  address,
  fileRoots,
  hex,
  leaseDuration,
  names,
  positive,
  properties,
  quota,
  texts,
  time,
} from './arguments.ts';
import {
  clusterOptions,
  command,
  type Invoke,
  KINDS,
  logFormatOption,
  logLevelOption,
  manifestsOption,
  placeOptions,
  namespaceOption,
  networkOption,
  stateOption,
  timeoutOption,
} from './command.ts';
import { labelSelector } from './label-selector.ts';
import { addActing, addLooking } from './object-commands.ts';
import { VERSION } from './version.ts';

const PLACES = `
Where the objects are:
  a directory           --state, --manifests or their environment; the default of imageproxy
  a cluster             --kubernetes, --kubeconfig, --context or IMAGEPROXY_KUBERNETES; the default of kubectl imageproxy`;

const EXIT_CODES = `
Exit codes:
  0  done        1  failed          2  wrong usage    3  not found
  4  timed out   5  state in use    130, 143  interrupted (SIGINT, SIGTERM)

Environment:
  IMAGEPROXY_STATE      default of --state (else ~/.local/state/imageproxy, or under XDG_STATE_HOME)
  IMAGEPROXY_MANIFESTS  default of --manifests
  IMAGEPROXY_KUBERNETES set: the cluster of the kubeconfig, as --kubernetes
  KUBECONFIG            the kubeconfig (else ~/.kube/config, else the pod's ServiceAccount)
  POD_NAME              default of --identity
  POD_NAMESPACE         default of --controller-namespace
  NO_COLOR              no colours

"imageproxy COMMAND --help" has examples. See it at work: imageproxy demo`;

/**
 * The command line: words, options and help. What a command does is imported when it is called, so that `--help` and `get` start
 * at once. `calledAs` is how the user called it.
 */
export function createProgram(invoke: Invoke, calledAs = 'imageproxy'): Command {
  const program = new Command(calledAs)
    .description("The same verified VM image on every cloud site, and the site's own image id back.")
    .usage('COMMAND [options]')
    .helpOption('-h, --help', 'show help')
    .version(VERSION, '-V, --version', 'print the version')
    .helpCommand(false)
    .showSuggestionAfterError(true)
    .addHelpText('after', `${PLACES}\n${EXIT_CODES}`);
  addWork(program, invoke);
  addLooking(program, invoke);
  addActing(program, invoke);
  addTools(program, invoke);
  return program;
}

function addWork(program: Command, invoke: Invoke): void {
  command(
    program,
    'run',
    'run the controllers on a folder of manifests, or on a cluster',
    'A folder is watched: edit it while this runs. With --kubernetes the objects are those of the API server, and a Lease decides which of several processes works. SIGTERM and SIGINT stop at a safe point, a second one at once.',
    `imageproxy run --manifests ./manifests
     imageproxy run --manifests /etc/imageproxy --state /var/lib/imageproxy --cache-quota 200Gi --telemetry :9464
     imageproxy run --manifests ./manifests --tool-runner /run/imageproxy/tools.sock
     imageproxy run --manifests ./manifests --allow-network 10.0.0.0/8 --file-root archive=/srv/images
     imageproxy run --kubernetes --cache /var/cache/imageproxy --telemetry :9464
     imageproxy run --kubernetes --kubeconfig ~/.kube/config --controller-namespace images --watch-namespaces team-a,team-b`,
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
    .addOption(new Option('--kubernetes', 'run on the API server of a cluster instead of a folder'))
    .addOption(new Option('--kubeconfig <file>', "kubeconfig (KUBECONFIG, ~/.kube/config, the pod's ServiceAccount)"))
    .addOption(new Option('--context <name>', 'context of the kubeconfig; its current one else'))
    .addOption(
      new Option(
        '--controller-namespace <name>',
        'namespace of the Lease and of the Secrets of ImageSites (POD_NAMESPACE, else imageproxy)',
      ),
    )
    .addOption(
      new Option('--watch-namespaces <names>', 'look at these namespaces alone, e.g. team-a,team-b').argParser(names),
    )
    .addOption(
      new Option(
        '--site-selector <labels>',
        'serve only ImageSites with these labels, e.g. region=east; others serve the rest',
      ).argParser(labelSelector),
    )
    .addOption(
      new Option(
        '--summary-namespace <name>',
        'namespace of the Lease of who summarizes, the same for all of a cluster; "default" else',
      ),
    )
    .addOption(
      new Option(
        '--sites <dir>',
        'folder of ImageSites that it makes on the cluster, and keeps as they are written there',
      ),
    )
    .addOption(new Option('--lease-name <name>', 'Lease that one of several processes holds; "imageproxy" else'))
    .addOption(
      new Option('--lease-duration <duration>', 'how long a silent holder is left alone; 40s else').argParser(
        leaseDuration,
      ),
    )
    .addOption(new Option('--identity <name>', 'name in the Lease (POD_NAME, else the name of the machine)'))
    .addOption(
      new Option('--telemetry <address>', 'HOST:PORT of /metrics, /livez and /readyz, or off')
        .argParser(address)
        .default({ host: '127.0.0.1', port: 9464 }, '127.0.0.1:9464'),
    )
    .addOption(logLevelOption())
    .addOption(logFormatOption())
    .addOption(
      new Option('--tool-runner <socket>', 'have programs run by the "imageproxy tool-runner" that listens there'),
    )
    .addOption(
      new Option(
        '--tool-files <dir>',
        'where files are lent to it, on the file system of the cache (default: "tools" in the state)',
      ),
    )
    .addOption(new Option('--max-parallel-downloads <n>', 'downloads at the same time').argParser(positive).default(4))
    .action((options) => invoke(async (context) => (await import('./run.ts')).run(options, context)));

  placeOptions(
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
      .addOption(
        new Option('--visibility <who>', 'who may use it').choices(['Private', 'Shared', 'Community', 'Public']),
      )
      .addOption(
        new Option('--property <key=value>', 'property of the image in the cloud; repeatable').argParser(properties),
      )
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
      ),
  ).action((url, options) =>
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

function addTools(program: Command, invoke: Invoke): void {
  command(
    program,
    'tool-runner',
    'run qemu-img and the decompressors for a controller, apart from its secrets',
    'It needs no configuration, keeps nothing, and sees only the files that "imageproxy run --tool-runner SOCKET" lends it: in/ to read and out/ to write. Start it in a container, or in another sandbox that has these folders and the socket.',
    `imageproxy tool-runner --socket /run/imageproxy/tools.sock --files /var/lib/imageproxy/tools`,
  )
    .addOption(new Option('--socket <path>', 'the Unix socket to listen on').makeOptionMandatory())
    .addOption(new Option('--files <dir>', 'the --tool-files of the controller').makeOptionMandatory())
    .addOption(logLevelOption())
    .addOption(logFormatOption())
    .action((options) => invoke(async (context) => (await import('./tool-runner.ts')).toolRunner(options, context)));

  clusterOptions(
    command(
      program,
      'validate',
      'judge manifest files as the API server would',
      'Says file, line, document and field. Unknown fields are warnings, for they are ignored; with --strict they are errors. With a cluster the API server judges too, by a dry run: what cannot be changed, who may write, and its admission.',
      `imageproxy validate manifests/
     imageproxy validate a.yaml b.yaml --strict
     imageproxy validate manifests/ --kubernetes
     imageproxy validate manifests/ -o json`,
    )
      .argument('<paths...>', 'files or folders')
      .addOption(new Option('--strict', 'warnings count as errors'))
      .addOption(namespaceOption('the namespace of objects that name none'))
      .addOption(new Option('-o, --output <format>', 'format').choices(['json', 'yaml'])),
  ).action((paths, options) =>
    invoke(async (context) => (await import('./validate.ts')).validate(paths, options, context)),
  );

  const rules = ['Require', 'IfPresent', 'Ignore'];
  command(
    program,
    'inspect',
    'show a list of images, who signed it, and why it would be refused',
    'Needs no site, no cluster and no resource. Exit code 0: the list is valid and trusted. Without --ca, --keyring, --minisign or --unsigned nobody is trusted: it shows whom you would have to.',
    `imageproxy inspect https://vmcaster.example.org/image.list
     imageproxy inspect image.list --ca /etc/grid-security/certificates --at 2013-10-20T00:00:00Z --allow-sha1
     imageproxy inspect https://cloud.example.org/noble/SHA256SUMS --keyring ubuntu.asc -o json
     imageproxy inspect list.yaml --minisign RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3`,
  )
    .argument('<list>', 'URL, or a file (its signature and its parts lie beside it)')
    .addOption(
      new Option(
        '--ca <file-or-dir>',
        'authorities, CRLs and signing policies, as PEM or a grid-security folder; repeatable',
      ).argParser(texts),
    )
    .addOption(new Option('--endorser <dn>', 'who may sign; else whoever the authorities vouch for'))
    .addOption(new Option('--endorser-issuer <dn>', 'the authority that issued his certificate'))
    .addOption(new Option('--crl <rule>', 'revocation lists; IfPresent else').choices(rules))
    .addOption(new Option('--signing-policy <rule>', 'policies of the authorities; IfPresent else').choices(rules))
    .addOption(new Option('--keyring <file>', 'OpenPGP keys that may sign; repeatable').argParser(texts))
    .addOption(new Option('--minisign <key-or-file>', 'minisign key that may sign; repeatable').argParser(texts))
    .addOption(new Option('--unsigned', 'take the list as it is, whoever wrote it'))
    .addOption(new Option('--allow-sha1', 'take signatures with SHA-1'))
    .addOption(new Option('--at <time>', 'judge it at this time instead of now').argParser(time))
    .addOption(
      new Option('--format <format>', 'what it is; recognised else').choices([
        'HEPiX',
        'Marketplace',
        'Simplestreams',
        'ChecksumFile',
        'ImageProxy',
      ]),
    )
    .addOption(new Option('--url <url>', 'where a list in a file is published, for its relative addresses'))
    .addOption(new Option('--secret <file>', 'manifest of the Secret that secretRef would name, for a private list'))
    .addOption(new Option('--tls-ca <file>', "authorities of the list's server, as PEM"))
    .addOption(networkOption())
    .addOption(new Option('-o, --output <format>', 'format').choices(['json', 'yaml', 'wide']))
    .action((list, options) =>
      invoke(async (context) => (await import('./inspect.ts')).inspect(list, options, context)),
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
