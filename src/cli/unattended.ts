import type { ApiObject } from '../api/types.ts';
import type { StoredResource } from '../stores/directory/records.ts';
import type { Place } from './place.ts';

/** For a wait that takes long: tells, where it is so, that nobody has answered for the object, instead of waiting in silence. */
export function tellUnattended(place: Place, tell: (why: string) => void): (last: StoredResource) => void {
  return (last) => {
    // A hint; that it cannot be had is no reason to end the wait.
    void place
      .unattended(last as unknown as ApiObject)
      .then((why) => why !== undefined && tell(why))
      .catch(() => undefined);
  };
}
