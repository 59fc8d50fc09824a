import { once } from 'node:events'
import { connect as connectTls } from 'node:tls'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type BoundSocket, holdListener } from '../../../src/process/listener.ts'
import { startWorker, type WorkerProcess } from '../../../src/process/worker-process.ts'
import { parseCertificate } from '../../../src/tunnel/certificate.ts'
import { makeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { rotateTicketKeys } from '../../../src/tunnel/ticket-keys.ts'
import { parseTlsWorkerAnswer, type ServeOrder, type TlsWorkerAnswer } from '../../../src/wire/workers/tls-worker.ts'
import { BackEnd } from '../../harness/pop3/sslwrap.ts'
import { Conversation } from '../../harness/processes/conversation.ts'

const PROGRAM = new URL('../../../src/sslwrap/main.ts', import.meta.url).pathname
const OLD = makeSelfSigned({ names: ['old.example.org'], now: Date.now() })
const NEW = makeSelfSigned({ names: ['new.example.org'], now: Date.now() })

let listener: BoundSocket
let backEnd: BackEnd
let worker: WorkerProcess
/** Answers of the worker that no test has taken. */
let answers: TlsWorkerAnswer[]
let arrived: () => void
const open: { destroy(): void }[] = []

beforeEach(async () => {
  listener = await holdListener({ kind: 'tcp', host: '127.0.0.1', port: 0 }, 'listen')
  backEnd = await new BackEnd(
    socket => socket.write('+OK ready\r\n'),
    (text, { socket }) => socket.write(`+OK received ${text}`),
  ).listen()
  answers = []
  arrived = () => {}
  worker = startWorker(PROGRAM, ['--worker'], [listener.descriptor])
  worker.channel.onMessage(message => {
    const answer = parseTlsWorkerAnswer(message)
    if (answer === undefined) throw new TypeError('no answer of a worker')
    answers.push(answer)
    arrived()
  })
})
afterEach(async () => {
  for (const each of open.splice(0)) each.destroy()
  worker.channel.close()
  await worker.ended
  listener.release()
  backEnd.close()
})

function orderWith({ cert, key }: { cert: string; key: string }, more: Partial<ServeOrder> = {}): ServeOrder {
  const certificate = parseCertificate(cert, key, '/etc/test.pem')
  return {
    type: 'serve',
    logLevel: 'error',
    listeners: [
      {
        name: 'test',
        backend: { kind: 'tcp', host: '127.0.0.1', port: backEnd.port },
        preamble: 'none',
        protocol: 'pop3',
        versions: 'modern',
        certificates: [{ ...certificate, names: [...certificate.names] }],
      },
    ],
    preambleReply: 'ok',
    alpnStrict: false,
    clientCertificate: 'none',
    ticketKeys: [...rotateTicketKeys()],
    handshakeLimit: 60_000,
    connectLimit: 60_000,
    idleLimit: 60_000,
    drainLimit: 60_000,
    maxConnections: 0,
    maxPerAddress: 0,
    nat64Prefixes: [],
    ...more,
  }
}

/** Sends an order and waits for the answer. */
async function order(message: ServeOrder): Promise<TlsWorkerAnswer | undefined> {
  const { promise, resolve } = Promise.withResolvers<void>()
  arrived = resolve
  worker.channel.send(message)
  await promise
  return answers.shift()
}

/** A client of the worker after its handshake, with the name in the certificate of the worker. */
async function client(): Promise<{ readonly name: string; readonly conversation: Conversation; end(): void }> {
  const { address } = listener
  if (address.kind !== 'tcp') throw new TypeError('an address of TCP')
  const tls = connectTls({ host: '127.0.0.1', port: address.port, rejectUnauthorized: false })
  open.push(tls)
  const conversation = new Conversation('client', tls)
  await once(tls, 'secureConnect')
  const name = tls.getPeerX509Certificate()?.subjectAltName ?? ''
  await conversation.expect(/^\+OK ready$/)
  return { name, conversation, end: () => void tls.end() }
}

describe('a worker', () => {
  test('serves the listener that it inherited', async () => {
    expect(await order(orderWith(OLD))).toEqual({ type: 'serving' })
    const { conversation, name } = await client()
    expect(name).toBe('DNS:old.example.org')
    await conversation.ask('NOOP', /^\+OK received NOOP$/)
  })

  test('a later order is in force for the next client, and earlier clients stay', async () => {
    await order(orderWith(OLD))
    const first = await client()
    expect(await order(orderWith(NEW))).toEqual({ type: 'serving' })
    expect((await client()).name).toBe('DNS:new.example.org')
    await first.conversation.ask('NOOP', /^\+OK received NOOP$/)
  })

  test('refuses an order that it cannot use, and the earlier one stays in force', async () => {
    await order(orderWith(OLD))
    expect(await order(orderWith(NEW, { ciphers: 'NO-SUCH-CIPHER' }))).toMatchObject({ type: 'refused' })
    const { listeners } = orderWith(NEW)
    expect(await order(orderWith(NEW, { listeners: [...listeners, ...listeners] }))).toEqual({
      type: 'refused',
      reason: 'listeners cannot change while serving',
    })
    expect((await client()).name).toBe('DNS:old.example.org')
  })

  test('reports the address of its metrics', async () => {
    const metricsListen = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const
    const answer = await order(orderWith(OLD, { metricsListen }))
    if (answer?.type !== 'serving' || answer.metrics === undefined) throw new Error(`no address: ${answer?.type}`)
    const response = await fetch(`http://${answer.metrics}/metrics`)
    expect(await response.text()).toContain('path="/etc/test.pem",name="old.example.org"')
  })

  test('ends after the last session of a drain, and accepts no new one', async () => {
    await order(orderWith(OLD))
    const { conversation, end } = await client()
    worker.channel.send({ type: 'drain' })
    await conversation.ask('NOOP', /^\+OK received NOOP$/)
    end()
    expect(await worker.ended).toMatchObject({ code: 0, hung: false })
  })

  test('a drain closes sessions after its limit', async () => {
    await order(orderWith(OLD, { drainLimit: 1 }))
    const { conversation } = await client()
    worker.channel.send({ type: 'drain' })
    await conversation.expectEnd()
    expect(await worker.ended).toMatchObject({ code: 0 })
  })

  test('ends with its parent', async () => {
    await order(orderWith(OLD))
    worker.channel.close()
    expect(await worker.ended).toMatchObject({ code: 0, hung: false })
  })

  test('a message that is no order ends the worker', async () => {
    worker.channel.send({ type: 'serve' })
    expect((await worker.ended).code).not.toBe(0)
  })
})
