import { BARE, choice, command, integer, list, networks, path, socketAddress, socketAddresses, text } from './rows.ts'
import { defineSection } from './section.ts'

export const WRAP = defineSection('wrap', 'The gate in front of the SMTP server.', {
  listen: socketAddresses([], 'Addresses where the resident gate accepts SMTP connections.'),
  smtpd: command([], 'The real smtpd with its arguments; empty: QMAILDIR/bin/QMAIL_SMTPD_NOAUTH.'),
  smtpd_user: text('', 'Account under which the resident gate runs the smtpd; empty: its own.'),
  qmaildir: path('/var/qmail', 'Root of the qmail installation.', BARE),
  qmail_smtpd_noauth: text(
    'qmail-smtpd.noauth',
    'Name of the real smtpd below qmaildir/bin, or its absolute path.',
    BARE,
  ),
  relayclient_value: text('', 'Value of RELAYCLIENT for a granted address.', BARE),
  wrap_timeout: integer(3, 1, 30, 'Seconds for the whole question; after that the relay stays closed.', BARE),
  ask: socketAddress(
    '',
    'Question socket of a resident gate, e.g. "unix:/run/auth-relay/question.sock": wrap SMTPD… asks there instead of the database, at a fifth of the cost.',
  ),
  connections: integer(40, 0, 100_000, 'Most smtpds of the resident gate at once (tcpserver -c); 0: no limit.'),
  connections_per_address: integer(0, 0, 100_000, 'Most of them for one client address (IPv6: one /64); 0: no limit.'),
  rules: path('', 'cdb of tcprules (tcpserver -x): who is refused, and variables for the smtpd.'),
  reverse_dns: choice(
    ['off', 'on', 'paranoid'],
    'off',
    'Look up TCPREMOTEHOST. paranoid: only a name that leads back to the address (tcpserver -p).',
  ),
  reverse_dns_timeout: integer(2000, 10, 30_000, 'Milliseconds for that; after them the name is unknown.'),
  proxy_trust: networks([], 'Peers that begin every connection with a PROXY header (v1 or v2), and nobody else.'),
  drain_timeout: integer(
    10,
    0,
    3600,
    'Seconds to wait for running smtpds at SIGTERM; they go on by themselves after that.',
  ),
  policy_listen: socketAddresses([], "Addresses of Postfix's policy service: loopback, or unix:/PATH."),
  socketmap_listen: socketAddresses(
    [],
    'Addresses of the socketmap service (Postfix, sendmail): loopback, or unix:/PATH.',
  ),
  question_listen: socketAddresses(
    [],
    'Addresses of the question service (Exim readsocket, wrap.ask): loopback, or unix:/PATH.',
  ),
  socket_mode: choice(
    ['0600', '0660', '0666'],
    '0666',
    'Mode of these Unix sockets. They tell who may relay, and change nothing; the directory keeps strangers out.',
  ),
  sender_binding: choice(
    ['off', 'warn', 'refuse'],
    'off',
    'Policy service: must the envelope sender belong to the login that opened the address?',
  ),
  sender_domains: list([], 'Domains of senders for logins without a domain; empty: any.'),
  messages_per_login: integer(0, 0, 1_000_000, 'Policy service: messages an hour for one login; 0: no limit.'),
  messages_per_address: integer(0, 0, 1_000_000, 'Policy service: messages an hour for one address; 0: no limit.'),
  recipients_per_login: integer(0, 0, 1_000_000, 'Policy service: recipients an hour for one login; 0: no limit.'),
  recipients_per_address: integer(0, 0, 1_000_000, 'Policy service: recipients an hour for one address; 0: no limit.'),
  tcprules_cdb: path('', 'cdb that is kept up to date with the granted addresses, for tcpserver -x.'),
  tcprules_static: path('', "The site's own rules text, merged into tcprules_cdb; a deny there wins."),
  tcprules_interval: integer(
    1000,
    100,
    60_000,
    'Milliseconds between two looks for new grants for tcprules_cdb, where the database has not told of them at once.',
  ),
})
