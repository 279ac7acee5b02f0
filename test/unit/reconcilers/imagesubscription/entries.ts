import fc from 'fast-check';
import type { ImageSubscription, VMImage } from '../../../../src/api/types.ts';
import { loadSchemas } from '../../../../src/api/schema.ts';
import type { Entry, ListFacts } from '../../../../src/catalogs/catalog.ts';
import type { Draft } from '../../../../src/stores/store.ts';

const schemas = loadSchemas();

export const UUID = '9394ca15-5a6a-4f0f-8f8c-2a54f7a3a3f3';
export const SHA512 = 'ab'.repeat(64);

export function entry(more: Partial<Entry> = {}): Entry {
  return {
    id: UUID,
    version: '1.2',
    title: 'Ubuntu 24.04',
    urls: ['https://images.example.org/ubuntu.qcow2'],
    checksums: { sha512: SHA512 },
    contentChecksums: {},
    arch: 'x86_64',
    os: { distro: 'ubuntu', version: '24.04' },
    fields: { 'hv:version': '1.2', 'ad:mpuri': 'https://appdb.example.org/1' },
    ...more,
  };
}

export function list(more: Partial<ListFacts> = {}): ListFacts {
  return {
    format: 'HEPiX',
    identity: 'list-1',
    version: '1',
    digest: `sha256:${'1'.repeat(64)}`,
    signer: { kind: 'x509', name: '/CN=alice', subject: '/CN=alice', issuer: '/CN=CA', fingerprint: 'ab' },
    ...more,
  };
}

/** As the store gives it: defaulted. */
export function subscription(
  spec: Record<string, unknown> = {},
  metadata: Partial<ImageSubscription['metadata']> = {},
): ImageSubscription {
  const base = {
    url: 'https://lists.example.org/image.list',
    format: 'HEPiX',
    trust: { unsigned: {} },
    template: { spec: { sites: [{ name: 'nova' }] } },
  };
  const input = {
    apiVersion: 'imageproxy.dev/v1beta1',
    kind: 'ImageSubscription',
    metadata: { name: 'egi', namespace: 'default' },
    spec: { ...base, ...spec },
  };
  const { object, errors } = schemas.validate('ImageSubscription', input);
  if (object === undefined) throw new Error(JSON.stringify(errors));
  const known = { uid: 'uid-egi', generation: 1, resourceVersion: '1', creationTimestamp: '2026-01-01T00:00:00Z' };
  return {
    ...(object as unknown as ImageSubscription),
    metadata: { name: 'egi', namespace: 'default', ...known, ...metadata },
  };
}

/** What the store makes of a draft, or why it would not take it. */
export function stored(draft: Draft, more: Partial<VMImage['metadata']> = {}): VMImage {
  const { ownerReferences, ...written } = draft.metadata;
  const { object, errors } = schemas.validate('VMImage', { ...draft, metadata: written });
  if (object === undefined) throw new Error(JSON.stringify(errors));
  const known = {
    uid: `uid-${written.name}`,
    generation: 1,
    resourceVersion: '1',
    creationTimestamp: '2026-01-01T00:00:00Z',
  };
  return {
    ...(object as unknown as VMImage),
    metadata: { ...written, ...(ownerReferences === undefined ? {} : { ownerReferences }), ...known, ...more },
  };
}

const HEX = Array.from('0123456789abcdef');
const hex = (length: number) => fc.string({ unit: fc.constantFrom(...HEX), minLength: length, maxLength: length });
const word = (maxLength: number) =>
  // oxlint-disable-next-line no-control-regex -- readers take them out
  fc.string({ unit: 'grapheme', minLength: 1, maxLength }).map((text) => text.replaceAll(/[\x00-\x1f\x7f]/g, ' '));

/** Whatever a reader may give, within the bounds of `catalogs/limits.ts`. */
export const entries: fc.Arbitrary<Entry> = fc
  .record(
    {
      id: fc.oneof(fc.uuid(), word(253)).filter((id) => id.trim() !== ''),
      version: word(253),
      title: word(400),
      description: word(400),
      urls: fc.array(
        fc.webUrl({ validSchemes: ['http', 'https'] }).filter((url) => url.length < 2000),
        { minLength: 1, maxLength: 16 },
      ),
      checksums: fc.record({ sha512: hex(128), sha256: hex(64), md5: hex(32) }, { requiredKeys: ['sha512'] }),
      contentChecksums: fc.record({ sha1: hex(40) }, { requiredKeys: [] }),
      size: fc.nat(),
      format: fc.constantFrom('Raw', 'Qcow2', 'Ova'),
      compression: fc.constantFrom('None', 'Gzip', 'Xz'),
      arch: fc.constantFrom('x86_64', 'aarch64', 'riscv64'),
      os: fc.record(
        { name: word(64), distro: fc.constant('ubuntu'), version: fc.constant('24.04 LTS') },
        { requiredKeys: [] },
      ),
      minRamMiB: fc.nat(1_000_000),
      minDiskGiB: fc.nat(1_000_000),
      expiresAt: fc.constant('2099-01-01T00:00:00Z'),
      fields: fc.dictionary(word(64), word(2000), { maxKeys: 40 }),
    },
    { requiredKeys: ['id', 'urls', 'checksums', 'contentChecksums', 'os', 'fields'] },
  )
  .map((made) => made as Entry);
