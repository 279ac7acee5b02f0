import type { EntryAttention } from '../../api/types.ts';

/** What came of comparing a list with the images that there are. */
export interface Summary {
  readonly entries: number;
  readonly skipped: number;
  readonly selected: number;
  readonly pendingApproval: number;
  readonly retired: number;
  /** What a person should look at, the most urgent first; bounded by who shows it. */
  readonly attention: readonly EntryAttention[];
  /** When the comparison comes out otherwise by itself: the next entry's date, in milliseconds since the epoch. */
  readonly dueAt?: number;
  /** Nothing is taken out of service until a person has said so. */
  readonly held?: { reason: string; message: string };
}
