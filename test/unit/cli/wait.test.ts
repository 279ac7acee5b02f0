import { describe, expect, it } from 'vitest';
import { EXIT } from '../../../src/cli/exit.ts';
import { targetOf } from '../../../src/cli/kinds.ts';
import { parseGoal, verdictOf } from '../../../src/cli/wait.ts';
import type { StoredResource } from '../../../src/stores/directory/records.ts';

const target = targetOf('vmimg/a', undefined, 'default');

function image(conditions: object[], generation = 2): StoredResource {
  return {
    apiVersion: 'imageproxy.dev/v1beta1',
    kind: 'VMImage',
    metadata: { name: 'a', namespace: 'default', uid: 'u', generation, resourceVersion: '1', creationTimestamp: '' },
    status: { observedGeneration: 2, phase: 'Ready', conditions },
  };
}

const condition = (type: string, status: string, observedGeneration = 2) => ({
  type,
  status,
  observedGeneration,
  reason: 'R',
  message: `${type} it is`,
});
const verdict = (goal: string, object: StoredResource | undefined) => verdictOf(parseGoal(goal), object, target);

describe('wait --for', () => {
  it.each([
    ['condition=Ready', { type: 'condition', condition: 'Ready', status: 'true' }],
    ['condition=stalled=False', { type: 'condition', condition: 'stalled', status: 'false' }],
    ['delete', { type: 'delete' }],
    ['create', { type: 'create' }],
  ])('understands %s as kubectl does', (text, goal) => {
    expect(parseGoal(text)).toEqual(goal);
  });

  it.each(['Ready', 'condition=', 'jsonpath=.a', 'jsonpath={.a[}=b', ''])('refuses %j as wrong usage', (text) => {
    expect(() => parseGoal(text)).toThrow(expect.objectContaining({ exitCode: EXIT.usage }));
  });
});

describe('what is waited for', () => {
  it('is met by a condition of this generation', () => {
    expect(verdict('condition=Ready', image([condition('Ready', 'True')]))).toBe('condition met');
    expect(verdict('condition=ready', image([condition('Ready', 'True')]))).toBe('condition met');
  });

  it('is not met by a condition of an older generation', () => {
    expect(verdict('condition=Ready', image([condition('Ready', 'True', 1)], 3))).toBeUndefined();
  });

  it('will never be met by what is stalled, and says so at once', () => {
    const stalled = image([condition('Ready', 'False'), condition('Stalled', 'True')]);
    expect(() => verdict('condition=Ready', stalled)).toThrow(
      expect.objectContaining({ exitCode: EXIT.failed, message: expect.stringContaining('Stalled it is') }),
    );
    expect(verdict('condition=Stalled', stalled)).toBe('condition met');
  });

  const held = (reason: string, annotations: Record<string, string> = {}, status: object = {}) => {
    const object = image([
      { ...condition('Ready', 'False'), reason, message: `shelf: ${reason}, and the cure` },
      { ...condition('Reconciling', 'True'), message: `shelf: ${reason}, and the cure` },
    ]);
    return {
      ...object,
      metadata: { ...object.metadata, annotations },
      status: { ...(object.status as object), ...status },
    };
  };

  it.each(['MassLoss', 'Lost', 'LossLimit', 'IdentityChanged', 'HeldByCloud', 'ConfirmationRequired'])(
    'will not be met before a person decides, and says so at once with the cure: %s',
    (reason) => {
      for (const goal of ['condition=Ready', 'condition=Available'])
        expect(() => verdict(goal, held(reason))).toThrow(
          expect.objectContaining({
            exitCode: EXIT.failed,
            message: `VMImage default/a waits for somebody to act: shelf: ${reason}, and the cure`,
          }),
        );
      expect(verdict('condition=Ready=False', held(reason))).toBe('condition met');
      expect(verdict('condition=Stalled', held(reason))).toBeUndefined();
    },
  );

  it.each(['SecretNotFound', 'SiteNotFound', 'SiteNotReady', 'CacheFull', 'NetworkError', 'Fetching'])(
    'may be on its way where something is missing or at work: %s',
    (reason) => {
      expect(verdict('condition=Ready', held(reason))).toBeUndefined();
    },
  );

  it('is not judged by what was found before somebody asked for another look', () => {
    const asked = { 'imageproxy.dev/requestedAt': '2' };
    expect(verdict('condition=Ready', held('MassLoss', asked, { lastHandledReconcileAt: '1' }))).toBeUndefined();
    expect(() => verdict('condition=Ready', held('MassLoss', asked, { lastHandledReconcileAt: '2' }))).toThrow(
      'MassLoss',
    );
  });

  it('is met by Available while a newer version is stalled', () => {
    const serving = image([condition('Available', 'True'), condition('Stalled', 'True')]);
    expect(verdict('condition=Available', serving)).toBe('condition met');
  });

  it('is met by the value of a JSONPath', () => {
    expect(verdict('jsonpath={.status.phase}=Ready', image([]))).toBe('condition met');
    expect(verdict("jsonpath='{.status.phase}=Ready'", image([]))).toBe('condition met');
    expect(verdict('jsonpath={.status.phase}=Failed', image([]))).toBeUndefined();
    expect(verdict('jsonpath={.status.guid}', image([]))).toBeUndefined();
  });

  it('is met by coming and going', () => {
    expect(verdict('delete', undefined)).toBe('deleted');
    expect(verdict('delete', image([]))).toBeUndefined();
    expect(verdict('create', image([]))).toBe('created');
    expect(verdict('create', undefined)).toBeUndefined();
  });

  it('is not found where there is no such object', () => {
    expect(() => verdict('condition=Ready', undefined)).toThrow(expect.objectContaining({ exitCode: EXIT.notFound }));
  });
});
