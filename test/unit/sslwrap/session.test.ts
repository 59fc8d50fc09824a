import { once } from 'node:events'
import { connect, createServer, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createLog, DailyHints } from '../../../src/base/log.ts'
import { ConnectionLimits, WaitingConnections } from '../../../src/process/connection-limits.ts'
import { BackEndUnavailable, connectBackEnd, type Service } from '../../../src/sslwrap/services.ts'
import { type Handshake, serveClient } from '../../../src/sslwrap/session.ts'
import { parseCertificate } from '../../../src/tunnel/certificate.ts'
import { makeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { rotateTicketKeys, TicketKeyRing } from '../../../src/tunnel/ticket-keys.ts'
import { TlsContexts } from '../../../src/tunnel/tls-contexts.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { NetworkSet } from '../../../src/wire/ip-address.ts'
import { sessionId } from '../../../src/wire/login-event.ts'
import { ip, net } from '../../harness/addresses.ts'
import { eventually } from '../../harness/eventually.ts'
import { BackEnd, GREETING, popupLike, SHARED_PASSWORD } from '../../harness/pop3/sslwrap.ts'
import { Conversation } from '../../harness/processes/conversation.ts'

const CLIENT = ip('127.0.0.1')
let contexts: TlsContexts
const server = createServer({ pauseOnConnect: true, allowHalfOpen: true })
const open: { destroy(): void }[] = []
const backEnds: BackEnd[] = []
let lines: string[] = []

beforeAll(async () => {
  const { cert, key } = makeSelfSigned({ names: ['localhost'], now: Date.now() })
  const certificate = parseCertificate(cert, key, 'test')
  contexts = new TlsContexts([certificate], { versions: 'modern' }, new TicketKeyRing(rotateTicketKeys()))
  await once(server.listen(0, '127.0.0.1'), 'listening')
})
beforeEach(() => {
  lines = []
})
afterEach(() => {
  for (const each of open.splice(0)) each.destroy()
  for (const each of backEnds.splice(0)) each.close()
})
afterAll(() => server.close())

async function behind(backEnd: BackEnd): Promise<BackEnd> {
  backEnds.push(backEnd)
  return backEnd.listen()
}

const serviceFor = (openBackEnd: () => Promise<Duplex>, more: Partial<Service> = {}): Service => ({
  name: '127.0.0.1:995',
  open: openBackEnd,
  preamble: 'none',
  protocol: 'pop3',
  contexts,
  allow: undefined,
  preamblePassword: SHARED_PASSWORD,
  preambleReply: 'ok',
  alpnStrict: false,
  clientCertificate: 'none',
  handshakeLimit: 60_000,
  connectLimit: 60_000,
  idleLimit: 60_000,
  ...more,
})
const serviceBefore = ({ port }: BackEnd, more?: Partial<Service>): Service =>
  serviceFor(() => connectBackEnd({ kind: 'tcp', host: '127.0.0.1', port }, 60_000), more)

/** The parts that all sessions of a listener share. */
const partsFor = (service: Service, { max = 0, maxPerAddress = 0 } = {}) => ({
  service,
  limits: new ConnectionLimits(max, maxPerAddress, new CustomerNetworks()),
  handshakes: new WaitingConnections<Handshake>(),
  hints: new DailyHints(),
  log: createLog('sslwrap', { level: 'debug', write: line => lines.push(line) }),
  nextId: () => sessionId(7, 1),
})

/** A client that has connected, and its session. */
async function arrive(parts: ReturnType<typeof partsFor>): Promise<{ client: Socket; session: Promise<void> }> {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const client = connect({ port: address.port, host: '127.0.0.1', allowHalfOpen: true })
  client.on('error', () => {})
  const [raw] = await once(server, 'connection')
  if (!(raw instanceof Socket)) throw new TypeError('a socket')
  open.push(client, raw)
  return { client, session: serveClient(raw, parts) }
}

/** The end of a client's TLS connection, as a dialogue. */
function secured(client: Socket): { tls: TLSSocket; conversation: Conversation } {
  const tls = connectTls({ socket: client, rejectUnauthorized: false })
  open.push(tls)
  return { tls, conversation: new Conversation('client', tls) }
}

const logged = (event: string): readonly string[] => lines.filter(line => line.includes(`event=${event}`))

describe('a client within TLS', () => {
  test('is relayed until it ends, and leaves its place', async () => {
    const parts = partsFor(serviceBefore(await behind(popupLike())), { max: 1 })
    const { client, session } = await arrive(parts)
    const { conversation, tls } = secured(client)
    await conversation.expect(/^\+OK </)
    await conversation.ask('CAPA', /^\+OK$/)
    expect(await conversation.expectLinesToDot()).toEqual(['USER'])
    await conversation.ask('QUIT', /^\+OK bye$/)
    await conversation.expectEnd()
    tls.end()
    await session
    expect(logged('client_connected')).toHaveLength(1)
    expect(logged('session_ended')).toHaveLength(1)
    const next = await arrive(parts)
    await secured(next.client).conversation.expect(/^\+OK </)
  })

  test('the SSL dialogue comes first, and the client gets the greeting alone', async () => {
    const backEnd = await behind(popupLike())
    const { client } = await arrive(partsFor(serviceBefore(backEnd, { preamble: 'ssl' })))
    const { conversation } = secured(client)
    expect((await conversation.expect(/^\+OK/)).text).toBe(GREETING)
    await conversation.ask('NOOP', /^\+OK received NOOP$/)
    expect(backEnd.received[0]?.text).toBe(`SSL 127.0.0.1:${SHARED_PASSWORD}\r\nNOOP\r\n`)
  })

  test('a greeting with -ERR is the last line, and the password is not sent', async () => {
    const backEnd = await behind(new BackEnd(socket => socket.end('-ERR [SYS/TEMP] busy\r\n')))
    const { client, session } = await arrive(partsFor(serviceBefore(backEnd, { preamble: 'ssl' })))
    const { conversation, tls } = secured(client)
    await conversation.expect(/^-ERR \[SYS\/TEMP\] busy$/)
    await conversation.expectEnd()
    tls.destroy()
    await session
    expect(backEnd.received[0]?.text).toBe('')
    expect(logged('upstream_failed')).toEqual([expect.stringContaining('the server greeted with a refusal')])
  })

  test('a PROXY header names both ends of the connection', async () => {
    const backEnd = await behind(new BackEnd(() => {}))
    const { client } = await arrive(partsFor(serviceBefore(backEnd, { preamble: 'proxy-v1' })))
    const { tls } = secured(client)
    tls.write('EHLO x\r\n')
    await eventually('the header and the first line', () => backEnd.received[0]?.text.endsWith('EHLO x\r\n'))
    const address = server.address()
    const port = address === null || typeof address === 'string' ? undefined : address.port
    expect(backEnd.received[0]?.text).toBe(`PROXY TCP4 127.0.0.1 127.0.0.1 ${client.localPort} ${port}\r\nEHLO x\r\n`)
  })

  test.each([
    ['pop3', '-ERR [SYS/TEMP] service unavailable'],
    ['smtp', undefined],
  ] as const)('an unreachable server: the last line of %s is %s', async (protocol, text) => {
    const down = () => Promise.reject(new BackEndUnavailable('the server is down'))
    const { client, session } = await arrive(partsFor(serviceFor(down, { protocol })))
    const { conversation, tls } = secured(client)
    expect((await conversation.next())?.text).toBe(text)
    tls.destroy()
    await session
    expect(logged('upstream_failed')).toEqual([expect.stringContaining('the server is down')])
  })

  test('another fault is not hidden, and the place is free afterwards', async () => {
    const parts = partsFor(
      serviceFor(() => Promise.reject(new TypeError('a fault of the program'))),
      { max: 1 },
    )
    const { client, session } = await arrive(parts)
    const failed = expect(session).rejects.toThrow('a fault of the program')
    secured(client)
    await failed
    expect(parts.limits.acquire(CLIENT)).toBe('ok')
  })
})

describe('a client without a handshake', () => {
  const never = () => Promise.reject(new Error('no client reached the server'))

  test('from a network that is not allowed is closed without a reply', async () => {
    const parts = partsFor(serviceFor(never, { allow: new NetworkSet([net('192.0.2.0/24')]) }))
    const { client, session } = await arrive(parts)
    await session
    await new Conversation('client', client).expectEnd()
    expect(logged('connection_refused')).toEqual([expect.stringContaining('reason=network')])
  })

  test('above the limit of its address is closed, and displaces no other client', async () => {
    const parts = partsFor(serviceFor(never), { max: 1, maxPerAddress: 1 })
    const first = await arrive(parts)
    const second = await arrive(parts)
    await second.session
    expect(logged('connection_refused')).toEqual([expect.stringContaining('reason=max_per_address')])
    expect(first.client.destroyed).toBe(false)
  })

  test('leaves its place to another client if all places are taken, and its handshake is not logged as a failure', async () => {
    const parts = partsFor(serviceBefore(await behind(popupLike())), { max: 1 })
    const first = await arrive(parts)
    const second = await arrive(parts)
    await first.session
    await secured(second.client).conversation.expect(/^\+OK </)
    expect(logged('connection_refused')).toEqual([expect.stringContaining('reason=max_connections')])
    expect(logged('tls_failed')).toEqual([])
  })

  test('after the handshake a client keeps its place', async () => {
    const parts = partsFor(serviceBefore(await behind(popupLike())), { max: 1 })
    const first = secured((await arrive(parts)).client).conversation
    await first.expect(/^\+OK </)
    const second = await arrive(parts)
    await second.session
    await first.ask('NOOP', /^\+OK received NOOP$/)
    expect(logged('connection_refused')).toEqual([expect.stringContaining('reason=max_connections')])
  })

  test('without TLS is logged with the remedy once a day', async () => {
    const parts = partsFor(serviceFor(never))
    for (let n = 0; n < 2; n += 1) {
      const { client, session } = await arrive(parts)
      client.write('USER ann\r\n')
      await session
    }
    expect(logged('tls_failed')).toHaveLength(2)
    expect(logged('tls_failed').filter(line => line.includes('port 110'))).toHaveLength(1)
  })

  test('that closes before its first octet is not logged as a failure', async () => {
    const parts = partsFor(serviceFor(never))
    const { client, session } = await arrive(parts)
    client.end()
    await session
    expect(logged('tls_failed')).toEqual([])
    expect(logged('connection_closed')).toHaveLength(1)
  })
})
