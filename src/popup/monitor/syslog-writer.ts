/** Lines to syslog, through a child logger(1). */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Log } from '../../base/log.ts'
import { watchForStop } from '../../base/supervised-child.ts'

/** Octets of the lines that wait for a slow logger; further lines are dropped. */
const MAX_WAITING_OCTETS = 1_048_576
const RESTART_AFTER_MS = 1_000
/** Reason of the end of a logger that popup has killed. */
const STOPPED = 'a signal had stopped it, so popup killed it'

/**
 * Writes lines to syslog under one tag, facility mail, through one long-lived logger(1) child.
 * Never throws, never waits.
 */
export class SyslogWriter {
  readonly #tag: string
  readonly #severity: 'info' | 'notice'
  readonly #log: Log
  /** Found out at the start: later no descriptor may be free for reading it. */
  readonly #idOption = processIdOption()
  #child: ChildProcess | undefined
  #restartNotBefore = 0
  #dropped = 0
  #complained = false

  constructor(tag: string, severity: 'info' | 'notice', log: Log) {
    this.#tag = tag
    this.#severity = severity
    this.#log = log
  }

  /** Sends one message; it must be one line of printable ASCII. */
  write(message: string): void {
    const input = this.#running()?.stdin
    if (input === undefined || input === null || !input.writable || input.writableLength > MAX_WAITING_OCTETS) {
      this.#dropped += 1
      if (!this.#complained) this.#log.warn('syslog_lines_lost', { tag: this.#tag, count: this.#dropped })
      this.#complained = true
      return
    }
    input.write(`${message}\n`)
  }

  /** Lets logger write its remaining input, and ends it. */
  close(): void {
    this.#restartNotBefore = Number.POSITIVE_INFINITY
    this.#child?.stdin?.end()
  }

  #running(): ChildProcess | undefined {
    if (this.#child !== undefined || performance.now() < this.#restartNotBefore) return this.#child
    const args = ['-t', this.#tag, '-p', `mail.${this.#severity}`, this.#idOption]
    const child = spawn('logger', args, { stdio: ['pipe', 'ignore', 'ignore'] })
    this.#child = child
    let isStopped = false
    const watch = watchForStop(child.pid, () => {
      isStopped = true
      child.kill('SIGKILL')
    })
    const gone = (reason: string | Error): void => {
      watch.end()
      if (this.#child !== child) return
      this.#child = undefined
      if (this.#restartNotBefore === Number.POSITIVE_INFINITY) return
      this.#restartNotBefore = performance.now() + RESTART_AFTER_MS
      this.#log.warn('logger_ended', { tag: this.#tag, reason })
    }
    child.on('error', gone)
    child.on('exit', (code, signal) => gone(isStopped ? STOPPED : (signal ?? `exit status ${code}`)))
    child.stdin?.on('error', () => {}) // EPIPE: logger has ended, and `exit` reports it
    this.#complained = false
    return child
  }
}

const CAP_SYS_ADMIN = 1n << 21n

/**
 * Log under our own PID (`logger --id`), so that a reader of the log finds the process. As root
 * logger proves the PID to the kernel, and sends nothing if that is refused. Without CAP_SYS_ADMIN,
 * as in a sandbox, the line has logger's PID.
 */
function processIdOption(): string {
  const { uid = '1', capabilities = '0' } =
    /^Uid:\t\d+\t(?<uid>\d+).*^CapEff:\t(?<capabilities>[0-9a-f]+)$/ms.exec(readFileSync('/proc/self/status', 'utf8'))
      ?.groups ?? {}
  const mayVouch = uid !== '0' || (BigInt(`0x${capabilities}`) & CAP_SYS_ADMIN) !== 0n
  return mayVouch ? `--id=${process.pid}` : '--id'
}
