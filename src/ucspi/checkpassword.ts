import { closeSync, readFileSync, readlinkSync, realpathSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { basename } from 'node:path'
import { messageOf } from '../base/errors.ts'
import { type Ending, posixSpawn, waitFor } from '../libc/child-process.ts'
import { openPipe } from '../libc/descriptors.ts'
import { type Environment, formatEnvironment, parseEnvironment } from './environment.ts'

/** The most that a checker reads from descriptor 3, in octets (spec/checkpassword.md §1). */
export const CHECKPASSWORD_LIMIT = 512
/** A checker gets this long to say yes or no; then SIGTERM. */
const CHECK_LIMIT_MS = 60_000
/** From SIGTERM to SIGKILL. */
const KILL_AFTER_MS = 5_000
/** Octets that a checker may print on its standard output before the program runs. */
const LONGEST_NOISE = 65_536

export type Credentials = {
  readonly login: string
  /** The password, or for APOP the digest in hex. */
  readonly password: string
  /** The greeting's msg-id with its angle brackets; empty where there is none. */
  readonly timestamp: string
}

/**
 * The input of the checker on descriptor 3: `login NUL password NUL timestamp NUL`. Undefined if it
 * would be longer than 512 octets, or if a field holds a NUL. Such a login must be refused without
 * running the checker, because the checker would read other fields.
 */
export function checkpasswordMessage({ login, password, timestamp }: Credentials): Uint8Array | undefined {
  if ([login, password, timestamp].some(field => field.includes('\0'))) return undefined
  // Octets as the client sent them: the line reader hands lines over as latin1.
  const message = Buffer.from(`${login}\0${password}\0${timestamp}\0`, 'latin1')
  return message.length > CHECKPASSWORD_LIMIT ? undefined : message
}

/** Why a checker did not say yes. `badauth` is the only one that blames the client. */
export type Refusal = { readonly verdict: 'badauth' | 'temporary' | 'crash'; readonly detail: string }

/** The checker accepted: the state of its process just before the program behind it. */
export type Accepted = {
  readonly verdict: 'ok'
  readonly uid: number
  readonly gid: number
  readonly groups: readonly number[]
  /** The working directory it chose: the home. */
  readonly directory: string
  /**
   * The arguments of the program behind it; a checker may have rewritten them (checkvpw: the mail
   * directory).
   */
  readonly args: readonly string[]
  /** USER, HOME, MAILDIR and all other variables that it set. */
  readonly environment: Environment
}

/**
 * Exit statuses by which vchkpw means the user rather than itself (spec/checkpassword.md §3); for
 * every other checker it is 1 alone.
 */
const VCHKPW_DENIALS = [1, 3, 12, 13, 15, 20, 21, 23]

/**
 * The meaning of a checker's end without a session. Exit 0 is not a success: vchkpw exits so when
 * it cannot run the program.
 */
export function refusalOf(checker: readonly string[], ending: Ending): Refusal {
  if ('signal' in ending) return { verdict: 'crash', detail: `checker killed by ${ending.signal}` }
  const denials = basename(checker[0] ?? '') === 'vchkpw' ? VCHKPW_DENIALS : [1]
  const verdict = denials.includes(ending.code) ? 'badauth' : 'temporary'
  return { verdict, detail: `checker exit status ${ending.code}` }
}

const TOO_LONG: Refusal = {
  verdict: 'badauth',
  detail: 'login and password are too long for the checker, or hold a NUL',
}

/**
 * The witness: the program behind the checker in verify mode. It prints its pid and waits, so that
 * the monitor can read from the kernel which ids the checker set. The witness's user could forge a
 * report of the witness, but not the kernel's answers about ids.
 */
const WITNESS = ['/bin/sh', '-c', `printf '\\0checked %d\\n' $$ && read -r word`, 'pop3d']

export type CheckRequest = {
  /** The checker's command line without the program behind it. */
  readonly checker: readonly string[]
  readonly credentials: Credentials
  readonly environment: Environment
  /** Arguments of the program behind the checker, as a run script would write them: `Maildir`. */
  readonly args: readonly string[]
  readonly limitMs?: number
  readonly killAfterMs?: number
}

/**
 * Runs a checkpassword program for a login and returns the account under which it would have run
 * the POP3 server. Never throws for an act of a checker or client; a checker that cannot be started
 * is `temporary`.
 */
export async function verifyLogin(request: CheckRequest): Promise<Accepted | Refusal> {
  const message = checkpasswordMessage(request.credentials)
  if (message === undefined) return TOO_LONG
  const stay = openPipe()
  const report = openPipe()
  let pid: number
  try {
    pid = start(request, [...WITNESS, ...request.args], message, { input: stay.readEnd, output: report.writeEnd })
  } catch (error) {
    for (const fd of [stay.writeEnd, report.readEnd]) closeSync(fd)
    return { verdict: 'temporary', detail: messageOf(error) }
  } finally {
    closeSync(stay.readEnd)
    closeSync(report.writeEnd)
  }
  const ended = waitFor(pid)
  const deadline = endInTime(pid, ended, request)
  try {
    const witness = await witnessPid(report.readEnd, ended)
    if (witness !== undefined) return accepted(witness, pid)
  } catch (error) {
    signalGroup(pid, 'SIGKILL')
    return { verdict: 'temporary', detail: `what the checker did is not readable: ${String(error)}` }
  } finally {
    closeSync(stay.writeEnd)
  }
  const ending = await ended
  return deadline.passed()
    ? { verdict: 'temporary', detail: 'checker did not answer in time' }
    : refusalOf(request.checker, ending)
}

export type ChainRequest = {
  readonly checker: readonly string[]
  /** The POP3 server behind the checker. */
  readonly program: readonly string[]
  readonly credentials: Credentials
  readonly environment: Environment
  /** Descriptor that becomes 0 and 1 of the chain. The caller closes its own copy afterwards. */
  readonly session: number
  readonly limitMs?: number
  readonly killAfterMs?: number
}

/** A running `checkpassword PROG…`. */
export type Chain = {
  readonly pid: number
  /** Call at the first sign of success: the time limit is for the check, not for the session. */
  accepted(): void
  /**
   * The end; `timedOut` if it was the time limit's doing. Use `refusalOf` if no success was seen.
   */
  readonly ended: Promise<{ readonly ending: Ending; readonly timedOut: boolean }>
}

/**
 * Runs `checkpassword PROG…` with descriptors 0 and 1 on a session. A Refusal if the login cannot
 * be asked; throws SystemCallError if it cannot be started.
 */
export function startChain(request: ChainRequest): Chain | Refusal {
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
 * The message fits a pipe, so it is written before the checker reads. A checker that never reads
 * blocks nothing.
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
    writeSync(secrets.writeEnd, message)
    closeSync(secrets.writeEnd)
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

/** SIGTERM when the limit has passed, SIGKILL some seconds later. */
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

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal)
  } catch {
    // It has just ended.
  }
}

/**
 * The pid that the witness prints; undefined if the checker ends without one. Earlier output of the
 * checker is skipped. The checker's end counts, not the end of input: a child that it left behind
 * may hold the pipe for ever.
 */
async function witnessPid(readEnd: number, ended: Promise<Ending>): Promise<number | undefined> {
  const stream = new Socket({ fd: readEnd, readable: true, writable: false })
  const close = () => void stream.destroy()
  ended.then(close, close)
  let heard = ''
  try {
    for await (const piece of stream) {
      heard = (heard + String(piece)).slice(-LONGEST_NOISE)
      const word = /\0checked (\d{1,10})\n/.exec(heard)
      if (word !== null) return Number(word[1])
    }
  } catch {
    // Closed under the reader because the checker has ended: no word came.
  } finally {
    stream.destroy()
  }
  return undefined
}

/** A checker usually becomes the program; one that holds a PAM session open forks first. */
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
 * The kernel's data about the witness. The witness itself is not trusted, because its user may
 * control it by ptrace(2).
 */
function accepted(pid: number, checker: number): Accepted {
  if (!descendsFrom(pid, checker)) throw new Error('the witness is no process of the checker')
  // A user who made it exec a set-uid program would otherwise pass for root.
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
    verdict: 'ok',
    uid,
    gid,
    groups: ids('Groups'),
    directory: readlinkSync(`/proc/${pid}/cwd`),
    args: argv.slice(WITNESS.length),
    environment: parseEnvironment(readFileSync(`/proc/${pid}/environ`)),
  }
}
