/** Faults of programs: the exit statuses that they lead to, and what errors of the system say. */
import { statSync } from 'node:fs'

/** Exit statuses of every program; scripts rely on them (docs/ARCHITECTURE.md). */
export const EXIT = { done: 0, no: 1, usage: 100, temporary: 111 } as const

/** Wrong usage or settings: repeating the command as it stands cannot help. Each fault is one line with its remedy. */
export class UsageFault extends Error {
  override readonly name = 'UsageFault'
  readonly exitStatus = EXIT.usage
  readonly faults: readonly string[]

  constructor(faults: string | readonly string[], cause?: unknown) {
    const list = typeof faults === 'string' ? [faults] : faults
    super(list.join('\n'), { cause })
    this.faults = list
  }
}

/** The world is not ready (port in use, database away): trying again later may help. The message says what to do. */
export class TemporaryFault extends Error {
  override readonly name = 'TemporaryFault'
  readonly exitStatus = EXIT.temporary

  constructor(message: string, cause?: unknown) {
    super(message, { cause })
  }
}

/** The system refused because of who this process is. */
export const isAccessDenied = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'EACCES' || error.code === 'EPERM')

/** Why this account may not read the file, with the mode where that can be seen, and what to do. */
export function describeDenial(path: string): string {
  const remedy = 'use an account that may read it, or give it a group that may'
  try {
    const { mode, uid } = statSync(path)
    const octal = (mode & 0o7777).toString(8).padStart(4, '0')
    return `mode ${octal} and owner uid ${uid} close it to uid ${process.geteuid?.()}: ${remedy}`
  } catch {
    return `a directory above it is closed to uid ${process.geteuid?.()}: ${remedy}`
  }
}

/** `ENOENT` and the like; undefined for what is no system error. */
export const errorCodeOf = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined

/** What was thrown, as an Error: of anything else its text is the message. */
export const asError = (thrown: unknown): Error => (thrown instanceof Error ? thrown : new Error(String(thrown)))

/**
 * The message of what was thrown; of several errors in one, such as those of a connection to
 * several addresses, all.
 */
export function messageOf(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.errors.length > 0) return thrown.errors.map(messageOf).join(', ')
  return thrown instanceof Error ? thrown.message : String(thrown)
}
