/** What a file opened with O_DIRECT wants offsets, lengths and memory to be multiples of, on every file system. */
export const PAGE_BYTES = 4096;

/**
 * Memory that begins at a page, and that another thread can be shown: bytes received into it go to the disk without the kernel's own
 * copy, and to a hasher without ours. (V8 maps pages for what may be resized, and allocates anywhere what may not.)
 */
export function pages(bytes: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(bytes, { maxByteLength: bytes }), 0, bytes);
}
