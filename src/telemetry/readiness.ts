import { Gauge, type Registry } from 'prom-client';
import { boundedLabel } from './bounded-label.ts';

/** What an object's condition Ready says. */
export interface Readiness {
  kind: string;
  name: string;
  ready: 'True' | 'False' | 'Unknown';
  reason: string;
}

export interface ReadinessMetrics {
  /** Asked at every scrape: all objects that this controller looks after. */
  watchReadiness(read: () => Iterable<Readiness>): void;
}

/** Not Ready because somebody wants it so: no reason to wake anybody. */
const ASKED_FOR: ReadonlySet<string> = new Set(['Suspended', 'Abandoned']);

/**
 * How many objects are Ready, and why others are not; of a site also which one, for a person must go and look at that one. A value
 * that nothing has any more is gone at the next scrape.
 */
export function readinessMetrics(registry: Registry): ReadinessMetrics {
  let read: (() => Iterable<Readiness>) | undefined;
  const site = boundedLabel();
  // Reasons are open strings in status, and in a hub others write there as well.
  const reasonLabel = boundedLabel();
  registry.registerMetric(
    new Gauge({
      name: 'imageproxy_resources',
      help: 'Objects by kind, status of their condition Ready, and its reason.',
      labelNames: ['kind', 'ready', 'reason'],
      registers: [],
      collect() {
        this.reset();
        for (const { kind, ready, reason } of read?.() ?? []) this.inc({ kind, ready, reason: reasonLabel(reason) });
      },
    }),
  );
  registry.registerMetric(
    new Gauge({
      name: 'imageproxy_site_ready',
      help: '1 while the ImageSite is Ready, else 0; nothing while it is suspended or abandoned.',
      labelNames: ['site'],
      registers: [],
      collect() {
        this.reset();
        // Several that share a label are as good as the worst of them.
        const worst = new Map<string, number>();
        for (const { kind, name, ready, reason } of read?.() ?? []) {
          if (kind !== 'ImageSite' || ASKED_FOR.has(reason)) continue;
          const label = site(name);
          worst.set(label, Math.min(worst.get(label) ?? 1, ready === 'True' ? 1 : 0));
        }
        for (const [label, value] of worst) this.set({ site: label }, value);
      },
    }),
  );
  return {
    watchReadiness(reader) {
      read = reader;
    },
  };
}
