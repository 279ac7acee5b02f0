import { SaxesParser } from 'saxes';
import { Failure } from '../api/failure.ts';
import { printable } from '../api/printable.ts';
import { corrupt, unsafe } from './window.ts';

/** What an OVF descriptor says of files and disks (DMTF DSP0243, OVF 1.1 and 2.1, sections 7.1 and 9.1). */
export interface Ovf {
  /** Names of the files that the descriptor refers to. */
  files: string[];
}

const MAX_DEPTH = 64;

/** @throws Failure CorruptImage | UnsafeImage | NotSupported */
export function readOvf(text: string): Ovf {
  const files: string[] = [];
  let depth = 0;
  let root: string | undefined;
  const parser = new SaxesParser({ xmlns: true });
  parser.on('error', (error) => {
    throw corrupt(`the OVF descriptor is not well-formed: ${printable(error.message)}`);
  });
  parser.on('doctype', () => {
    throw unsafe('the OVF descriptor declares a DOCTYPE, which is refused');
  });
  parser.on('opentag', (tag) => {
    if (++depth > MAX_DEPTH) throw unsafe('the OVF descriptor is nested too deeply');
    root ??= tag.local;
    const attribute = (name: string) =>
      Object.values(tag.attributes).find((candidate) => candidate.local === name)?.value;
    if (tag.local === 'File') {
      const href = attribute('href') ?? '';
      if (
        href === '' ||
        /^[a-z][a-z0-9+.-]*:/i.test(href) ||
        href.startsWith('/') ||
        href.split(/[/\\]/).includes('..')
      ) {
        throw unsafe(`the OVF descriptor refers to "${printable(href)}", which is not in the archive`);
      }
      if (attribute('chunkSize') !== undefined)
        throw new Failure('NotSupported', 'the OVA archive keeps its disk in chunks: export it without chunkSize');
      if (!['', 'identity', undefined].includes(attribute('compression'))) {
        throw new Failure(
          'NotSupported',
          'the OVA archive compresses its disk file: export it without compression (streamOptimized disks are compressed in themselves)',
        );
      }
      files.push(href);
    }
    if (tag.local === 'Disk' && attribute('parentRef') !== undefined)
      throw unsafe('a disk of the OVA archive has a parent disk: export a flattened one');
  });
  parser.on('closetag', () => {
    depth--;
  });
  parser.write(text).close();
  if (root !== 'Envelope')
    throw corrupt(`the OVF descriptor begins with <${printable(root ?? '')}> instead of <Envelope>`);
  return { files };
}
