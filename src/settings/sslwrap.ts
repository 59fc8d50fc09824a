import * as v from 'valibot'
import {
  choice,
  defineSection,
  duration,
  field,
  flag,
  integer,
  networks,
  path,
  socketAddress,
  tables,
  text,
} from './rows.ts'

const absolutePath = v.pipe(v.string('must be a path in quotes'), v.regex(/^\/[^\0\r\n]+$/, 'must be an absolute path'))

const listener = v.strictObject({
  listen: field.socketAddress,
  backend: field.socketAddress,
  preamble: v.optional(
    v.picklist(['ssl', 'proxy-v1', 'proxy-v2', 'none'], 'must be "ssl", "proxy-v1", "proxy-v2" or "none"'),
    'ssl',
  ),
  protocol: v.optional(v.picklist(['pop3', 'smtp', 'other'], 'must be "pop3", "smtp" or "other"'), 'pop3'),
  /** In place of sslwrap.cert and sslwrap.key. */
  cert: v.optional(absolutePath),
  key: v.optional(absolutePath),
  /** `old` speaks TLS 1.0 and 1.1 too, and only to sslwrap.old_tls_nets. */
  tls: v.optional(v.picklist(['modern', 'old'], 'must be "modern" or "old"'), 'modern'),
})

const certificate = v.strictObject({ cert: absolutePath, key: v.optional(absolutePath) })

export const SSLWRAP = defineSection('sslwrap', 'TLS outside, plain inside.', {
  listener: tables(
    listener,
    'Pairs of a TLS address and the server behind it: listen, backend, preamble (ssl, proxy-v1, proxy-v2, none), protocol (pop3, smtp, other), cert, key, tls (modern, old). None: *:995 before 127.0.0.1:110.',
  ),
  user: text('auth-relay-tls', 'Account of the processes that speak TLS.'),
  workers: integer(0, 0, 64, 'Number of processes; 0: one per core.'),
  cert: path(
    '/etc/auth-relay/tls.crt',
    'Certificate chain (PEM). Missing together with the key: a self-signed one is made.',
  ),
  key: path('/etc/auth-relay/tls.key', 'Private key (PEM).'),
  certificate: tables(
    certificate,
    'More certificates (cert, key), chosen by the server name that the client asks for. Same names, other key type: both are offered.',
  ),
  hostname: text('', 'Name in a self-signed certificate; empty: the name of this host.'),
  ciphers: text('', 'OpenSSL cipher list for TLS 1.2; empty: forward secrecy and AEAD only.'),
  alpn_strict: flag(false, 'Refuse clients that offer only other application protocols (ALPN).'),
  client_certificate: choice(
    ['none', 'optional', 'required'],
    'none',
    'Ask for a client certificate, or demand one that client_ca vouches for.',
  ),
  client_ca: path('', 'Authorities (PEM) for client certificates.'),
  old_tls_nets: networks([], 'Peers for which a listener with tls = "old" answers. Empty: nobody.'),
  handshake_time: duration('s', 30, 1, 600, 'Longest time of the TLS handshake. The first octet must come within 5 s.'),
  connect_time: duration(
    's',
    10,
    1,
    600,
    'Longest time for the connection to the server behind, and again for its greeting.',
  ),
  idle_time: duration('s', 1260, 1, 86_400, 'Time without a byte in either direction after which a connection ends.'),
  drain_time: duration('s', 10, 0, 3600, 'Time that open connections get to end after SIGTERM.'),
  max_connections: integer(
    10_000,
    1,
    1_000_000,
    'Connections in all. When they are taken, an unfinished handshake makes room: the oldest of the network with most.',
  ),
  max_per_address: integer(
    200,
    0,
    100_000,
    'Connections per address (IPv6: per /64); 0: no limit. Both limits hold for all workers together. Each worker has an equal part, so that a client can be refused while another worker has places.',
  ),
  metrics_listen: socketAddress(
    '',
    'Loopback address where Prometheus learns when the certificates end, e.g. "127.0.0.1:9634". Empty: none.',
  ),
})
