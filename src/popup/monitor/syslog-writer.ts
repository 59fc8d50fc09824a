import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Log } from '../../base/log.ts'

/** Lines that wait for a logger that is slow; above that new ones are dropped. */
const MAX_WAITING_OCTETS = 1_048_576
const RESTART_AFTER_MS = 1_000

/**
 * Writes lines to syslog under one tag, facility mail, through one long-lived logger(1) child.
 * Never throws, never waits.
 */
export class SyslogWriter {
  readonly #tag: string
  readonly #severity: 'info' | 'notice'
  readonly #log: Log
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

  /** Lets logger write what it has, and ends it. */
  close(): void {
    this.#restartNotBefore = Number.POSITIVE_INFINITY
    this.#child?.stdin?.end()
  }

  #running(): ChildProcess | undefined {
    if (this.#child !== undefined || performance.now() < this.#restartNotBefore) return this.#child
    const args = ['-t', this.#tag, '-p', `mail.${this.#severity}`, processIdOption()]
    const child = spawn('logger', args, { stdio: ['pipe', 'ignore', 'ignore'] })
    this.#child = child
    const gone = (reason: string | Error): void => {
      if (this.#child !== child) return
      this.#child = undefined
      if (this.#restartNotBefore === Number.POSITIVE_INFINITY) return
      this.#restartNotBefore = performance.now() + RESTART_AFTER_MS
      this.#log.warn('logger_ended', { tag: this.#tag, reason })
    }
    child.on('error', gone)
    child.on('exit', (code, signal) => gone(signal ?? `exit status ${code}`))
    child.stdin?.on('error', () => {}) // EPIPE: logger has ended, and `exit` says so
    this.#complained = false
    return child
  }
}

const CAP_SYS_ADMIN = 1n << 21n

/**
 * The line is ours, so is the process id: the reader of the log finds the process that vouches for
 * it. As root logger proves it to the kernel,
 * and sends nothing where that is refused: without CAP_SYS_ADMIN, as under a sandbox, the line has logger's own number.
 */
function processIdOption(): string {
  const { uid = '1', capabilities = '0' } =
    /^Uid:\t\d+\t(?<uid>\d+).*^CapEff:\t(?<capabilities>[0-9a-f]+)$/ms.exec(readFileSync('/proc/self/status', 'utf8'))
      ?.groups ?? {}
  const mayVouch = uid !== '0' || (BigInt(`0x${capabilities}`) & CAP_SYS_ADMIN) !== 0n
  return mayVouch ? `--id=${process.pid}` : '--id'
}
