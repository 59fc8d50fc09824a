/** Log events of several programs, of the stack and of the demo. */

import type { LogEventRows } from './row.ts'

export const SEVERAL_PROGRAMS = {
  settings_reloaded: {
    levels: ['info'],
    fields: ['path', 'restart_for', 'trigger', 'programs_changed'],
    meaning: 'The program read its settings again and uses them.',
  },
  reload_failed: {
    levels: ['error'],
    fields: ['trigger', 'setting', 'reason', 'remedy'],
    meaning: 'New settings, certificates or secrets are invalid. The old ones stay in force. Each fault has a line.',
    action: 'Correct what the reason names, then send SIGHUP.',
  },
  stop_failed: {
    levels: ['error'],
    fields: ['setting', 'reason', 'remedy'],
    meaning: 'The program could not stop in order. It ended nevertheless, with status 111.',
    action: 'Look at the reason. If it names no cause outside of auth-relay, report a bug.',
  },
  program_failed: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'The program cannot continue. It stops with status 111, so that its supervisor starts it again.',
    action: 'Look at the reason and at the lines before this one.',
  },
  setting_unsafe: {
    levels: ['warn'],
    fields: ['setting', 'reason'],
    meaning: 'A setting that is meant for tests is in force.',
    action: 'Remove the setting, unless this host is a test.',
  },
  setting_renamed: {
    levels: ['warn'],
    fields: ['setting', 'reason'],
    meaning: 'A setting is written by its former name, which stays valid.',
    action: 'Write the present name.',
  },
  log_lines_lost: {
    levels: ['warn'],
    fields: ['count', 'reason'],
    meaning: 'Lines of the log were lost before this line, because 1 MiB of lines waited for the reader of the log.',
    action: 'Find out why the reader of the log, for example journald, is slow: look at its disk.',
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
    meaning:
      'The kernel has no asynchronous I/O context for the process, so replies are sent one by one. The process tries again after 1,000 batches, except if the kernel lacks or forbids the call.',
  },
  event_unmatched: {
    levels: ['error'],
    fields: ['registration', 'reason'],
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
    meaning:
      'A local service has all the connections that it accepts, so it closes the connection that was silent longest.',
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
    reasons: ['max_connections', 'max_per_address', 'network'],
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
    fields: ['id', 'ip', 'port', 'proxy', 'tls_version', 'cipher', 'sni', 'alpn', 'listener'],
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
    reasons: ['aborted', 'dropped', 'ended', 'eof', 'failed', 'idle', 'left', 'lines', 'quit'],
    causes: {
      aborted: 'sslwrap stopped and ended the session',
      dropped: 'the connection was reset or closed without an end',
      ended: 'both sides ended in order',
      eof: 'the client ended its output without QUIT',
      failed: 'a side failed, or a message of the maildrop could not be read',
      idle: 'nothing was sent for the time of the setting',
      left: 'the client closed the connection after it had received every octet',
      lines: 'the client sent too many invalid or overlong lines',
      quit: 'the client sent QUIT',
    },
    meaning: 'A session ended. Only `quit` removes the deleted messages.',
  },
  tls_failed: {
    levels: ['info'],
    fields: ['ip', 'reason', 'remedy', 'listener'],
    meaning: 'A TLS handshake failed. The field `remedy` is there for clients with old TLS or without TLS.',
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

export const STACK = {
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
  restart_failed: {
    levels: ['error'],
    fields: ['program', 'reason'],
    meaning: 'A program that was started again did not become ready. The next start follows.',
    action: 'Correct what the reason names.',
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

/** Events of the process `alerts`. */
export const ALERTS = {
  alarm_started: {
    levels: ['warn'],
    fields: ['rule', 'subject', 'detail'],
    meaning: 'An alarm began. The process reports it.',
    action: 'Run `auth-relay alerts`, which prints the remedy.',
  },
  alarm_ended: {
    levels: ['info'],
    fields: ['rule', 'subject', 'detail'],
    meaning: 'An alarm ended: its rule has found nothing for 30 minutes.',
  },
  alarm_unreported: {
    levels: ['error'],
    fields: ['rule', 'by', 'reason'],
    meaning: 'One way to report an alarm failed. If all ways fail, the next look reports the alarm again.',
    action: 'Run `auth-relay alerts test`, and correct the setting that the field `by` names.',
  },
  alarm_closed: {
    levels: ['warn'],
    fields: ['rule', 'subject', 'block_seconds'],
    meaning: 'A rule of `alerts.close` blocked the login or the address that its alarm is about.',
    action: 'Change the password, then run `auth-relay unblock`.',
  },
  alarm_look_failed: {
    levels: ['error'],
    fields: ['reason'],
    meaning: 'The rules could not be computed. After three such looks the database counts as unreachable.',
    action: 'Look at the database.',
  },
} as const satisfies LogEventRows

export const DEMO = {
  directory_chosen: {
    levels: ['info'],
    fields: ['directory', 'reason'],
    meaning: 'The demo keeps sockets, maildrop and database in this directory.',
  },
  client_failed: {
    levels: ['warn'],
    fields: ['reason'],
    meaning: 'The connection to a client of the demo failed.',
    action: 'Nothing.',
  },
  recipient_answered: {
    levels: ['info'],
    fields: ['ip', 'recipient', 'relay', 'code'],
    meaning: 'A client of the demo named a recipient.',
  },
  message_delivered: {
    levels: ['info'],
    fields: ['ip', 'recipient', 'octets', 'file'],
    meaning: 'A message was delivered to the maildrop of the demo.',
  },
  message_discarded: {
    levels: ['info'],
    fields: ['ip', 'recipient', 'octets', 'reason'],
    meaning: 'The demo accepted a message and discarded it.',
  },
  delivery_failed: {
    levels: ['error'],
    fields: ['ip', 'reason'],
    meaning: 'A message could not be delivered. The client got a temporary error.',
    action: 'Make room in the directory of the demo.',
  },
} as const satisfies LogEventRows
