import type { PlainFailure } from '../api/failure.ts';
import type { ReadOutcome, ReadTask } from './reading.ts';

/** What crosses between the program and the thread that reads lists. A reading has a number, chosen by who asks. */
export type ToReader = { type: 'read'; reading: number; task: ReadTask } | { type: 'abort'; reading: number };

export type FromReader =
  /** It is loaded, and hears what it is told. */
  | { type: 'ready' }
  | { type: 'done'; reading: number; outcome: ReadOutcome }
  | { type: 'failed'; reading: number; failure: PlainFailure };
