import * as v from 'valibot'
import { field, integer, path, tables, text } from './rows.ts'
import { defineSection } from './section.ts'

const listener = v.strictObject({
  listen: field.socketAddress,
  backend: field.socketAddress,
  preamble: v.optional(
    v.picklist(['ssl', 'proxy-v1', 'proxy-v2', 'none'], 'must be "ssl", "proxy-v1", "proxy-v2" or "none"'),
    'ssl',
  ),
  protocol: v.optional(v.picklist(['pop3', 'smtp', 'other'], 'must be "pop3", "smtp" or "other"'), 'pop3'),
})

export const SSLWRAP = defineSection('sslwrap', 'TLS outside, plain inside.', {
  listener: tables(listener, 'Pairs of a TLS address and the server behind it.'),
  user: text('auth-relay-tls', 'Account of the processes that speak TLS.'),
  workers: integer(0, 0, 64, 'Number of processes; 0: one per core.'),
  cert: path(
    '/etc/auth-relay/tls.crt',
    'Certificate chain (PEM). Missing together with the key: a self-signed one is made.',
  ),
  key: path('/etc/auth-relay/tls.key', 'Private key (PEM).'),
  max_connections: integer(10_000, 1, 1_000_000, 'Connections in all.'),
  max_per_address: integer(200, 0, 100_000, 'Connections per address (IPv6: per /64); 0: no limit.'),
})
