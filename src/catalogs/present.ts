type Absent<T> = { [K in keyof T]: undefined extends T[K] ? K : never }[keyof T];

/** The same without its undefined members: what is absent is absent (`exactOptionalPropertyTypes`), in JSON too. */
export function present<T extends object>(
  value: T,
): Omit<T, Absent<T>> & { [K in Absent<T>]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== undefined)) as never;
}
