import type { CatalogFormat, Entry } from '../../catalogs/catalog.ts';

/** Longest value of a property that a VMImage takes, in characters. */
const MAX_VALUE = 4096;

/**
 * Properties of the image in clouds. Those of a HEPiX list are what vmcatcher's and atrope's images have had for years: EGI's
 * cloud-info-provider publishes an image to the federation by `vmcatcher_event_ad_mpuri` and `APPLIANCE_ATTRIBUTES`, and cASO accounts
 * for machines by them. The template's word goes before ours; an empty one leaves a property of ours out.
 */
export function propertiesOf(
  entry: Entry,
  format: CatalogFormat,
  template: Readonly<Record<string, string>> | undefined,
): Record<string, string> {
  const ours = format === 'HEPiX' ? hepixProperties(entry) : {};
  const left = Object.entries(ours).filter(([key]) => template?.[key] !== '');
  const given = Object.entries(template ?? {}).filter(([key, value]) => value !== '' || !Object.hasOwn(ours, key));
  return Object.fromEntries([...left, ...given]);
}

function hepixProperties({ id, description, title, fields }: Entry): Record<string, string> {
  const mpuri = fields['ad:mpuri'];
  const told = description ?? title;
  return {
    vmcatcher_event_dc_identifier: clipped(id),
    ...(told === undefined || told === '' ? {} : { vmcatcher_event_dc_description: clipped(told) }),
    ...(mpuri === undefined || mpuri === '' ? {} : { vmcatcher_event_ad_mpuri: clipped(mpuri) }),
    APPLIANCE_ATTRIBUTES: attributesOf(fields),
  };
}

/** All that the list says of the image, as JSON; the longest texts are left out until it fits. */
function attributesOf(fields: Readonly<Record<string, string>>): string {
  const all = Object.entries(fields).sort(([a], [b]) => (a < b ? -1 : 1));
  const lengthOf = (key: string, value: string) =>
    JSON.stringify(key).length + JSON.stringify(value).length + ':,'.length;
  let length = '{}'.length - (all.length > 0 ? ','.length : 0);
  for (const [key, value] of all) length += lengthOf(key, value);
  const out = new Set<string>();
  for (const [key, value] of all.toSorted((a, b) => b[1].length - a[1].length)) {
    if (length <= MAX_VALUE) break;
    out.add(key);
    length -= lengthOf(key, value);
  }
  return JSON.stringify(Object.fromEntries(all.filter(([key]) => !out.has(key))));
}

function clipped(text: string): string {
  return Array.from(text).slice(0, MAX_VALUE).join('');
}
