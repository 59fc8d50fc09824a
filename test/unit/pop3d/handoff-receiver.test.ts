import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { connect, createServer, type Server, Socket } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { descriptorOf } from '../../../src/base/node-internals.ts'
import { sendDescriptor } from '../../../src/libc/descriptor-passing.ts'
import { duplicateDescriptor } from '../../../src/libc/descriptors.ts'
import { connectUnix, receiveInto, sendFrom, unixSocket } from '../../../src/libc/sockets.ts'
import { openFilesLimit, setOpenFilesLimit } from '../../../src/libc/this-process.ts'
import { HandoffReceiver } from '../../../src/pop3d/handoff-receiver.ts'
import { type HandoffChannel, HandoffSender } from '../../../src/popup/login/handoff-sender.ts'
import type { Connection } from '../../../src/sockets/connection.ts'
import { EpollConnection } from '../../../src/sockets/epoll-connection.ts'
import { epollEngine } from '../../../src/sockets/epoll-engine.ts'
import { OwnedDescriptor } from '../../../src/sockets/owned-descriptor.ts'
import { CHANNEL_LINE, formatHandoff, MAX_READ_AHEAD } from '../../../src/wire/workers/maildrop-worker.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

// Both ends of a channel, the login process's and the worker's, in one process, over a real Unix
// connection.
const { handover } = epollEngine
if (handover === undefined) throw new Error('epoll hands connections over')

type Received = { readonly client: Connection; readonly ticket: string; readonly readAhead: string }

const directory = temporaryDirectory()
const { soft } = openFilesLimit()
let number = 0
let server: Server
let path: string
let received: Received[]
let ended: string[]
let worker: HandoffReceiver
let channel: HandoffChannel
beforeEach(async () => {
  received = []
  ended = []
  worker = new HandoffReceiver(handover, (client, ticket, readAhead) => {
    received.push({ client, ticket, readAhead: Buffer.from(readAhead).toString('latin1') })
  })
  server = createServer({ allowHalfOpen: true }, connection => {
    connection.once('data', octets => {
      expect(String(octets)).toBe(`${CHANNEL_LINE}\n`)
      worker.open(connection)
    })
  })
  number += 1
  path = `${directory.path}/${number}.sock`
  await once(server.listen(path), 'listening')
  const opened = await new HandoffSender(handover, createLog('test', { write: () => {} })).to(path)
  if (opened === undefined) throw new Error('no channel')
  channel = opened
})
afterEach(() => {
  setOpenFilesLimit(soft)
  worker.destroy()
  server.close()
})

/** A client that has connected, and its connection in the login process. */
async function client(): Promise<{ far: Socket; near: EpollConnection }> {
  const listener = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const address = listener.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const far = connect({ port: address.port, host: '127.0.0.1' })
  const [accepted] = await once(listener, 'connection')
  if (!(accepted instanceof Socket)) throw new Error('no connection')
  const near = new EpollConnection(new OwnedDescriptor(duplicateDescriptor(descriptorOf(accepted))))
  accepted.destroy()
  listener.close()
  return { far, near }
}

const pass = (near: EpollConnection, ticket: string, readAhead = ''): boolean =>
  channel.pass(near, ticket, Buffer.from(readAhead, 'latin1'), () => ended.push(ticket))

test('a client is handed over with its ticket and the octets read ahead, and its end is reported', async () => {
  const { far, near } = await client()
  expect(pass(near, 'session 1', 'STAT\r\nN\xd6')).toBe(true)
  expect(near.isDestroyed).toBe(true)
  const { client: now, ...what } = await eventually('the client is received', () => received[0])
  expect(what).toEqual({ ticket: 'session 1', readAhead: 'STAT\r\nN\xd6' })
  now.write('+OK \r\n')
  expect(String((await once(far, 'data'))[0])).toBe('+OK \r\n')
  expect(ended).toEqual([])
  now.destroy()
  await eventually('the end of the session is reported', () => ended.includes('session 1'))
})

test('octets read ahead up to the limit arrive completely, and a longer read-ahead is not handed over', async () => {
  const { near } = await client()
  const readAhead = Array.from({ length: MAX_READ_AHEAD }, (_, index) => String.fromCharCode(index % 251)).join('')
  expect(pass(near, 'session 1', `${readAhead}x`)).toBe(false)
  expect(near.isDestroyed).toBe(false)
  expect(pass(near, 'session 1', readAhead)).toBe(true)
  const first = await eventually('the client is received', () => received[0])
  expect(first.readAhead === readAhead).toBe(true)
  expect(pass((await client()).near, 'session 2', 'x')).toBe(true)
  await eventually('the next client is received', () => received[1]?.readAhead === 'x')
})

test('a client is not handed over while the queue is full', async () => {
  const clients = await Promise.all(Array.from({ length: 4 }, client))
  const answers = clients.map(({ near }) => pass(near, 'session', 'x'.repeat(MAX_READ_AHEAD)))
  expect(answers[0]).toBe(true)
  expect(answers.at(-1)).toBe(false)
  expect(clients.map(({ near }) => near.isDestroyed)).toEqual(answers)
  const count = answers.filter(isPassed => isPassed).length
  await eventually('each client that was passed is received', () => received.length === count)
  expect(received.every(({ readAhead }) => readAhead === 'x'.repeat(MAX_READ_AHEAD))).toBe(true)
  for (const { near } of clients) near.destroy()
})

test('a client above the open-file limit of the worker is lost, and no other client', async () => {
  const lost = await client()
  const kept = await client()
  setOpenFilesLimit(3n)
  expect(pass(lost.near, 'session 1', 'STAT\r\n')).toBe(true)
  await eventually('the end of the session is reported', () => ended.includes('session 1'))
  setOpenFilesLimit(soft)
  expect(pass(kept.near, 'session 2', 'NOOP\r\n')).toBe(true)
  await eventually('the next client is received', () => received[0])
  expect(received.map(({ ticket, readAhead }) => [ticket, readAhead])).toEqual([['session 2', 'NOOP\r\n']])
})

test('a channel that carries a file in place of a connection is closed', async () => {
  const socket = unixSocket({ blocking: false })
  const file = openSync(`${directory.path}/mail`, 'w+')
  connectUnix(socket, path)
  sendFrom(socket, Buffer.from(`${CHANNEL_LINE}\n`), CHANNEL_LINE.length + 1)
  let output = ''
  const readOutput = (): string => {
    const octets = Buffer.alloc(64)
    const count = receiveInto(socket, octets)
    output += count > 0 ? octets.toString('latin1', 0, count) : count === 0 ? 'end' : ''
    return output
  }
  await eventually('the channel is open', () => readOutput() === `${CHANNEL_LINE}\n`)
  expect(sendDescriptor(socket, file, `${formatHandoff({ n: 1, octets: 0, ticket: 'session 1' })}\n`)).toBeGreaterThan(
    0,
  )
  await eventually('the channel is closed', () => readOutput() === `${CHANNEL_LINE}\nend`)
  expect([received, readFileSync(file, 'latin1')]).toEqual([[], ''])
  closeSync(file)
  closeSync(socket)
})

test('a channel above the open-file limit is closed', async () => {
  const { far } = await client()
  setOpenFilesLimit(3n)
  worker.open(far)
  setOpenFilesLimit(soft)
  expect(far.destroyed).toBe(true)
  expect(channel.isOpen).toBe(true)
})

test('a channel ends with the login process or with the worker, and its clients end with it', async () => {
  const { near } = await client()
  expect(pass(near, 'session 1')).toBe(true)
  await eventually('the client is received', () => received[0])
  worker.destroy()
  await eventually('the end of the session is reported', () => ended.includes('session 1'))
  expect(channel.isOpen).toBe(false)
  expect(pass((await client()).near, 'session 2')).toBe(false)
  expect(received[0]?.client.isDestroyed).toBe(true)
})

test('without a receiver there is no channel', async () => {
  const links = new HandoffSender(handover, createLog('test', { write: () => {} }))
  expect(await links.to(`${directory.path}/nobody.sock`)).toBeUndefined()
  expect(await links.to(`${directory.path}/${'x'.repeat(200)}.sock`)).toBeUndefined()
})
