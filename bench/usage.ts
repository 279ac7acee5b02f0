import { readdirSync, readFileSync } from 'node:fs';

/** What a process and its children have used, by the kernel's own account (proc(5)). */
export interface Usage {
  cpuSeconds: number;
  /** Highest sum of resident memory that was seen, in MiB. */
  peakMiB: number;
}

const TICKS_PER_SECOND = 100;
/** The sampling itself must not take part in the race. */
const SAMPLE_MS = 200;

/** CPU seconds so far of a process with all its threads and children, ended ones too. */
export function usageOf(pid: number): Pick<Usage, 'cpuSeconds'> {
  let ticks = 0;
  for (const each of family(pid)) {
    const stat = read(`/proc/${each}/stat`);
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // utime, stime, and the children that have been waited for.
    for (const index of [11, 12, 13, 14]) ticks += Number(fields[index] ?? 0);
  }
  return { cpuSeconds: ticks / TICKS_PER_SECOND };
}

/** Samples the resident memory of a process and its children until `stop`; both tell the highest sum so far, in MiB. */
export function peakOf(pid: number): { highest(): number; stop(): number } {
  let peak = 0;
  const timer = setInterval(() => {
    let sum = 0;
    for (const each of family(pid)) sum += Number(/^VmRSS:\s+(\d+) kB/m.exec(read(`/proc/${each}/status`))?.[1] ?? 0);
    peak = Math.max(peak, sum / 1024);
  }, SAMPLE_MS);
  return {
    highest: () => peak,
    stop() {
      clearInterval(timer);
      return peak;
    },
  };
}

/** Asked of the kernel thread by thread: to read what every process of the machine has for a parent took 2 % of a core. */
function family(pid: number): number[] {
  const found = [pid];
  for (const each of found) {
    for (const thread of threadsOf(each)) {
      const children = read(`/proc/${each}/task/${thread}/children`);
      found.push(...children.split(' ').filter(Boolean).map(Number));
    }
  }
  return found;
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

/** A process may end between being listed and being read. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
