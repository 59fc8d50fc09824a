/** Log events of popup, pop3d and sslwrap. */

import type { LogEventRows } from './row.ts'

export const POPUP_AND_POP3D = {
  login_accepted: {
    levels: ['info', 'warn'],
    fields: ['id', 'ip', 'user', 'method', 'tls', 'grant', 'grant_ms', 'until', 'reason'],
    reasons: [
      ...(['blocked', 'key', 'loopback', 'never', 'own', 'private', 'proxy'] as const),
      ...(['syntax', 'unstorable', 'value', 'version'] as const),
    ],
    meaning:
      'A login succeeded. The field `grant` names the result, and `reason` why authd refused it (WIRE, login event). Level `warn`: the address is unknown.',
    action: 'For `ip=unknown`, let the program before popup set TCPREMOTEIP.',
  },
  login_failed: {
    levels: ['info'],
    fields: ['id', 'ip', 'user', 'method', 'tls', 'reason', 'detail'],
    reasons: ['badauth', 'crash', 'logindelay', 'notls', 'temp', 'toolong', 'uid'],
    meaning:
      'A login failed. Reason `badauth`: wrong name or password. `temp` and `crash`: the checker gave no answer, or the client left before the answer of the server behind.',
  },
  login_aborted: {
    levels: ['warn'],
    fields: ['id', 'ip', 'user', 'reason'],
    meaning: 'A signal ended the program behind the login.',
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
    reasons: ['max_per_login', 'max_per_owner'],
    meaning: 'A login or an owner has all the sessions that the settings permit.',
    action: 'Raise the setting that the reason names, or find the client that leaves sessions open.',
  },
  login_timed_out: {
    levels: ['info'],
    fields: ['ip', 'user'],
    meaning: 'A client did not log in within `login_time`.',
  },
  login_event_dropped: {
    levels: ['error'],
    fields: ['id', 'ip', 'user'],
    meaning:
      'A login was not announced to authd, because it waited too long, or too many wait. The address is not granted.',
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
    meaning: 'authd sent an answer of an unknown form.',
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
    meaning: 'The connection to a pop3d worker failed. popup opens another one.',
  },
  handoff_reply_unknown: {
    levels: ['error'],
    fields: ['line'],
    meaning: 'A pop3d worker sent a message of an unknown form.',
    action: 'Restart popup, so that popup and its workers are of one version.',
  },
  maildrop_unreachable: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'A login succeeded, but the pop3d worker of its owner cannot be reached.',
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
    reasons: ['badhost', 'badpass'],
    causes: {
      badhost: 'the address is missing or not numeric',
      badpass: 'the password is wrong',
    },
    meaning: 'A client sent the command `SSL` with a wrong password or without a numeric address.',
    action: 'Give popup and sslwrap the same `ssl_hack_pass`. From any other host the line is an attack that failed.',
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
    action: 'Add the address of the proxy to `proxy_trust`, or correct the proxy by the field `reason`.',
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
    fields: ['path', 'line_number', 'reason'],
    meaning: 'A line of `passwd_file` is invalid. Its login does not exist.',
    action: 'Correct the line: `auth-relay passwd LOGIN` writes valid ones.',
  },
  passwd_faults_omitted: {
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
    action: 'Correct the files by the field `reason`.',
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
    fields: ['tag', 'reason', 'in_ms'],
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

export const SSLWRAP = {
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
