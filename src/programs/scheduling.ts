import { spawnSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { setPriority } from 'node:os';

/** It gives way, and still gets a third of what a thread of ordinary priority gets beside it. */
const GIVES_WAY = 5;
const WEAKEST = 19;

/** The calling thread takes fewer turns at the processor than others. */
export function giveWay(): void {
  tryOnLinux(() => setPriority(GIVES_WAY));
}

/**
 * The calling thread runs where nobody else would (SCHED_IDLE, sched(7)). The weakest nice value is not enough: such a thread keeps
 * its processor to the end of its turn, milliseconds, when another one wakes up there; this one lets go at once. On a full machine it
 * may stand still for as long as that is full. Node.js cannot ask for it; chrt of util-linux can, and where that is missing or refused
 * the weakest nice value remains.
 */
export function runWhenIdle(): void {
  tryOnLinux(() => {
    const thread = readlinkSync('/proc/thread-self').split('/').at(-1) ?? '';
    spawnSync('chrt', ['--idle', '--pid', '0', thread], { stdio: 'ignore' });
  });
  tryOnLinux(() => setPriority(WEAKEST)); // last, for chrt would inherit it
}

/** Only there a thread has a priority of its own. Where it is not allowed, what the thread does is the same. */
function tryOnLinux(ask: () => void): void {
  if (process.platform !== 'linux') return;
  try {
    ask();
  } catch {
    // Said above.
  }
}
