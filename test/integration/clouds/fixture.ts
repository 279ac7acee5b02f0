import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import type { Digests } from '../../../src/api/digest.ts';
import type {
  CloudContext,
  Ownership,
  PartBytes,
  PublishImage,
  Registration,
  StagePart,
} from '../../../src/clouds/cloud.ts';
import type { Transfers } from '../../../src/transfers/transfers.ts';

/** Values that tests of every cloud are made of. */

export const log = pino({ level: 'silent' });

export async function scratch(): Promise<{ path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'imageproxy-clouds-'));
  return { path, remove: async () => await rm(path, { recursive: true, force: true }) };
}

export function contextOf(transfers: Transfers, more: Partial<CloudContext> = {}): CloudContext {
  return { site: 'site', secret: undefined, transfers, log, now: () => Date.now(), ...more };
}

export interface TestFile {
  path: string;
  size: number;
  digests: Required<Digests>;
}

export async function makeFile(folder: string, size: number): Promise<TestFile> {
  const content = randomBytes(size);
  const path = join(folder, `${randomUUID()}.img`);
  await writeFile(path, content);
  const hash = (algorithm: string): string => createHash(algorithm).update(content).digest('hex');
  return {
    path,
    size,
    digests: { sha512: hash('sha512'), sha256: hash('sha256'), sha1: hash('sha1'), md5: hash('md5') },
  };
}

export function bytesOf(file: TestFile, more: Partial<PartBytes> = {}): PartBytes {
  return {
    path: file.path,
    size: file.size,
    mayFinish: async () => {},
    digest: async (algorithm) => file.digests[algorithm],
    ...more,
  };
}

export function ownershipOf(file: TestFile, more: Partial<Ownership> = {}): Ownership {
  return {
    owner: 'owner-hash',
    guid: randomUUID(),
    claim: 'uid-1',
    sourceDigest: `sha256:${file.digests.sha256}`,
    attempt: 0,
    ...more,
  };
}

export function registrationOf(more: Partial<Registration> = {}): Registration {
  return {
    name: 'ubuntu-24.04',
    visibility: 'Private',
    members: [],
    protected: false,
    hidden: false,
    tags: [],
    properties: {},
    ...more,
  };
}

export function partOf(file: TestFile, more: Partial<StagePart> = {}): StagePart {
  return {
    id: randomUUID(),
    role: 'Disk',
    ownership: ownershipOf(file),
    registration: registrationOf(),
    format: 'Raw',
    bytes: bytesOf(file),
    ...more,
  };
}

/** What makes staged parts an image. */
export function imageOf(
  parts: readonly { part: StagePart; file: TestFile }[],
  registration: Registration = registrationOf(),
): PublishImage {
  const [first] = parts;
  if (first === undefined) throw new Error('an image has a part');
  const { owner, guid, claim } = first.part.ownership;
  return {
    parts: parts.map(({ part, file }) => ({ id: part.id, role: part.role, digests: file.digests })),
    ownership: { owner, guid, claim },
    registration,
  };
}

/** A signal that nobody fires. */
export function calm(): AbortSignal {
  return new AbortController().signal;
}

/** A point that one side reaches and another waits for. */
export function gate(): { reached: Promise<void>; open(): void; arrive(): Promise<void> } {
  const arrival = Promise.withResolvers<void>();
  const opening = Promise.withResolvers<void>();
  return {
    reached: arrival.promise,
    open: opening.resolve,
    arrive: async () => {
      arrival.resolve();
      await opening.promise;
    },
  };
}
