import { readFileSync } from 'node:fs'
import { messageOf } from '../base/errors.ts'
import { setCloseOnExec } from '../libc/descriptors.ts'
import { execve, resetSignals, setOpenFilesLimit, unblockEverySignal } from '../libc/this-process.ts'
import { changeEnvironment, type EnvironmentChanges, formatEnvironment, ownEnvironment } from './environment.ts'
import { inheritedDescriptors } from './inherited-descriptors.ts'

/** The next program of a chain could not be run. */
export class CannotRun extends Error {
  override readonly name = 'CannotRun'
  readonly file: string

  constructor(file: string, cause: unknown) {
    super(`cannot run ${file}: ${messageOf(cause)}`, { cause })
    this.file = file
  }
}

/** The process as it was handed over: take it first thing, before anything is opened. */
export type Inheritance = { readonly descriptors: readonly number[]; readonly openFiles: bigint | undefined }

/** What the runtime hides from us about our start. */
export const inheritance = (): Inheritance => ({
  descriptors: inheritedDescriptors(),
  openFiles: softOpenFilesOf(process.ppid),
})

/** Variables that hold secrets of ours, or tell programs about us: no child gets them (spec/wrap-and-db.md §7). */
export const OWN_VARIABLES = [
  'DBPASS',
  'DBPASS_FILE',
  'WRAP_DBPASS',
  'WRAP_DBPASS_FILE',
  'STATUS_DBPASS',
  'STATUS_DBPASS_FILE',
  'NODE_OPTIONS',
  'NODE_COMPILE_CACHE',
  'AUTHRELAY_SUPERVISED',
  'AUTHRELAY_PINGED',
  'NOTIFY_SOCKET',
  'WATCHDOG_PID',
  'WATCHDOG_USEC',
  'LISTEN_PID',
  'LISTEN_FDS',
  'LISTEN_FDNAMES',
] as const

/**
 * Replaces this process by the next program of the chain: same pid, standard streams, signals,
 * limits, and environment except for the
 * changes. Returns only if that is impossible. Never touch process.stdin or process.stdout before:
 * that leaves O_NONBLOCK on the client's
 * socket, and the next program is not written for it.
 */
export function runNext(
  file: string,
  argv: readonly string[],
  changes: EnvironmentChanges,
  { descriptors, openFiles }: Inheritance,
): CannotRun {
  try {
    const withoutOwn = Object.fromEntries(OWN_VARIABLES.map(name => [name, undefined]))
    const environment = formatEnvironment(changeEnvironment(ownEnvironment(), { ...withoutOwn, ...changes }))
    // The runtime ignores two and blocks the third, and through execve both would last.
    resetSignals(['SIGPIPE', 'SIGXFSZ', 'SIGUSR1'])
    unblockEverySignal()
    if (openFiles !== undefined) setOpenFilesLimit(openFiles)
    for (const fd of [0, 1, 2, ...descriptors]) setCloseOnExec(fd, false)
    return new CannotRun(file, execve(file, argv, environment))
  } catch (error) {
    return new CannotRun(file, error)
  }
}

/**
 * Soft RLIMIT_NOFILE of the parent: it is what we were given, unless a `ulimit -n` stood between.
 * The runtime has raised our own to the
 * hard limit before our first line runs, and /proc keeps no memory of it. Undefined if the parent
 * may not be looked at or has no limit.
 */
export function softOpenFilesOf(pid: number): bigint | undefined {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'latin1'))?.[1]
    return soft === undefined ? undefined : BigInt(soft)
  } catch {
    // A parent under another uid, or gone: the runtime's limit is then the best we know.
    return undefined
  }
}
