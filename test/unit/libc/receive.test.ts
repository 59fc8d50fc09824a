import { once } from 'node:events'
import { connect, createServer, Socket } from 'node:net'
import { expect, test } from 'vitest'
import { descriptorOf } from '../../../src/base/node-internals.ts'
import { receive } from '../../../src/libc/sockets.ts'
import { eventually } from '../../harness/eventually.ts'

test('reads the octets that have arrived, at most the requested number, and never waits', async () => {
  const server = createServer({ pauseOnConnect: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const accepted = once(server, 'connection')
  const client = connect(address.port, '127.0.0.1')
  const [socket] = await accepted
  if (!(socket instanceof Socket)) throw new Error('no socket')
  const descriptor = descriptorOf(socket)
  expect(receive(descriptor, 10)).toBeUndefined()
  client.end('hello world')
  expect((await eventually('arrived', () => receive(descriptor, 5))).toString()).toBe('hello')
  expect(receive(descriptor, 100)?.toString()).toBe(' world')
  expect((await eventually('ended', () => receive(descriptor, 5))).length).toBe(0)
  socket.destroy()
  expect(() => receive(-1, 5)).toThrow(expect.objectContaining({ code: 'EBADF' }))
  server.close()
})
