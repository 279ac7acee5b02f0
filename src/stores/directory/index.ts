export { removeFromManifest, type ManifestTarget } from './edit.ts';
export type { RecordedEvent } from './events.ts';
export { requestState, type StateAnswer, type StateRequest } from './inbox.ts';
export type { Validate } from './kinds.ts';
export { type Holder, holderOf } from './lock.ts';
export { type ManifestObject, type ParsedManifest, parseManifest, type Problem } from './manifest.ts';
export { readState, type StateReader } from './reader.ts';
export { type DirectoryStore, type DirectoryStoreOptions, openDirectoryStore } from './store.ts';
