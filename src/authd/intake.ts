import type { Clock } from '../daemon/clock.ts'
import type { LoginRecognizer, Verdict } from '../syslog/login-recognizer.ts'
import { stampTime } from '../syslog/stamp-time.ts'
import type { SyslogLine } from '../syslog/syslog-line.ts'
import type { LoginAnswer, LoginEvent } from '../wire/login-event.ts'
import { sessionId } from '../wire/session-id.ts'
import type { Counters } from './counters.ts'
import type { GrantQueue } from './grant-queue.ts'
import type { Source } from './heard-login.ts'

/** What lines are believed from each kind of source. */
export type Recognizers = {
  /** For what comes from a syslogd, and for the journal. */
  readonly syslog: LoginRecognizer
  /** For followed files: also the lines that a daemon writes to its own log file. */
  readonly files: LoginRecognizer
}

export type IntakeOptions = {
  readonly recognizers: Recognizers
  readonly queue: Pick<GrantQueue, 'submit'>
  readonly counters: Counters
  readonly clock: Clock
  /** Milliseconds a grant lives: an older line of a file is of no use to anybody. */
  readonly expTime: number
}

/** A stamp has whole seconds: a line this much older than now is of now. */
const STAMP_GRAIN = 2000
const MAX_DAEMON = 32

/** Where every source delivers: announced logins go to the queue as they are, lines only if they prove a login. */
export class Intake {
  readonly #options: IntakeOptions
  #recognizers: Recognizers
  #heard = 0

  constructor(options: IntakeOptions) {
    this.#options = options
    this.#recognizers = options.recognizers
  }

  /** Puts other settings in force; sessions of two-line daemons that are under way are forgotten. */
  reconfigure(recognizers: Recognizers): void {
    this.#recognizers = recognizers
  }

  /** A login announced on the socket. */
  hearLogin(event: LoginEvent, answer: (answer: LoginAnswer) => void): void {
    this.#options.queue.submit({ event, source: 'socket', answer })
  }

  /** A line from a syslogd. It counts from now: stamps can be forged, and have no year. */
  hearLine(source: 'fifo' | 'tcp', text: string): void {
    this.#options.counters.lines[source] += 1
    this.#judge(source, this.#recognizers.syslog.recognize(text, this.#options.clock()), undefined, undefined)
  }

  /**
   * A line of a followed file, which may be from long ago: its stamp can make it older, never newer.
   * Says whether a login is under way; only then `settled` will be called.
   */
  hearFileLine(text: string, settled: () => void): boolean {
    this.#options.counters.lines.file += 1
    const now = this.#options.clock()
    const verdict = this.#recognizers.files.recognize(text, now)
    const at = verdict.verdict === 'grant' ? stampTime(verdict.stamp, now) : undefined
    return this.#judge('file', verdict, at, settled)
  }

  /** An entry of the journal; `at` is the journal's own time of it. As hearFileLine. */
  hearJournalEntry(line: SyslogLine, at: number, settled: () => void): boolean {
    this.#options.counters.lines.journal += 1
    return this.#judge('journal', this.#recognizers.syslog.recognizeParsed(line, this.#options.clock()), at, settled)
  }

  #judge(source: Source, verdict: Verdict, at: number | undefined, settled: (() => void) | undefined): boolean {
    const { counters, queue, clock, expTime } = this.#options
    if (verdict.verdict === 'ignore') {
      counters.countIgnored(verdict.tag)
      return false
    }
    const age = at === undefined ? 0 : clock() - at
    if (age >= expTime) {
      counters.countIgnored(verdict.daemon)
      return false
    }
    const { ip, login, method, tls = false, daemon } = verdict
    this.#heard += 1
    const event: LoginEvent = {
      id: sessionId(process.pid, this.#heard),
      ip,
      daemon: daemon.slice(0, MAX_DAEMON),
      tls,
      method,
      user: [...login].slice(0, 255).join(''),
    }
    queue.submit({
      event,
      source,
      ...(at === undefined || age < STAMP_GRAIN ? {} : { at }),
      ...(settled === undefined ? {} : { settled }),
    })
    return true
  }
}
