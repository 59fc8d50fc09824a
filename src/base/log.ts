import { writeSync } from 'node:fs'
import { messageOf } from './errors.ts'
import { LineWriter } from './line-writer.ts'
import type { LogEvent, LogEventAt, LogFieldOf, LogLevel } from './log-events.ts'

/** Values of a log line. Errors give their message; undefined fields are left out. */
export type Fields = Readonly<Record<string, string | number | bigint | boolean | Date | Error | undefined>>

const NO_FIELDS: Fields = {}

/** The fields of an event, as the table of log events lists them. */
export type FieldsOf<Event extends LogEvent> = { readonly [Name in LogFieldOf<Event>]?: Fields[string] }

/**
 * One event, one line, `key=value`. No text of a peer can make a second line or a second field.
 * Names, levels and fields are those of the table of log events.
 */
export interface Log {
  debug<Event extends LogEventAt<'debug'>>(event: Event, fields?: FieldsOf<Event>): void
  info<Event extends LogEventAt<'info'>>(event: Event, fields?: FieldsOf<Event>): void
  warn<Event extends LogEventAt<'warn'>>(event: Event, fields?: FieldsOf<Event>): void
  error<Event extends LogEventAt<'error'>>(event: Event, fields?: FieldsOf<Event>): void
  /** The same log with fields that every line carries, e.g. the session id. */
  with(fields: Fields): Log
}

/** Least important first. */
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const satisfies readonly LogLevel[]

/** `authd: level=info event=grant_stored ip=192.0.2.7 user="a b"`, without line end. */
export function formatLogLine(program: string, level: LogLevel, event: LogEvent, fields: Fields): string {
  let line = `${program}: level=${level} event=${event}`
  for (const key of Object.keys(fields)) {
    const value = fields[key]
    if (value !== undefined) line += ` ${key}=${formatValue(value)}`
  }
  return line
}

/** A value without quotes: printable ASCII without `"`, `=` and `\\`. */
const PLAIN = /^[!#-<>-[\]-~]{1,512}$/

/** Longest value kept, in characters: a log line stays within what syslog carries. */
const MAX_VALUE = 512

function formatValue(value: string | number | bigint | boolean | Date | Error): string {
  const text = value instanceof Date ? String(value.toJSON()) : value instanceof Error ? describe(value) : String(value)
  if (PLAIN.test(text)) return text
  const cut = text.length > MAX_VALUE ? `${text.slice(0, MAX_VALUE)}…` : text
  const escaped = cut.replace(/[\\"\p{C}\u2028\u2029]/gu, character =>
    character === '\\' || character === '"' ? `\\${character}` : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  )
  return `"${escaped}"`
}

/** An error and what caused it, in one text; the causes may form a ring. */
function describe(error: Error, depth = 0): string {
  // Connecting to a name with several addresses fails with an error that says nothing but holds one for each address.
  const parts: unknown[] = error instanceof AggregateError && error.message === '' ? error.errors : []
  const own = error.message || parts.map(part => messageOf(part)).join('; ')
  const text = own === '' ? error.name : own
  return error.cause instanceof Error && depth < 8 ? `${text}: ${describe(error.cause, depth + 1)}` : text
}

/**
 * A log that writes to standard error; the supervisor owns time stamps, files and rotation.
 * A standard error that is closed, or full for long, loses lines rather than sessions.
 */
export function createLog(
  program: string,
  {
    level = 'info',
    byTurn = false,
    write = byTurn ? writeWithTurn : writeToStandardError,
  }: {
    level?: LogLevel
    /** Writes the lines of one event loop turn together, for programs that write many at once. */
    byTurn?: boolean
    write?: (line: string) => void
  } = {},
): Log {
  const least = LOG_LEVELS.indexOf(level)
  const make = (common: Fields): Log => {
    const at =
      (severity: LogLevel) =>
      (event: LogEvent, fields: Fields = {}): void => {
        if (LOG_LEVELS.indexOf(severity) >= least) {
          write(
            `${formatLogLine(program, severity, event, common === NO_FIELDS ? fields : { ...common, ...fields })}\n`,
          )
        }
      }
    return {
      debug: at('debug'),
      info: at('info'),
      warn: at('warn'),
      error: at('error'),
      with: fields => make({ ...common, ...fields }),
    }
  }
  return make(NO_FIELDS)
}

const standardError = new LineWriter(octets => writeSync(2, octets))
process.on('exit', () => standardError.flush())

/** Writes plain text to standard error, after the pending log lines. */
export function sayOnStandardError(text: string): void {
  standardError.flush()
  process.stderr.write(text)
}

function writeToStandardError(line: string): void {
  standardError.line(line)
}

function writeWithTurn(line: string): void {
  standardError.lineOfTurn(line)
}
