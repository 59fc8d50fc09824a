/** System calls about this process: execve, signals, limits, privileges and its heap. */
import { constants } from 'node:os'
import { checked, lastErrno, nativeFunction, SystemCallError, stringArray } from './native-function.ts'

const execveCall = nativeFunction('int execve(const char *file, const void *argv, const void *envp)')
const signalCall = nativeFunction('intptr_t signal(int signal, intptr_t handler)')
const sigmask = nativeFunction('int pthread_sigmask(int how, const void *set, void *before)')
const getrlimit = nativeFunction('int getrlimit(int resource, void *limit)')
const setrlimit = nativeFunction('int setrlimit(int resource, const void *limit)')
const prctl = nativeFunction(
  'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
)
const mallocTrim = nativeFunction('int malloc_trim(size_t pad)')
const setScheduler = nativeFunction('int sched_setscheduler(int pid, int policy, const void *parameter)')

const [SIG_DFL, SIG_IGN, SIG_ERR] = [0, 1, -1]
const [SIG_UNBLOCK, SIG_SETMASK] = [1, 2]
/** sizeof(sigset_t); signal n is bit n - 1. */
const SIGSET_BYTES = 128
const RLIMIT_NOFILE = 7
const [PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS] = [1, 4, 38]
const SCHED_BATCH = 3
/** struct sched_param: the static priority, which is 0 for SCHED_BATCH. */
const SCHED_PARAMETER = Buffer.alloc(4)

/**
 * Replaces this process. Returns only if the kernel refused, with the reason (process.execve would
 * abort instead). Arguments and environment may be bytes: UCSPI variables are not always UTF-8.
 */
export function execve(
  file: string,
  argv: readonly (string | Uint8Array)[],
  environment: readonly (string | Uint8Array)[],
): SystemCallError {
  execveCall(file, stringArray(argv), stringArray(environment))
  return new SystemCallError('execve', lastErrno())
}

/**
 * Gives signals their default action again. The runtime ignores SIGPIPE and SIGXFSZ, and an ignored
 * signal stays ignored through execve: a program started later would not end when its connection is
 * closed. A pending signal is discarded.
 */
export function resetSignals(signals: readonly NodeJS.Signals[]): void {
  for (const name of signals)
    for (const action of [SIG_IGN, SIG_DFL])
      if (signalCall(constants.signals[name], action) === SIG_ERR) throw new SystemCallError('signal', lastErrno())
}

/**
 * Unblocks a signal for the main thread. The runtime blocks SIGUSR1 under `--disable-sigusr1`,
 * which also keeps it from listeners.
 */
export function unblockSignal(name: NodeJS.Signals): void {
  const set = Buffer.alloc(SIGSET_BYTES)
  const bit = constants.signals[name] - 1
  set.writeUInt8(1 << (bit & 7), bit >> 3)
  changeSignalMask(SIG_UNBLOCK, set)
}

/**
 * Unblocks every signal. The mask stays through execve, and a program that replaces this one
 * expects an empty mask.
 */
export const unblockEverySignal = (): void => changeSignalMask(SIG_SETMASK, Buffer.alloc(SIGSET_BYTES))

function changeSignalMask(how: number, set: Uint8Array): void {
  const errno = sigmask(how, set, null)
  if (errno !== 0) throw new SystemCallError('pthread_sigmask', errno)
}

/** RLIMIT_NOFILE of this process; 2^64-1 is "no limit". */
export function openFilesLimit(): { soft: bigint; hard: bigint } {
  const limit = Buffer.alloc(16)
  checked('getrlimit', getrlimit(RLIMIT_NOFILE, limit))
  return { soft: limit.readBigUInt64LE(0), hard: limit.readBigUInt64LE(8) }
}

/**
 * Sets the soft limit, at most to the hard one. The runtime raises it to the hard limit at start;
 * programs that close every possible descriptor, or use select(2), must not inherit the hard limit.
 */
export function setOpenFilesLimit(soft: bigint): void {
  const { hard } = openFilesLimit()
  const limit = Buffer.alloc(16)
  limit.writeBigUInt64LE(soft < hard ? soft : hard, 0)
  limit.writeBigUInt64LE(hard, 8)
  checked('setrlimit', setrlimit(RLIMIT_NOFILE, limit))
}

/**
 * Forbids core files, ptrace and /proc/PID/mem for processes of the same user: for a process that
 * holds secrets.
 */
export function forbidDumps(): void {
  checked('prctl(PR_SET_DUMPABLE)', prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
}

/**
 * The kernel sends this process the signal when its parent ends. A change of uid clears the
 * setting, so call this function after the change. Check process.ppid afterwards, because the
 * parent may have ended already.
 *
 * @public
 */
export function signalOnParentDeath(signal: number): void {
  checked('prctl(PR_SET_PDEATHSIG)', prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0))
}

/**
 * From now on no execve of this process or its children gains privileges (setuid programs
 * included).
 */
export function forbidNewPrivileges(): void {
  checked('prctl(PR_SET_NO_NEW_PRIVS)', prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

/**
 * Sets SCHED_BATCH (sched(7)): on wake-up this thread does not preempt a running one; its share of
 * the processor stays the same. Later threads and programs inherit the policy. Needs no privilege.
 * Returns false, without an effect, if the system forbids it.
 */
export const scheduleAsBatch = (): boolean => setScheduler(0, SCHED_BATCH, SCHED_PARAMETER) === 0

/**
 * Gives the free memory of the C library's heap back to the system (malloc_trim(3)). Takes about a
 * millisecond for each 50 MB. Returns true if there was some. Throws where the C library has no
 * such function.
 */
export const trimHeap = (): boolean => mallocTrim(0) === 1
