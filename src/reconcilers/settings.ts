import type { NetworkPolicy } from '../sources/source.ts';

/** What the operator of this installation has chosen. */
export interface Settings {
  /** Name of this installation; part of every registration's owner. */
  instance: string;
  /** Where the Secrets of ImageSites live. */
  controllerNamespace: string;
  /** Addresses that sources may reach beside the public Internet. */
  network: NetworkPolicy;
  /** Folders that `source.file` may name. */
  fileRoots: ReadonlyMap<string, string>;
  maxParallelDownloads: number;
  /** Pause between the two looks that must agree before an image counts as gone from a cloud. */
  lossConfirmMs: number;
  /** Bound of an image where no site sets one, in bytes. */
  maxImageBytes: number;
  timeouts: { connectMs: number; headersMs: number; stallMs: number };
}
