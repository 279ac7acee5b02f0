import { Counter, Gauge, type Registry } from 'prom-client';

/** One followed list. Dates in milliseconds since the epoch. */
export interface ListNumbers {
  /** `namespace/name` of the subscription. */
  readonly subscription: string;
  readonly readAt: number | undefined;
  readonly expiresAt: number | undefined;
  /** Entries and images by state: `entries`, `selected`, `ready`, … */
  readonly entries: readonly (readonly [string, number])[];
}

export interface ListMetrics {
  /** One look at a published list ended: Accepted, Unchanged, or the reason why not. */
  listRead(format: string, result: string): void;
  /** Asked at every scrape: the lists that subscriptions follow. */
  watchLists(read: () => readonly ListNumbers[]): void;
}

/** Names come from people: more lists than this are not told apart from none. */
const MAX_LISTS = 200;

export function listMetrics(registry: Registry): ListMetrics {
  const reads = new Counter({
    name: 'imageproxy_list_reads_total',
    help: 'Looks at published lists that ended, by result: Accepted, Unchanged, or why not.',
    labelNames: ['format', 'result'],
    registers: [registry],
  });
  let read: (() => readonly ListNumbers[]) | undefined;
  const gauge = <L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    values: (list: ListNumbers) => readonly { value: number | undefined; labels?: Partial<Record<L, string>> }[],
  ): void => {
    registry.registerMetric(
      new Gauge({
        name,
        help,
        labelNames: ['subscription', ...labelNames],
        registers: [],
        collect() {
          this.reset();
          // A bound of its own for each scrape: subscriptions come and go, and an old name must not keep a new one out.
          for (const list of (read?.() ?? []).slice(0, MAX_LISTS)) {
            for (const { value, labels } of values(list)) {
              if (value !== undefined) this.set({ subscription: list.subscription, ...labels }, value);
            }
          }
        },
      }),
    );
  };
  const seconds = (date: number | undefined) => [{ value: date === undefined ? undefined : date / 1000 }];
  gauge(
    'imageproxy_list_read_timestamp_seconds',
    'When the list was last read, or found unchanged.',
    [],
    ({ readAt }) => seconds(readAt),
  );
  gauge('imageproxy_list_expiry_timestamp_seconds', 'When the accepted list expires.', [], ({ expiresAt }) =>
    seconds(expiresAt),
  );
  gauge('imageproxy_list_entries', 'Entries and images of the list, by state.', ['state'], ({ entries }) =>
    entries.map(([state, value]) => ({ value, labels: { state } })),
  );
  return {
    listRead(format, result) {
      reads.inc({ format, result });
    },
    watchLists(reader) {
      read = reader;
    },
  };
}
