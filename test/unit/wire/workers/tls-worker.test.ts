import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import { formatMessage, parseMessage } from '../../../../src/wire/workers/control-channel.ts'
import {
  parseTlsWorkerAnswer,
  parseTlsWorkerOrder,
  refusalOf,
  type ServeOrder,
} from '../../../../src/wire/workers/tls-worker.ts'

const sent = (message: unknown): unknown => parseMessage(formatMessage(message).slice(0, -1))

const certificate: ServeOrder['listeners'][number]['certificates'][number] = {
  cert: '-----BEGIN CERTIFICATE-----\n',
  key: '-----BEGIN PRIVATE KEY-----\n',
  keyType: 'ec',
  names: ['mx.example.org'],
  notBefore: 0,
  expires: 2_000_000_000_000,
  path: '/etc/tls.crt',
}
const listener: ServeOrder['listeners'][number] = {
  name: '[::]:995',
  backend: { kind: 'tcp', host: '127.0.0.1', port: 110 },
  preamble: 'ssl',
  protocol: 'pop3',
  versions: 'modern',
  certificates: [certificate],
}
const serve: ServeOrder = {
  type: 'serve',
  logLevel: 'info',
  listeners: [listener],
  preamblePassword: 'tulip',
  preambleReply: 'ok',
  alpnStrict: true,
  clientCertificate: 'none',
  ticketKeys: ['aa'],
  handshakeLimit: 30_000,
  connectLimit: 10_000,
  idleLimit: 600_000,
  drainLimit: 0,
  maxConnections: 0,
  maxPerAddress: 30,
  nat64Prefixes: ['64:ff9b:1::/96'],
}

describe('an order of sslwrap', () => {
  const socketAddress = fc.oneof(
    fc.record({ kind: fc.constant('tcp' as const), host: fc.string(), port: fc.integer({ min: 0, max: 65_535 }) }),
    fc.record({ kind: fc.constant('unix' as const), path: fc.string() }),
    fc.record({ kind: fc.constant('descriptor' as const), fd: fc.nat() }),
  )
  const limit = fc.nat()
  const orders = fc.record({
    ids: fc.option(fc.record({ uid: fc.nat(), gid: fc.nat() }), { nil: undefined }),
    listeners: fc.array(
      fc.record({
        backend: socketAddress,
        allow: fc.option(fc.constantFrom('192.0.2.0/24', '2001:db8::/32'), { nil: undefined }),
        names: fc.array(fc.string()),
        path: fc.string(),
      }),
    ),
    metricsListen: fc.option(socketAddress, { nil: undefined }),
    preamblePassword: fc.option(fc.string(), { nil: undefined }),
    ciphers: fc.option(fc.string(), { nil: undefined }),
    clientCa: fc.option(fc.string(), { nil: undefined }),
    ticketKeys: fc.array(fc.string()),
    handshakeLimit: limit,
    drainLimit: limit,
    maxConnections: limit,
    maxPerAddress: limit,
  })

  property.prop([orders])('arrives unchanged', ({ listeners, ...parts }) => {
    const message: ServeOrder = {
      ...serve,
      ...parts,
      listeners: listeners.map(({ backend, allow, names, path }) => ({
        ...listener,
        backend,
        allow: allow === undefined ? undefined : [allow],
        certificates: [{ ...certificate, names, path }],
      })),
    }
    expect(parseTlsWorkerOrder(sent(message))).toEqual(message)
    expect(parseTlsWorkerOrder(sent({ type: 'drain' }))).toEqual({ type: 'drain' })
  })

  test.each([
    ['another type', { type: 'stop' }],
    ['no listeners', { listeners: undefined }],
    ['an additional key', { uid: 0 }],
    ['a negative limit', { maxConnections: -1 }],
    ['a limit that is not a whole number', { maxPerAddress: 1.5 }],
    ['a time that is a text', { idleLimit: '600' }],
    ['an account with a negative uid', { ids: { uid: -1, gid: 1 } }],
    ['an account without a gid', { ids: { uid: 1 } }],
    ['an invalid network of a translator', { nat64Prefixes: ['64:ff9b::/300'] }],
    ['an invalid network of a listener', { listeners: [{ ...listener, allow: ['192.0.2.0/33'] }] }],
    ['a port above 65535', { listeners: [{ ...listener, backend: { kind: 'tcp', host: '::1', port: 70_000 } }] }],
    ['a certificate of an unknown kind', { listeners: [{ ...listener, certificates: [{ keyType: 'dsa' }] }] }],
  ])('is of another version with %s', (_, change) => {
    expect(() => parseTlsWorkerOrder(sent({ ...serve, ...change }))).toThrow(/^a message of the parent/)
  })

  test('that is refused does not show the key', () => {
    const message = { ...serve, listeners: [{ ...listener, certificates: [{ ...certificate, key: ['tulip'] }] }] }
    expect(() => parseTlsWorkerOrder(message)).toThrow(/listeners\.0\.certificates\.0\.key/)
    expect(() => parseTlsWorkerOrder(message)).not.toThrow(/tulip/)
  })
})

describe('an answer of a worker', () => {
  test.each([
    [{ type: 'serving' }],
    [{ type: 'serving', metrics: '127.0.0.1:9101' }],
    [{ type: 'refused', reason: 'no shared cipher' }],
  ])('%j arrives unchanged', message => {
    expect(parseTlsWorkerAnswer(sent(message))).toEqual(message)
  })

  property.prop([fc.string({ minLength: 1990, maxLength: 5000 })])('that refuses has a bounded reason', reason => {
    expect(parseTlsWorkerAnswer(sent(refusalOf(reason)))).toEqual({ type: 'refused', reason: reason.slice(0, 2000) })
  })

  test('that refuses has the whole of a short reason', () => {
    expect(refusalOf('no shared cipher')).toEqual({ type: 'refused', reason: 'no shared cipher' })
  })

  test.each([
    [{ type: 'serving', metrics: 'x'.repeat(101) }],
    [{ type: 'serving', pid: 1 }],
    [{ type: 'refused' }],
    [{ type: 'refused', reason: 'x'.repeat(2001) }],
    [{ type: 'drain' }],
    [null],
    ['serving'],
  ])('%j is not an answer of a worker', message => {
    expect(parseTlsWorkerAnswer(message)).toBeUndefined()
  })

  property.prop([fc.jsonValue()])('is not read from any other value', value => {
    expect(parseTlsWorkerAnswer(value)).toBeUndefined()
  })
})
