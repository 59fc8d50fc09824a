/** Running the next program of a chain: where it is, and what it inherits. */
import { accessSync, constants, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { messageOf } from '../base/errors.ts'
import { setCloseOnExec } from '../libc/descriptors.ts'
import { execve, openFilesLimit, resetSignals, setOpenFilesLimit, unblockEverySignal } from '../libc/this-process.ts'
import { changeEnvironment, type EnvironmentChanges, formatEnvironment, ownEnvironment } from './environment.ts'

/**
 * Descriptors above 2 that this process was started with and the runtime did not open itself; ask
 * before anything is opened.
 * The runtime marks them close-on-exec; who runs another program in its place must give them on
 * (relay-ctrl passes a directory so).
 */
export function inheritedDescriptors(): readonly number[] {
  const targets = new Map<number, string>()
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      targets.set(Number(name), readlinkSync(`/proc/self/fd/${name}`))
    } catch {
      // The descriptor of this very listing: closed by now.
    }
  }
  const all = [...targets.values()]
  // The runtime's own are event descriptors and pipes of which it holds both ends.
  const isOwn = (target: string) =>
    target.startsWith('anon_inode:') ||
    (target.startsWith('pipe:') && all.indexOf(target) !== all.lastIndexOf(target)) ||
    target === '/dev/urandom' ||
    target === process.execPath
  return [...targets].filter(([fd, target]) => fd > 2 && !isOwn(target)).map(([fd]) => fd)
}

/**
 * Path of the program that a command line names: with a `/` it is itself, else the first executable
 * file on PATH. Undefined if there is
 * none that this user may run.
 */
export function findProgram(name: string, path = '/usr/local/bin:/usr/bin:/bin'): string | undefined {
  const candidates = name.includes('/') ? [name] : path.split(':').map(place => `${place === '' ? '.' : place}/${name}`)
  return candidates.find(isRunnable)
}

function isRunnable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return statSync(file).isFile()
  } catch {
    return false
  }
}

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

/**
 * Variables that hold secrets of ours, or tell programs about us: no child gets them
 * (spec/wrap-and-db.md §7).
 */
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

/** What supervisors give as a rule, should ours not be readable. */
const USUAL = 1024n

/**
 * Sets our soft limit of open files back to what we were started with, because every program we run
 * inherits it and old ones close each possible descriptor one by
 * one; but not below what we need ourselves, and to the hard limit if nobody knows what that is.
 * The runtime has raised it to the hard limit at start.
 */
export function shareOpenFilesLimit(needed: number | undefined): number {
  const { soft, hard } = openFilesLimit()
  const given = softOpenFilesOf(process.ppid) ?? USUAL
  const wanted = needed === undefined ? hard : given > BigInt(needed) ? given : BigInt(needed)
  const possible = wanted < hard ? wanted : hard
  if (possible !== soft) setOpenFilesLimit(possible)
  return Number(possible)
}

/** The same limit in a process that starts programs for us. */
export function limitOpenFiles(files: number): void {
  if (BigInt(files) !== openFilesLimit().soft) setOpenFilesLimit(BigInt(files))
}
