/**
 * Running checkpassword programs.
 *
 * verifyLogin checks a login: behind the checker it runs the witness, a shell that waits. /proc
 * then shows the ids, the directory and the environment that the checker set. startChain runs a
 * POP3 server behind the checker, on the client's session.
 */
import { closeSync, readFileSync, readlinkSync, realpathSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { basename } from 'node:path'
import { messageOf } from '../base/errors.ts'
import { signalGroup } from '../base/supervised-child.ts'
import { type Ending, posixSpawn, waitFor } from '../libc/child-process.ts'
import { openPipe } from '../libc/descriptors.ts'
import { type Environment, formatEnvironment, parseEnvironment } from './environment.ts'

/** Most octets that a checker reads from descriptor 3 (spec/checkpassword.md §1). */
export const CHECKPASSWORD_LIMIT = 512
/** Time for the answer of a checker. Afterwards the checker gets SIGTERM. */
const CHECK_LIMIT_MS = 60_000
/** Time from SIGTERM to SIGKILL. */
const KILL_AFTER_MS = 5_000
/** Octets of a checker's standard output that are kept to find the witness's line. */
const MAX_OUTPUT_OCTETS = 65_536

export type CheckpasswordCredentials = {
  readonly login: string
  /** The password, or for APOP the digest in hex. */
  readonly password: string
  /** The msg-id of the greeting with its angle brackets; empty if the method is not APOP. */
  readonly timestamp: string
}

/**
 * The input of the checker on descriptor 3: `login NUL password NUL timestamp NUL`. Undefined if it
 * would be longer than 512 octets, or if a field holds a NUL. Such a login must be refused without
 * running the checker, because the checker would read other fields.
 */
export function checkpasswordMessage({ login, password, timestamp }: CheckpasswordCredentials): Uint8Array | undefined {
  if ([login, password, timestamp].some(field => field.includes('\0'))) return undefined
  // The fields have one character per octet, so latin1 gives the octets that the client sent.
  const message = Buffer.from(`${login}\0${password}\0${timestamp}\0`, 'latin1')
  return message.length > CHECKPASSWORD_LIMIT ? undefined : message
}

/** Why a login failed. `badauth` is the only refusal that the client has caused. */
export type CheckpasswordRefusal = { readonly kind: 'badauth' | 'temporary' | 'crash'; readonly detail: string }

/** A positive answer: the state that the checker gave to the program behind it. */
export type CheckpasswordAccepted = {
  readonly kind: 'ok'
  readonly uid: number
  readonly gid: number
  readonly groups: readonly number[]
  /** The working directory that the checker has chosen: the home directory. */
  readonly directory: string
  /**
   * The arguments of the program behind the checker. A checker may have rewritten them (checkvpw:
   * the mail directory).
   */
  readonly args: readonly string[]
  /** USER, HOME, MAILDIR and all other variables that the checker has set. */
  readonly environment: Environment
}

/**
 * Exit statuses by which vchkpw refuses the user (spec/checkpassword.md §3). Every other checker
 * refuses with 1 alone.
 */
const VCHKPW_DENIALS = [1, 3, 12, 13, 15, 20, 21, 23]

/**
 * Returns the meaning of a checker's end without a session. Exit 0 is not a success, because vchkpw
 * exits with 0 when it cannot run the program.
 */
export function refusalOf(checker: readonly string[], ending: Ending): CheckpasswordRefusal {
  if ('signal' in ending) return { kind: 'crash', detail: `checker killed by ${ending.signal}` }
  const denials = basename(checker[0] ?? '') === 'vchkpw' ? VCHKPW_DENIALS : [1]
  const kind = denials.includes(ending.code) ? 'badauth' : 'temporary'
  return { kind, detail: `checker exit status ${ending.code}` }
}

const TOO_LONG: CheckpasswordRefusal = {
  kind: 'badauth',
  detail: 'login and password are too long for the checker, or hold a NUL',
}

/**
 * The witness: the program behind the checker in verify mode. It prints its pid and waits, so that
 * the monitor can read from the kernel which ids the checker set. The witness's user could forge a
 * report of the witness, but not the kernel's answers about ids.
 */
const WITNESS = ['/bin/sh', '-c', `printf '\\0checked %d\\n' $$ && read -r word`, 'pop3d']

export type CheckpasswordRequest = {
  /** The checker's command line without the program behind it. */
  readonly checker: readonly string[]
  readonly credentials: CheckpasswordCredentials
  readonly environment: Environment
  /** Arguments of the program behind the checker, as a run script writes them: `Maildir`. */
  readonly args: readonly string[]
  readonly limitMs?: number
  readonly killAfterMs?: number
}

/**
 * Runs a checkpassword program for a login. Returns the account under which the checker would have
 * run the POP3 server. Never throws because of a checker or client; a checker that cannot be
 * started is `temporary`.
 */
export async function verifyLogin(
  request: CheckpasswordRequest,
): Promise<CheckpasswordAccepted | CheckpasswordRefusal> {
  const message = checkpasswordMessage(request.credentials)
  if (message === undefined) return TOO_LONG
  let running: RunningWitness
  try {
    running = startWithWitness(request, message)
  } catch (error) {
    return { kind: 'temporary', detail: messageOf(error) }
  }
  const { pid } = running
  const ended = waitFor(pid)
  const deadline = endInTime(pid, ended, request)
  try {
    const witness = await witnessPid(running.report, ended)
    if (witness !== undefined) return accepted(witness, pid)
  } catch (error) {
    signalGroup(pid, 'SIGKILL')
    return { kind: 'temporary', detail: `the state of the checker is not readable: ${String(error)}` }
  } finally {
    closeSync(running.stay)
  }
  const ending = await ended
  return deadline.passed()
    ? { kind: 'temporary', detail: 'checker did not answer in time' }
    : refusalOf(request.checker, ending)
}

/**
 * A checker with the witness behind it, and this process's end of each of its pipes. The caller
 * closes them.
 */
type RunningWitness = {
  readonly pid: number
  /** The witness waits until this end is closed. */
  readonly stay: number
  /** The output of checker and witness. */
  readonly report: number
}

/** Throws SystemCallError if the checker cannot be started. Then no descriptor stays open. */
function startWithWitness(request: CheckpasswordRequest, message: Uint8Array): RunningWitness {
  const stay = openPipe()
  try {
    const report = openPipe()
    try {
      const session = { input: stay.readEnd, output: report.writeEnd }
      const pid = start(request, [...WITNESS, ...request.args], message, session)
      return { pid, stay: stay.writeEnd, report: report.readEnd }
    } catch (error) {
      closeSync(report.readEnd)
      throw error
    } finally {
      closeSync(report.writeEnd)
    }
  } catch (error) {
    closeSync(stay.writeEnd)
    throw error
  } finally {
    closeSync(stay.readEnd)
  }
}

export type ChainRequest = {
  readonly checker: readonly string[]
  /** The POP3 server behind the checker. */
  readonly program: readonly string[]
  readonly credentials: CheckpasswordCredentials
  readonly environment: Environment
  /** Descriptor that becomes 0 and 1 of the chain. The caller closes its own copy afterwards. */
  readonly session: number
  readonly limitMs?: number
  readonly killAfterMs?: number
}

/** A running chain `checkpassword PROG…`. */
export type Chain = {
  readonly pid: number
  /**
   * Ends the time limit at the first sign of success, because the limit is for the check, not for
   * the session.
   */
  accepted(): void
  /**
   * Settles when the chain has ended. `timedOut`: the time limit ended it. Without a success, use
   * `refusalOf`.
   */
  readonly ended: Promise<{ readonly ending: Ending; readonly timedOut: boolean }>
}

/**
 * Runs `checkpassword PROG…` with a session as descriptors 0 and 1. Returns a Refusal if the login
 * does not fit the interface. Throws SystemCallError if the checker cannot be started.
 */
export function startChain(request: ChainRequest): Chain | CheckpasswordRefusal {
  const message = checkpasswordMessage(request.credentials)
  if (message === undefined) return TOO_LONG
  const pid = start(request, request.program, message, { input: request.session, output: request.session })
  const ended = waitFor(pid)
  const deadline = endInTime(pid, ended, request)
  return {
    pid,
    accepted: deadline.cancel,
    ended: ended.then(ending => {
      deadline.cancel()
      return { ending, timedOut: deadline.passed() }
    }),
  }
}

/**
 * Starts the checker and returns its pid. The message is written first: it fits into a pipe, so
 * that a checker that never reads blocks nothing. Throws SystemCallError.
 */
function start(
  { checker, environment }: { readonly checker: readonly string[]; readonly environment: Environment },
  program: readonly string[],
  message: Uint8Array,
  session: { readonly input: number; readonly output: number },
): number {
  const [file] = checker
  if (file === undefined) throw new TypeError('the checker has no command line')
  const secrets = openPipe()
  try {
    try {
      writeSync(secrets.writeEnd, message)
    } finally {
      closeSync(secrets.writeEnd)
    }
    return posixSpawn({
      file,
      searchPath: true,
      argv: [...checker, ...program],
      environment: formatEnvironment(environment),
      descriptors: [
        { from: session.input, to: 0 },
        { from: session.output, to: 1 },
        { from: secrets.readEnd, to: 3 },
      ],
      // A separate process group, so that the time limit reaches a checker's children too.
      newSession: true,
      openFiles: 1024n,
    })
  } finally {
    closeSync(secrets.readEnd)
    message.fill(0)
  }
}

/** Sends SIGTERM to the checker's group at the time limit, and SIGKILL 5 s later. */
function endInTime(
  pid: number,
  ended: Promise<Ending>,
  {
    limitMs = CHECK_LIMIT_MS,
    killAfterMs = KILL_AFTER_MS,
  }: { readonly limitMs?: number; readonly killAfterMs?: number },
): { cancel(): void; passed(): boolean } {
  let passed = false
  let timer: NodeJS.Timeout | undefined = setTimeout(() => {
    passed = true
    signalGroup(pid, 'SIGTERM')
    timer = setTimeout(() => signalGroup(pid, 'SIGKILL'), killAfterMs)
  }, limitMs)
  const cancel = () => clearTimeout(timer)
  void ended.then(cancel, cancel)
  return { cancel, passed: () => passed }
}

/**
 * Returns the pid that the witness prints, or undefined if the checker ends without a witness.
 * Other output of the checker before the pid is skipped. The checker's end is decisive, not the end
 * of input, because a child of the checker may keep the pipe open.
 */
async function witnessPid(readEnd: number, ended: Promise<Ending>): Promise<number | undefined> {
  const stream = new Socket({ fd: readEnd, readable: true, writable: false })
  const close = () => void stream.destroy()
  ended.then(close, close)
  let output = ''
  try {
    for await (const piece of stream) {
      output = (output + String(piece)).slice(-MAX_OUTPUT_OCTETS)
      const found = /\0checked (\d{1,10})\n/.exec(output)
      if (found !== null) return Number(found[1])
    }
  } catch {
    // The stream was closed because the checker has ended, so there is no pid.
  } finally {
    stream.destroy()
  }
  return undefined
}

/**
 * True if `pid` is `ancestor` or its descendant. Most checkers replace themselves with the program,
 * but a checker with an open PAM session forks first.
 */
function descendsFrom(pid: number, ancestor: number): boolean {
  for (let at = pid, steps = 0; at > 1 && steps < 8; steps++) {
    if (at === ancestor) return true
    at = Number(statusOf(at).get('PPid'))
  }
  return false
}

function statusOf(pid: number): Map<string, string> {
  const lines = readFileSync(`/proc/${pid}/status`, 'latin1').split('\n')
  return new Map(lines.map(line => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]))
}

/**
 * Reads the kernel's data about the witness. The witness itself is not trusted, because its user
 * may control it by ptrace(2).
 */
function accepted(pid: number, checker: number): CheckpasswordAccepted {
  if (!descendsFrom(pid, checker)) throw new Error('the witness is no process of the checker')
  // A user who makes the witness exec a set-uid program would otherwise get root's ids.
  if (readlinkSync(`/proc/${pid}/exe`) !== realpathSync('/bin/sh'))
    throw new Error('the witness became another program')
  const status = statusOf(pid)
  const ids = (name: string) =>
    (status.get(name) ?? '')
      .split(/\s+/)
      .filter(id => id !== '')
      .map(Number)
  const [uid, effectiveUid] = ids('Uid')
  const [gid, effectiveGid] = ids('Gid')
  if (uid === undefined || gid === undefined || uid !== effectiveUid || gid !== effectiveGid)
    throw new Error('the checker left real and effective ids different')
  const argv = readFileSync(`/proc/${pid}/cmdline`).toString().split('\0').slice(0, -1)
  return {
    kind: 'ok',
    uid,
    gid,
    groups: ids('Groups'),
    directory: readlinkSync(`/proc/${pid}/cwd`),
    args: argv.slice(WITNESS.length),
    environment: parseEnvironment(readFileSync(`/proc/${pid}/environ`)),
  }
}
