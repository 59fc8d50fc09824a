/** Finding the logins in log lines (spec/syslog.md §5). */
import { BoundedMap } from '../base/bounded-map.ts'
import type { Fault } from '../base/errors.ts'
import { type IpAddress, parseIpAddress } from '../wire/ip-address.ts'
import type { LoginMethod } from '../wire/login-event.ts'
import type { ContainerLines } from './container-lines.ts'
import type { Dialect, DialectFields } from './dialect.ts'
import { DIALECTS } from './dialects.ts'
import { stampTime } from './stamp-time.ts'
import { parseOwnFileLine, parseSyslogLine, type SyslogLine } from './syslog-line.ts'

/** A login of a line. */
export type LineLogin = {
  readonly dialect: string
  /** The tag of the line, e.g. `ipop3d`. */
  readonly daemon: string
  readonly ip: IpAddress
  readonly login: string
  readonly method: LoginMethod
  /** Present if the line contains it. */
  readonly tls?: boolean
  readonly form: SyslogLine['form']
  /** The stamp of the line as written. */
  readonly stamp: string
  /** Time of the login in milliseconds since 1970: that of the stamp, but never later than now. */
  readonly at: number
  /** Milliseconds from now to a stamp in the future: the sender's clock or time zone is wrong. */
  readonly ahead: number
}

/** Reasons for which a login of a line grants nothing. `sender` is a reason of the journal. */
export const DROP_REASONS = ['expired', 'no_time', 'cut_name', 'sender'] as const
export type DropReason = (typeof DROP_REASONS)[number]

/**
 * The result for a log line. `drop`: a login that must not be granted; `reason` is for people.
 * `ignore`: no login, with the tag if the line has one, and with the invalid text in `near`.
 */
export type Verdict =
  | (LineLogin & { readonly verdict: 'grant' })
  | (LineLogin & { readonly verdict: 'drop'; readonly because: DropReason; readonly reason: string })
  | { readonly verdict: 'ignore'; readonly reason: string; readonly tag?: string; readonly near?: string }

/** Which lines count as logins. */
export type RecognizerOptions = {
  readonly dialects: readonly Dialect[]
  /** Tags that replace those of a dialect, by its name: `{ vchkpw: ['vpopmail', 'vpop'] }`. */
  readonly tags?: Readonly<Record<string, readonly string[]>>
  /** Also accept IMAP logins of the dialects (`check_imap`). */
  readonly imap?: boolean
  /** Only accept lines of these hosts (`syslog_hosts`). Empty: of all hosts. */
  readonly hosts?: readonly string[]
  /** Age in milliseconds, by the stamp, from which a login is dropped. Undefined: no limit. */
  readonly maxAge?: number
  /** Also accept the format of log files that a daemon writes itself. Only for such files. */
  readonly ownFiles?: boolean
}

const CONTROL = /[\0-\x1f\x7f]/
const REPEAT = /^message repeated \d{1,9} times: \[ ?(.*)\]$/s
/** Pairs of host and tag whose last login is kept for repeat lines. The oldest is dropped first. */
const MAX_LAST = 256

/**
 * Finds the logins in log lines, by the rules of spec/syslog.md §5. The tag selects the dialects.
 * The whole message must match, and the address comes from its own field. In doubt, the line is
 * ignored. The only state is the sessions of two-line daemons and the last login of each tag.
 */
export class LoginRecognizer {
  readonly #byTag = new Map<string, Dialect[]>()
  readonly #offByTag = new Map<string, string>()
  readonly #hosts: ReadonlySet<string>
  readonly #imap: boolean
  readonly #maxAge: number | undefined
  readonly #ownFiles: boolean
  readonly #sessions = new SessionJoin()
  /** The last line of each host and tag, if it was a login. */
  readonly #last = new BoundedMap<string, SyslogLine>(MAX_LAST)

  constructor({ dialects, tags = {}, imap = false, hosts = [], maxAge, ownFiles = false }: RecognizerOptions) {
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
    this.#maxAge = maxAge
    this.#ownFiles = ownFiles
  }

  /** The verdict on one line without its LF. `now`: the time of reading, in milliseconds. */
  recognize(text: string, now: number): Verdict {
    const line = (this.#ownFiles ? parseOwnFileLine(text) : undefined) ?? parseSyslogLine(text)
    if (!('unreadable' in line)) return this.recognizeParsed(line, now)
    const { unreadable: reason, near } = line
    return near === undefined ? { verdict: 'ignore', reason } : { verdict: 'ignore', reason, near }
  }

  /**
   * Like `recognize`, for a line of a log file. If a container runtime writes the file, the stamp
   * of the runtime counts. `containers` is the state of this file.
   */
  recognizeFileLine(text: string, containers: ContainerLines, now: number): Verdict {
    const inner = containers.unwrap(text)
    if (inner === undefined) return this.recognize(text, now)
    if (inner === 'piece') return { verdict: 'ignore', reason: 'a piece of a line of a container' }
    const line = parseOwnFileLine(inner.text) ?? parseSyslogLine(inner.text)
    if ('unreadable' in line) return { verdict: 'ignore', reason: `in a container: ${line.unreadable}` }
    return this.recognizeParsed({ ...line, stamp: inner.stamp }, now)
  }

  /** Like `recognize`, for a line in parts: an entry of the journal. */
  recognizeParsed(line: SyslogLine, now: number): Verdict {
    const dialects = this.#byTag.get(line.tag)
    if (dialects === undefined) return ignore(this.#unknownTag(line.tag), line.tag)
    const doubt = this.#doubt(line)
    if (doubt !== undefined) return ignore(doubt, line.tag)
    const repeated = REPEAT.exec(line.message)?.[1]
    return repeated === undefined ? this.#first(line, dialects, now) : this.#repeat(line, repeated, dialects, now)
  }

  #first(line: SyslogLine, dialects: readonly Dialect[], now: number): Verdict {
    const verdict = this.#read(line, dialects, now)
    const key = lastKey(line)
    if (verdict.verdict === 'grant') this.#last.renew(key, line)
    else this.#last.delete(key)
    return verdict
  }

  /**
   * The verdict on a line "message repeated 3 times: [ … ]", which syslogd writes for equal lines.
   * The line is a login only directly after the login that it repeats, with the same host, tag, PID
   * and text. So it can renew a grant, but open no new one.
   */
  #repeat(line: SyslogLine, text: string, dialects: readonly Dialect[], now: number): Verdict {
    const last = this.#last.get(lastKey(line))
    if (last === undefined || last.pid !== line.pid || last.message !== text) {
      return ignore('repeat line of no login', line.tag)
    }
    const before = this.#read(last, dialects, now)
    return before.verdict === 'grant' ? this.#read({ ...line, message: text }, dialects, now) : before
  }

  #read(line: SyslogLine, dialects: readonly Dialect[], now: number): Verdict {
    let verdict: Verdict | undefined
    for (const dialect of dialects) {
      const fields = dialect.read(line.message, line.tag)
      if (fields === undefined) continue
      verdict = this.#verdictOf(fields, dialect, line, now)
      if (verdict.verdict !== 'ignore') return verdict
    }
    return verdict ?? ignore(`not a login line of ${dialects.map(({ name }) => name).join(', ')}`, line.tag)
  }

  #unknownTag(tag: string): string {
    const settings = this.#offByTag.get(tag)
    return settings === undefined ? `tag ${tag} is no known daemon's` : `tag ${tag}: ${settings} is off`
  }

  #doubt({ host, form, message }: SyslogLine): string | undefined {
    if (CONTROL.test(message)) return 'control character in the message'
    const isOfHost = form === 'file' || this.#hosts.size === 0 || this.#hosts.has(host.toLowerCase())
    return isOfHost ? undefined : 'host is not in syslog_hosts'
  }

  #verdictOf(fields: DialectFields, dialect: Dialect, line: SyslogLine, now: number): Verdict {
    const { host, tag, pid } = line
    const process = `${host} ${tag} ${pid}`
    switch (fields.kind) {
      case 'session': {
        const ip = parseIpAddress(fields.address)
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
        return this.#login({ ...fields, ip }, dialect, line, now)
      }
      case 'login': {
        const ip = parseIpAddress(fields.address)
        if (ip === undefined) return ignore('address is not a numeric address', tag)
        return this.#login({ ...fields, ip }, dialect, line, now)
      }
    }
  }

  #login(fields: LoginFields, dialect: Dialect, { form, tag, stamp }: SyslogLine, now: number): Verdict {
    const { ip, login, imap = false, method = 'pass', tls, cut = false } = fields
    if (imap && !this.#imap) return ignore('IMAP login: check_imap is off', tag)
    // In RFC 5424 the stamp `-` means "no stamp". A live source delivers lines at once, so that now
    // is the time of the login. A line of a file may be of any age.
    const written = stamp === '-' && !this.#ownFiles ? now : stampTime(stamp, now)
    const at = Math.min(written ?? now, now)
    const ahead = Math.max((written ?? now) - now, 0)
    const facts = { dialect: dialect.name, daemon: tag, ip, login, method, form, stamp, at, ahead }
    const found: LineLogin = tls === undefined ? facts : { ...facts, tls }
    const drop = (because: DropReason, reason: string): Verdict => ({ ...found, verdict: 'drop', because, reason })
    if (cut || Buffer.byteLength(login) >= dialect.longestLogin) {
      return drop('cut_name', 'the login may be cut, so it cannot be compared with the blocked logins')
    }
    if (written === undefined) return drop('no_time', 'the stamp names no time')
    if (this.#maxAge !== undefined && now - at >= this.#maxAge) {
      return drop('expired', `the login is ${formatAge(now - at)} old, its grant would have ended`)
    }
    return { ...found, verdict: 'grant' }
  }
}

/** The fields of a login whose address is known. */
type LoginFields = {
  readonly ip: IpAddress
  readonly login: string
  readonly imap?: boolean
  readonly tls?: boolean
  readonly method?: LoginMethod
  readonly cut?: boolean
}

const lastKey = ({ host, tag }: SyslogLine): string => `${host} ${tag}`

const ignore = (reason: string, tag: string): Verdict => ({ verdict: 'ignore', reason, tag })

/** `45 min`, `3 h`, `12 d`: one unit, for people. */
function formatAge(milliseconds: number): string {
  const minutes = Math.floor(milliseconds / 60_000)
  if (minutes < 120) return `${minutes} min`
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1440)} d`
}

/** Sessions that are kept. The oldest is dropped first. */
const MAX_SESSIONS = 4096
/** Longest time from a session line to its login line. */
const SESSION_LIFE_MS = 120_000

/**
 * Joins the address and the login of daemons that log them in two lines, by host, tag and PID
 * (spec/syslog.md §7).
 */
class SessionJoin {
  readonly #sessions = new BoundedMap<string, { readonly ip: IpAddress; readonly at: number }>(MAX_SESSIONS)

  /** Keeps the address of a new session. It replaces an older session of the same process. */
  begin(process: string, ip: IpAddress, now: number): void {
    this.#sessions.renew(process, { ip, at: now })
  }

  /** Removes the session of this process, and returns its address if the session is recent. */
  take(process: string, now: number): IpAddress | undefined {
    const session = this.#sessions.get(process)
    this.#sessions.delete(process)
    // If the clock was set back, the age is unknown.
    if (session === undefined || now < session.at || now - session.at > SESSION_LIFE_MS) return undefined
    return session.ip
  }
}

/** The settings that decide which log lines count as logins. Times are in seconds. */
export type LineSettings = {
  readonly authd: {
    readonly check_imap: boolean
    readonly syslog_hosts: readonly string[]
    readonly max_lag: number
    readonly vchkpw_tag: string
    readonly daemon_tags: readonly string[]
  }
  readonly grants: { readonly exp_time: number }
}

/**
 * The options of a recognizer by the settings, and the faults in these settings. authd, `test-line`
 * and `replay` all use this function, so that they find the same logins.
 */
export function recognizerOptions({ authd, grants }: LineSettings): {
  readonly options: RecognizerOptions & { readonly maxAge: number }
  readonly faults: readonly Fault[]
} {
  const { tags, faults } = tagsOf(authd)
  const maxAge = authd.max_lag === 0 ? grants.exp_time : Math.min(authd.max_lag, grants.exp_time)
  return {
    options: {
      dialects: DIALECTS.filter(({ setting }) => Reflect.get(authd, setting) === true),
      tags,
      imap: authd.check_imap,
      hosts: authd.syslog_hosts,
      maxAge: maxAge * 1000,
    },
    faults,
  }
}

function tagsOf({ vchkpw_tag, daemon_tags }: LineSettings['authd']) {
  const tags = new Map<string, string[]>([['vchkpw', [vchkpw_tag]]])
  const faults: Fault[] = []
  for (const pair of daemon_tags) {
    const [, name = '', tag = ''] = /^([a-z0-9-]+)=([A-Za-z0-9_./-]{1,32})$/.exec(pair) ?? []
    if (DIALECTS.some(dialect => dialect.name === name)) tags.set(name, [...(tags.get(name) ?? []), tag])
    else {
      const known = DIALECTS.map(dialect => dialect.name).join(', ')
      faults.push({
        setting: 'authd.daemon_tags',
        fact: `${JSON.stringify(pair)} is not a dialect with a tag`,
        remedy: `write DIALECT=TAG with one of ${known}`,
      })
    }
  }
  return { tags: Object.fromEntries(tags), faults }
}
