import { once } from 'node:events'
import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, Socket } from 'node:net'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { descriptorOf } from '../../../src/base/node-internals.ts'
import { MAX_PASSED_OCTETS, receiveDescriptor, sendDescriptor } from '../../../src/libc/descriptor-passing.ts'
import { eventually } from '../../harness/eventually.ts'

let directory: string
let sender: Socket
let receiver: Socket
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'pass-'))
  const server = createServer({ pauseOnConnect: true }).listen(join(directory, 'socket'))
  await once(server, 'listening')
  const accepted = once(server, 'connection')
  sender = connect(join(directory, 'socket'))
  await once(sender, 'connect')
  const [socket] = await accepted
  if (!(socket instanceof Socket)) throw new Error('no socket')
  receiver = socket
  server.close()
})
afterEach(() => {
  sender.destroy()
  receiver.destroy()
  rmSync(directory, { recursive: true })
})

const send = (descriptor: number, text: string, octets?: Uint8Array) =>
  sendDescriptor(descriptorOf(sender), descriptor, text, octets)
const receive = () => receiveDescriptor(descriptorOf(receiver))

async function next() {
  const { octets, descriptor } = await eventually('a message', () => {
    const received = receive()
    return typeof received === 'number' ? undefined : received
  })
  return { text: octets.toString('latin1'), descriptor }
}

function contentOf(descriptor: number | null | undefined): string {
  if (typeof descriptor !== 'number') throw new Error(`no descriptor: ${descriptor}`)
  const octets = Buffer.alloc(10)
  const text = octets.toString('latin1', 0, readSync(descriptor, octets))
  closeSync(descriptor)
  return text
}

test('descriptors arrive in the order in which they were sent, each with its octets, and refer to the same files', async () => {
  expect(receive()).toBe(-constants.errno.EAGAIN)
  for (const name of ['a', 'b', 'c']) {
    writeFileSync(join(directory, name), `file ${name}`)
    const fd = openSync(join(directory, name), 'r')
    expect(send(fd, `text ${name}\xff`, Buffer.from('!'))).toBe(8)
    closeSync(fd)
  }
  for (const name of ['a', 'b', 'c']) {
    const { text, descriptor } = await next()
    expect(text).toBe(`text ${name}\xff!`)
    expect(contentOf(descriptor)).toBe(`file ${name}`)
  }
  expect(receive()).toBe(-constants.errno.EAGAIN)
})

test('a full queue is reported as EAGAIN, and nothing that was sent is lost', async () => {
  let sent = 0
  while (sent < 5000 && send(0, 'x') === 1) sent += 1
  expect(send(0, 'x')).toBe(-constants.errno.EAGAIN)
  expect(sent).toBeGreaterThan(50)
  expect(sent).toBeLessThan(5000)
  const standardInput = fstatSync(0).ino
  for (let count = 0; count < sent; count += 1) {
    const { text, descriptor } = await next()
    if (typeof descriptor !== 'number') throw new Error('no descriptor')
    expect([text, fstatSync(descriptor).ino]).toEqual(['x', standardInput])
    closeSync(descriptor)
  }
  expect(receive()).toBe(-constants.errno.EAGAIN)
})

test('a message longer than the queue is sent in part, with the descriptor at its beginning', async () => {
  const long = Buffer.alloc(MAX_PASSED_OCTETS - 1, 'z')
  const fd = openSync('/dev/null', 'r')
  const sent = send(fd, 'a', long)
  expect(sent).toBeGreaterThan(1)
  let text = ''
  const descriptors = []
  while (text.length < sent) {
    const piece = await next()
    text += piece.text
    if (piece.descriptor !== undefined) descriptors.push(piece.descriptor)
  }
  expect(text).toBe(`a${'z'.repeat(sent - 1)}`)
  expect(descriptors).toHaveLength(1)
  for (const descriptor of descriptors) if (descriptor !== null) closeSync(descriptor)
  closeSync(fd)
})

test('octets without a descriptor, and the end of the stream, arrive without a descriptor', async () => {
  sender.write('x')
  expect(await next()).toEqual({ text: 'x', descriptor: undefined })
  sender.end()
  expect(await next()).toEqual({ text: '', descriptor: undefined })
})

test('a message that cannot be sent is an error, and so is a closed socket', () => {
  expect(() => send(0, '')).toThrow(RangeError)
  expect(() => send(0, 'x', Buffer.alloc(MAX_PASSED_OCTETS))).toThrow(RangeError)
  expect(sendDescriptor(-1, 0, 'x')).toBe(-constants.errno.EBADF)
  expect(receiveDescriptor(-1)).toBe(-constants.errno.EBADF)
})
