import { describe, expect, test } from 'vitest';
import type { SiteRow, VMImage } from '../../../src/api/types.ts';
import { EXIT } from '../../../src/cli/exit.ts';
import { isServed, verdictOf, waitForRoom } from '../../../src/cli/register-verdict.ts';

const ASKED = { title: 'VMImage default/a', sites: ['shelf'] };
const READY_ROW: SiteRow = { name: 'shelf', phase: 'Ready', observedGeneration: 2, imageID: 'id' };

interface Told {
  ready?: [status: 'True' | 'False', reason: string, message?: string];
  also?: string[];
  spec?: Record<string, unknown>;
  rows?: SiteRow[];
  observedGeneration?: number;
  handled?: string;
  deleted?: boolean;
}

function image(told: Told = {}): VMImage {
  const { ready = ['True', 'Registered'], also = [], spec = {}, rows = [READY_ROW], observedGeneration = 2 } = told;
  const [status, reason, message = 'as it is'] = ready;
  const condition = { observedGeneration, lastTransitionTime: '2026-01-01T00:00:00Z', reason, message };
  return {
    metadata: { name: 'a', generation: 2, ...(told.deleted === true ? { deletionTimestamp: 'now' } : {}) },
    spec,
    status: {
      observedGeneration,
      lastHandledReconcileAt: told.handled,
      conditions: [
        { ...condition, type: 'Ready', status },
        ...also.map((type) => ({ ...condition, type, status: 'True' })),
      ],
      sites: rows,
    },
  } as unknown as VMImage;
}

const waiting = (reason: string): Told => ({
  ready: ['False', reason],
  also: ['Reconciling'],
  rows: [{ name: 'shelf', phase: 'Pending', reason, message: 'as it is' }],
});

describe('an image that is asked for', () => {
  test('is registered where the site serves this very generation of it', () => {
    const ready = image();
    expect(verdictOf(ready, ASKED)).toBe(ready);
    expect(isServed(ready, ['shelf'])).toBe(true);
  });

  test.each<[string, Told]>([
    ['its generation was not looked at yet', { observedGeneration: 1 }],
    ['the site has the generation before', { rows: [{ ...READY_ROW, observedGeneration: 1 }] }],
    ['the site has no id of it', { rows: [{ name: 'shelf', phase: 'Ready', observedGeneration: 2 }] }],
    ['an optional site, which keeps it from nothing, is at work', { rows: [{ name: 'shelf', phase: 'Registering' }] }],
    ['nothing is known of the site', { rows: [{ ...READY_ROW, name: 'other' }] }],
    ['it is not ready', { ready: ['False', 'Fetching'], also: ['Reconciling'] }],
    ['the site is tried again', waiting('NetworkError')],
    ['the site is not ready', waiting('SiteNotReady')],
    ['others fill the cache', waiting('CacheFull')],
    ['the disk is full', waiting('DiskFull')],
    ['another process is leaving the cache', waiting('CacheInUse')],
  ])('is waited for as long as %s', (_, told) => {
    expect(verdictOf(image(told), ASKED)).toBeUndefined();
    expect(isServed(image(told), ['shelf'])).toBe(false);
  });

  test('is waited for until what was asked just now has been heard', () => {
    const asked = { ...ASKED, requestedAt: 'now' };
    const failed: Told = { ready: ['False', 'DigestMismatch'], also: ['Stalled'] };
    expect(verdictOf(image(failed), asked)).toBeUndefined();
    expect(() => verdictOf(image({ ...failed, handled: 'now' }), asked)).toThrow('(DigestMismatch)');
  });

  test('is told though somebody else has asked meanwhile: the status tells of that request from then on', () => {
    const asked = { ...ASKED, requestedAt: '2026-01-01T00:00:00.000Z' };
    const ready = image({ handled: '2026-01-01T00:00:05.000Z' });
    expect(verdictOf(ready, asked)).toBe(ready);
    expect(verdictOf(image({ handled: '2025-12-31T23:59:59.000Z' }), asked)).toBeUndefined();
  });

  test('is told once its own sites have been looked at, though the controller of another is away', () => {
    const asked = { ...ASKED, requestedAt: 'now' };
    const away: SiteRow = { ...READY_ROW, name: 'other' };
    const ready = image({ rows: [{ ...READY_ROW, lastHandledReconcileAt: 'now' }, away] });
    expect(verdictOf(ready, asked)).toBe(ready);
    expect(verdictOf(ready, { ...asked, sites: ['shelf', 'other'] })).toBeUndefined();
    // What the top says may be of the time before, what the row says is not.
    const stale: Told = { ready: ['False', 'DigestMismatch'], also: ['Stalled'] };
    const row: SiteRow = { name: 'shelf', phase: 'Registering', lastHandledReconcileAt: 'now' };
    expect(verdictOf(image({ ...stale, rows: [row] }), asked)).toBeUndefined();
    const refused: SiteRow = { ...row, phase: 'Failed', reason: 'Forbidden', message: 'may not' };
    expect(() => verdictOf(image({ ...stale, rows: [refused] }), asked)).toThrow('shelf: may not (Forbidden)');
  });

  const out = (phase: string): SiteRow => ({ ...READY_ROW, phase, retired: true });
  test.each<[string, Told, string]>([
    ['suspended', { spec: { suspend: true }, observedGeneration: 1 }, 'it is suspended: set spec.suspend: false'],
    [
      'out of service, as asked',
      { spec: { state: 'Deactivated' }, ready: ['True', 'Deactivated'], rows: [out('Deactivated')] },
      'it is Deactivated: set spec.state: Active',
    ],
    [
      'on its way out of service',
      { spec: { state: 'Deactivated' }, observedGeneration: 1 },
      'it is Deactivated: set spec.state: Active',
    ],
    [
      'out of service since its end',
      { spec: { expiresAt: '2026-01-01T00:00:00Z' }, ready: ['True', 'Expired'], rows: [out('Expired')] },
      'it is Expired since 2026-01-01T00:00:00Z: set a later spec.expiresAt, or spec.onExpiry: Retain',
    ],
    [
      'removed at its end',
      {
        spec: { expiresAt: '2026-01-01T00:00:00Z', onExpiry: 'Delete' },
        ready: ['True', 'Expired'],
        rows: [{ name: 'shelf', phase: 'Expired', observedGeneration: 2 }],
      },
      'it is Expired since 2026-01-01T00:00:00Z: set a later spec.expiresAt, or spec.onExpiry: Retain',
    ],
    ['being deleted', { deleted: true }, 'it is being deleted: ask again when it is gone'],
    ['refused', { ready: ['False', 'DigestMismatch', 'wrong'], also: ['Stalled'] }, 'wrong (DigestMismatch)'],
    ['in need of somebody', { ...waiting('QuotaExceeded') }, 'as it is (QuotaExceeded)'],
    ...['MassLoss', 'Lost', 'LossLimit', 'IdentityChanged', 'HeldByCloud'].map((reason): [string, Told, string] => [
      `for a person to decide (${reason})`,
      { ...waiting(reason), rows: [{ ...READY_ROW, phase: 'Missing', reason, message: 'as it is' }] },
      `as it is (${reason})`,
    ]),
    [
      'refused by an optional site',
      { rows: [{ name: 'shelf', phase: 'Failed', reason: 'Forbidden', message: 'may not' }] },
      'shelf: may not (Forbidden)',
    ],
    [
      'waiting at an optional site for somebody',
      { rows: [{ name: 'shelf', phase: 'Pending', reason: 'SiteNotFound', message: 'there is none' }] },
      'shelf: there is none (SiteNotFound)',
    ],
  ])('is not registered where it is %s', (_, told, message) => {
    expect(() => verdictOf(image(told), ASKED)).toThrow(
      expect.objectContaining({ exitCode: EXIT.failed, message: `VMImage default/a is not registered: ${message}` }),
    );
    expect(isServed(image(told), ['shelf'])).toBe(false);
  });

  test("is nobody else's failure: a site that was not asked for, and is optional, may fail", () => {
    const other: SiteRow = { name: 'other', phase: 'Failed', reason: 'Forbidden', message: 'may not' };
    const ready = image({ rows: [READY_ROW, other] });
    expect(verdictOf(ready, ASKED)).toBe(ready);
    expect(() => verdictOf(ready, { ...ASKED, sites: ['shelf', 'other'] })).toThrow('other: may not (Forbidden)');
  });
});

describe('a wait for room', () => {
  test.each(['CacheFull', 'DiskFull'])('is told with what has the room: %s', (reason) => {
    expect(waitForRoom(image(waiting(reason)))).toBe(`waiting for room: as it is (${reason})`);
  });

  test('is no other wait', () => {
    expect(waitForRoom(image(waiting('SiteNotReady')))).toBeUndefined();
    expect(waitForRoom(image())).toBeUndefined();
  });
});
