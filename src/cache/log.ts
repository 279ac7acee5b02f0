/** The part of pino's logger that the cache uses. */
export interface CacheLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
