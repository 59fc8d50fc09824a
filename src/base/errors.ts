/**
 * Faults of programs: their exit statuses, the messages and codes of errors, and the word that was
 * probably meant.
 */
import { statSync } from 'node:fs'

/** Exit statuses of every program. They are stable (docs/OPERATING.md). */
export const EXIT = { done: 0, no: 1, usage: 100, temporary: 111 } as const

/** One fault for the administrator: name, fact, remedy. */
export type Fault = {
  /** The setting, if the fact does not name it. */
  readonly setting?: string
  readonly fact: string
  /** Absent if the fact contains its remedy, or if none is known. */
  readonly remedy?: string
}

/** The fault as one line. */
export const formatFault = ({ setting, fact, remedy }: Fault): string =>
  [setting, fact, remedy].filter(part => part !== undefined).join(': ')

const asFault = (fault: string | Fault): Fault => (typeof fault === 'string' ? { fact: fault } : fault)

/**
 * Wrong usage or settings: repeating the command as it stands cannot help. `faults` has one line
 * for each fault, and `details` has its parts.
 */
export class UsageFault extends Error {
  override readonly name: string = 'UsageFault'
  readonly exitStatus = EXIT.usage
  readonly faults: readonly string[]
  readonly details: readonly Fault[]

  constructor(faults: string | Fault | readonly (string | Fault)[], cause?: unknown) {
    const details = [faults].flat().map(asFault)
    const lines = details.map(formatFault)
    super(lines.join('\n'), { cause })
    this.faults = lines
    this.details = details
  }
}

/**
 * A temporary external failure (port in use, database unreachable): retrying may succeed. The
 * message names the remedy.
 */
export class TemporaryFault extends Error {
  override readonly name = 'TemporaryFault'
  readonly exitStatus = EXIT.temporary
  readonly details: readonly Fault[]

  constructor(fault: string | Fault, cause?: unknown) {
    const detail = asFault(fault)
    super(formatFault(detail), { cause })
    this.details = [detail]
  }
}

/** The system refused the call because this process lacks the right. */
export const isAccessDenied = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'EACCES' || error.code === 'EPERM')

/**
 * The reason why this account may not read the file, with the mode if it is known, and the remedy.
 */
export function denialOf(path: string): { readonly reason: string; readonly remedy: string } {
  const remedy = 'use an account that may read it, or give it a group that may'
  try {
    const { mode, uid } = statSync(path)
    const octal = (mode & 0o7777).toString(8).padStart(4, '0')
    return { reason: `mode ${octal} and owner uid ${uid} close it to uid ${process.geteuid?.()}`, remedy }
  } catch {
    return { reason: `a directory above it is closed to uid ${process.geteuid?.()}`, remedy }
  }
}

/** `ENOENT` and the like; undefined for other errors. */
export const errorCodeOf = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined

/** The thrown value as an Error. The text of any other value becomes the message. */
export const asError = (thrown: unknown): Error => (thrown instanceof Error ? thrown : new Error(String(thrown)))

/**
 * Text about a thrown value that only a fault of the program can cause: its stack, or its message
 * without one.
 */
export const stackOf = (thrown: unknown): string =>
  thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)

/**
 * The message of the thrown value. For an error with several causes, such as a connection to
 * several addresses, all messages.
 */
export function messageOf(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.errors.length > 0) return thrown.errors.map(messageOf).join(', ')
  return thrown instanceof Error ? thrown.message : String(thrown)
}

/**
 * The known word that is most similar to a mistyped one. Undefined if more than a third of the
 * letters are wrong in each.
 */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1
  for (const candidate of known) {
    const found = distance(word.toLowerCase(), candidate.toLowerCase())
    if (found < bestDistance) [best, bestDistance] = [candidate, found]
  }
  return best
}

/**
 * The number of letters to insert, delete, replace, or exchange with their neighbour (optimal
 * string alignment). An exchange counts once, because it is the most frequent typing error.
 */
function distance(a: string, b: string): number {
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      const isExchange = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      const exchanged = isExchange ? (before[j - 2] ?? 0) + 1 : replaced
      next.push(Math.min(replaced, exchanged, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    before = row
    row = next
  }
  return row[b.length] ?? 0
}
