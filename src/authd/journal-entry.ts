import type { SyslogLine } from '../syslog/syslog-line.ts'

/** An entry of the journal. Fields that begin with `_` are journald's own: a sender cannot choose them. */
export type JournalEntry = {
  /** The stamp is journald's time. The tag is the sender's: any local process can choose it. */
  readonly line: SyslogLine
  /** `_UID`: the account of the sender; undefined for an entry without a sender, e.g. the kernel's. */
  readonly uid: number | undefined
  /** `_SYSTEMD_UNIT`: the unit of the sender; empty if there is none. */
  readonly unit: string
  readonly cursor: string
}

/** One line of `journalctl -o json`; undefined if it is no entry. */
export function parseJournalEntry(text: string): JournalEntry | undefined {
  let entry: unknown
  try {
    entry = JSON.parse(text)
  } catch {
    return undefined // journalctl prints whole entries; half of one proves nothing
  }
  if (typeof entry !== 'object' || entry === null) return undefined
  const field = (name: string): string => {
    const value: unknown = Reflect.get(entry, name)
    return typeof value === 'string' ? value : ''
  }
  // The sender's kernel stamps a message when it is sent, journald when it is stored.
  const sent = Number(field('_SOURCE_REALTIME_TIMESTAMP'))
  const stored = Number(field('__REALTIME_TIMESTAMP'))
  const microseconds = sent > 0 ? Math.min(sent, stored) : stored
  const uid = field('_UID')
  const cursor = field('__CURSOR')
  if (!(microseconds > 0) || cursor === '') return undefined
  const at = Math.floor(microseconds / 1000)
  const line: SyslogLine = {
    form: 'journal',
    stamp: new Date(at).toISOString(),
    host: field('_HOSTNAME'),
    tag: field('SYSLOG_IDENTIFIER'),
    pid: field('SYSLOG_PID') || field('_PID'),
    message: field('MESSAGE'),
  }
  return { line, uid: /^\d{1,10}$/.test(uid) ? Number(uid) : undefined, unit: field('_SYSTEMD_UNIT'), cursor }
}
