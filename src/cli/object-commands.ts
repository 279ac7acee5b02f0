import { Argument, type Command, Option } from 'commander';
import { command, type Invoke, KINDS, manifestsOption, placeOptions, stateOption, timeoutOption } from './command.ts';

/** Commands that show objects. */
export function addLooking(program: Command, invoke: Invoke): void {
  placeOptions(
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
      .addOption(new Option('-A, --all-namespaces', 'of all namespaces'))
      .addOption(new Option('-o, --output <format>', 'format').choices(['wide', 'json', 'yaml', 'name']))
      .addOption(new Option('-w, --watch', 'go on printing changes')),
  ).action((kind, name, options) =>
    invoke(async (context) => (await import('./get.ts')).get(kind, name, options, context)),
  );

  placeOptions(
    command(
      program,
      'describe',
      'show all that is known of one object, and what to do next',
      KINDS,
      `imageproxy describe vmimg/ubuntu-24.04
     imageproxy describe imgsite nova-east`,
    )
      .argument('<kind>', 'kind, or KIND/NAME')
      .argument('[name]', 'name of the object'),
  ).action((kind, name, options) =>
    invoke(async (context) => (await import('./describe.ts')).describe(kind, name, options, context)),
  );

  placeOptions(
    command(
      program,
      'watch',
      'follow the work with live progress bars',
      'Until Ctrl-C; what ends by itself when something is so is "imageproxy wait". Where the output is no terminal, a line at every milestone.',
      `imageproxy watch
     imageproxy watch vmimg/ubuntu-24.04
     imageproxy watch -A`,
    )
      .argument('[kind]', 'kind, or KIND/NAME; vmimages else')
      .argument('[name]', 'name of one object')
      .addOption(new Option('-A, --all-namespaces', 'of all namespaces')),
  ).action((kind, name, options) =>
    invoke(async (context) => (await import('./watch.ts')).watch(kind, name, options, context)),
  );

  placeOptions(
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
      .addOption(timeoutOption('30m')),
  ).action((objects, options) =>
    invoke(async (context) => (await import('./wait.ts')).wait(objects, options, context)),
  );
}

/** Commands that change objects. */
export function addActing(program: Command, invoke: Invoke): void {
  placeOptions(
    command(
      program,
      'delete',
      'delete objects, and what is registered of them',
      'An object from a manifest is taken out of its file first. Registrations go or stay as spec.deletionPolicy says.',
      `imageproxy delete vmimg/ubuntu-24.04
     imageproxy delete vmimg/a vmimg/b --no-wait`,
    )
      .argument('<objects...>', 'KIND/NAME')
      .addOption(new Option('--no-wait', 'do not wait until they are gone'))
      .addOption(timeoutOption('10m'))
      .addOption(manifestsOption()),
  ).action((objects, options) =>
    invoke(async (context) => (await import('./delete.ts')).deleteObjects(objects, options, context)),
  );

  placeOptions(
    command(
      program,
      'reconcile',
      'try again now: clear every back-off of an object and look at it',
      '',
      `imageproxy reconcile vmimg/ubuntu-24.04
     imageproxy reconcile imgsite/nova-east --no-wait`,
    )
      .argument('<object>', 'KIND/NAME')
      .addOption(new Option('--no-wait', 'do not wait for the result'))
      .addOption(timeoutOption('10m'))
      .addOption(manifestsOption()),
  ).action((object, options) =>
    invoke(async (context) => (await import('./reconcile.ts')).reconcile(object, options, context)),
  );

  placeOptions(
    command(
      program,
      'approve',
      "let entries of a subscription's list become images",
      'With the bytes that the list gives for them now: others have to be approved again. Where the subscription comes from a manifest, prints the lines to add to it, and ends with exit code 1.',
      `imageproxy approve egi 9394ca15-5a6a-4f0f-8f8c-2a54f7a3a3f3
     imageproxy approve imgsub/ubuntu noble.img jammy.img -n team
     imageproxy approve ubuntu noble.img --any-digest
     imageproxy approve ubuntu --all`,
    )
      .argument('<subscription>', 'name of the ImageSubscription')
      .argument('[entries...]', 'ids of entries, as "describe" shows them')
      .addOption(new Option('--all', 'all entries that are shown as waiting now'))
      .addOption(new Option('--digest <alg:hex>', 'digest to approve; default: the one that the list gives now'))
      .addOption(new Option('--any-digest', 'whatever its bytes are, now and later'))
      .addOption(manifestsOption()),
  ).action((subscription, entries, options) =>
    invoke(async (context) => (await import('./approve.ts')).approve(subscription, entries, options, context)),
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

  placeOptions(
    command(
      program,
      'confirm-removal',
      'let go of what is kept until you say that it is meant',
      'An image at a site that no longer matches or admits it, or is another place now; or the images of a subscription, where many are gone from an unsigned list. What you say counts for what is kept now, and for nothing later.',
      `imageproxy confirm-removal vmimg/ubuntu-24.04 nova-east
     imageproxy confirm-removal imgsub/ubuntu`,
    )
      .argument('<object>', 'vmimg/NAME or imgsub/NAME')
      .argument('[site]', 'of a VMImage: name of the ImageSite')
      .addOption(timeoutOption('10m'))
      .addOption(manifestsOption()),
  ).action((object, site, options) =>
    invoke(async (context) => (await import('./confirm-removal.ts')).confirmRemoval(object, site, options, context)),
  );
}
