import { constants } from 'node:os'
import { checked, nativeFunction, SystemCallError } from './native-function.ts'

const waitpid = nativeFunction('int waitpid(int pid, void *status, int options)')
const waitid = nativeFunction('int waitid(int idtype, int id, void *info, int options)')
const [WNOHANG, WEXITED, WNOWAIT] = [1, 4, 0x01000000]
const P_ALL = 0
/** Offset of si_pid in siginfo_t on 64-bit Linux. */
const SI_PID = 16
/** Should a SIGCHLD ever be lost, a child is still reaped within this time. */
const POLL_MS = 1000

/** How a child ended: its exit status, or the signal that killed it. */
export type Ending = { readonly code: number } | { readonly signal: NodeJS.Signals | number }

type Waiting = { resolve: (ending: Ending) => void; reject: (error: Error) => void }
const children = new Map<number, Waiting>()
const status = Buffer.alloc(4)
const info = Buffer.alloc(256)
let poll: NodeJS.Timeout | undefined

/** Waits for a child that `posixSpawn` started, and reaps it. Children of node:child_process are left to the runtime. */
export function waitFor(pid: number): Promise<Ending> {
  if (poll === undefined) {
    process.on('SIGCHLD', reapEnded)
    poll = setInterval(reapEach, POLL_MS)
  }
  if (children.size === 0) poll.ref()
  return new Promise((resolve, reject) => {
    children.set(pid, { resolve, reject })
    // It may have ended before anybody listened for the signal.
    reap(pid)
  })
}

/** Number of children being waited for. */
export const waitedFor = (): number => children.size

/** One SIGCHLD may stand for many: asks the kernel who has ended until nobody has. */
function reapEnded(): void {
  while (children.size > 0) {
    info.fill(0)
    if (waitid(P_ALL, 0, info, WEXITED | WNOHANG | WNOWAIT) === -1) return
    const pid = info.readInt32LE(SI_PID)
    if (pid === 0) return
    if (children.has(pid) && reap(pid)) continue
    // Not ours: the runtime reaps it in its turn, and meanwhile it hides those behind it.
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

/** The WIFEXITED family of macros. */
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
