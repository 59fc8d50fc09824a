/**
 * Starts child processes by posix_spawn(3) and waits for them, at a tenth of the cost of
 * node:child_process.
 */

import { constants } from 'node:os'
import {
  asyncNumberFunction,
  checked,
  nativeFunction,
  StringArrayMemory,
  SystemCallError,
  stringArray,
} from './native-function.ts'
import { openFilesLimit, setOpenFilesLimit } from './this-process.ts'

const fileActionsInit = nativeFunction('int posix_spawn_file_actions_init(void *actions)')
const fileActionsDestroy = nativeFunction('int posix_spawn_file_actions_destroy(void *actions)')
const addDup2 = nativeFunction('int posix_spawn_file_actions_adddup2(void *actions, int from, int to)')
const addClose = nativeFunction('int posix_spawn_file_actions_addclose(void *actions, int fd)')
const attrInit = nativeFunction('int posix_spawnattr_init(void *attr)')
const attrSetFlags = nativeFunction('int posix_spawnattr_setflags(void *attr, short flags)')
const attrSetSigDefault = nativeFunction('int posix_spawnattr_setsigdefault(void *attr, const void *set)')
const attrSetSigMask = nativeFunction('int posix_spawnattr_setsigmask(void *attr, const void *set)')
const POSIX_SPAWN =
  'int posix_spawn(void *pid, const char *file, void *actions, void *attr, const void *argv, const void *envp)'
const spawn = nativeFunction(POSIX_SPAWN)
const spawnAside = asyncNumberFunction(POSIX_SPAWN)
const spawnp = nativeFunction(
  'int posix_spawnp(void *pid, const char *file, void *actions, void *attr, const void *argv, const void *envp)',
)
const waitpid = nativeFunction('int waitpid(int pid, void *status, int options)')
const waitid = nativeFunction('int waitid(int idtype, int id, void *info, int options)')

const [SETSIGDEF, SETSIGMASK, SETSID] = [0x04, 0x08, 0x80]
/**
 * Octets for a posix_spawnattr_t (336), a posix_spawn_file_actions_t (80) or a sigset_t (128) of
 * glibc and musl, with a reserve.
 */
const ROOM = 1024

export type SpawnRequest = {
  /**
   * Path of the program. With `searchPath`, a name without `/` is searched for in the PATH of this
   * process.
   */
  readonly file: string
  /** argv, the name first. */
  readonly argv: readonly (string | Uint8Array)[]
  /** Texts `NAME=value`. */
  readonly environment: readonly (string | Uint8Array)[]
  /**
   * The child's descriptors: `from` is the descriptor here, `to` the one in the child. 0, 1 and 2
   * are inherited unless they are named; every other descriptor of this process is close-on-exec.
   */
  readonly descriptors: readonly { readonly from: number; readonly to: number }[]
  readonly searchPath?: boolean
  /** Starts a new session, so that a terminal's signals do not reach the child. */
  readonly newSession?: boolean
  /**
   * Soft RLIMIT_NOFILE of the child. Undefined: the limit of this process, which the runtime has
   * raised.
   */
  readonly openFiles?: bigint
}

const attributes = new Map<number, Uint8Array>()

/**
 * Attributes that give every signal its default action and block none, because the runtime ignores
 * SIGPIPE and children must not. They are made once, because the kernel only reads them.
 */
function attributesFor(flags: number): Uint8Array {
  const known = attributes.get(flags)
  if (known !== undefined) return known
  const attr = Buffer.alloc(ROOM)
  ok('posix_spawnattr_init', attrInit(attr))
  ok('posix_spawnattr_setflags', attrSetFlags(attr, flags))
  // All bits are set. sigfillset would leave out two signals of glibc, which the child would then
  // ignore.
  ok('posix_spawnattr_setsigdefault', attrSetSigDefault(attr, Buffer.alloc(ROOM, 0xff)))
  ok('posix_spawnattr_setsigmask', attrSetSigMask(attr, Buffer.alloc(ROOM)))
  attributes.set(flags, attr)
  return attr
}

/**
 * Starts a program and returns its pid, at a tenth of the cost of node:child_process. The
 * descriptors should be blocking (`setBlocking`). The caller must wait for the pid (`waitFor`), or
 * it stays a zombie. Throws SystemCallError (ENOENT, EACCES, ENOEXEC, EAGAIN…).
 */
export function posixSpawn(request: SpawnRequest): number {
  const attr = attributesFor(SETSIGDEF | SETSIGMASK | (request.newSession === true ? SETSID : 0))
  const argv = stringArray(request.argv)
  const environment = stringArray(request.environment)
  const actions = Buffer.alloc(ROOM)
  const pid = Buffer.alloc(4)
  ok('posix_spawn_file_actions_init', fileActionsInit(actions))
  try {
    addDescriptors(actions, request.descriptors)
    const call = request.searchPath === true ? spawnp : spawn
    withOpenFiles(request.openFiles, () => ok('posix_spawn', call(pid, request.file, actions, attr, argv, environment)))
  } finally {
    fileActionsDestroy(actions)
  }
  return pid.readInt32LE(0)
}

/** Memory of a call: its result, and the environment. */
type Call = { readonly pid: Buffer; readonly environment: StringArrayMemory }

/**
 * Starts one program many times, each time with another descriptor as its 0 and 1. This costs a
 * third of posixSpawn, because the common parts are made once.
 *
 * It also does not block the event loop. The kernel blocks the calling thread until the program's
 * execve is done, which takes longer than all other work of a small server. Limits belong to the
 * process, so the child inherits the limit of open files. PATH is not searched.
 */
export class RepeatedSpawn {
  readonly #file: Uint8Array
  readonly #argv: Uint8Array
  readonly #attr = attributesFor(SETSIGDEF | SETSIGMASK)
  readonly #environment: Uint8Array
  readonly #variables: number
  /** Memory of calls that are done. */
  readonly #idle: Call[] = []
  #here: Call | undefined

  /** `environment`: `NAME=value` strings of every start. Throws TypeError on a NUL. */
  constructor(file: string, argv: readonly (string | Uint8Array)[], environment: readonly (string | Uint8Array)[]) {
    if (file.includes('\0')) throw new TypeError('a NUL cannot stand in the path of a program')
    this.#file = Buffer.from(`${file}\0`)
    this.#argv = stringArray(argv)
    this.#environment = stringArray(environment)
    this.#variables = environment.length
  }

  /**
   * As `start`, on this thread, which waits until the program's execve is done. `environment`:
   * strings one after the other, each with its
   * NUL. Throws SystemCallError, and TypeError for a block whose last string has no end.
   */
  startHere(descriptor: number, environment: Uint8Array): number {
    this.#here ??= this.#newCall()
    const { pid, environment: memory } = this.#here
    const envp = memory.fillWith(environment)
    const actions = connectionActions.get(descriptor) ?? actionsFor(descriptor)
    ok('posix_spawn', spawn(pid, this.#file, actions, this.#attr, this.#argv, envp))
    return pid.readInt32LE(0)
  }

  #newCall(): Call {
    return { pid: Buffer.alloc(4), environment: new StringArrayMemory(this.#environment, this.#variables) }
  }

  /**
   * Starts the program and returns its pid, for which the caller must call `waitFor`. `environment`
   * follows the strings of every start. Rejects with SystemCallError.
   */
  async start(descriptor: number, environment: readonly (string | Uint8Array)[]): Promise<number> {
    const call = this.#idle.pop() ?? this.#newCall()
    try {
      const envp = call.environment.fill(environment)
      const actions = connectionActions.get(descriptor) ?? actionsFor(descriptor)
      ok('posix_spawn', await spawnAside(call.pid, this.#file, actions, this.#attr, this.#argv, envp))
      return call.pid.readInt32LE(0)
    } finally {
      this.#idle.push(call)
    }
  }
}

/**
 * File actions by descriptor. They are never freed, because the kernel reuses the same small
 * numbers.
 */
const connectionActions = new Map<number, Uint8Array>()

function actionsFor(descriptor: number): Uint8Array {
  const actions = Buffer.alloc(ROOM)
  ok('posix_spawn_file_actions_init', fileActionsInit(actions))
  addDescriptors(actions, [
    { from: descriptor, to: 0 },
    { from: descriptor, to: 1 },
  ])
  connectionActions.set(descriptor, actions)
  return actions
}

/** First copies each source that an earlier step overwrites to a number above all others here. */
function addDescriptors(actions: Uint8Array, descriptors: SpawnRequest['descriptors']): void {
  let spare = descriptors.reduce((top, { from, to }) => Math.max(top, from, to), 2) + 1
  const written = new Set<number>()
  const moved = new Map<number, number>()
  for (const { from, to } of descriptors) {
    if (from !== to && descriptors.some(other => other.to === from) && !moved.has(from)) {
      ok('adddup2', addDup2(actions, from, spare))
      moved.set(from, spare++)
    }
    if (written.has(to)) throw new TypeError(`descriptor ${to} is given twice`)
    written.add(to)
  }
  for (const { from, to } of descriptors) ok('adddup2', addDup2(actions, moved.get(from) ?? from, to))
  // dup2 onto itself removes close-on-exec, which the runtime has set for its standard descriptors.
  for (const standard of [0, 1, 2]) if (!written.has(standard)) ok('adddup2', addDup2(actions, standard, standard))
  for (const copy of moved.values()) ok('addclose', addClose(actions, copy))
}

/**
 * posix_spawn has no attribute for limits, so this process has the child's limits during the call.
 */
function withOpenFiles(soft: bigint | undefined, run: () => void): void {
  const before = soft === undefined ? 0n : openFilesLimit().soft
  if (soft === undefined || before <= soft) {
    run()
    return
  }
  setOpenFilesLimit(soft)
  try {
    run()
  } finally {
    setOpenFilesLimit(before)
  }
}

/** The functions of the posix_spawn family return the errno. */
function ok(call: string, errno: number): void {
  if (errno !== 0) throw new SystemCallError(call, errno)
}

// --- Waiting for the end of a child

const [WNOHANG, WEXITED, WNOWAIT] = [1, 4, 0x01000000]
const P_ALL = 0
const ANY_CHILD = -1
/** Offset of si_pid in siginfo_t on 64-bit Linux. */
const SI_PID = 16
/** Time within which a child is reaped if its SIGCHLD is lost. */
const POLL_MS = 1000

/** How a child ended: its exit status, or the signal that killed it. */
export type Ending = { readonly code: number } | { readonly signal: NodeJS.Signals | number }

type Waiting = { resolve: (ending: Ending) => void; reject: (error: Error) => void }
const children = new Map<number, Waiting>()
const status = Buffer.alloc(4)
const info = Buffer.alloc(256)
let poll: NodeJS.Timeout | undefined

/**
 * Waits for a child that `posixSpawn` started, and reaps it. Children of node:child_process are
 * left to the runtime.
 */
export function waitFor(pid: number): Promise<Ending> {
  if (poll === undefined) {
    process.on('SIGCHLD', reapEnded)
    poll = setInterval(reapEach, POLL_MS)
  }
  if (children.size === 0) poll.ref()
  return new Promise((resolve, reject) => {
    children.set(pid, { resolve, reject })
    // The child may have ended before the signal handler was installed.
    reap(pid)
  })
}

/**
 * Reaps the children that have ended. Call it at SIGCHLD, in a process without children of
 * node:child_process. Never waits.
 */
export function reapChildren(visit: (pid: number, ending: Ending) => void): void {
  for (;;) {
    const pid = waitpid(ANY_CHILD, status, WNOHANG)
    // 0: the other children still run. -1: there is no child.
    if (pid <= 0) return
    visit(pid, endingOf(status.readInt32LE(0)))
  }
}

/** Number of children for which `waitFor` waits. */
export const waitedFor = (): number => children.size

/** One SIGCHLD may stand for many children: reaps until no ended child is left. */
function reapEnded(): void {
  while (children.size > 0) {
    info.fill(0)
    if (waitid(P_ALL, 0, info, WEXITED | WNOHANG | WNOWAIT) === -1) return
    const pid = info.readInt32LE(SI_PID)
    if (pid === 0) return
    if (children.has(pid) && reap(pid)) continue
    // A child of the runtime: the runtime reaps it later, and until then it hides the children
    // behind it.
    reapEach()
    return
  }
}

function reapEach(): void {
  for (const pid of children.keys()) reap(pid)
}

/** True if the child has ended and is reaped. */
function reap(pid: number): boolean {
  const waiting = children.get(pid)
  if (waiting === undefined) return false
  try {
    if (checked('waitpid', waitpid(pid, status, WNOHANG)) === 0) return false
    waiting.resolve(endingOf(status.readInt32LE(0)))
  } catch (error) {
    waiting.reject(error instanceof Error ? error : new SystemCallError('waitpid', 0))
  }
  children.delete(pid)
  if (children.size === 0) poll?.unref()
  return true
}

/** Decodes a status as the WIFEXITED family of macros does (wait(2)). */
function endingOf(word: number): Ending {
  const signal = word & 0x7f
  return signal === 0 ? { code: (word >> 8) & 0xff } : { signal: nameOf(signal) }
}

const names = new Map<number, NodeJS.Signals>()
function nameOf(signal: number): NodeJS.Signals | number {
  if (names.size === 0)
    for (const [name, number] of Object.entries(constants.signals)) if (isSignal(name)) names.set(number, name)
  return names.get(signal) ?? signal
}
const isSignal = (name: string): name is NodeJS.Signals => name in constants.signals
