import { writeSync } from 'node:fs'
import { messageOf } from './errors.ts'
import { LineWriter } from './line-writer.ts'

/** What may stand in a log line. Errors give their message; undefined fields are left out. */
export type Fields = Readonly<Record<string, string | number | bigint | boolean | Date | Error | undefined>>

const NO_FIELDS: Fields = {}

/** One event, one line, `key=value`. Nothing a peer sent can make a second line or a second field. */
export interface Log {
  debug(event: string, fields?: Fields): void
  info(event: string, fields?: Fields): void
  warn(event: string, fields?: Fields): void
  error(event: string, fields?: Fields): void
  /** The same log with fields that every line carries, e.g. the session id. */
  with(fields: Fields): Log
}

/** Least important first. */
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** `authd: level=info event=grant ip=192.0.2.7 user="a b"`, without line end. */
export function formatLogLine(program: string, level: LogLevel, event: string, fields: Fields): string {
  let line = `${program}: level=${level} event=${event}`
  for (const key of Object.keys(fields)) {
    const value = fields[key]
    if (value !== undefined) line += ` ${key}=${formatValue(value)}`
  }
  return line
}

/** What needs no quotes: printable ASCII without `"`, `=` and `\\`. */
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
    /** The lines of one turn of the event loop are written together: for who has many to write at once. */
    byTurn?: boolean
    write?: (line: string) => void
  } = {},
): Log {
  const least = LOG_LEVELS.indexOf(level)
  const make = (common: Fields): Log => {
    const at =
      (severity: LogLevel) =>
      (event: string, fields: Fields = {}): void => {
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

/** Says something that is no event, after all that was logged before it. */
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
