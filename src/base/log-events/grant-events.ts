/** Log events of authd and of the gate. */

import type { LogEventRows } from './row.ts'

export const AUTHD = {
  grant_stored: {
    levels: ['debug', 'info'],
    fields: ['id', 'ip', 'user', 'daemon', 'source', 'until'],
    meaning: 'A login was stored. The address may relay until the time in `until`.',
  },
  grant_refused: {
    levels: ['info'],
    fields: ['id', 'ip', 'user', 'daemon', 'source', 'reason'],
    reasons: ['blocked', 'loopback', 'never', 'own', 'private', 'proxy'],
    meaning: 'A login opens nothing: the address is never granted, or the address or login is blocked.',
  },
  login_queued: {
    levels: ['info'],
    fields: ['id', 'ip', 'user', 'daemon', 'source'],
    meaning: 'A login waits, because the store is slow or unavailable.',
  },
  login_locked: {
    levels: ['warn'],
    fields: ['id', 'ip', 'user', 'daemon', 'source', 'reason'],
    meaning:
      'Another transaction has locked the row of the address. The login waits; logins of other addresses do not.',
    action: 'If the line repeats, look in pg_stat_activity for a transaction that stays open or waits for a standby.',
  },
  login_unstorable: {
    levels: ['error'],
    fields: ['id', 'ip', 'user', 'daemon', 'source', 'reason'],
    meaning: 'The database refuses the data of a login, and a new try cannot help. The address is not granted.',
    action: 'Report a bug, with the reason.',
  },
  login_line_dropped: {
    levels: ['warn'],
    fields: ['source', 'path', 'reason', 'detail', 'remedy', 'times', 'ip', 'user', 'daemon', 'stamp', 'uid', 'unit'],
    reasons: ['cut_name', 'expired', 'no_time', 'sender'],
    causes: {
      cut_name: 'the daemon may have cut the name of the login',
      expired: 'the grant of the login would have ended',
      no_time: 'the stamp names no time',
      sender: 'the account that wrote the line is not trusted',
    },
    meaning: 'A log line proves a login, but grants nothing, for example because the line is too old.',
    action: 'Follow the field `remedy`.',
  },
  logins_dropped: {
    levels: ['warn'],
    fields: ['kept', 'reason'],
    meaning: 'Logins are dropped, because too many addresses wait while the store is unavailable.',
    action: 'Start PostgreSQL.',
  },
  logins_lost: {
    levels: ['error'],
    fields: ['count', 'reason'],
    meaning: 'authd stopped before it could store the logins that waited.',
    action: 'Start PostgreSQL before authd is stopped. The users can log in again.',
  },
  store_unavailable: {
    levels: ['error'],
    fields: ['reason', 'waiting'],
    meaning:
      'Logins cannot be stored, so they wait. POP3 works, and the relay stays closed for new addresses. Each reason of an outage is logged once, at most five of them.',
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
    meaning: 'authd is connected to the primary of the database, or searches for the primary.',
  },
  synchronous_commit_lowered: {
    levels: ['warn'],
    fields: ['host', 'value', 'reason', 'remedy'],
    meaning: 'Role, database or server set synchronous_commit so low that a failover or a crash can lose commits.',
    action: 'Follow `remedy`.',
  },
  database_unavailable: {
    levels: ['error'],
    fields: ['state', 'reason', 'remedy'],
    meaning: 'authd has no connection to the primary of the database.',
    action: 'Start PostgreSQL, or correct `[database]`. Logins wait meanwhile.',
  },
  stamp_ahead: {
    levels: ['warn'],
    fields: ['source', 'path', 'reason', 'remedy', 'times', 'ip', 'user', 'daemon', 'stamp', 'seconds'],
    meaning: 'The stamp of a log line lies in the future.',
    action: 'Set the same clock and time zone for the daemon and for authd, or log stamps with a zone (RFC 3339).',
  },
  announcement_invalid: {
    levels: ['warn'],
    fields: ['id', 'reason'],
    reasons: ['key', 'syntax', 'value', 'version'],
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
    fields: ['count', 'reason'],
    meaning: 'An account sent more reports of used grants than authd accepts. The rest was dropped.',
    action: 'Find the process of that account.',
  },
  grants_swept: {
    levels: ['info'],
    fields: ['grants'],
    meaning: 'Expired grants were removed.',
  },
  sweep_failed: {
    levels: ['warn'],
    fields: ['reason'],
    meaning: 'Expired grants were not removed, or the history has no new partition. authd tries again.',
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
      ...(['waiting', 'commits', 'commit_failures', 'sweeps', 'swept', 'fifo_full', 'bad_announcements'] as const),
      ...([
        'foreign_peers',
        'usage_events',
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

export const GATE = {
  relay_allowed: {
    levels: ['info'],
    fields: [
      ...(['ip', 'port', 'host', 'pid', 'connections', 'front', 'service', 'sender', 'recipient', 'queue_id'] as const),
      ...(['user', 'until', 'reason'] as const),
    ],
    reasons: ['preset'],
    meaning:
      'A client may relay. Reason `preset`: a tcprules rule or the environment sets RELAYCLIENT, so the database is not queried.',
  },
  relay_refused: {
    levels: ['info', 'debug'],
    fields: [
      ...(['ip', 'port', 'host', 'pid', 'connections', 'front', 'service', 'sender', 'recipient', 'queue_id'] as const),
      ...(['device', 'reason'] as const),
    ],
    reasons: [
      ...(['device_ended', 'device_hours', 'device_network', 'loopback', 'never', 'no_address', 'no_device'] as const),
      ...(['no_grant', 'own', 'proxy', 'shared_address', 'unnamed_client'] as const),
    ],
    meaning: 'A client may not relay. It may still send to local domains.',
  },
  decision_failed: {
    levels: ['error'],
    fields: [
      ...(['ip', 'port', 'host', 'pid', 'connections', 'front', 'service', 'sender', 'recipient', 'queue_id'] as const),
      ...(['relay', 'reason'] as const),
    ],
    meaning: 'The database gave no answer, so the relay stays closed for the client.',
    action: 'Start PostgreSQL, or run `auth-relay check`.',
  },
  mail_refused: {
    levels: ['warn'],
    fields: [
      ...(['ip', 'service', 'pid', 'user', 'device', 'sender', 'recipient', 'queue_id', 'reason'] as const),
      'helo',
    ],
    reasons: [
      ...(['device_day', 'device_ended', 'device_hour', 'device_hours', 'device_network', 'device_recipient'] as const),
      ...(['device_sender', 'expired', 'line_endings', 'messages_per_address', 'messages_per_login'] as const),
      ...(['recipient', 'recipients_per_address', 'recipients_per_login', 'sender', 'shared_address'] as const),
      ...(['too_many_recipients', 'undecided'] as const),
    ],
    causes: {
      device_day: 'the device has sent all that its limits permit in a day',
      device_ended: 'the device has ended',
      device_hour: 'the device has sent all that its limits permit in an hour',
      device_hours: 'the device may not send at this time of the day',
      device_network: 'the device may not send from this network',
      device_recipient: 'the device may not send to this recipient',
      device_sender: 'the device may not send as this sender',
      expired: 'the grant has ended',
      line_endings: 'a line of the message does not end with CR LF',
      messages_per_address: 'the limit of this name is reached',
      messages_per_login: 'the limit of this name is reached',
      recipient: 'the recipient is not in `recipient_domains`',
      recipients_per_address: 'the limit of this name is reached',
      recipients_per_login: 'the limit of this name is reached',
      sender: 'the sender does not belong to the login (`sender_binding`)',
      shared_address: 'the sender belongs to no login of a shared address',
      too_many_recipients: 'one message has more than 10,000 recipients',
      undecided: 'the database gave no answer',
    },
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
    meaning:
      'The sender of a mail does not belong to the login (`sender_binding = "warn"`). The field `pid` is there behind the front.',
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
    action: 'Look at the reason. The program must exist, and its account must be able to run it.',
  },
  starter_lost: {
    levels: ['error'],
    fields: ['pid', 'reason', 'left'],
    meaning: 'A process that starts smtpds ended. The others continue.',
    action: 'Restart wrap. If the line comes again, report a bug.',
  },
  starter_order_invalid: {
    levels: ['error'],
    fields: ['pid'],
    meaning: 'A process that starts smtpds received an order of an unknown form from the gate, and ended.',
    action: 'Restart wrap, so that the gate and its processes are of one version.',
  },
  front_ended: {
    levels: ['info'],
    fields: ['ip', 'service', 'pid', 'user', 'device', 'reason', 'code'],
    reasons: [
      ...(['auth_line', 'discarded', 'early_data_refused', 'early_reply', 'idle', 'no_reply', 'server_ended'] as const),
      ...(['server_reply', 'stopped', 'tls_hello', 'too_many_errors'] as const),
    ],
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
    meaning: 'The gate stopped and could not remove the grants from the cdb. These grants do not end.',
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
