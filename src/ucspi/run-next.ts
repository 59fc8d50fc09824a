/** Running the next program of a chain: its file, and the state that it inherits. */
import { accessSync, constants, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { messageOf } from '../base/errors.ts'
import { setCloseOnExec } from '../libc/descriptors.ts'
import { execve, openFilesLimit, resetSignals, setOpenFilesLimit, unblockEverySignal } from '../libc/this-process.ts'
import { changeEnvironment, type EnvironmentChanges, formatEnvironment, ownEnvironment } from './environment.ts'

/**
 * Returns the inherited descriptors above 2, without those that the runtime opened. Call it before
 * anything is opened. The runtime marks inherited descriptors as close-on-exec, so a process that
 * runs another program in its place must pass them on (relay-ctrl passes a directory in this way).
 */
export function inheritedDescriptors(): readonly number[] {
  const targets = new Map<number, string>()
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      targets.set(Number(name), readlinkSync(`/proc/self/fd/${name}`))
    } catch {
      // This is the descriptor of the directory listing itself, which is closed now.
    }
  }
  const all = [...targets.values()]
  // The runtime's descriptors are event descriptors, and pipes with both ends in this process.
  const isOwn = (target: string) =>
    target.startsWith('anon_inode:') ||
    (target.startsWith('pipe:') && all.indexOf(target) !== all.lastIndexOf(target)) ||
    target === '/dev/urandom' ||
    target === process.execPath
  return [...targets].filter(([fd, target]) => fd > 2 && !isOwn(target)).map(([fd]) => fd)
}

/**
 * Returns the path of the program that a command line names: a name with `/` unchanged, otherwise
 * the first executable file on PATH. Undefined if this user may not run such a file.
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

/** State of the process at its start. Take it first, before anything is opened. */
export type Inheritance = { readonly descriptors: readonly number[]; readonly openFiles: bigint | undefined }

/** Reads the inherited descriptors and the inherited limit of open files. */
export const inheritance = (): Inheritance => ({
  descriptors: inheritedDescriptors(),
  openFiles: softOpenFilesOf(process.ppid),
})

/**
 * Variables with secrets or settings of these programs. Children do not get them
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
 * Replaces this process with the next program of the chain. The program keeps pid, standard
 * streams, signals, limits and the environment with the changes. Returns only if the program cannot
 * be run.
 *
 * The caller must not have used process.stdin or process.stdout before, because they leave
 * O_NONBLOCK on the client's socket, and the next program does not expect that.
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
    // The runtime ignores two of these signals and blocks the third, and execve keeps both states.
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
 * Returns the soft limit of open files of the parent. It is this process's inherited limit, unless
 * a `ulimit -n` ran in between. The parent is read because the runtime has already raised its own
 * limit to the hard limit, and /proc does not keep the old value. Undefined if the parent cannot be
 * read or has no limit.
 */
export function softOpenFilesOf(pid: number): bigint | undefined {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'latin1'))?.[1]
    return soft === undefined ? undefined : BigInt(soft)
  } catch {
    // The parent has ended or runs under another uid, so use the limit of the runtime.
    return undefined
  }
}

/** Usual limit of supervisors, used if the parent's limit cannot be read. */
const USUAL_OPEN_FILES = 1024n

/**
 * Sets the soft limit of open files back to the inherited one, but not below `needed`. Without
 * `needed` the hard limit is set. Returns the limit. The runtime has raised the limit to the hard
 * limit at its start; each program that this process runs inherits it, and old programs close each
 * possible descriptor one by one.
 */
export function shareOpenFilesLimit(needed: number | undefined): number {
  const { soft, hard } = openFilesLimit()
  const given = softOpenFilesOf(process.ppid) ?? USUAL_OPEN_FILES
  const wanted = needed === undefined ? hard : given > BigInt(needed) ? given : BigInt(needed)
  const possible = wanted < hard ? wanted : hard
  if (possible !== soft) setOpenFilesLimit(possible)
  return Number(possible)
}

/** Sets the soft limit of open files, for a process that starts programs for another one. */
export function limitOpenFiles(files: number): void {
  if (BigInt(files) !== openFilesLimit().soft) setOpenFilesLimit(BigInt(files))
}
