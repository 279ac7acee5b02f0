/** Bounds on what strangers publish. The largest real lists (a few thousand images, 10 MB) are far below them. */

/** Of one document: a list, a part that it refers to. As much as the trust room judges, and as a thread of 1 GiB can read. */
export const MAX_DOCUMENT_BYTES = 32 * 1024 * 1024;
/** Of a detached signature. */
export const MAX_SIGNATURE_BYTES = 64 * 1024;
/** Images of a list, those skipped included. */
export const MAX_ENTRIES = 100_000;
/** Nesting of objects, lists and elements. */
export const MAX_DEPTH = 32;
/** Documents that one index refers to. */
export const MAX_PARTS = 64;

/** Characters, as the resources that they end up in hold them (crds/). */
export const MAX_ID = 253;
export const MAX_VERSION = 253;
export const MAX_TITLE = 1024;
export const MAX_TEXT = 4096;
export const MAX_URL = 2048;
/** Locations of one image. */
export const MAX_URLS = 16;
/** Fields kept of one image. */
export const MAX_FIELDS = 128;
