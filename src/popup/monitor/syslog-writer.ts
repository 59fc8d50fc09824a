/** Lines to syslog, through a child logger(1). */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Log } from '../../base/log.ts'
import { type ChildRun, SupervisedChild, watchForStop } from '../../base/supervised-child.ts'

/** Octets of the lines that wait for a slow logger; further lines are dropped. */
const MAX_WAITING_OCTETS = 1_048_576
/** Reason of the end of a logger that popup has killed. */
const STOPPED = 'a signal had stopped it, so popup killed it'

/** A logger that was started. `ended`: the reason of its end. */
type Logger = ChildRun<string | Error> & { readonly child: ChildProcess }

/**
 * Writes lines to syslog under one tag, facility mail, through one long-lived logger(1) child,
 * which the first line starts. Never throws, never waits.
 */
export class SyslogWriter {
  readonly #tag: string
  readonly #severity: 'info' | 'notice'
  readonly #log: Log
  /** Found out at the start: later no descriptor may be free for reading it. */
  readonly #idOption = processIdOption()
  readonly #logger = new SupervisedChild<Logger>({
    launch: () => this.#launch(),
    ended: reason => this.#ended(reason),
  })
  #dropped = 0
  #complained = false

  constructor(tag: string, severity: 'info' | 'notice', log: Log) {
    this.#tag = tag
    this.#severity = severity
    this.#log = log
  }

  /** Sends one message; it must be one line of printable ASCII. */
  write(message: string): void {
    const input = this.#logger.start()?.child.stdin
    if (input === undefined || input === null || !input.writable || input.writableLength > MAX_WAITING_OCTETS) {
      this.#dropped += 1
      if (!this.#complained) this.#log.warn('syslog_lines_lost', { tag: this.#tag, count: this.#dropped })
      this.#complained = true
      return
    }
    input.write(`${message}\n`)
  }

  /** Lets logger write its remaining input, and ends it. Returns at once. */
  close(): void {
    void this.#logger.stop({ after: 0, act: ({ child }) => child.stdin?.end() })
  }

  #launch(): Logger {
    const args = ['-t', this.#tag, '-p', `mail.${this.#severity}`, this.#idOption]
    const child = spawn('logger', args, { stdio: ['pipe', 'ignore', 'ignore'] })
    const { promise: ended, resolve } = Promise.withResolvers<string | Error>()
    let isStopped = false
    const watch = watchForStop(child.pid, () => {
      isStopped = true
      child.kill('SIGKILL')
    })
    void ended.then(() => watch.end())
    child.on('error', resolve)
    child.on('exit', (code, signal) => resolve(isStopped ? STOPPED : (signal ?? `exit status ${code}`)))
    child.stdin?.on('error', () => {}) // EPIPE: logger has ended, and `exit` reports it
    this.#complained = false
    return { child, ended }
  }

  #ended(reason: string | Error): void {
    if (this.#logger.isStopped) return
    this.#log.warn('logger_ended', { tag: this.#tag, reason, in_ms: this.#logger.restart() })
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
