/** Lines of syslog, and of log files that Dovecot writes itself: their parts. */
import { BSD_STAMP, RFC3339_STAMP } from './stamp-time.ts'

/** Longest line that is parsed, in octets. POP3 daemons write no longer lines. */
export const MAX_SYSLOG_LINE = 8192

/** The parts of a line of syslog, or of a daemon's own log file. */
export type SyslogLine = {
  /**
   * `bsd`: RFC 3164. `rfc3339`: the same with a stamp of RFC 3339. `rfc5424`: RFC 5424. `file`: a
   * log file that Dovecot writes itself, or that a container runtime writes for Dovecot. `journal`:
   * an entry of the systemd journal.
   */
  readonly form: 'bsd' | 'rfc3339' | 'rfc5424' | 'file' | 'journal'
  /** The stamp as written. Any process that can write to the log socket can choose it. */
  readonly stamp: string
  /** The sending host; empty for the form `file`. */
  readonly host: string
  readonly tag: string
  /** Process id; empty if the line has none. */
  readonly pid: string
  /** The text after `TAG[PID]: `. A dialect gets no other text of the line. */
  readonly message: string
}

/** Why a text is not a line with a message, and the invalid part of the text. */
export type UnreadableLine = { readonly unreadable: string; readonly near?: string }

/** The whole match, and up to seven parts in parentheses; '' for a part that is absent. */
type Parts = readonly [string, string, string, string, string, string, string, string]

/** The parts of one match of a pattern. */
export function partsOf(match: RegExpExecArray): Parts {
  const [whole, a = '', b = '', c = '', d = '', e = '', f = '', g = ''] = match
  return [whole, a, b, c, d, e, f, g]
}

/** The parts of a text that has the form of the pattern; undefined for another text. */
export function readParts(pattern: RegExp, text: string): Parts | undefined {
  const match = pattern.exec(text)
  return match === null ? undefined : partsOf(match)
}

// A host name does not end with a colon. In a line without a host the first word is `TAG:`. It must
// not pass for a host, because the text of a client behind it would then pass for a tag.
const HOST = '[A-Za-z0-9._:%@/-]{0,254}[A-Za-z0-9._%@/-]'
const PREFIX = String.raw`^(?:<(\d{1,3})>)?(?:(${BSD_STAMP})|(${RFC3339_STAMP})) (?:<[\w.]{1,20}> )?(${HOST}) `

const BSD = new RegExp(String.raw`${PREFIX}([A-Za-z0-9_./-]{1,48})(?:\[(\d{1,10})\])?: (.*)$`, 's')
const REPEATED = new RegExp(String.raw`${PREFIX}last message repeated \d{1,9} times?$`)
const RFC5424 = new RegExp(
  String.raw`^<(\d{1,3})>1 (-|${RFC3339_STAMP}) (-|[!-~]{1,255}) (-|[!-~]{1,48}) (-|[!-~]{1,128}) (?:-|[!-~]{1,32}) ` +
    String.raw`(?:-|(?:\[(?:[^\]"\\]|\\.|"(?:[^"\\]|\\.)*")*\])+)(?: \uFEFF?(.*))?$`,
  's',
)
const RFC5424_WITHOUT_PRI = /^1 (?:-|\d{4}-\d\d-\d\dT)/
const SOLARIS_ID = /^\[ID \d{1,10} [a-z0-9]{1,16}\.[a-z]{1,16}\] /

/**
 * Lines of a file that Dovecot writes itself, in the order of 2.x, 1.2 and 1.0. The stamp may have
 * a year, a zone and fractions.
 */
const DOVECOT_STAMP = String.raw`${BSD_STAMP}|\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?`
const DOVECOT_FILE = new RegExp(
  `^(?:dovecot: )?(${DOVECOT_STAMP}) (?:((?:pop3|imap)-login): Info|Info: ((?:pop3|imap)-login)): (.*)$`,
  's',
)
/** The same file: lines of services without logins. */
const DOVECOT_OTHER = new RegExp(
  `^(?:dovecot: )?(?:${DOVECOT_STAMP}) [^ :]{1,200}: (?:Debug|Info|Warning|Error|Fatal|Panic): `,
)

/** Patterns of the parts at the beginning of a syslog line, to name a missing part. */
const PRI_PIECE = /^(?:<\d{1,3}>)?/
const STAMP_PIECE = new RegExp(`^(?:${BSD_STAMP}|${RFC3339_STAMP})(?: |$)`)
const HOST_PIECE = new RegExp(String.raw`^(?:<[\w.]{1,20}> )?${HOST}(?: |$)`)
const RFC5424_PIECE = /^(?:<\d{1,3}>)?1 (?:-|\d{4}-\d\d-\d\dT\S*) /
const MAX_NEAR = 40

/**
 * Parses one line of syslog without its LF, from a file, a FIFO or a TCP listener. Returns the
 * reason for a line of no known form. Never throws.
 */
export function parseSyslogLine(line: string): SyslogLine | UnreadableLine {
  if (line === '') return { unreadable: 'empty line' }
  if (line.length * 3 > MAX_SYSLOG_LINE && Buffer.byteLength(line) > MAX_SYSLOG_LINE) {
    return { unreadable: `longer than ${MAX_SYSLOG_LINE} octets` }
  }
  const bsd = readParts(BSD, line)
  if (bsd !== undefined) {
    const [, pri, stamp, isoStamp, host, tag, pid, message] = bsd
    if (!isPriority(pri)) return { unreadable: 'priority above 191' }
    return {
      form: stamp === '' ? 'rfc3339' : 'bsd',
      stamp: stamp + isoStamp,
      host,
      tag: baseName(tag),
      pid,
      message: message.replace(SOLARIS_ID, ''),
    }
  }
  return parseRfc5424(line) ?? (REPEATED.test(line) ? { unreadable: 'repeat line' } : missingPart(line))
}

/** The first missing part of a syslog line, and the text in its place. */
function missingPart(line: string): UnreadableLine {
  const unreadable = (missing: string, rest: string): UnreadableLine => ({
    unreadable: `not a syslog line: ${missing}`,
    near: rest.slice(0, MAX_NEAR),
  })
  if (parseOwnFileLine(line) !== undefined) return { unreadable: "Dovecot's own log file: only follow_files reads it" }
  if (DOVECOT_OTHER.test(line)) return { unreadable: "Dovecot's own log file: not of a login service" }
  if (RFC5424_PIECE.test(line))
    return unreadable('no header of RFC 5424 after its stamp', line.replace(RFC5424_PIECE, ''))
  const stamped = line.replace(PRI_PIECE, '')
  if (!STAMP_PIECE.test(stamped)) return unreadable('no known time stamp', stamped)
  const named = stamped.replace(STAMP_PIECE, '')
  if (!HOST_PIECE.test(named)) return unreadable('no host name after the stamp', named)
  return unreadable('no tag (NAME: or NAME[PID]:) after the host name', named.replace(HOST_PIECE, ''))
}

/**
 * Parses one line of a file that Dovecot writes itself (`log_path`). The line has no host and gets
 * the tag `dovecot`. Undefined for another line. Use this only for files that no other program
 * writes, because the line names no program.
 */
export function parseOwnFileLine(line: string): SyslogLine | undefined {
  const parts = readParts(DOVECOT_FILE, line)
  if (parts === undefined || line.length > MAX_SYSLOG_LINE) return undefined
  const [, stamp, service, oldService, text] = parts
  return { form: 'file', stamp, host: '', tag: 'dovecot', pid: '', message: `${service}${oldService}: ${text}` }
}

function parseRfc5424(line: string): SyslogLine | UnreadableLine | undefined {
  const parts = readParts(RFC5424, RFC5424_WITHOUT_PRI.test(line) ? `<22>${line}` : line)
  if (parts === undefined) return undefined
  const [, pri, stamp, host, app, pid, text] = parts
  if (!isPriority(pri)) return { unreadable: 'priority above 191' }
  if (app === '-') return { unreadable: 'no program name' }
  // In this form rsyslog forwards the space between `TAG:` and the text as the first character of
  // MSG.
  const message = text.startsWith(' ') ? text.slice(1) : text
  return { form: 'rfc5424', stamp, host, tag: baseName(app), pid: pid === '-' ? '' : pid, message }
}

/** Of a line without a priority the text is empty, which counts as 0. */
const isPriority = (pri: string): boolean => Number(pri) <= 191

/** `/usr/sbin/ipop3d` is `ipop3d`; `cyrus/pop3` is a complete tag. */
const baseName = (tag: string): string => (tag.startsWith('/') ? tag.slice(tag.lastIndexOf('/') + 1) : tag)
