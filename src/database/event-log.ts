/** What the database and grants rooms need of a log: the one of src/daemon fits. */
export interface EventLog {
  debug(event: string, fields?: EventFields): void
  info(event: string, fields?: EventFields): void
  warn(event: string, fields?: EventFields): void
  error(event: string, fields?: EventFields): void
}

export type EventFields = Readonly<Record<string, string | number | bigint | boolean | Date | Error | undefined>>
