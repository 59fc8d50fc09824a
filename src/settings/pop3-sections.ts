/** Sections of the settings file for POP3: popup, pop3d and sslwrap. */
import * as v from 'valibot'
import {
  BARE,
  choice,
  command,
  defineSection,
  delays,
  duration,
  engine,
  field,
  flag,
  integer,
  list,
  networks,
  path,
  socketAddress,
  socketAddresses,
  tables,
  text,
  withQmailDefault,
} from './rows.ts'

export const POPUP = defineSection('popup', 'POP3 before login: checks passwords, and announces logins to authd.', {
  listen: socketAddresses(['*:110'], 'Addresses to listen on.'),
  proxy_listen: socketAddresses(
    [],
    'Addresses to listen on where every connection begins with a PROXY header (v1 or v2).',
  ),
  tls_listen: socketAddresses(
    [],
    'Addresses to listen on where popup itself does TLS from the first octet (port 995), with stls_cert and stls_key. This takes less processor time than sslwrap before popup, but the private key is then in the login process. With tls_listen, auth-relay up starts sslwrap only if sslwrap has a listener.',
  ),
  hostname: text('', 'Name in the greeting; empty: the name of this host.'),
  apop: flag(
    true,
    'Offer APOP by the timestamp in the greeting, as qmail-popup does. Set false if the checker has no APOP secrets, because some clients use nothing else when APOP is offered.',
  ),
  login_user: text('auth-relay-login', 'Account of the login processes, which serve clients before login.'),
  logins: integer(
    1,
    1,
    64,
    'Number of login processes. Each has an equal part, rounded up, of max_connections, max_per_address, max_per_login and max_per_owner: 34 of 100 with three processes. The kernel distributes connections by chance, so a client can be refused by one process while another one has places.',
  ),
  engine: engine('login processes'),
  checker: choice(
    ['passwd-file', 'checkpassword', 'sql', 'system', 'upstream', 'chain'],
    'passwd-file',
    'Way to check passwords: a file, a program, a database, the accounts of this host, or another POP3 server.',
  ),
  checkpassword: command([], 'checker = "checkpassword" or "chain": the checker and its arguments.'),
  chain: command([], 'checker = "chain": the POP3 server that the checker starts, with its arguments.'),
  passwd_file: path('/etc/auth-relay.passwd', 'checker = "passwd-file": lines login:hash:uid:gid:home:maildir.'),
  apop_file: path('', 'checker = "passwd-file": lines login:secret for APOP, mode 0600.'),
  sql_query: text('', 'checker = "sql": the query; $1 is the login name. Columns: password, uid, gid, home, maildir.'),
  sql_dbhost: text('localhost', 'checker = "sql": server.'),
  sql_dbport: integer(5432, 1, 65535, 'checker = "sql": port.'),
  sql_dbname: text('', 'checker = "sql": database.'),
  sql_dbuser: text('', 'checker = "sql": role.'),
  sql_dbpass_file: path('', 'checker = "sql": file with the password of the role.'),
  upstream: socketAddress('', 'checker = "upstream": address of the POP3 server behind popup.'),
  upstream_tls: flag(false, 'checker = "upstream": connect to the server by TLS.'),
  upstream_ca: path(
    '',
    'upstream_tls: certificate authorities (PEM) of that server. Empty: the public authorities of Node.js.',
  ),
  upstream_verify: flag(
    true,
    'upstream_tls: verify the certificate of the server. false accepts any certificate and permits man-in-the-middle attacks.',
  ),
  upstream_proxy: flag(
    false,
    'checker = "upstream": begin each connection with a PROXY v2 header, which names the client.',
  ),
  maildir: text('Maildir', 'Maildir below the home directory, if the checker names none.'),
  ssl_hack_pass: path(
    '/etc/sslhack.pass',
    'File with the password of the SSL command. If the file is missing, the command is unknown.',
    BARE,
  ),
  ssl_hack_trust: networks(['127.0.0.0/8', '::1'], 'Peers that may send the SSL command.', BARE),
  ssl_reply: choice(['ok', 'none'], 'ok', 'Answer to the SSL command.', BARE),
  proxy_trust: networks([], 'Peers that may send a PROXY header.', BARE),
  proxy_tls: flag(false, 'A connection whose PROXY header does not mention TLS counts as a TLS connection.'),
  compat: choice(['none', 'qmail'], 'none', 'qmail: answer byte for byte as qmail-popup and qmail-pop3d do.', BARE),
  require_tls: flag(false, 'Refuse passwords on connections without TLS.', BARE),
  cleartext_nets: networks([], 'require_tls: networks that may log in without TLS.'),
  cleartext_logins: list([], 'require_tls: logins that may log in without TLS.'),
  stls: flag(false, 'Offer STLS; needs stls_cert and stls_key.'),
  stls_cert: path('', 'Certificate chain (PEM) for STLS and for tls_listen.'),
  stls_key: path('', 'Private key (PEM) for STLS and for tls_listen.'),
  login_delay: duration('s', 0, 0, 86_400, 'Least time from a session to the next login (LOGIN-DELAY). 0: none.'),
  grant_wait: duration('ms', 1000, 0, 10_000, 'Longest time for which +OK waits for the commit of the grant.', BARE),
  auth_cache_time: duration(
    's',
    3600,
    0,
    86_400,
    'Time for which a successful password check is cached, so that the next login needs no slow hash (passwd-file, sql, system). A changed hash takes effect at once. 0: no cache.',
    { formerNames: ['remember_passwords'] },
  ),
  check_timeout: duration('s', 60, 1, 600, 'Longest time that a checker, or the server behind popup, may take.'),
  checker_processes: integer(
    64,
    1,
    1000,
    'checker = "checkpassword" or "chain": number of programs that check passwords at the same time. checker = "upstream": number of logins under way at the server behind. More logins wait, in an order that is fair by network.',
  ),
  max_connections: integer(2000, 1, 100_000, 'Connections in all.'),
  max_per_address: integer(100, 0, 100_000, 'Connections per address (IPv6: per /64); 0: no limit.'),
  max_per_login: integer(
    0,
    0,
    100_000,
    'Sessions of one login at the same time; one more is answered [IN-USE]. 0: a tenth of max_connections, at least 5.',
  ),
  max_per_owner: integer(
    0,
    0,
    100_000,
    'Sessions of one owner of mail (uid and gid) at the same time, for all logins together; one more is answered [IN-USE]. 0: nine tenths of max_connections, at least 5, because all mail may belong to one account. checker = "chain" or "upstream": sessions of one address (IPv6: one /64), because popup does not know the owner.',
  ),
  login_time: duration('s', 300, 1, 1200, 'Longest time from connection to login.'),
  max_failures: integer(3, 1, 100, 'Failed logins after which a connection is closed.'),
  drain_time: duration('s', 10, 0, 3600, 'Time for which open sessions may continue when popup is stopped.'),
  fail_delays: delays(
    ['2s', '4s', '8s', '15s'],
    'Delays before a password check; a number without a unit counts seconds. A login waits after its first, second, … wrong password from any address within 10 minutes. It also waits after the fourth, fifth, … other login that failed from its address (IPv6: from its /64, and from its /48 after the seventeenth). The longest of these delays counts. A repeated wrong password counts once. A login that succeeded from an address does not wait there, until three different wrong passwords in a row. So a right login waits at most the last of these delays, and devices with old passwords behind a NAT delay no other login.',
  ),
})

export const POP3D = defineSection('pop3d', 'POP3 after login: serves maildrops.', {
  sizes: withQmailDefault(
    choice(
      ['wire', 'file'],
      'wire',
      'wire: octets as sent (RFC 1939); file: bytes of the file, as qmail, and the default with popup.compat = "qmail".',
      BARE,
    ),
    'file',
  ),
  extra_blank: withQmailDefault(
    flag(
      false,
      'End every message with one more empty line, as qmail-pop3d does. LIST does not count this line. With popup.compat = "qmail" the default is true.',
      BARE,
    ),
    true,
  ),
  lock: choice(
    ['none', 'exclusive'],
    'none',
    'exclusive: a second session on the same maildrop is answered [IN-USE].',
    BARE,
  ),
  idle_time: duration('s', 1200, 600, 86_400, 'Time without a command after which a session ends.'),
  engine: engine('processes that serve maildrops'),
  worker_idle: duration('s', 60, 1, 86_400, 'Time after its last session at which the process of an owner ends.'),
})

const absolutePath = v.pipe(v.string('must be a path in quotes'), v.regex(/^\/[^\0\r\n]+$/, 'must be an absolute path'))

const listener = v.strictObject({
  listen: field.socketAddress,
  backend: field.socketAddress,
  /** Sent to the server behind before the client's first octet. */
  preamble: v.optional(
    v.picklist(['ssl', 'proxy-v1', 'proxy-v2', 'none'], 'must be "ssl", "proxy-v1", "proxy-v2" or "none"'),
    'ssl',
  ),
  protocol: v.optional(v.picklist(['pop3', 'smtp', 'other'], 'must be "pop3", "smtp" or "other"'), 'pop3'),
  /** Replace sslwrap.cert and sslwrap.key for this listener. */
  cert: v.optional(absolutePath),
  key: v.optional(absolutePath),
  /** `old`: TLS 1.0 and 1.1 too, but only for clients of sslwrap.old_tls_nets. */
  tls: v.optional(v.picklist(['modern', 'old'], 'must be "modern" or "old"'), 'modern'),
})

const certificate = v.strictObject({ cert: absolutePath, key: v.optional(absolutePath) })

export const SSLWRAP = defineSection(
  'sslwrap',
  'TLS for servers that have none: decrypts connections and passes them on.',
  {
    listener: tables(
      listener,
      'Pairs of a TLS address and the server behind it: listen, backend, preamble (ssl, proxy-v1, proxy-v2, none), protocol (pop3, smtp, other), cert, key, tls (modern, old). Without a listener: *:995 before 127.0.0.1:110.',
    ),
    user: text('auth-relay-tls', 'Account of the processes that do the TLS handshakes.'),
    workers: integer(0, 0, 64, 'Number of processes; 0: one per core.'),
    cert: path(
      '/etc/auth-relay/tls.crt',
      'Certificate chain (PEM). If certificate and key are missing, sslwrap makes a self-signed pair.',
    ),
    key: path('/etc/auth-relay/tls.key', 'Private key (PEM).'),
    certificate: tables(
      certificate,
      'More certificates (cert, key). The server name that the client sends selects the certificate. For the same names, one certificate of each key type can be offered.',
    ),
    hostname: text('', 'Name in a self-signed certificate; empty: the name of this host.'),
    ciphers: text('', 'OpenSSL cipher list for TLS 1.2; empty: forward secrecy and AEAD only.'),
    alpn_strict: flag(
      false,
      'Refuse clients whose ALPN list lacks the protocol of the listener. Clients without ALPN are accepted.',
    ),
    client_certificate: choice(
      ['none', 'optional', 'required'],
      'none',
      'optional: request a client certificate. required: refuse clients without a certificate that an authority in client_ca has signed.',
    ),
    client_ca: path('', 'Authorities (PEM) for client certificates.'),
    old_tls_nets: networks([], 'Networks of the clients that a listener with tls = "old" serves. Empty: none.'),
    handshake_time: duration(
      's',
      30,
      1,
      600,
      'Longest time of the TLS handshake. The first octet must come within 5 s.',
    ),
    connect_time: duration(
      's',
      10,
      1,
      600,
      'Longest time for the connection to the server behind, and again for its greeting.',
    ),
    idle_time: duration('s', 1260, 1, 86_400, 'Time without a byte in either direction after which a connection ends.'),
    drain_time: duration('s', 10, 0, 3600, 'Time for which open connections may continue after SIGTERM.'),
    max_connections: integer(
      10_000,
      1,
      1_000_000,
      'Connections in all. If all are taken, a new client displaces an unfinished handshake: the oldest of the network with the most.',
    ),
    max_per_address: integer(
      200,
      0,
      100_000,
      'Connections per address (IPv6: per /64); 0: no limit. Both limits hold for all workers together. Each worker has an equal part, so that a client can be refused while another worker has places.',
    ),
    metrics_listen: socketAddress(
      '',
      'Loopback address where Prometheus reads the end of each certificate, e.g. "127.0.0.1:9634". Empty: none.',
    ),
  },
)
