import { once } from 'node:events'
import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { descriptorOf } from '../../../src/libc/descriptor.ts'
import { receiveDescriptor, sendDescriptor } from '../../../src/libc/pass-descriptor.ts'
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

const next = () => eventually('a descriptor', () => receiveDescriptor(descriptorOf(receiver)) ?? undefined)

test('descriptors arrive in the order in which they were sent, and are the same files', async () => {
  expect(receiveDescriptor(descriptorOf(receiver))).toBeUndefined()
  for (const name of ['a', 'b', 'c']) {
    writeFileSync(join(directory, name), `file ${name}`)
    const fd = openSync(join(directory, name), 'r')
    expect(sendDescriptor(descriptorOf(sender), fd)).toBe(true)
    closeSync(fd)
  }
  for (const name of ['a', 'b', 'c']) {
    const fd = await next()
    const octets = Buffer.alloc(10)
    expect(octets.toString('latin1', 0, readSync(fd, octets))).toBe(`file ${name}`)
    closeSync(fd)
  }
  expect(receiveDescriptor(descriptorOf(receiver))).toBeUndefined()
})

test('a queue that is full is a no, not an error, and none of what was sent is lost', async () => {
  let sent = 0
  while (sent < 5000 && sendDescriptor(descriptorOf(sender), 0)) sent += 1
  expect(sent).toBeGreaterThan(50)
  expect(sent).toBeLessThan(5000)
  const standardInput = fstatSync(0).ino
  for (let count = 0; count < sent; count += 1) {
    const fd = await next()
    expect(fstatSync(fd).ino).toBe(standardInput)
    closeSync(fd)
  }
  expect(receiveDescriptor(descriptorOf(receiver))).toBeUndefined()
})

test('an octet without a descriptor is told from none at all and from the end', async () => {
  sender.write('x')
  await eventually('it arrived', () => receiveDescriptor(descriptorOf(receiver)) === null)
  sender.end()
  expect(receiveDescriptor(descriptorOf(receiver))).toBeUndefined()
})

test('a closed socket is an error', () => {
  expect(() => sendDescriptor(-1, 0)).toThrow(expect.objectContaining({ code: 'EBADF' }))
  expect(() => receiveDescriptor(-1)).toThrow(expect.objectContaining({ code: 'EBADF' }))
})
