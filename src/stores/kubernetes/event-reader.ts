import type { EventNote, ObjectKey, Resource } from '../store.ts';
import type { RecordedEvent } from '../directory/events.ts';
import type { ApiClient } from './client.ts';

/** `events.k8s.io/v1` Event as it is read: whoever wrote it by core/v1 (kubectl, older programs) is told in `deprecated…`. */
interface ReadEvent {
  type?: string;
  reason?: string;
  note?: string;
  eventTime?: string | null;
  series?: { count: number; lastObservedTime: string };
  deprecatedCount?: number;
  deprecatedFirstTimestamp?: string | null;
  deprecatedLastTimestamp?: string | null;
  metadata: { creationTimestamp: string };
}

/** An object has some dozens at most: recorders bound them. */
const MOST_EVENTS = '500';

/** What was told of one object, oldest first. Events of kinds without a namespace are in `default`. @throws ApiError */
export async function readEvents(
  client: ApiClient,
  { kind, metadata }: Pick<Resource, 'kind'> & { metadata: ObjectKey & { uid: string } },
): Promise<RecordedEvent[]> {
  const { items } = await client.request<{ items: ReadEvent[] }>({
    method: 'GET',
    path: `/apis/events.k8s.io/v1/namespaces/${encodeURIComponent(metadata.namespace ?? 'default')}/events`,
    query: { fieldSelector: `regarding.kind=${kind},regarding.uid=${metadata.uid}`, limit: MOST_EVENTS },
  });
  return items.map(recorded).toSorted((a, b) => Date.parse(a.lastSeen) - Date.parse(b.lastSeen));
}

function recorded(event: ReadEvent): RecordedEvent {
  const { series, metadata } = event;
  const firstSeen = event.eventTime ?? event.deprecatedFirstTimestamp ?? metadata.creationTimestamp;
  const type: EventNote['type'] = event.type === 'Warning' ? 'Warning' : 'Normal';
  return {
    type,
    reason: event.reason ?? '',
    message: event.note ?? '',
    count: series?.count ?? event.deprecatedCount ?? 1,
    firstSeen,
    lastSeen: series?.lastObservedTime ?? event.deprecatedLastTimestamp ?? firstSeen,
  };
}
