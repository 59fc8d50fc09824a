/**
 * Sections of the settings file for granting: settings shared by all programs, the grants and their
 * database, authd and wrap.
 */
import {
  BARE,
  choice,
  command,
  defineSection,
  duration,
  engine,
  flag,
  integer,
  list,
  networks,
  numberChoice,
  password,
  path,
  RUN_DIR,
  socketAddress,
  socketAddresses,
  socketInRunDir,
  text,
  translationPrefixes,
} from './rows.ts'

export const STATUS_PAGE = defineSection('status-page', 'The status page for a browser. It changes nothing.', {
  listen: socketAddress(
    '',
    'Address of the page: a loopback address, e.g. "127.0.0.1:8110", or unix:/run/auth-relay/status/page.sock for root alone. Every account that can connect can read logins and addresses. Empty: no page.',
  ),
  user: text('auth-relay-status', 'Account of the process that serves it.'),
})

export const ALERTS = defineSection(
  'alerts',
  'Alarms about logins, devices, certificates and the gate, and the ways to report them.',
  {
    mail_to: list([], 'Addresses that get a mail at the start and at the end of an alarm. Empty: no mail.'),
    mail_from: text('', 'Sender of these mails. Empty: the account of the process.'),
    sendmail: command(
      ['/usr/sbin/sendmail', '-i'],
      'Program that takes a mail on standard input; the addresses are added behind "--".',
    ),
    webhook_file: path(
      '',
      'File of mode 0600 with a URL, because such URLs contain a secret. Each start and end of an alarm is posted there as JSON. Empty: none.',
    ),
    program: command(
      [],
      'Program that is run at each start and end of an alarm, with the JSON of a webhook on standard input. Empty: none.',
    ),
    user: text('auth-relay', 'Account of the process, if it is started as root.'),
    every: duration('s', 60, 10, 3600, 'Time between two checks of the rules.'),
    off: list([], 'Rules that are off, e.g. ["device_silent"]. auth-relay alerts --rules lists them.'),
    close: list(
      [],
      'Rules whose alarm also blocks the login or address that it names: login_spread, address_crowd, device_rate.',
    ),
    close_for: duration('s', 86_400, 60, 31_536_000, 'Time for which a block of such a rule holds.'),
    login_addresses: integer(10, 2, 100_000, 'login_spread: addresses of one login within an hour.'),
    address_logins: integer(20, 2, 100_000, 'address_crowd: logins from one address within an hour.'),
    device_factor: integer(
      5,
      2,
      1000,
      'device_rate: multiple of the median number of messages of an hour. Without a count of messages the rule compares the minutes of the hour that had a connection. By these minutes a device whose median is above 45 never raises the alarm. Every other device raises it with more than 55 minutes.',
    ),
    refusal_factor: integer(5, 2, 1000, 'refusals_rise: multiple of the mean number of refusals of the day before.'),
    silent_days: integer(7, 1, 365, 'device_silent: days without a login.'),
    end_days: integer(14, 1, 365, 'device_end, certificate_end: days before the end.'),
  },
)

export const TOP = defineSection('', 'For every program.', {
  configured: flag(false, 'No daemon starts until the administrator has read this file and set this to true.'),
  run_dir: path(RUN_DIR, 'Directory of the Unix sockets between the programs.'),
  state_dir: path(
    '/var/lib/auth-relay',
    'Directory of data that must survive a restart: the embedded database, and the positions in log files.',
  ),
  log_level: choice(['debug', 'info', 'warn', 'error'], 'info', 'Lowest level that is logged.'),
  syslog: flag(
    true,
    'Send the login lines of popup and pop3d to syslog (facility mail) through one process of logger(1).',
  ),
})

export const GRANTS = defineSection('grants', 'Addresses that are granted, and for how long.', {
  exp_time: duration(
    's',
    1800,
    1,
    86_400,
    'Time that an address may relay after its last login. Below one minute is for tests only.',
    BARE,
  ),
  alrm_time: duration(
    's',
    60,
    1,
    3600,
    'Time between two sweeps of expired grants. A sweep only frees space, because each lookup checks the end of the grant.',
    BARE,
  ),
  max_lifetime: duration(
    's',
    0,
    0,
    31_536_000,
    'Time after which even a grant that logins renew ends. 0 means never.',
    BARE,
  ),
  ipv6_prefix: numberChoice(
    [64, 128],
    128,
    '128 grants the IPv6 address alone, 64 its whole /64, because privacy addresses change. Addresses that embed an IPv4 address (NAT64, SIIT, Teredo, 6to4) are granted alone in any case.',
    BARE,
  ),
  nat64_prefixes: translationPrefixes(
    'IPv6 prefixes under which translators of this site show IPv4 clients (RFC 6052), e.g. ["2001:db8:64::/96"]. Each of these addresses counts as its IPv4 client. 64:ff9b::/96 is known without being listed.',
    BARE,
  ),
  never_grant: networks(
    [],
    'Networks that are never granted: gateways, webmail hosts, proxies of other programs. Peers in popup.ssl_hack_trust, popup.proxy_trust and wrap.proxy_trust are never granted in any case.',
    { ...BARE, formerNames: ['never_nets'] },
  ),
  mmdb_files: list(
    [],
    'MMDB files with the country or the AS number of addresses, for auth-relay device --from DE,AS64500. Programs read these files at their start and at SIGHUP.',
  ),
  deny_private: flag(false, 'Never grant private and carrier-grade NAT addresses.', BARE),
  grant_loopback: flag(
    false,
    'UNSAFE, for demonstration and tests: grant loopback addresses too, apart from those in never_grant.',
    BARE,
  ),
  store_user: flag(true, 'Keep the login name with the grant.', BARE),
  history_days: duration('d', 90, 1, 3650, 'Time for which logins, uses of grants and decisions of the gate are kept.'),
})

export const DATABASE = defineSection('database', 'Where the grants are kept: PostgreSQL.', {
  embedded: flag(
    false,
    'Start an embedded PostgreSQL below state_dir (auth-relay up). Otherwise dbhost names a server.',
  ),
  embedded_user: text(
    'auth-relay-db',
    'Account of the embedded PostgreSQL, if auth-relay up is started as root. No other program may use this account.',
  ),
  dbhost: text(
    'localhost',
    'Server, or several separated by commas. The programs find the primary among them and follow it. A directory means the Unix socket in it.',
    BARE,
  ),
  dbport: integer(5432, 1, 65535, 'Port of the server.', BARE),
  dbname: text('pop3authd', 'Name of the database.', BARE),
  dbuser: text('pop3authd', 'Role of authd: writes.', BARE),
  dbpass: password('Password of dbuser. Better: dbpass_file.', BARE),
  dbpass_file: path('', 'File with the password of dbuser, mode 0600.', BARE),
  wrap_dbuser: text('authwrap', 'Role of the gate: can only read.', BARE),
  wrap_dbpass: password('Password of wrap_dbuser. Better: wrap_dbpass_file.', BARE),
  wrap_dbpass_file: path('', 'File with the password of wrap_dbuser, readable by the gate alone.', BARE),
  status_dbuser: text('authstatus', 'Role of the status page: can only read.', BARE),
  status_dbpass: password('Password of status_dbuser. Better: status_dbpass_file.', BARE),
  status_dbpass_file: path('', 'File with the password of status_dbuser.', BARE),
  dbtls: choice(
    ['off', 'verify'],
    'off',
    'TLS toward the server. verify checks the certificate against dbtls_ca.',
    BARE,
  ),
  require_sync: flag(
    false,
    'The database is a cluster with synchronous replication. A login counts as committed only when a standby has it too.',
  ),
  standby_age: duration(
    's',
    3,
    0,
    300,
    'With require_sync: the longest silence of a synchronous standby. After that time the gate accepts no answer of the primary, and the relay stays closed; tcprules_cdb follows a tcprules_interval later. 0: no limit.',
  ),
  patroni_port: integer(
    8008,
    0,
    65535,
    'With require_sync: port of Patroni on the hosts of dbhost. auth-relay check reads the settings of the cluster there. 0: no Patroni.',
  ),
  dbtls_ca: path('', 'CA certificates (PEM) for dbtls = "verify". Empty: the public authorities of Node.js.', BARE),
})

export const AUTHD = defineSection('authd', 'Reads logins and stores the grants.', {
  user: text(
    '',
    'Account to switch to after opening sockets, FIFO and log files as root. It must be able to open them again after a rotation. Empty: keep the current account.',
  ),
  socket: socketInRunDir('authd.sock', 'Unix socket where popup announces logins. An empty text means no socket.'),
  socket_users: list([], "Accounts besides authd's own that may announce logins on socket."),
  usage_socket: socketInRunDir(
    'usage.sock',
    'Unix socket where the gate reports used grants and its decisions. An empty text means no socket.',
    { formerNames: ['uses_socket'] },
  ),
  usage_users: list([], "Accounts besides authd's own and wrap.user that may report on usage_socket.", {
    formerNames: ['uses_users'],
  }),
  commit_wait: duration(
    'ms',
    800,
    10,
    60_000,
    'Time after which an announced login is answered "queued" if its grant is not stored yet.',
  ),
  syslog_fifo: path(
    '',
    'FIFO that syslogd writes to, e.g. /var/pop3-auth/fifo. It must belong to the account of authd. rsyslog drops lines of a burst into a FIFO, so syslog_listen is better.',
    BARE,
  ),
  syslog_listen: socketAddresses(
    [],
    'Loopback addresses where rsyslog delivers by TCP (omfwd), e.g. ["127.0.0.1:6514"]. The rule for rsyslog is in to-authd-tcp.conf.',
  ),
  follow_files: list([], 'Log files to follow, also after rotation and truncation, e.g. ["/var/log/mail.log"].'),
  journal: flag(
    false,
    'Follow the systemd journal. Entries of root count, and those of journal_users and journal_units.',
  ),
  journal_users: list(
    ['cyrus', 'dovecot'],
    'Accounts besides root whose journal entries count. List only accounts of mail daemons, because each of them can grant any address.',
  ),
  journal_units: list(
    [],
    'systemd units whose journal entries count under any account, e.g. "inetd.service", because ipop3d and qpopper log under the account of the user.',
  ),
  journal_command: command(['journalctl'], 'Program that prints the journal. authd adds the options.'),
  syslog_hosts: list([], 'Host names whose lines count; empty: all.', BARE),
  max_lag: duration(
    's',
    0,
    0,
    86_400,
    'Age at which a login of a log line or of the journal grants nothing, by the stamp of the line, if less than grants.exp_time. 0 means exp_time.',
    BARE,
  ),
  check_imap: flag(false, 'Count IMAP logins of these daemons too.', BARE),
  check_daemon_ipop3d: flag(false, 'Lines of uw-imap ipop3d and imapd.', BARE),
  check_daemon_vchkpw: flag(false, 'Lines of vpopmail vchkpw, built with --enable-logging=y or v.', BARE),
  check_daemon_hacked_qmailpop3d: flag(false, 'Lines of the pop3d of auth-relay and of the patched qmail-pop3d.', BARE),
  check_daemon_dovecot: flag(false, 'Lines of Dovecot up to 2.4.', BARE),
  check_daemon_dovecot_proxy: flag(
    false,
    'Lines "started proxying" of a Dovecot that is a proxy or director. Set true only if you also operate the servers behind it.',
    BARE,
  ),
  check_daemon_courier: flag(false, 'Lines of Courier pop3d and imapd.', BARE),
  check_daemon_cyrus: flag(false, 'Lines of Cyrus pop3d and imapd.', BARE),
  check_daemon_qpopper: flag(false, 'Lines of qpopper.', BARE),
  check_daemon_solid: flag(false, 'Lines of solid-pop3d built with log-extend.', BARE),
  check_daemon_solid_two_lines: flag(
    false,
    'Lines of solid-pop3d without log-extend: two lines joined by PID, which is the weakest form.',
    BARE,
  ),
  check_daemon_teapop: flag(false, 'Lines of teapop (facility local0).', BARE),
  check_daemon_tpop3d: flag(false, 'Lines of tpop3d.', BARE),
  check_daemon_gnu_pop3d: flag(false, 'Lines of gnu-pop3d.', BARE),
  check_daemon_vm_pop3d: flag(false, 'Lines of vm-pop3d, one line for each login.', BARE),
  check_daemon_vm_pop3d_two_lines: flag(
    false,
    'Lines of older vm-pop3d: two lines joined by PID, which is the weakest form.',
    BARE,
  ),
  check_daemon_perdition: flag(false, 'Lines of the perdition proxy.', BARE),
  check_daemon_cucipop: flag(
    false,
    'Lines that cucipop writes when a session ends. Leave it off if possible: no word in these lines proves a login, only their shape.',
    BARE,
  ),
  check_daemon_popa3d: flag(
    false,
    'Lines of popa3d (facility daemon): two lines joined by PID, which is the weakest form.',
    BARE,
  ),
  vchkpw_tag: text('vpopmail', 'Tag of vchkpw lines.', BARE),
  daemon_tags: list(
    [],
    'Other syslog tags, each as DIALECT=TAG, e.g. "dovecot=dovecot-pop". They replace the usual tags of the dialect.',
  ),
  metrics_listen: socketAddress('', 'Loopback address for Prometheus, e.g. "127.0.0.1:9633". Empty: none.'),
})

export const WRAP = defineSection('wrap', 'The gate in front of the SMTP server.', {
  listen: socketAddresses([], 'Addresses where the resident gate accepts SMTP connections.'),
  smtpd: command([], 'The real smtpd with its arguments. Empty: qmail_smtpd_noauth in qmaildir/bin.'),
  user: text('auth-relay-gate', 'Account of the resident gate, if it is started as root.'),
  smtpd_user: text(
    '',
    'Account under which the resident gate runs the smtpd. Empty, with wrap.listen: gate and smtpd have the account that started the gate.',
  ),
  qmaildir: path('/var/qmail', 'Root of the qmail installation.', BARE),
  qmail_smtpd_noauth: text(
    'qmail-smtpd.noauth',
    'Name of the real smtpd below qmaildir/bin, or its absolute path.',
    BARE,
  ),
  relayclient_value: text('', 'Value of RELAYCLIENT for a granted address.', BARE),
  wrap_timeout: duration('s', 3, 1, 30, 'Longest time of one lookup. After that time the relay stays closed.', BARE),
  ask: socketAddress(
    '',
    'Query socket of a resident gate, e.g. "unix:/run/auth-relay/gate/query.sock". wrap in exec mode queries this socket instead of the database, at a fifth of the cost.',
  ),
  engine: engine('resident gate and its starters'),
  max_connections: integer(
    40,
    0,
    100_000,
    'Largest number of smtpds of the resident gate at the same time (tcpserver -c). 0: no limit.',
    { formerNames: ['connections'] },
  ),
  max_per_address: integer(
    0,
    0,
    100_000,
    'Largest number of these smtpds for one client address (IPv6: one /64). 0: no limit.',
    { formerNames: ['connections_per_address'] },
  ),
  front: flag(
    false,
    'Resident gate: put an SMTP front between each client with a grant and its smtpd. The front enforces sender_binding and the hourly limits, and passes no bare LF, bare CR or NUL. It is for qmail-smtpd; use the policy service for Postfix.',
  ),
  front_auth: choice(['pass', 'hide'], 'pass', 'Front: pass AUTH to the smtpd, or hide it from clients.'),
  rules: path('', 'cdb of tcprules (tcpserver -x): clients to refuse, and variables for the smtpd.'),
  reverse_dns: choice(
    ['off', 'on', 'paranoid'],
    'off',
    'Look up the name of the client for TCPREMOTEHOST. paranoid: use only a name that resolves to the address of the client (tcpserver -p).',
  ),
  reverse_dns_timeout: duration(
    'ms',
    2000,
    10,
    30_000,
    'Longest time of the lookup of a name. After that time the name is unknown.',
  ),
  proxy_trust: networks(
    [],
    'Peers that must begin every connection with a PROXY header (v1 or v2). No other peer may send one.',
  ),
  drain_time: duration(
    's',
    10,
    0,
    3600,
    'Time for which the gate waits for running smtpds after SIGTERM. Afterwards they continue without the gate.',
    { formerNames: ['drain_timeout'] },
  ),
  policy_listen: socketAddresses(
    [],
    "Addresses of Postfix's policy service: loopback, or unix:/run/auth-relay/gate/policy.sock.",
  ),
  socketmap_listen: socketAddresses(
    [],
    'Addresses of the socketmap service (Postfix, sendmail): loopback, or unix:/run/auth-relay/gate/socketmap.sock.',
  ),
  query_listen: socketAddresses(
    [],
    'Addresses of the query service (Exim readsocket, wrap.ask): loopback, or unix:/run/auth-relay/gate/query.sock.',
    { formerNames: ['question_listen'] },
  ),
  socket_mode: choice(
    ['0600', '0660', '0666'],
    '0660',
    'Mode of these Unix sockets. Their answers name logins and addresses, so let only the mail server query.',
  ),
  socket_group: text(
    '',
    'Group of these Unix sockets, e.g. "postfix". A gate that is not started as root must be a member of the group. Empty: the group of the gate.',
  ),
  max_service_connections: integer(
    1000,
    10,
    100_000,
    'Largest number of connections of each service. Above it the connection that has been silent longest is closed.',
    { formerNames: ['service_connections'] },
  ),
  policy_users: list(
    ['postfix', 'Debian-exim'],
    "Policy and query service: accounts besides root and the gate's own whose requests count as mail. Other accounts get an answer that changes nothing. On a port every request counts.",
  ),
  sender_binding: choice(
    ['off', 'warn', 'refuse'],
    'off',
    'Policy service, front and query service: what happens if the envelope sender does not belong to the login that opened the address. warn: a line in the log. refuse: the mail is refused.',
  ),
  sender_domains: list([], 'sender_binding: domains of senders for logins without a domain. Empty: any domain.'),
  recipient_domains: list(
    [],
    'Policy service, front and query service: domains to which a login without a device may send; empty: all.',
  ),
  without_device: choice(
    ['relay', 'refuse'],
    'relay',
    'relay: a login without a device opens the relay under the rules of this section. refuse: such a login opens nothing, and closes the address for services that do not know the sender.',
  ),
  shared_addresses: choice(
    ['devices', 'nobody', 'as_before'],
    'devices',
    'The gate limits mail from an address that several logins open. "devices": the policy service, the query service and the front relay mail with a sender of a device or of one of these logins. "nobody": these services relay mail of devices alone; services that do not know the sender relay only while the last login is that of a device. "as_before": the gate relays all mail.',
  ),
  shared_logins: integer(
    3,
    2,
    100,
    'Different logins within grants.exp_time that make an address shared. Addresses of 100.64.0.0/10 are shared in any case.',
  ),
  messages_per_login: integer(
    0,
    0,
    1_000_000,
    'Policy service, front and query service: messages an hour for one login; 0: no limit.',
  ),
  messages_per_address: integer(
    0,
    0,
    1_000_000,
    'Policy service, front and query service: messages an hour for one address (IPv6: one /64); 0: no limit.',
  ),
  recipients_per_login: integer(
    0,
    0,
    1_000_000,
    'Policy service, front and query service: recipients an hour for one login; 0: no limit.',
  ),
  recipients_per_address: integer(
    0,
    0,
    1_000_000,
    'Policy service, front and query service: recipients an hour for one address (IPv6: one /64); 0: no limit.',
  ),
  tcprules_cdb: path('', 'cdb that the gate keeps up to date with the granted addresses, for tcpserver -x.'),
  tcprules_static: path(
    '',
    "The site's rules as text. The gate merges them into tcprules_cdb. A deny by address overrides a grant; a deny by host name does not.",
  ),
  tcprules_interval: duration(
    'ms',
    1000,
    100,
    60_000,
    'tcprules_cdb: time between two searches for new grants, if the database sends no notification.',
  ),
})
