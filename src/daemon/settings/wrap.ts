import {
  BARE,
  choice,
  command,
  duration,
  integer,
  list,
  networks,
  path,
  socketAddress,
  socketAddresses,
  text,
} from './rows.ts'
import { defineSection } from './section.ts'

export const WRAP = defineSection('wrap', 'The gate in front of the SMTP server.', {
  listen: socketAddresses([], 'Addresses where the resident gate accepts SMTP connections.'),
  smtpd: command([], 'The real smtpd with its arguments; empty: QMAILDIR/bin/QMAIL_SMTPD_NOAUTH.'),
  user: text('auth-relay-gate', 'Account of the resident gate, when it is started as root.'),
  smtpd_user: text(
    '',
    'Account under which the resident gate runs the smtpd. Empty, with wrap.listen: the gate keeps the account that it was started under, and the smtpd has the same.',
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
    'Question socket of a resident gate, e.g. "unix:/run/auth-relay/gate/question.sock": wrap SMTPD… asks there instead of the database, at a fifth of the cost.',
  ),
  connections: integer(40, 0, 100_000, 'Most smtpds of the resident gate at once (tcpserver -c); 0: no limit.'),
  connections_per_address: integer(0, 0, 100_000, 'Most of them for one client address (IPv6: one /64); 0: no limit.'),
  rules: path('', 'cdb of tcprules (tcpserver -x): who is refused, and variables for the smtpd.'),
  reverse_dns: choice(
    ['off', 'on', 'paranoid'],
    'off',
    'Look up TCPREMOTEHOST. paranoid: only a name that leads back to the address (tcpserver -p).',
  ),
  reverse_dns_timeout: duration(
    'ms',
    2000,
    10,
    30_000,
    'Longest time of that lookup. After that time the name is unknown.',
  ),
  proxy_trust: networks([], 'Peers that begin every connection with a PROXY header (v1 or v2), and nobody else.'),
  drain_timeout: duration(
    's',
    10,
    0,
    3600,
    'Time that running smtpds get to end after SIGTERM. Later they go on without the gate.',
  ),
  policy_listen: socketAddresses(
    [],
    "Addresses of Postfix's policy service: loopback, or unix:/run/auth-relay/gate/policy.sock.",
  ),
  socketmap_listen: socketAddresses(
    [],
    'Addresses of the socketmap service (Postfix, sendmail): loopback, or unix:/run/auth-relay/gate/socketmap.sock.',
  ),
  question_listen: socketAddresses(
    [],
    'Addresses of the question service (Exim readsocket, wrap.ask): loopback, or unix:/run/auth-relay/gate/question.sock.',
  ),
  socket_mode: choice(
    ['0600', '0660', '0666'],
    '0660',
    'Mode of these Unix sockets. Their answers name logins and addresses: let only the mail server ask.',
  ),
  socket_group: text(
    '',
    'Group of these Unix sockets, e.g. "postfix". A gate that is not started as root must be a member. Empty: the group of the gate.',
  ),
  service_connections: integer(
    1000,
    10,
    100_000,
    'Most connections of each service. Beyond it the connection that has been silent longest is closed.',
  ),
  policy_users: list(
    ['postfix'],
    "Policy service: accounts besides root and the gate's own whose questions count as mail. Others are answered, and change nothing. On a port every question counts.",
  ),
  sender_binding: choice(
    ['off', 'warn', 'refuse'],
    'off',
    'Policy service: must the envelope sender belong to the login that opened the address?',
  ),
  sender_domains: list([], 'Domains of senders for logins without a domain; empty: any.'),
  messages_per_login: integer(0, 0, 1_000_000, 'Policy service: messages an hour for one login; 0: no limit.'),
  messages_per_address: integer(
    0,
    0,
    1_000_000,
    'Policy service: messages an hour for one address (IPv6: one /64); 0: no limit.',
  ),
  recipients_per_login: integer(0, 0, 1_000_000, 'Policy service: recipients an hour for one login; 0: no limit.'),
  recipients_per_address: integer(
    0,
    0,
    1_000_000,
    'Policy service: recipients an hour for one address (IPv6: one /64); 0: no limit.',
  ),
  tcprules_cdb: path('', 'cdb that is kept up to date with the granted addresses, for tcpserver -x.'),
  tcprules_static: path('', "The site's own rules text, merged into tcprules_cdb; a deny there wins."),
  tcprules_interval: duration(
    'ms',
    1000,
    100,
    60_000,
    'Time between two looks for new grants for tcprules_cdb, for a database that sends no notification.',
  ),
})
