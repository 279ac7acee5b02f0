import type { Resource } from '../stores/store.ts';
import type { Output } from './output.ts';

export type DataFormat = 'json' | 'yaml';

export function isDataFormat(format: string | undefined): format is DataFormat {
  return format === 'json' || format === 'yaml';
}

/** Prints one object or, as a v1 List, several; as kubectl does. */
export async function printObjects(
  out: Output,
  format: DataFormat,
  objects: Resource | readonly Resource[],
): Promise<void> {
  const list = (items: readonly Resource[]): object => ({
    apiVersion: 'v1',
    kind: 'List',
    metadata: { resourceVersion: '' },
    items,
  });
  await printData(out, format, Array.isArray(objects) ? list(objects as readonly Resource[]) : objects);
}

export async function printData(out: Output, format: DataFormat, data: unknown): Promise<void> {
  if (format === 'json') return out.line(JSON.stringify(data, undefined, 2));
  const { stringify } = await import('yaml');
  out.write(stringify(data, { lineWidth: 0, aliasDuplicateObjects: false }));
}
