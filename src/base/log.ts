/** The log: the format of a line, writing without waiting for the reader, and hints once a day. */

import { writeSync } from 'node:fs'
import { BoundedMap } from './bounded-map.ts'
import { errorCodeOf, messageOf } from './errors.ts'
import type { FLAG_FIELDS, LogContextField, LogLevel } from './log-events/row.ts'
import type { LogEvent, LogEventAt, LogFieldOf, LogReasonOf } from './log-events.ts'

/**
 * Writes octets to a descriptor and returns the number that was accepted; throws as write(2) fails.
 */
export type WriteOctets = (octets: Buffer) => number

/**
 * Octets that are kept for a slow reader. Further lines are lost; their number is logged when there
 * is room again (`log_lines_lost`).
 */
const MAX_WAITING_OCTETS = 1_048_576
/**
 * Octets that a pipe takes whole (PIPE_BUF, pipe(7)): several processes write to one log, and no
 * line of one may be cut by a line of another. A longer line can be.
 */
const MOST_TOGETHER_OCTETS = 4_096
/** Pause before a full pipe is tried again, in milliseconds. */
const AGAIN_MS = 10

/**
 * Writes whole lines to a descriptor at once and never waits for the reader. Lines that a full pipe
 * does not take are kept up to a bound and written later, in order. (Another process may have made
 * the pipe non-blocking.) If the reader has closed the pipe, all lines are lost: a login must not
 * fail because of a log.
 */
export class LineWriter {
  readonly #write: WriteOctets
  #waiting: Buffer[] = []
  #waitingOctets = 0
  #lost = 0
  #timer: NodeJS.Timeout | undefined
  #isDue = false

  constructor(write: WriteOctets) {
    this.#write = write
  }

  /** Takes one line of a program, its LF included, and writes it. */
  line(text: string, program: string): void {
    // A retry is already scheduled. Another attempt for each line would be a wasted system call.
    if (this.#take(text, program) && this.#timer === undefined) this.flush()
  }

  /** As `line`, but written together with all other lines of this turn of the event loop. */
  lineOfTurn(text: string, program: string): void {
    if (!this.#take(text, program) || this.#timer !== undefined || this.#isDue) return
    this.#isDue = true
    setImmediate(() => {
      this.#isDue = false
      if (this.#timer === undefined) this.flush()
    })
  }

  /** False if there is no room for the line. */
  #take(text: string, program: string): boolean {
    const octets = Buffer.from(text)
    if (this.#waitingOctets + octets.length > MAX_WAITING_OCTETS) {
      this.#lost += 1
      return false
    }
    if (this.#lost > 0) {
      const lost = { count: this.#lost, reason: 'the reader of the log is too slow' }
      this.#lost = 0
      this.#keep(Buffer.from(`${formatLogLine(program, 'warn', 'log_lines_lost', lost)}\n`))
    }
    this.#keep(octets)
    return true
  }

  /** Writes the waiting lines, as far as the reader accepts them. */
  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#waiting.length === 0) return
    let octets: Buffer = NOTHING
    let written = 0
    try {
      while (written < this.#waiting.length) {
        const count = linesTogether(this.#waiting, written)
        const [first = NOTHING] = this.#waiting.slice(written, written + count)
        octets = count === 1 ? first : Buffer.concat(this.#waiting.slice(written, written + count))
        written += count
        while (octets.length > 0) octets = octets.subarray(this.#write(octets))
      }
      this.#waiting = []
    } catch (error) {
      const isFull = errorCodeOf(error) === 'EAGAIN'
      this.#waiting = isFull ? [octets, ...this.#waiting.slice(written)] : []
      if (isFull) this.#timer = setTimeout(() => this.flush(), AGAIN_MS).unref()
    }
    this.#waitingOctets = this.#waiting.reduce((sum, line) => sum + line.length, 0)
  }

  #keep(octets: Buffer): void {
    this.#waiting.push(octets)
    this.#waitingOctets += octets.length
  }
}

const NOTHING: Buffer = Buffer.alloc(0)

/** Number of lines, from the first on, that are written at once: as many as fit, at least one. */
function linesTogether(lines: readonly Buffer[], from: number): number {
  let octets = lines[from]?.length ?? 0
  let count = 1
  for (let next = lines[from + 1]; next !== undefined; next = lines[from + count]) {
    octets += next.length
    if (octets > MOST_TOGETHER_OCTETS) break
    count += 1
  }
  return count
}

type Flag = boolean | undefined
type Value = string | number | bigint | Date | Error | undefined

/**
 * Values of a log line. Errors give their message, and booleans `1` or `0`; undefined fields are
 * left out.
 */
export type Fields = Readonly<Record<string, Value | Flag>>

const NO_FIELDS: Fields = {}

/** The fields of an event, as the table of log events lists them. */
export type FieldsOf<Event extends LogEvent> = {
  readonly [Name in LogFieldOf<Event>]?: Name extends (typeof FLAG_FIELDS)[number]
    ? Flag
    : Name extends 'reason'
      ? LogReasonOf<Event, Value> & Value
      : Value
}

/** Fields that every line of a part of a program carries. */
export type ContextFields = { readonly [Name in LogContextField]?: Value }

/**
 * One event, one line, `key=value`. No text of a peer can make a second line or a second field.
 * Names, levels and fields are those of the table of log events.
 */
export interface Log {
  debug<Event extends LogEventAt<'debug'>>(event: Event, fields?: FieldsOf<Event>): void
  info<Event extends LogEventAt<'info'>>(event: Event, fields?: FieldsOf<Event>): void
  warn<Event extends LogEventAt<'warn'>>(event: Event, fields?: FieldsOf<Event>): void
  error<Event extends LogEventAt<'error'>>(event: Event, fields?: FieldsOf<Event>): void
  /** The same log with fields that every line carries, e.g. the session id (`LOG_CONTEXTS`). */
  with(fields: ContextFields): Log
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

function formatValue(value: NonNullable<Value | Flag>): string {
  if (typeof value === 'boolean') return value ? '1' : '0'
  const text = value instanceof Date ? String(value.toJSON()) : value instanceof Error ? describe(value) : String(value)
  if (PLAIN.test(text)) return text
  const cut = text.length > MAX_VALUE ? `${text.slice(0, MAX_VALUE)}…` : text
  const escaped = cut.replace(/[\\"\p{C}\u2028\u2029]/gu, character =>
    character === '\\' || character === '"' ? `\\${character}` : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  )
  return `"${escaped}"`
}

/** An error and its causes in one text. The causes may form a cycle. */
function describe(error: Error, depth = 0): string {
  // A failed connection to a name with several addresses has an empty message, and one error for
  // each address.
  const parts: unknown[] = error instanceof AggregateError && error.message === '' ? error.errors : []
  const own = error.message || parts.map(part => messageOf(part)).join('; ')
  const text = own === '' ? error.name : own
  return error.cause instanceof Error && depth < 8 ? `${text}: ${describe(error.cause, depth + 1)}` : text
}

/**
 * A log that writes to standard error; the supervisor adds time stamps and rotates files. If
 * standard error is closed, or full for a long time, lines are lost and sessions continue.
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
    write?: (line: string, program: string) => void
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
            program,
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
export function printToStandardError(text: string): void {
  standardError.flush()
  process.stderr.write(text)
}

function writeToStandardError(line: string, program: string): void {
  standardError.line(line, program)
}

function writeWithTurn(line: string, program: string): void {
  standardError.lineOfTurn(line, program)
}

const DAY_MS = 86_400_000
/**
 * Keys that are remembered: an attacker with many addresses gets a hint twice, and no more memory.
 */
const MOST = 10_000

/** Decides whether a hint is due: once a day for each key, such as a client's address. */
export class DailyHints {
  readonly #given = new BoundedMap<string, number>(MOST)
  readonly #now: () => number

  /** `now`: milliseconds of a clock that never steps. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** True the first time within a day. */
  isDue(key: string): boolean {
    const now = this.#now()
    const last = this.#given.get(key)
    if (last !== undefined && now - last < DAY_MS) return false
    this.#given.renew(key, now)
    return true
  }
}
