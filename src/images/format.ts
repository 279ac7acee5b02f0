/** Disk formats, as spec.format, ImageSite.acceptedFormats and status spell them. */
export const FORMATS = ['Raw', 'Qcow2', 'Vmdk', 'Vdi', 'Vhd', 'Vhdx', 'Ova', 'Iso'] as const;
export type Format = (typeof FORMATS)[number];

export const COMPRESSIONS = ['None', 'Gzip', 'Bzip2', 'Xz', 'Zstd'] as const;
export type Compression = (typeof COMPRESSIONS)[number];

/** What a part of an image is for. A disk may come with the kernel and the ramdisk that boot it. */
export const ROLES = ['Disk', 'Kernel', 'Ramdisk'] as const;
export type Role = (typeof ROLES)[number];

/** What the first bytes (and, where the format is told at the end, the last) say. */
export interface Recognition {
  compression: Compression;
  /** `Unknown`: nothing we know; it may be a raw disk without partition table, a kernel, or a page of HTML. Undefined when compressed. */
  format?: Format | 'Unknown';
  /** A page of text where an image was expected (a login page, an error, a directory listing): `HTML`, `XML`, `JSON`, `text`. */
  text?: string;
  /** The page's own title, where it is HTML. */
  title?: string;
  /** In words, for messages: `a disk with a GPT partition table`, `a ZIP archive`. */
  what?: string;
  /**
   * Whether the head alone proves format and safety, so that an upload may follow the download (data formats with a footer
   * cannot). A raw disk may still turn out to be a fixed VHD by its last 512 bytes: inspect the complete file before they go out.
   */
  judgedByHead: boolean;
}

/** What a complete and safe image is. */
export interface ImageFacts {
  format: Format;
  /** Bytes that a machine sees as its disk. For a kernel or ramdisk the file's size. */
  virtualSize: number;
  /** Bytes of the file. */
  size: number;
}

/** Formats whose bytes are the same: an ISO is a raw disk that also has a CD's file system. */
export function interchangeable(from: Format, to: Format): boolean {
  const bytes = (format: Format) => (format === 'Iso' ? 'Raw' : format);
  return bytes(from) === bytes(to);
}
