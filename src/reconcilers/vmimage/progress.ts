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
