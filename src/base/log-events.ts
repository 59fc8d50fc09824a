/**
 * Every event that a program of auth-relay logs: its name, levels, fields and meaning, and the
 * action that it needs.
 *
 * The log accepts only names, levels and fields of these tables (log.ts). docs/LOG-EVENTS.md is
 * generated from them by scripts/log-events.ts. A name is `object_participle`; the cause stands in
 * the field `reason`.
 *
 */

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

/** Meaning of each field, the same in every event. */
export const LOG_FIELDS = {
  address: 'address that a socket unit opened',
  after_ms: 'milliseconds that the program had to stop',
  alpn: 'application protocol that the client asked for',
  answer: 'SMTP reply code',
  bad_announcements: 'number of announcements that could not be parsed',
  capacity: 'size of the FIFO buffer in octets',
  cipher: 'TLS cipher',
  code: 'SMTP reply code of the mail server',
  commit_failures: 'number of commits that failed',
  commits: 'number of commits',
  committed: 'number of logins that were stored',
  config: 'settings file',
  connections: 'number of open connections, and the limit where it is known',
  count: 'number of lines or events that the line stands for',
  daemon: 'program that accepted the login, e.g. popup, dovecot',
  days: 'days until the certificate ends; negative after its end',
  deleted: 'number of messages that the session deleted',
  detail: 'more about the reason, as text',
  device: 'name of the device that the settings of the grant belong to',
  directory: 'directory',
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
  front: '`yes` if the gate reads SMTP before the smtpd',
  future: 'number of files whose time lies in the future',
  gate_never: 'number of clients that can never be granted',
  gate_refused: 'number of clients without a grant',
  gate_relayed: 'number of clients that may relay',
  gate_undecided: 'number of clients for which the database gave no answer',
  gid: 'group id',
  grant: 'result for the grant: `committed`, `queued` or `refused`',
  grants: 'number of grants',
  helo: 'name that the client sent in HELO or EHLO',
  hint: 'what to change on the client or in the settings',
  host: 'host name',
  id: 'session id, the same in every program that the session passes',
  ignored: 'number of log lines that prove no login, by tag',
  in: 'octets from the client',
  in_ms: 'milliseconds until the next try',
  ip: 'address of the client',
  kept: 'number of logins that wait in memory',
  last: 'last line that the program wrote',
  left: 'number of starters that still run',
  line: 'line that was read, or its number in the file',
  lines: 'number of lines',
  listen: 'address that the program listens on',
  listener: 'name of the listener in the settings',
  logins: 'number of logins',
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
  queue: 'number of logins that wait, or the queue id of the mail server',
  queued: 'number of logins that were queued',
  reason: 'cause',
  recipient: 'recipient of the mail',
  refused: 'number of logins that were refused',
  relay: 'whether the client may relay',
  remedy: 'remedy',
  replaced: 'number of logins that a newer one of the same address replaced',
  restart_for: 'settings that take effect at the next start',
  retrieved: 'number of messages that the session retrieved',
  rows: 'number of rows that the query gave',
  seconds: 'seconds',
  sender: 'sender of the mail',
  service: 'service that answered: `policy`, `socketmap`, `query`, `front`, `cdb`, or a socket',
  sessions: 'number of open sessions',
  setting: 'name of the setting',
  signal: 'signal that ended the process',
  sni: 'server name that the client asked for',
  source: 'login source: `socket`, `fifo`, `tcp`, `file`, `journal`',
  stamp: 'time stamp of the log line, as written',
  state: 'state',
  status: 'exit status, or open connections and their limit',
  sweeps: 'number of sweeps',
  swept: 'number of ended grants that were removed',
  symbolic_links: 'number of symbolic links',
  tag: 'syslog tag, or number of an event of the kernel',
  times: 'how often this happened; the line appears for 1, 10, 100, …',
  tls: 'whether the client used TLS, or the version of TLS',
  to: 'schema after, or the recipient',
  trigger: 'cause of the reload: `signal` or `file`',
  uid: 'user id',
  unit: 'systemd unit of the sender',
  until: 'end of the grant',
  used: 'directory that is used',
  user: 'login name',
  uses: 'number of used grants that gates reported',
  waiting: 'number of logins that wait for the store',
  wanted: 'directory that the settings name',
} as const

type LogEventRow = {
  readonly levels: readonly LogLevel[]
  readonly fields: readonly (keyof typeof LOG_FIELDS)[]
  readonly meaning: string
  /** The action that a warning or an error needs. */
  readonly action?: string
}
type LogEventRows = Readonly<Record<string, LogEventRow>>

const SEVERAL_PROGRAMS = {
  settings_reloaded: {
    levels: ['info'],
    fields: ['path', 'restart_for', 'trigger', 'programs_changed'],
    meaning: 'The program read its settings again and uses them.',
  },
  setting_unsafe: {
    levels: ['warn'],
    fields: ['setting', 'reason'],
    meaning: 'A setting that is meant for tests is in force.',
    action: 'Remove the setting, unless this host is a test.',
  },
  privileges_shared: {
    levels: ['warn'],
    fields: ['reason'],
    meaning: 'Processes that should run under different accounts run under one.',
    action: 'Start the program as root, or accept this on a host for tests and development.',
  },
  engine_selected: {
    levels: ['warn'],
    fields: ['setting', 'engine', 'reason'],
    meaning: 'The host lacks something that engine `epoll` needs, so the program uses engine `node`.',
    action: 'Set the engine to `node` to accept this, or provide what the reason names.',
  },
  engine_used: {
    levels: ['debug'],
    fields: ['setting', 'engine'],
    meaning: 'The process uses this engine for its connections.',
  },
  batch_unavailable: {
    levels: ['info'],
    fields: ['reason'],
    meaning: 'The kernel has no asynchronous I/O context left, so replies are sent one by one.',
  },
  event_unmatched: {
    levels: ['error'],
    fields: ['tag', 'reason'],
    meaning: 'The kernel reported an event for a descriptor that the program does not watch. The event is ignored.',
    action: 'Report a bug, with the lines before this one.',
  },
  descriptors_exhausted: {
    levels: ['error'],
    fields: ['reason', 'remedy'],
    meaning: 'The process has no file descriptor left. New clients are refused.',
    action: 'Raise `LimitNOFILE` (`ulimit -n`), or lower `max_connections`.',
  },
  descriptors_freed: {
    levels: ['info'],
    fields: [],
    meaning: 'The process has file descriptors again.',
  },
  socket_unused: {
    levels: ['warn'],
    fields: ['address', 'reason'],
    meaning: 'systemd passed a socket that no setting names.',
    action: 'Give the socket unit and the setting the same address, or disable the socket unit.',
  },
  inspector_opened: {
    levels: ['warn'],
    fields: ['reason'],
    meaning: 'The inspector of Node.js is open. Every account of this host can run code in the process.',
    action: 'Start the program without `--inspect` and without `NODE_OPTIONS`.',
  },
  connections_exhausted: {
    levels: ['warn'],
    fields: ['service', 'connections'],
    meaning: 'A local service has all the connections that it accepts. It closes the most silent one.',
    action: 'Look for a client that leaves connections open (`ss -xp`, `ss -tp`).',
  },
  request_refused: {
    levels: ['warn'],
    fields: ['service', 'reason'],
    meaning: 'A client of a local service sent a request that is too long or cannot be parsed.',
    action: 'Correct the configuration of the mail server, or stop the program that sends such requests.',
  },
  answer_failed: {
    levels: ['error'],
    fields: ['service', 'reason'],
    meaning: 'A local service could not answer a request. The relay stays closed for that request.',
    action: 'Look at the reason. If it names no cause outside of auth-relay, report a bug.',
  },
  connection_refused: {
    levels: ['warn'],
    fields: ['id', 'ip', 'reason', 'listener', 'connections'],
    meaning: 'A client got no connection because a limit is reached or because its network is not permitted.',
    action: 'Nothing for a single address. If many clients are refused, raise the setting that the reason names.',
  },
  connection_failed: {
    levels: ['error'],
    fields: ['id', 'ip', 'reason'],
    meaning: 'A connection could not be served.',
    action: 'Look at the reason. If it names no cause outside of auth-relay, report a bug.',
  },
  client_connected: {
    levels: ['debug', 'info'],
    fields: ['id', 'ip', 'port', 'proxy', 'tls', 'cipher', 'sni', 'alpn', 'listener'],
    meaning: 'A client connected.',
  },
  session_failed: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'A POP3 session ended because of a fault of the program or of the host.',
    action: 'Look at the reason. If it names no cause outside of auth-relay, report a bug.',
  },
  session_ended: {
    levels: ['debug', 'info'],
    fields: ['id', 'ip', 'reason', 'detail', 'first', 'in', 'out', 'ms', 'retrieved', 'deleted'],
    meaning: 'A session ended.',
  },
  tls_failed: {
    levels: ['info'],
    fields: ['ip', 'reason', 'hint', 'listener'],
    meaning: 'A TLS handshake failed. The hint names the remedy for a client that cannot do better.',
  },
  certificate_expiring: {
    levels: ['warn'],
    fields: ['path', 'days', 'expires'],
    meaning: 'The certificate ends within 14 days.',
    action: 'Renew the certificate. The program reads the new file at once.',
  },
  certificate_expired: {
    levels: ['error'],
    fields: ['path', 'days', 'expires'],
    meaning: 'The certificate has ended. Clients refuse it.',
    action: 'Renew the certificate. The program reads the new file at once.',
  },
  peer_refused: {
    levels: ['warn', 'error'],
    fields: ['reason'],
    meaning: 'A process of an account that is not permitted connected to a Unix socket.',
    action: 'Add the account to the setting that the reason names, or find the process.',
  },
  worker_ended: {
    levels: ['error'],
    fields: ['uid', 'pid', 'status', 'signal', 'reason', 'in_ms'],
    meaning: 'A worker process ended unexpectedly. Its sessions are lost, and another worker takes over.',
    action: 'Look at the lines of the worker before this one. If they name no cause, report a bug.',
  },
  worker_stopped: {
    levels: ['debug', 'info'],
    fields: ['uid', 'reason', 'sessions'],
    meaning: 'A pop3d worker stopped in order.',
  },
} as const satisfies LogEventRows

const POPUP_AND_POP3D = {
  login_accepted: {
    levels: ['info', 'warn'],
    fields: ['id', 'ip', 'user', 'method', 'tls', 'grant', 'until', 'reason'],
    meaning: 'A login is right. The field `grant` names the result. Level `warn`: the address is unknown.',
    action: 'For `ip=unknown`, let the program before popup set TCPREMOTEIP.',
  },
  login_failed: {
    levels: ['info'],
    fields: ['id', 'ip', 'user', 'method', 'tls', 'reason', 'detail'],
    meaning:
      'A login failed. Reason `badauth`: wrong name or password. `temp` and `crash`: the checker gave no answer.',
  },
  login_aborted: {
    levels: ['warn'],
    fields: ['id', 'ip', 'user', 'signal', 'detail'],
    meaning: 'The program behind the login ended before it answered the password.',
    action: 'Run the checker and its program by hand, and look at their messages.',
  },
  login_check_failed: {
    levels: ['error'],
    fields: ['id', 'reason'],
    meaning: 'A password check ended with a fault. The client got a temporary error.',
    action: 'Look at the reason. If it names no cause outside of auth-relay, report a bug.',
  },
  login_refused: {
    levels: ['warn'],
    fields: ['user', 'owner', 'reason'],
    meaning: 'A login or an owner has all the sessions that the settings permit.',
    action: 'Raise the setting that the reason names, or find the client that leaves sessions open.',
  },
  login_timed_out: {
    levels: ['info'],
    fields: ['ip', 'user'],
    meaning: 'A client did not log in within `login_time`.',
  },
  login_event_lost: {
    levels: ['error'],
    fields: ['id', 'ip', 'user'],
    meaning: 'A login was not announced to authd, because too many wait. The address is not granted.',
    action: 'Start authd, or look at its log.',
  },
  login_events_lost: {
    levels: ['error'],
    fields: ['count'],
    meaning: 'popup stopped while logins waited for authd. Their addresses are not granted.',
    action: 'Let the users log in again, and start authd before popup is stopped.',
  },
  authd_unreachable: {
    levels: ['warn'],
    fields: ['path', 'reason'],
    meaning: 'popup cannot reach authd. POP3 works, and logins wait in memory.',
    action: 'Start authd, or give popup and authd the same `socket`.',
  },
  authd_reconnected: {
    levels: ['info'],
    fields: ['kept'],
    meaning: 'popup reaches authd again and announces the logins that waited.',
  },
  authd_answer_unknown: {
    levels: ['warn'],
    fields: ['line'],
    meaning: 'authd sent an answer that popup does not know.',
    action: 'Install popup and authd of one version.',
  },
  client_handed_off: {
    levels: ['debug'],
    fields: [],
    meaning: 'The connection was passed to a pop3d worker.',
  },
  handoff_failed: {
    levels: ['debug'],
    fields: ['path', 'reason'],
    meaning: 'The connection to a pop3d worker broke. popup opens another one.',
  },
  handoff_reply_unknown: {
    levels: ['error'],
    fields: ['line'],
    meaning: 'A pop3d worker sent a message that popup does not know.',
    action: 'Restart popup, so that popup and its workers are of one version.',
  },
  maildrop_unreachable: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'A login is right, and the pop3d worker of its owner cannot be reached.',
    action: 'Look at the reason and at the lines of the worker.',
  },
  chain_reply_unexpected: {
    levels: ['warn'],
    fields: ['id', 'line'],
    meaning: 'The POP3 server behind the checker did not begin with `+OK`.',
    action: 'Run the checker and its program by hand. Let them write nothing else to the client.',
  },
  preamble_refused: {
    levels: ['warn'],
    fields: ['ip', 'reason'],
    meaning: 'A client sent the command `SSL` with a wrong password or without a numeric address.',
    action: 'Give popup and sslwrap the same `ssl_hack_pass`. From elsewhere the line is an attack, which failed.',
  },
  ssl_hack_pass_unusable: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'The file of `ssl_hack_pass` cannot be read, so the command `SSL` is refused.',
    action: 'Make the file readable for popup.',
  },
  proxy_refused: {
    levels: ['warn'],
    fields: ['id', 'ip', 'reason'],
    meaning: 'A connection with a PROXY header was refused.',
    action: 'Add the address of the proxy to `proxy_trust`, or correct the proxy as the reason says.',
  },
  proxy_header_refused: {
    levels: ['warn', 'debug'],
    fields: ['id', 'ip', 'reason'],
    meaning: 'A PROXY header came to a listener that expects none.',
    action: 'Let the proxy connect to an address of `proxy_listen`.',
  },
  tls_refused: {
    levels: ['info', 'debug', 'warn'],
    fields: ['id', 'ip', 'reason'],
    meaning: 'A TLS handshake came to a listener without TLS.',
    action: 'Let the client use port 995, or STLS on port 110.',
  },
  file_read: {
    levels: ['info'],
    fields: ['path'],
    meaning: 'A file of the checker can be used again.',
  },
  file_unusable: {
    levels: ['error'],
    fields: ['path', 'reason'],
    meaning: 'A file of the checker cannot be read. Every login fails for now.',
    action: 'Restore the file and its rights.',
  },
  passwd_line_ignored: {
    levels: ['warn'],
    fields: ['path', 'line', 'reason'],
    meaning: 'A line of `passwd_file` is invalid. Its login does not exist.',
    action: 'Correct the line: `auth-relay passwd LOGIN` writes valid ones.',
  },
  passwd_lines_ignored: {
    levels: ['warn'],
    fields: ['count'],
    meaning: 'More lines of `passwd_file` are invalid than were logged.',
    action: 'Correct the lines.',
  },
  sql_query_ambiguous: {
    levels: ['error'],
    fields: ['user', 'rows'],
    meaning: 'The query of the checker `sql` gave several rows for one login, which therefore fails.',
    action: 'Make the login unique in the table, or correct the query.',
  },
  checker_close_failed: {
    levels: ['warn'],
    fields: ['reason'],
    meaning: 'The checker of the old settings could not be closed after a reload.',
    action: 'Restart popup at the next opportunity.',
  },
  certificate_read: {
    levels: ['info'],
    fields: ['path'],
    meaning: 'popup read its certificate again.',
  },
  certificate_refused: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'A new certificate or key is invalid. The old one stays in force.',
    action: 'Correct the files as the reason says.',
  },
  login_process_killed: {
    levels: ['error'],
    fields: ['pid', 'reason'],
    meaning: 'The monitor killed a login process that broke the rules of their channel.',
    action: 'Report a bug, with the lines before this one.',
  },
  login_process_ended: {
    levels: ['error'],
    fields: ['status', 'signal', 'reason'],
    meaning: 'A login process ended unexpectedly. The monitor starts another one.',
    action: 'Look at the lines before this one. If they name no cause, report a bug.',
  },
  worker_started: {
    levels: ['info'],
    fields: ['uid', 'pid'],
    meaning: 'A pop3d worker started for an owner of maildrops.',
  },
  logger_ended: {
    levels: ['warn'],
    fields: ['tag', 'reason'],
    meaning: '`logger` ended, through which popup writes to syslog. popup starts it again.',
    action: 'Start the syslog daemon, or set `syslog = false`.',
  },
  syslog_lines_lost: {
    levels: ['warn'],
    fields: ['tag', 'count'],
    meaning: 'Lines for syslog were dropped, because `logger` does not take them.',
    action: 'Start the syslog daemon, or set `syslog = false`.',
  },
  ticket_refused: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'A pop3d worker refused a connection whose ticket is invalid or was used before.',
    action: 'Report a bug, unless a process of the owner tried to open a session without popup.',
  },
  session_started: {
    levels: ['debug'],
    fields: ['maildrop', 'messages'],
    meaning: 'A session opened its maildrop.',
  },
  message_sent: {
    levels: ['debug'],
    fields: ['number', 'octets'],
    meaning: 'A message was sent.',
  },
  message_unreadable: {
    levels: ['warn', 'error'],
    fields: ['file', 'number', 'reason'],
    meaning: 'A message of the maildrop cannot be read. Level `warn`: another program removed it.',
    action: 'For level `error`, restore the rights of the file or the file system.',
  },
  unlink_failed: {
    levels: ['error'],
    fields: ['file', 'number', 'failures', 'reason'],
    meaning: 'Messages that the client deleted could not be removed. The client got an error.',
    action: 'Restore the rights of the maildrop, or make room on the file system.',
  },
  files_ignored: {
    levels: ['warn'],
    fields: ['maildrop', 'symbolic_links', 'future', 'example', 'reason'],
    meaning: 'Files of the maildrop are not listed.',
    action: 'Replace symbolic links by files. Correct the clock of the host that delivers.',
  },
  maildrop_in_use: {
    levels: ['info'],
    fields: ['maildrop'],
    meaning: 'Another session has the maildrop, and `lock = "exclusive"` is set.',
  },
  maildrop_refused: {
    levels: ['error'],
    fields: ['maildrop', 'reason'],
    meaning: 'A maildrop cannot be opened.',
    action: 'Run `auth-relay check --maildirs`, and restore the rights of the maildrop.',
  },
} as const satisfies LogEventRows

const SSLWRAP = {
  accept_failed: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'The listener reported a fault.',
    action: 'Look at the reason.',
  },
  connection_closed: {
    levels: ['debug'],
    fields: ['ip', 'listener'],
    meaning: 'A client closed the connection before it sent anything.',
  },
  upstream_failed: {
    levels: ['warn', 'error'],
    fields: ['id', 'ip', 'reason', 'listener'],
    meaning: 'The server behind sslwrap cannot be reached, or refused the connection. The client got an error.',
    action: 'Start the server. For popup, give both programs the same `ssl_hack_pass`.',
  },
  reload_failed: {
    levels: ['error'],
    fields: ['trigger', 'reason'],
    meaning: 'New settings, certificates or keys are invalid. The old ones stay in force.',
    action: 'Correct what the reason names, then send SIGHUP.',
  },
  reload_refused: {
    levels: ['error'],
    fields: ['pid', 'reason'],
    meaning: 'A worker could not use the new settings and is replaced.',
    action: 'Look at the reason.',
  },
  worker_failed: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'A worker could not be started. sslwrap tries again.',
    action: 'Look at the reason.',
  },
  old_tls_enabled: {
    levels: ['warn'],
    fields: ['listen', 'networks', 'reason'],
    meaning: 'A listener accepts TLS 1.0 and 1.1, which are weak (RFC 8996).',
    action: 'Limit the listener to the networks of the devices that need it, or remove it.',
  },
  certificate_self_signed: {
    levels: ['warn'],
    fields: ['path', 'names', 'reason'],
    meaning: 'sslwrap made a self-signed certificate, because there was none.',
    action: 'Get a certificate of an authority: `auth-relay cert` helps.',
  },
} as const satisfies LogEventRows

const AUTHD = {
  grant_stored: {
    levels: ['debug', 'info'],
    fields: ['id', 'ip', 'user', 'daemon', 'source', 'until'],
    meaning: 'A login was stored. The address may relay until then.',
  },
  grant_refused: {
    levels: ['info'],
    fields: ['id', 'ip', 'user', 'daemon', 'source', 'reason'],
    meaning: 'A login opens nothing: the address is never granted, or the address or login is blocked.',
  },
  login_queued: {
    levels: ['info'],
    fields: ['id', 'ip', 'user', 'daemon', 'source'],
    meaning: 'A login waits, because the store is slow or unavailable.',
  },
  login_unstorable: {
    levels: ['error'],
    fields: ['id', 'ip', 'user', 'daemon', 'source', 'reason'],
    meaning: 'The database refuses the data of a login for ever. The address is not granted.',
    action: 'Report a bug, with the reason.',
  },
  login_dropped: {
    levels: ['warn'],
    fields: ['source', 'path', 'reason', 'detail', 'remedy', 'times', 'ip', 'user', 'daemon', 'stamp', 'uid', 'unit'],
    meaning: 'A login of a log line is true and grants nothing, e.g. because the line is too old.',
    action: 'Do what the field `remedy` says.',
  },
  logins_dropped: {
    levels: ['warn'],
    fields: ['kept', 'reason'],
    meaning: 'Logins are dropped, because too many addresses wait while the store is unavailable.',
    action: 'Start PostgreSQL.',
  },
  logins_lost: {
    levels: ['error'],
    fields: ['logins', 'reason'],
    meaning: 'authd stopped before it could store the logins that waited.',
    action: 'Start PostgreSQL before authd is stopped. The users can log in again.',
  },
  store_unavailable: {
    levels: ['error'],
    fields: ['reason', 'waiting'],
    meaning: 'Logins cannot be stored. They wait, POP3 works, and the relay stays closed for new addresses.',
    action: 'Start PostgreSQL, or run `auth-relay check`.',
  },
  store_available: {
    levels: ['info'],
    fields: ['waiting', 'dropped'],
    meaning: 'Logins can be stored again.',
  },
  database_connected: {
    levels: ['info'],
    fields: ['state', 'host', 'pooled'],
    meaning: 'authd is connected to the primary of the database, or looks for it.',
  },
  database_unavailable: {
    levels: ['error'],
    fields: ['state', 'reason', 'remedy'],
    meaning: 'authd has no connection to the primary of the database.',
    action: 'Start PostgreSQL, or correct `[database]`. Logins wait meanwhile.',
  },
  stamp_ahead: {
    levels: ['warn'],
    fields: ['source', 'path', 'detail', 'remedy', 'times', 'ip', 'user', 'daemon', 'stamp', 'seconds'],
    meaning: 'The stamp of a log line lies in the future.',
    action: 'Set the same clock and time zone for the daemon and for authd, or log stamps with a zone (RFC 3339).',
  },
  announcement_invalid: {
    levels: ['warn'],
    fields: ['id', 'reason'],
    meaning: 'A login event on `authd.socket` cannot be parsed. It grants nothing.',
    action: 'Install popup and authd of one version.',
  },
  usage_delayed: {
    levels: ['debug'],
    fields: ['reason'],
    meaning: 'Reports of the gate wait, because the database does not take them.',
  },
  usage_dropped: {
    levels: ['warn'],
    fields: ['lines', 'reason'],
    meaning: 'An account reported more used grants than a gate has to report. The rest was dropped.',
    action: 'Find the process of that account.',
  },
  grants_swept: {
    levels: ['info'],
    fields: ['grants'],
    meaning: 'Ended grants were removed.',
  },
  sweep_failed: {
    levels: ['warn'],
    fields: ['reason'],
    meaning: 'Ended grants were not removed, or the history has no new partition. authd tries again.',
    action: 'Start PostgreSQL, or run `auth-relay migrate`.',
  },
  state_save_failed: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'The positions in log files cannot be saved. After a restart lines are read twice or not at all.',
    action: 'Make room in `state_dir`, and restore its rights.',
  },
  file_followed: {
    levels: ['info'],
    fields: ['path', 'offset'],
    meaning: 'authd reads a log file from this position.',
  },
  file_truncated: {
    levels: ['info'],
    fields: ['path'],
    meaning: 'A log file became shorter. authd reads it from the beginning.',
  },
  file_unreadable: {
    levels: ['warn'],
    fields: ['path', 'reason'],
    meaning: 'A log file cannot be read. authd tries again.',
    action: 'Give the account of authd the right to read it: `auth-relay check` names the command.',
  },
  fifo_opened: {
    levels: ['info'],
    fields: ['path', 'capacity'],
    meaning: 'authd reads log lines from the FIFO.',
  },
  fifo_reopened: {
    levels: ['info'],
    fields: ['path'],
    meaning: 'The FIFO was replaced. authd reads the new one.',
  },
  fifo_full: {
    levels: ['warn'],
    fields: ['path', 'times', 'reason'],
    meaning: 'The FIFO was full, so the syslog daemon may have dropped lines.',
    action: 'Deliver by TCP instead (`syslog_listen`).',
  },
  fifo_failed: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'Reading from the FIFO failed.',
    action: 'Restart authd.',
  },
  fifo_missing: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'The FIFO was removed and cannot be opened again.',
    action: 'Create it again: `mkfifo`, with the account of authd as its owner.',
  },
  syslog_connection_closed: {
    levels: ['warn'],
    fields: ['connections', 'reason'],
    meaning: 'A syslog connection was closed, because `syslog_listen` has all the connections that it accepts.',
    action: 'Find the program that leaves connections open (`ss -tp`).',
  },
  syslog_framing_invalid: {
    levels: ['warn'],
    fields: ['reason'],
    meaning: 'A syslog sender uses neither octet counting nor lines (RFC 6587). The connection was closed.',
    action: 'Correct the sender.',
  },
  journal_ended: {
    levels: ['warn'],
    fields: ['reason', 'in_ms'],
    meaning: '`journalctl` ended. authd starts it again.',
    action: 'Run `auth-relay check`, which names the rights that are missing.',
  },
  counters_reported: {
    levels: ['info'],
    fields: [
      ...(['source', 'lines', 'overlong', 'committed', 'queued', 'refused', 'replaced', 'dropped'] as const),
      ...(['dropped_expired', 'dropped_no_time', 'dropped_cut_name', 'dropped_sender'] as const),
      ...(['queue', 'commits', 'commit_failures', 'sweeps', 'swept', 'fifo_full', 'bad_announcements'] as const),
      ...([
        'foreign_peers',
        'uses',
        'gate_relayed',
        'gate_refused',
        'gate_undecided',
        'gate_never',
        'ignored',
      ] as const),
    ],
    meaning: 'The counters since the start (SIGUSR1, and at the end).',
  },
} as const satisfies LogEventRows

const GATE = {
  relay_allowed: {
    levels: ['info'],
    fields: [
      ...(['ip', 'port', 'host', 'pid', 'status', 'front', 'service', 'sender', 'recipient', 'queue'] as const),
      ...(['user', 'until'] as const),
    ],
    meaning: 'A client may relay.',
  },
  relay_refused: {
    levels: ['info', 'debug'],
    fields: [
      ...(['ip', 'port', 'host', 'pid', 'status', 'front', 'service', 'sender', 'recipient', 'queue'] as const),
      'reason',
    ],
    meaning: 'A client may not relay. It may still send to local domains.',
  },
  decision_failed: {
    levels: ['error'],
    fields: [
      ...(['ip', 'port', 'host', 'pid', 'status', 'front', 'service', 'sender', 'recipient', 'queue'] as const),
      ...(['relay', 'reason'] as const),
    ],
    meaning: 'The database gave no answer, so the relay stays closed for the client.',
    action: 'Start PostgreSQL, or run `auth-relay check`.',
  },
  mail_refused: {
    levels: ['warn'],
    fields: [
      ...(['ip', 'service', 'pid', 'user', 'device', 'sender', 'recipient', 'queue', 'reason'] as const),
      'helo',
    ],
    meaning: 'A client that may relay broke a rule for its mail: rate, sender, recipient or line ends.',
    action: 'Nothing for a single mail. Raise the limit of the rule, or look for a virus on the client.',
  },
  refusals_omitted: {
    levels: ['warn'],
    fields: ['ip', 'service', 'pid', 'user', 'device', 'count'],
    meaning: 'A session had more refusals than were logged.',
    action: 'Look at the client.',
  },
  sender_mismatched: {
    levels: ['warn'],
    fields: ['ip', 'service', 'pid', 'user', 'device', 'sender'],
    meaning: 'The sender of a mail is not in the domain of the login (`sender_binding = "warn"`).',
    action: 'Nothing, or set `sender_binding = "refuse"`.',
  },
  client_denied: {
    levels: ['info'],
    fields: ['ip', 'host'],
    meaning: 'A tcprules rule denies the client.',
  },
  smtpd_ended: {
    levels: ['info'],
    fields: ['pid', 'status', 'signal'],
    meaning: 'The smtpd of a connection ended.',
  },
  smtpd_start_failed: {
    levels: ['error'],
    fields: ['ip', 'reason'],
    meaning: 'The smtpd could not be started. The client got a temporary error.',
    action: 'Look at the reason: the program must exist and its account must be able to run it.',
  },
  starter_lost: {
    levels: ['error'],
    fields: ['pid', 'reason', 'left'],
    meaning: 'A process that starts smtpds ended. The others go on.',
    action: 'Restart wrap. If the line comes again, report a bug.',
  },
  front_ended: {
    levels: ['info'],
    fields: ['ip', 'service', 'pid', 'user', 'device', 'reason', 'code'],
    meaning: 'The gate ended an SMTP session that it reads.',
  },
  early_data_sent: {
    levels: ['info'],
    fields: ['ip', 'service', 'pid', 'user', 'device'],
    meaning: 'A client sent the message before the answer to DATA.',
  },
  line_ends_repaired: {
    levels: ['info'],
    fields: ['ip', 'service', 'pid', 'user', 'device'],
    meaning: 'A client ended lines without CR LF. The gate repaired them.',
  },
  auth_refused: {
    levels: ['info'],
    fields: ['ip', 'service', 'pid', 'user', 'device'],
    meaning: 'A client tried AUTH, which the mail server does not offer.',
  },
  hello_replaced: {
    levels: ['info'],
    fields: ['ip', 'service', 'pid', 'user', 'device', 'helo'],
    meaning: 'The name in HELO or EHLO is invalid. The gate passed the address instead.',
  },
  cdb_written: {
    levels: ['info'],
    fields: ['path', 'grants'],
    meaning: 'The cdb was written.',
  },
  cdb_write_failed: {
    levels: ['error'],
    fields: ['path', 'reason', 'remedy'],
    meaning: 'The cdb cannot be replaced. The gate overwrites it instead, or tries again.',
    action: 'Give the directory of the file to `wrap.user`, or make room.',
  },
  cdb_kept: {
    levels: ['error'],
    fields: ['path', 'reason'],
    meaning: 'The gate stopped and could not remove the grants from the cdb. They do not end.',
    action: 'Remove the file, or start the gate.',
  },
  cdb_rules_refused: {
    levels: ['error'],
    fields: ['path', 'reason', 'remedy'],
    meaning: 'The rules of the site are missing or invalid. The last valid ones stay in force.',
    action: 'Correct the file that `tcprules_static` names.',
  },
  cdb_rules_accepted: {
    levels: ['info'],
    fields: ['path'],
    meaning: 'The rules of the site are valid again.',
  },
} as const satisfies LogEventRows

const STACK = {
  stack_started: {
    levels: ['info'],
    fields: ['config', 'programs'],
    meaning: 'Every program of the stack is ready.',
  },
  program_ended: {
    levels: ['error'],
    fields: ['program', 'status', 'signal'],
    meaning: 'A program of the stack ended unexpectedly.',
    action: 'Look at the lines of the program before this one.',
  },
  program_hung: {
    levels: ['error'],
    fields: ['program', 'pid', 'reason'],
    meaning: 'A program did not answer pings. It was killed and is started again.',
    action: 'Report a bug, unless the host was suspended or out of memory.',
  },
  restart_scheduled: {
    levels: ['error'],
    fields: ['program', 'in_ms'],
    meaning: 'A program is started again after this time.',
    action: 'Look at the lines of the program before this one.',
  },
  program_killed: {
    levels: ['warn'],
    fields: ['program', 'after_ms'],
    meaning: 'A program did not stop in time and was killed.',
    action: 'Raise `drain_time` if sessions need longer.',
  },
  schema_migrated: {
    levels: ['info'],
    fields: ['from', 'to'],
    meaning: 'The tables of the embedded database were brought up to date.',
  },
  database_started: {
    levels: ['info'],
    fields: ['directory', 'pid'],
    meaning: 'The embedded database is ready.',
  },
  database_created: {
    levels: ['info'],
    fields: ['directory'],
    meaning: 'The embedded database was created.',
  },
  database_relocated: {
    levels: ['info'],
    fields: ['wanted', 'used', 'reason'],
    meaning: 'The embedded database is kept in another directory.',
  },
  database_owner_changed: {
    levels: ['info'],
    fields: ['directory', 'uid', 'gid'],
    meaning: 'The files of the embedded database were given to its account.',
  },
  database_orphaned: {
    levels: ['warn'],
    fields: ['pid'],
    meaning: 'A server of an earlier stack still runs in the directory. It is stopped.',
    action: 'Nothing. Stop the stack with SIGTERM, so that it can stop its server.',
  },
  database_hung: {
    levels: ['error'],
    fields: ['pid', 'reason'],
    meaning: 'The embedded database did not answer pings. It was killed and is started again.',
    action: 'Look at the disk and the memory of the host.',
  },
  database_stop_delayed: {
    levels: ['warn'],
    fields: ['pid', 'signal'],
    meaning: 'The embedded database does not stop, so it gets a stronger signal.',
    action: 'Look at the disk of the host.',
  },
  database_crashed: {
    levels: ['error'],
    fields: ['pid', 'last'],
    meaning: 'The embedded database ended unexpectedly. It is started again.',
    action: 'Look at its lines (`postgres_reported`), the disk and the memory of the host.',
  },
  database_restarted: {
    levels: ['info'],
    fields: ['pid'],
    meaning: 'The embedded database is ready again.',
  },
  database_restart_failed: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'The embedded database cannot be started. The stack tries again.',
    action: 'Look at the reason and at the disk of the host.',
  },
  postgres_reported: {
    levels: ['warn', 'debug'],
    fields: ['line'],
    meaning: 'A line of the log of the embedded database. Level `warn` for WARNING, FATAL and PANIC.',
    action: 'Look at the line. The manual of PostgreSQL explains it.',
  },
  page_failed: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'The status page could not be made.',
    action: 'Look at the reason. If it names no cause outside of auth-relay, report a bug.',
  },
} as const satisfies LogEventRows

const DEMO = {
  directory_chosen: {
    levels: ['info'],
    fields: ['directory', 'reason'],
    meaning: 'The demo keeps sockets, maildrop and database in this directory.',
  },
  client_failed: {
    levels: ['warn'],
    fields: ['reason'],
    meaning: 'The connection to a client of the demo broke.',
    action: 'Nothing.',
  },
  recipient_answered: {
    levels: ['info'],
    fields: ['ip', 'to', 'relay', 'answer'],
    meaning: 'A client of the demo named a recipient.',
  },
  message_delivered: {
    levels: ['info'],
    fields: ['ip', 'to', 'octets', 'file'],
    meaning: 'A message was delivered to the maildrop of the demo.',
  },
  message_discarded: {
    levels: ['info'],
    fields: ['ip', 'to', 'octets', 'reason'],
    meaning: 'The demo accepted a message and discarded it.',
  },
  delivery_failed: {
    levels: ['error'],
    fields: ['ip', 'reason'],
    meaning: 'A message could not be delivered. The client got a temporary error.',
    action: 'Make room in the directory of the demo.',
  },
} as const satisfies LogEventRows

export const LOG_EVENTS = {
  ...SEVERAL_PROGRAMS,
  ...POPUP_AND_POP3D,
  ...SSLWRAP,
  ...AUTHD,
  ...GATE,
  ...STACK,
  ...DEMO,
} as const

/** The same by program, in the order of the document. */
export const LOG_EVENT_SECTIONS: readonly { readonly title: string; readonly rows: LogEventRows }[] = [
  { title: 'Several programs', rows: SEVERAL_PROGRAMS },
  { title: 'popup and pop3d', rows: POPUP_AND_POP3D },
  { title: 'sslwrap', rows: SSLWRAP },
  { title: 'authd', rows: AUTHD },
  { title: 'wrap (gate)', rows: GATE },
  { title: 'auth-relay up, embedded database, status page', rows: STACK },
  { title: 'SMTP server of the demo', rows: DEMO },
]

type Rows = typeof LOG_EVENTS

export type LogEvent = keyof Rows

/** Events that the table permits at a level. */
export type LogEventAt<Level extends LogLevel> = {
  [Event in LogEvent]: Level extends Rows[Event]['levels'][number] ? Event : never
}[LogEvent]

/** Names of the fields of an event. */
export type LogFieldOf<Event extends LogEvent> = Rows[Event]['fields'][number]
