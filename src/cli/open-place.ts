import type { CommandContext } from './output.ts';
import { choosePlace, type Place, type PlaceOptions } from './place.ts';

export interface OpenOptions {
  /** A state directory needs not be there yet. */
  mayBeNew?: boolean;
}

/**
 * To be disposed of: a cluster's connections are closed then.
 * @throws CommandError (not found) where there is no state; Failure where no cluster is configured
 */
export async function openPlace(
  options: PlaceOptions,
  context: CommandContext,
  { mayBeNew = false }: OpenOptions = {},
): Promise<Place> {
  const choice = choosePlace(options, context);
  if (choice.kind === 'cluster') {
    const { openCluster } = await import('./cluster-place.ts');
    return openCluster(choice, options.namespace, context);
  }
  const { openDirectory } = await import('./directory-place.ts');
  return openDirectory(choice, options.namespace, context, mayBeNew);
}
