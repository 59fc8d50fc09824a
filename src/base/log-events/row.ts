/** One row of the table of log events, and the meaning of each field. */

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

/**
 * Fields that are true or false. The log writes `1` or `0`, as every other format of auth-relay
 * does (docs/WIRE.md).
 */
export const FLAG_FIELDS = ['front', 'pooled', 'relay', 'tls'] as const

/** Meaning of each field, the same in every event. */
export const LOG_FIELDS = {
  address: 'address that a socket unit opened',
  after_ms: 'milliseconds that the program had to stop',
  alpn: 'application protocol that the client requested',
  bad_announcements: 'number of announcements that could not be parsed',
  block_seconds: 'seconds for which a block holds',
  by: 'way to report an alarm: `mail`, `webhook`, `program`',
  capacity: 'size of the FIFO buffer in octets',
  cipher: 'TLS cipher',
  code: 'SMTP reply code',
  commit_failures: 'number of commits that failed',
  commits: 'number of commits',
  committed: 'number of logins that were stored',
  config: 'settings file',
  connections: 'number of open connections, and the limit where it is known',
  count: 'number of lines, logins or events that the line stands for',
  daemon: 'program that accepted the login, e.g. popup, dovecot',
  days: 'days until the certificate ends; negative after its end',
  deleted: 'number of messages that the session deleted',
  detail: 'more about the reason, as text',
  device: 'name of the device that the settings of the grant belong to',
  directory: 'directory that the event is about',
  dropped: 'number of logins that were dropped',
  dropped_cut_name: 'number of logins whose name the daemon cut',
  dropped_expired: 'number of logins that were too old',
  dropped_no_time: 'number of logins without a time',
  dropped_sender: 'number of logins of accounts that are not trusted',
  engine: 'socket engine, `node` or `epoll`',
  example: 'one of the files',
  expires: 'end of the certificate',
  failures: 'number of files that could not be removed',
  fifo_full: 'number of times that the FIFO was full',
  file: 'name of a message file',
  first: 'side that ended the connection first',
  foreign_peers: 'number of connections of accounts that are not permitted',
  from: 'schema before',
  front: 'whether the gate reads SMTP before the smtpd',
  future: 'number of files whose time lies in the future',
  gate_never: 'number of clients that can never be granted',
  gate_refused: 'number of clients without a grant',
  gate_relayed: 'number of clients that may relay',
  gate_undecided: 'number of clients for which the database gave no answer',
  gid: 'group id',
  grant: 'result for the grant: `committed`, `queued` or `refused`',
  grant_ms: 'milliseconds for which the reply to PASS waited for the grant',
  grants: 'number of grants',
  helo: 'name that the client sent in HELO or EHLO',
  host: 'host name',
  id: 'session id, the same in every program that the session passes',
  ignored: 'number of log lines that prove no login, by tag',
  in: 'octets from the client',
  in_ms: 'milliseconds until the next try',
  ip: 'address of the client',
  kept: 'number of logins that wait in memory',
  last: 'last line that the program wrote',
  left: 'number of starters that still run',
  line: 'text of a line that was read',
  line_number: 'number of a line in the file, from 1',
  lines: 'number of lines',
  listen: 'address that the program listens on',
  listener: 'name of the listener in the settings',
  maildrop: 'directory of the maildrop',
  messages: 'number of messages in the maildrop',
  method: 'how the client proved the login: `pass`, `apop`, `sasl`',
  ms: 'milliseconds that the session lasted',
  names: 'names in the certificate',
  networks: 'networks that the listener is open to',
  number: 'number of the message in the session',
  octets: 'size in octets',
  offset: 'position in the file, in octets',
  out: 'octets to the client',
  overlong: 'number of lines that were too long',
  owner: 'account of the maildrop',
  path: 'file or socket',
  pid: 'process id',
  pooled: 'whether a connection pooler stands before the database',
  port: 'TCP port of the client',
  program: 'program that the line is about',
  programs: 'programs that the stack runs',
  programs_changed: 'programs that the new settings add or remove, which needs a restart',
  proxy: 'address of the proxy that forwarded the connection',
  queue_id: 'queue id that the mail server gave the mail',
  queued: 'number of logins that were queued',
  reason: 'cause of the event',
  recipient: 'recipient of the mail',
  refused: 'number of logins that were refused',
  registration: 'number of a descriptor at the kernel, which its events carry',
  relay: 'whether the client may relay',
  remedy: 'action that removes the cause',
  replaced: 'number of logins that a newer one of the same address replaced',
  restart_for: 'settings that take effect at the next start',
  retrieved: 'number of messages that the session retrieved',
  rows: 'number of rows that the query gave',
  rule: 'rule of an alarm',
  seconds: 'seconds by which a stamp lies in the future',
  sender: 'sender of the mail',
  service: 'service that answered: `policy`, `socketmap`, `query`, `front`, `cdb`; a socket for local services',
  sessions: 'number of open sessions',
  setting: 'name of the setting',
  signal: 'signal that the process got',
  sni: 'server name that the client requested',
  source: 'login source: `socket`, `fifo`, `tcp`, `file`, `journal`',
  stamp: 'time stamp of the log line, as written',
  state: 'state of the connection to the database',
  subject: 'login, address, device or host that an alarm is about',
  status: 'exit status of a process',
  sweeps: 'number of sweeps',
  swept: 'number of expired grants that were removed',
  symbolic_links: 'number of symbolic links',
  tag: 'syslog tag',
  times: 'how often this happened; the line appears for 1, 10, 100, …',
  tls: 'whether the client used TLS',
  tls_version: 'version of TLS, e.g. TLSv1.3',
  to: 'schema after',
  trigger: 'cause of the reload: `signal` or `file`',
  uid: 'user id',
  unit: 'systemd unit of the sender',
  until: 'end of the grant',
  usage_events: 'number of usage events that gates reported',
  used: 'directory that is used',
  user: 'login name',
  value: 'value of a setting of PostgreSQL',
  waiting: 'number of logins that wait for the store',
  wanted: 'directory that the settings name',
} as const

type LogField = keyof typeof LOG_FIELDS

/**
 * Parts of programs whose lines all carry the same fields, in addition to those of the event
 * (`Log.with`).
 */
export const LOG_CONTEXTS = [
  { part: 'a session before login (popup)', fields: ['id'] },
  { part: 'a session after login (pop3d worker)', fields: ['id', 'user', 'ip'] },
  { part: 'pop3d behind a checkpassword program', fields: ['pid'] },
  { part: 'the start, the end and the restart of a program (`auth-relay up`)', fields: ['program'] },
] as const satisfies readonly { readonly part: string; readonly fields: readonly LogField[] }[]

/** Name of a field that all lines of a part of a program carry. */
export type LogContextField = (typeof LOG_CONTEXTS)[number]['fields'][number]

export type LogEventRow = {
  readonly levels: readonly LogLevel[]
  readonly fields: readonly LogField[]
  /** Every text of the field `reason`, if the texts are fixed. */
  readonly reasons?: readonly string[]
  /** Meaning of each of these texts, if the text alone does not give it. */
  readonly causes?: Readonly<Record<string, string>>
  readonly meaning: string
  /** The action that a warning or an error needs. */
  readonly action?: string
}

export type LogEventRows = Readonly<Record<string, LogEventRow>>
