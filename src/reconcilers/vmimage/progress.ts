import type { SiteRow } from '../../api/types.ts';
import type { OperationView } from './operations.ts';

export function showProgress(row: SiteRow, view: OperationView | undefined): void {
  const progress = view?.progress;
  if (progress === undefined) return;
  row.progress = {
    step: 'Upload',
    bytes: progress.bytes,
    totalBytes: progress.totalBytes,
    percent: percentOf(progress.bytes, progress.totalBytes),
    bytesPerSecond: progress.bytesPerSecond,
  };
}

export function percentOf(bytes: number, totalBytes: number): number {
  return totalBytes > 0 ? Math.min(100, Math.floor((100 * bytes) / totalBytes)) : 0;
}

export function inWords(kind: string): { phase: string; message: string } {
  const words: Record<string, { phase: string; message: string }> = {
    Register: { phase: 'Registering', message: 'being registered' },
    Reactivate: { phase: 'Registering', message: 'a former registration comes back into service' },
    Update: { phase: 'Updating', message: 'the registration is being brought up to date' },
    Retire: { phase: 'Ready', message: 'the former registration is being retired' },
    Withdraw: { phase: 'Deactivating', message: 'being taken out of service' },
    Trim: { phase: 'Ready', message: 'registrations beyond spec.history are being removed' },
    Tidy: { phase: 'Pending', message: 'what an interrupted upload left is being removed' },
    Delete: { phase: 'Deleting', message: 'its registrations are being removed' },
  };
  return words[kind] ?? { phase: 'Pending', message: kind };
}
