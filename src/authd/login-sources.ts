/** The sink of all login sources, and the recognizers that the settings name. */
import type { Clock } from '../base/clock.ts'
import { UsageFault } from '../base/errors.ts'
import type { FieldsOf, Log } from '../base/log.ts'
import { hasAccount, idsOf } from '../process/privileges.ts'
import { AUTHD } from '../settings/grant-sections.ts'
import type { Settings } from '../settings/settings.ts'
import type { ContainerLines } from '../syslog/container-lines.ts'
import {
  type DropReason,
  type LineLogin,
  LoginRecognizer,
  recognizerOptions,
  type Verdict,
} from '../syslog/login-recognizer.ts'
import type { SyslogLine } from '../syslog/syslog-line.ts'
import { type LoginAnswer, type LoginEvent, sessionId } from '../wire/login-event.ts'
import type { Counters, Source } from './counters.ts'
import type { GrantQueue } from './grant-queue.ts'

/** The recognizers for each kind of source. */
type Recognizers = {
  /** For lines of a syslogd, and for the journal. */
  readonly syslog: LoginRecognizer
  /** For followed files: also the lines that a daemon writes to its own log file. */
  readonly files: LoginRecognizer
  /** For journal entries of senders that do not count, to name the logins that are dropped. */
  readonly otherSenders: LoginRecognizer
  /** Accounts and units whose journal entries count. */
  readonly senders: { readonly uids: ReadonlySet<number>; readonly units: ReadonlySet<string> }
}

export type LoginSourcesOptions = {
  readonly recognizers: Recognizers
  readonly queue: Pick<GrantQueue, 'submit'>
  readonly counters: Counters
  readonly clock: Clock
  readonly log: Pick<Log, 'warn'>
}

/** A stamp has whole seconds, so a line of at most this age in milliseconds counts as new. */
const STAMP_GRAIN_MS = 2000
/** A stamp further in the future is of another clock or time zone, in milliseconds. */
const MAX_AHEAD_MS = 60_000
/** Time zones differ by multiples of this, in milliseconds. */
const ZONE_GRAIN_MS = 900_000
const MAX_DAEMON = 32

/** Origin of a line: the source, and the file if there are several. */
type Origin = { readonly source: Exclude<Source, 'socket'>; readonly path?: string }

/**
 * An entry of the journal. Fields that begin with `_` are journald's own: a sender cannot choose
 * them.
 */
export type JournalEntry = {
  /** The stamp is journald's time. The tag is the sender's: any local process can choose it. */
  readonly line: SyslogLine
  /**
   * `_UID`: the account of the sender; undefined for an entry without a sender, e.g. the kernel's.
   */
  readonly uid: number | undefined
  /** `_SYSTEMD_UNIT`: the unit of the sender; empty if there is none. */
  readonly unit: string
  readonly cursor: string
}

/** A followed file, and the state of its lines if a container runtime writes it. */
export type FileOfLines = { readonly path: string; readonly containers: ContainerLines }

/**
 * The common sink of all sources. Announced logins go to the queue unchanged, lines only if they
 * prove a login.
 */
export class LoginSources {
  readonly #options: LoginSourcesOptions
  #recognizers: Recognizers
  #logins = 0
  /** Number of occurrences of each warning. */
  readonly #warnings = new Map<string, number>()

  constructor(options: LoginSourcesOptions) {
    this.#options = options
    this.#recognizers = options.recognizers
  }

  /**
   * Uses other settings from now on. Sessions of two-line daemons that are under way are dropped.
   */
  reconfigure(recognizers: Recognizers): void {
    this.#recognizers = recognizers
  }

  /** A login announced on the socket. */
  acceptLogin(event: LoginEvent, answer: (answer: LoginAnswer) => void): void {
    const { counters, clock, queue } = this.#options
    counters.keepLastLine(clock(), `${event.daemon}: login of ${event.user} from ${event.ip}`, 'socket')
    // The grant of an event that waited for authd ends as if the event had not waited.
    const at = event.age === undefined ? {} : { at: clock() - event.age * 1000 }
    queue.submit({ event, source: 'socket', answer, ...at })
  }

  /**
   * A line from a syslogd. It may have waited in a queue: its stamp can make the login older, never
   * newer.
   */
  acceptLine(source: 'fifo' | 'tcp', text: string): void {
    const { counters, clock } = this.#options
    const now = clock()
    counters.lines[source] += 1
    counters.keepLastLine(now, text, source)
    this.#take({ source }, this.#recognizers.syslog.recognize(text, now))
  }

  /**
   * A line of a followed file, which may be old: as acceptLine. Returns true if a login is in
   * progress; `settled` is called only then.
   */
  acceptFileLine({ path, containers }: FileOfLines, text: string, settled: () => void): boolean {
    const { counters, clock } = this.#options
    const now = clock()
    counters.lines.file += 1
    counters.keepLastLine(now, text, 'file', path)
    const verdict = this.#recognizers.files.recognizeFileLine(text, containers, now)
    return this.#take({ source: 'file', path }, verdict, settled)
  }

  /** An entry of the journal. As acceptFileLine. */
  acceptJournalEntry({ line, uid, unit }: JournalEntry, settled: () => void): boolean {
    const { counters, clock } = this.#options
    counters.lines.journal += 1
    counters.keepLastLine(clock(), `${line.tag}: ${line.message}`, 'journal')
    const { syslog, otherSenders, senders } = this.#recognizers
    if ((uid !== undefined && senders.uids.has(uid)) || senders.units.has(unit)) {
      return this.#take({ source: 'journal' }, syslog.recognizeParsed(line, clock()), settled)
    }
    const verdict = otherSenders.recognizeParsed(line, clock())
    if (verdict.verdict === 'ignore') counters.countIgnored(verdict.tag)
    else {
      this.#drop({ source: 'journal' }, verdict, 'sender', {
        uid,
        unit: unit === '' ? undefined : unit,
        detail: 'the entry is of an account and a unit that do not count',
        remedy: 'if that is your mail daemon, add it to authd.journal_users or authd.journal_units',
      })
    }
    return false
  }

  #take(origin: Origin, verdict: Verdict, settled?: () => void): boolean {
    const { counters, queue, clock } = this.#options
    if (verdict.verdict === 'ignore') {
      counters.countIgnored(verdict.tag)
      return false
    }
    const age = clock() - verdict.at
    if (verdict.verdict === 'drop') {
      const { because, reason } = verdict
      this.#drop(origin, verdict, because, {
        detail: reason,
        remedy: because === 'expired' ? remedyForAge(age) : undefined,
      })
      return false
    }
    if (verdict.ahead > MAX_AHEAD_MS) this.#warnOfFuture(origin, verdict)
    const { ip, login, method, tls = false, daemon, at } = verdict
    this.#logins += 1
    const event: LoginEvent = {
      id: sessionId(process.pid, this.#logins),
      ip,
      daemon: daemon.slice(0, MAX_DAEMON),
      tls,
      method,
      user: [...login].slice(0, 255).join(''),
    }
    queue.submit({
      event,
      source: origin.source,
      ...(age < STAMP_GRAIN_MS ? {} : { at }),
      ...(settled === undefined ? {} : { settled }),
    })
    return true
  }

  #drop(origin: Origin, login: LineLogin, reason: DropReason, more: FieldsOf<'login_line_dropped'>): void {
    this.#options.counters.countDropped(origin.source, reason)
    if (this.#isDue(reason, origin))
      this.#options.log.warn('login_line_dropped', { ...this.#about(reason, origin, login), reason, ...more })
  }

  #warnOfFuture(origin: Origin, login: LineLogin): void {
    if (!this.#isDue('ahead', origin)) return
    this.#options.log.warn('stamp_ahead', {
      ...this.#about('ahead', origin, login),
      seconds: Math.round(login.ahead / 1000),
      reason: 'the stamp lies in the future, so a line that is delivered late counts as a login of now',
      remedy: 'set the same clock and time zone for the daemon and for authd, or log stamps with a zone (RFC 3339)',
    })
  }

  /**
   * True for 1, 10, 100, … warnings of a kind and an origin, so that a flood of lines does not
   * flood the log.
   */
  #isDue(kind: string, origin: Origin): boolean {
    const key = keyOf(kind, origin)
    const times = (this.#warnings.get(key) ?? 0) + 1
    this.#warnings.set(key, times)
    return /^10*$/.test(String(times))
  }

  #about(kind: string, origin: Origin, { ip, login: user, daemon, stamp }: LineLogin) {
    return { ...origin, times: this.#warnings.get(keyOf(kind, origin)), ip, user, daemon, stamp }
  }
}

const keyOf = (kind: string, { source, path }: Origin): string => `${kind} ${path ?? source}`

/** A login whose delay is a multiple of 15 minutes was most likely written in another time zone. */
function remedyForAge(age: number): string {
  const beside = age % ZONE_GRAIN_MS
  const looksLikeZone = age > ZONE_GRAIN_MS && Math.min(beside, ZONE_GRAIN_MS - beside) < MAX_AHEAD_MS
  return looksLikeZone
    ? 'the stamps look like another time zone: set the same one for the daemon and for authd, or log stamps with a zone (RFC 3339)'
    : 'the line waited in a queue or in the file; if this goes on, look at the queue of syslogd and at the time zone of the stamps'
}

/**
 * The recognizers for the settings: daemons, tags, hosts and senders. @throws UsageFault for
 * unknown ones.
 */
export function recognizersFor({ authd, grants }: Settings): Recognizers {
  const { options, faults } = recognizerOptions({ authd, grants })
  if (faults.length > 0) throw new UsageFault(faults)
  return {
    syslog: new LoginRecognizer(options),
    files: new LoginRecognizer({ ...options, ownFiles: true }),
    otherSenders: new LoginRecognizer(options),
    senders: {
      uids: authd.journal ? journalUids(authd.journal_users) : new Set([0]),
      units: new Set(authd.journal_units),
    },
  }
}

/**
 * Root and the listed accounts. An account of the default that this host does not have is left out.
 */
function journalUids(accounts: readonly string[]): ReadonlySet<number> {
  const usual: unknown = AUTHD.rows.journal_users.default
  const isUsual = (account: string): boolean => Array.isArray(usual) && usual.includes(account)
  const known = accounts.filter(account => !isUsual(account) || hasAccount(account))
  return new Set([0, ...known.map(account => idsOf(account, 'authd.journal_users').uid)])
}
