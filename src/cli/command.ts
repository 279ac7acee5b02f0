import { type Command, Option } from 'commander';
import { duration, networks } from './arguments.ts';
import type { CommandContext } from './output.ts';

/** Runs a command's function with the context; `index.ts` has it, so that building the program starts nothing. */
export type Invoke = (run: (context: CommandContext) => Promise<number>) => Promise<void>;

export const KINDS = 'Kinds: vmimages (vmimg), imagesites (imgsite), imagesubscriptions (imgsub).';

/** A command with what every command's help has: a sentence, details, examples. */
export function command(program: Command, words: string, summary: string, details: string, examples: string): Command {
  return program
    .command(words)
    .summary(summary)
    .description(`${summary[0]?.toUpperCase()}${summary.slice(1)}.${details === '' ? '' : `\n\n${details}`}`)
    .helpOption('-h, --help', 'show this help')
    .addHelpText('after', `\nExamples:\n${asCalled(program, examples.trim().replaceAll(/^ */gm, '  '))}`);
}

/** Command lines as this user types them: as a plugin of kubectl the program has two words. */
function asCalled(program: Command, lines: string): string {
  return lines.replaceAll(/\bimageproxy (?=[a-z])/g, `${program.name()} `);
}

export const stateOption = () => new Option('--state <dir>', 'the state directory (IMAGEPROXY_STATE)');
export const manifestsOption = () =>
  new Option('--manifests <dir>', 'folder with Secrets, where no process runs on the state yet (IMAGEPROXY_MANIFESTS)');

/** Where the objects are: a state directory or a cluster; and in which namespace. */
export function placeOptions(command: Command): Command {
  return clusterOptions(command.addOption(namespaceOption('the namespace')).addOption(stateOption()));
}

export const namespaceOption = (what: string) =>
  new Option('-n, --namespace <name>', `${what} (default: that of the kubeconfig's context; default)`);

/** A cluster instead of a state directory. */
export function clusterOptions(command: Command): Command {
  return command
    .addOption(new Option('--kubernetes', 'the cluster of the kubeconfig, instead of a state (IMAGEPROXY_KUBERNETES)'))
    .addOption(new Option('--kubeconfig <file>', 'another kubeconfig (KUBECONFIG); means a cluster'))
    .addOption(new Option('--context <name>', 'another context of the kubeconfig; means a cluster'));
}
export const timeoutOption = (text: string) =>
  new Option('--timeout <duration>', 'give up after').argParser(duration).default(duration(text), text);
export const networkOption = () =>
  new Option('--allow-network <cidr>', 'private network that images may be fetched from; repeatable').argParser(
    networks,
  );
export const logLevelOption = () =>
  new Option('--log-level <level>', 'least level to log')
    .choices(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
    .default('info');
export const logFormatOption = () =>
  new Option('--log-format <format>', 'default: pretty on a terminal').choices(['json', 'pretty']);
