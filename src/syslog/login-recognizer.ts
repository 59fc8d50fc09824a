import { type IpAddress, parseIpAddress } from '../wire/ip-address.ts'
import type { LoginMethod } from '../wire/login-event.ts'
import type { Dialect, Heard } from './dialect.ts'
import { DIALECTS } from './dialects.ts'
import { SessionJoin } from './session-join.ts'
import { parseOwnFileLine, parseSyslogLine, type SyslogLine } from './syslog-line.ts'

/** What a line of a log proves. `ignore` carries the tag when the line had one. */
export type Verdict =
  | {
      readonly verdict: 'grant'
      readonly dialect: string
      /** The tag of the line, e.g. `ipop3d`. */
      readonly daemon: string
      readonly ip: IpAddress
      readonly login: string
      readonly method: LoginMethod
      /** Present where the line says it. */
      readonly tls?: boolean
      /** The stamp of the line as written: never believed for a grant, but it can show that a line is old. */
      readonly stamp: string
    }
  | { readonly verdict: 'ignore'; readonly reason: string; readonly tag?: string }

/** What is believed. Nothing is, by default. */
export type RecognizerOptions = {
  readonly dialects: readonly Dialect[]
  /** Tags in place of a dialect's own, by its name: `{ vchkpw: ['vpopmail', 'vpop'] }`. */
  readonly tags?: Readonly<Record<string, readonly string[]>>
  /** Also believe IMAP logins of the dialects (`check_imap`). */
  readonly imap?: boolean
  /** Only believe lines of these hosts; empty: of any (`syslog_hosts`). */
  readonly hosts?: readonly string[]
  /** Drop lines whose stamp has a date and is older than this, in milliseconds; 0: never (`max_lag`). */
  readonly maxLag?: number
  /** Also read the lines of log files that a daemon writes itself. Only for such files. */
  readonly ownFiles?: boolean
}

const CONTROL = /[\0-\x1f\x7f]/

/**
 * Reads log lines and finds the logins in them. Holds no state but the session lines of two-line daemons. The rules of
 * spec/syslog.md §5: tag first, then the whole message, the address from its fixed field; on doubt ignore.
 */
export class LoginRecognizer {
  readonly #byTag = new Map<string, Dialect[]>()
  readonly #offByTag = new Map<string, string>()
  readonly #hosts: ReadonlySet<string>
  readonly #imap: boolean
  readonly #maxLag: number
  readonly #ownFiles: boolean
  readonly #sessions = new SessionJoin()

  constructor({ dialects, tags = {}, imap = false, hosts = [], maxLag = 0, ownFiles = false }: RecognizerOptions) {
    for (const dialect of dialects) {
      for (const tag of tags[dialect.name] ?? dialect.tags) {
        const sharers = this.#byTag.get(tag) ?? []
        this.#byTag.set(tag, [...sharers, dialect])
      }
    }
    for (const dialect of DIALECTS) {
      for (const tag of dialect.tags) {
        const others = this.#offByTag.get(tag)
        this.#offByTag.set(tag, others === undefined ? dialect.setting : `${others}, ${dialect.setting}`)
      }
    }
    this.#hosts = new Set(hosts.map(host => host.toLowerCase()))
    this.#imap = imap
    this.#maxLag = maxLag
    this.#ownFiles = ownFiles
  }

  /** The verdict on one line, given without its LF. `now`: milliseconds, for the join of two lines and for `max_lag`. */
  recognize(text: string, now: number): Verdict {
    const line = (this.#ownFiles ? parseOwnFileLine(text) : undefined) ?? parseSyslogLine(text)
    return 'unreadable' in line ? ignore(line.unreadable) : this.recognizeParsed(line, now)
  }

  /** As `recognize`, for a line that came apart already: an entry of the journal. */
  recognizeParsed(line: SyslogLine, now: number): Verdict {
    const dialects = this.#byTag.get(line.tag)
    if (dialects === undefined) return ignore(this.#unknownTag(line.tag), line.tag)
    const doubt = this.#doubt(line, now)
    if (doubt !== undefined) return ignore(doubt, line.tag)
    let verdict: Verdict | undefined
    for (const dialect of dialects) {
      const heard = dialect.read(line.message, line.tag)
      if (heard === undefined) continue
      verdict = this.#judge(heard, dialect, line, now)
      if (verdict.verdict === 'grant') return verdict
    }
    return verdict ?? ignore(`not a login line of ${dialects.map(({ name }) => name).join(', ')}`, line.tag)
  }

  #unknownTag(tag: string): string {
    const settings = this.#offByTag.get(tag)
    return settings === undefined ? `tag ${tag} is no known daemon's` : `tag ${tag}: ${settings} is off`
  }

  #doubt({ host, form, message, stamp }: SyslogLine, now: number): string | undefined {
    if (message.startsWith('message repeated ')) return 'repeat line'
    if (CONTROL.test(message)) return 'control character in the message'
    if (form === 'file') return undefined
    if (this.#hosts.size > 0 && !this.#hosts.has(host.toLowerCase())) return 'host is not in syslog_hosts'
    if (this.#maxLag > 0 && form.startsWith('rfc') && now - Date.parse(stamp) > this.#maxLag)
      return 'stamp is older than max_lag'
    return undefined
  }

  #judge(heard: Heard, dialect: Dialect, line: SyslogLine, now: number): Verdict {
    const { host, tag, pid, stamp } = line
    const process = `${host} ${tag} ${pid}`
    switch (heard.kind) {
      case 'session': {
        const ip = parseIpAddress(heard.address)
        if (pid === '') return ignore('session line without PID', tag)
        this.#sessions.take(process, now)
        if (ip === undefined) return ignore('address is not a numeric address', tag)
        this.#sessions.begin(process, ip, now)
        return ignore('session line: its login line may follow', tag)
      }
      case 'failure':
        this.#sessions.take(process, now)
        return ignore('failed login', tag)
      case 'success': {
        const ip = this.#sessions.take(process, now)
        if (ip === undefined) return ignore('login line without its session line', tag)
        if (heard.imap === true && !this.#imap) return ignore('IMAP login: check_imap is off', tag)
        const { login, method = 'pass' } = heard
        return { verdict: 'grant', dialect: dialect.name, daemon: tag, ip, login, method, stamp }
      }
      case 'login': {
        const ip = parseIpAddress(heard.address)
        if (ip === undefined) return ignore('address is not a numeric address', tag)
        if (heard.imap === true && !this.#imap) return ignore('IMAP login: check_imap is off', tag)
        const { login, method = 'pass', tls } = heard
        const grant: Verdict = { verdict: 'grant', dialect: dialect.name, daemon: tag, ip, login, method, stamp }
        return tls === undefined ? grant : { ...grant, tls }
      }
    }
  }
}

const ignore = (reason: string, tag?: string): Verdict =>
  tag === undefined ? { verdict: 'ignore', reason } : { verdict: 'ignore', reason, tag }
