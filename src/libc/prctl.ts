import { checked, nativeFunction } from './native-function.ts'

const prctl = nativeFunction(
  'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
)
const [PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS] = [1, 4, 38]

/** No core file, no ptrace, no /proc/PID/mem for processes of the same user: for a process that holds secrets. */
export function forbidDumps(): void {
  checked('prctl(PR_SET_DUMPABLE)', prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
}

/**
 * The kernel sends this process the signal when its parent ends. A change of uid clears it: call it after that, and look at
 * process.ppid afterwards, because the parent may be gone already.
 *
 * @public
 */
export function signalOnParentDeath(signal: number): void {
  checked('prctl(PR_SET_PDEATHSIG)', prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0))
}

/** From now on no execve of this process or its children gains privileges (setuid programs included). */
export function forbidNewPrivileges(): void {
  checked('prctl(PR_SET_NO_NEW_PRIVS)', prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}
