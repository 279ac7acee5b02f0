import { describe, expect, it } from 'vitest';
import { readCrd } from '../../../src/api/crds.ts';
import { loadSchemas } from '../../../src/api/schema.ts';
import { withoutDefaults } from '../../../src/cli/spec-summary.ts';

describe('the summary of a spec', () => {
  it.each([
    {
      source: { http: { urls: ['https://example.org/a'] } },
      checksums: { sha256: 'ab'.repeat(32) },
      sites: [{ name: 'x' }],
    },
    {
      source: { http: { urls: ['https://example.org/a'] } },
      verification: { insecureSkipVerify: true },
      siteSelector: {},
    },
    {
      source: { file: { root: 'a', path: 'b' } },
      checksums: { sha512: 'ab'.repeat(64) },
      sites: [],
      history: 3,
      registration: { tags: ['t'] },
    },
  ])('is what was written, without what the defaults added: %j', (spec) => {
    const { object } = loadSchemas().validate('VMImage', {
      apiVersion: 'imageproxy.dev/v1beta1',
      kind: 'VMImage',
      metadata: { name: 'a' },
      spec,
    });
    const { sites, ...rest } = spec as { sites?: unknown[] };
    expect(withoutDefaults(readCrd('VMImage').schema.properties?.['spec'], object?.['spec'])).toEqual(
      sites?.length === 0 ? rest : spec,
    );
  });
});
