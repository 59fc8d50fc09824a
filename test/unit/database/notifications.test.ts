import { createServer, type Socket } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { listenTo } from '../../../src/database/notifications.ts'
import { eventually } from '../../harness/eventually.ts'

/** PostgreSQL's protocol: AuthenticationOk, ReadyForQuery, CommandComplete, a notification. */
const OK = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0])
const READY = Buffer.from([0x5a, 0, 0, 0, 5, 0x49])
const DONE = Buffer.from('C\0\0\0\x0bLISTEN\0', 'latin1')
const NOTIFICATION = Buffer.from('A\0\0\0\x10\0\0\0\x01changes\0\0', 'latin1')

/** A server that never closes a connection. `answers`: whether LISTEN has a reply. */
async function hangingServer(answers: boolean) {
  const sockets: Socket[] = []
  const queries: string[] = []
  const server = createServer({ allowHalfOpen: true }, socket => {
    sockets.push(socket)
    let isStarted = false
    socket.on('error', () => {})
    socket.on('data', octets => {
      if (!isStarted) {
        isStarted = true
        socket.write(Buffer.concat([OK, READY]))
      } else if (octets[0] === 0x51) {
        queries.push(octets.toString('latin1', 5, octets.length - 1))
        if (answers) socket.write(Buffer.concat([DONE, READY]))
      }
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const hosts = [{ host: '127.0.0.1', port: address.port }]
  return { options: { hosts, database: 'db', user: 'reader', applicationName: 'test' }, queries, sockets }
}

test('calls back when it listens and at each notification', async () => {
  const { options, queries, sockets } = await hangingServer(true)
  let received = 0
  const notifications = listenTo(options, 'changes', () => {
    received += 1
  })
  await eventually('LISTEN is answered', () => received === 1)
  expect(queries).toEqual(['LISTEN changes'])
  sockets[0]?.write(NOTIFICATION)
  await eventually('a notification is received', () => received === 2)
  await notifications.close()
})

test.each([
  ['answers no query', false],
  ['does not close its end', true],
])('the listener ends although the server %s', async (_, answers) => {
  const { options, queries } = await hangingServer(answers)
  const notifications = listenTo(options, 'changes', () => {})
  await eventually('LISTEN is sent', () => queries.length === 1)
  await notifications.close()
})
