/** A label's value comes from people (a site's name): beyond this many, further ones are counted together as `other`. */
const MAX_LABEL_VALUES = 200;

export function boundedLabel(): (value: string) => string {
  const seen = new Set<string>();
  return (value) => {
    if (seen.has(value)) return value;
    if (seen.size >= MAX_LABEL_VALUES) return 'other';
    seen.add(value);
    return value;
  };
}
