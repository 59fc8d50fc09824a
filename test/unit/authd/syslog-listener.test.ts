import { connect, createServer } from 'node:net'
import { expect, test } from 'vitest'
import { Counters } from '../../../src/authd/counters.ts'
import { SyslogListener } from '../../../src/authd/syslog-listener.ts'
import { createLog } from '../../../src/base/log.ts'
import { eventually } from '../../harness/eventually.ts'

const LINES = 20_000

test('at the end it reads the octets that its peers have sent, in any amount', async () => {
  const received: string[] = []
  const listener = new SyslogListener({
    sources: { acceptLine: (_, line) => void received.push(line) },
    // The store is slow, so that the lines stay in the kernel and with the sender.
    queue: { hasRoom: false, room: () => new Promise(() => {}) },
    counters: new Counters(),
    log: createLog('test', { write: () => {} }),
  })
  const address = await listener.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 })
  if (address.kind !== 'tcp') expect.unreachable()
  const syslogd = connect({ port: address.port, host: '127.0.0.1', allowHalfOpen: true })
  syslogd.on('error', () => {})
  // As rsyslog does, the client sends until the other side ends.
  syslogd.on('end', () => syslogd.end()).resume()
  for (let n = 0; n < LINES; n += 1) syslogd.write(`Nov 28 10:00:00 mx ipop3d[77]: line ${n}\n`)
  await eventually('the listener has read a part', () => received.length > 0)
  expect(received.length, 'lines before the pause').toBeLessThan(LINES)
  await listener.close()
  expect(received).toHaveLength(LINES)
  expect(received.at(-1)).toBe(`Nov 28 10:00:00 mx ipop3d[77]: line ${LINES - 1}`)
})

test('close ends an open connection that sends nothing, and the port is free again', async () => {
  const listener = new SyslogListener({
    sources: { acceptLine: () => {} },
    queue: { hasRoom: true, room: async () => {} },
    counters: new Counters(),
    log: createLog('test', { write: () => {} }),
  })
  const address = await listener.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 })
  if (address.kind !== 'tcp') expect.unreachable()
  const silent = connect({ port: address.port, host: '127.0.0.1', allowHalfOpen: true })
  const closed = new Promise<string>(resolve => {
    for (const event of ['error', 'end']) silent.on(event, () => resolve('closed'))
    silent.resume()
  })
  await new Promise(resolve => silent.once('connect', resolve))
  await listener.close()
  expect(await closed).toBe('closed')
  silent.destroy()
  // The port is free again.
  const next = createServer()
  await new Promise<void>(
    (resolve, reject) => void next.once('error', reject).listen(address.port, '127.0.0.1', resolve),
  )
  next.close()
})

test('of 65 connections the one that was silent longest is closed, and the log has one warning', async () => {
  const warnings: string[] = []
  const received: string[] = []
  const listener = new SyslogListener({
    sources: { acceptLine: (_, line) => void received.push(line) },
    queue: { hasRoom: true, room: async () => {} },
    counters: new Counters(),
    log: createLog('test', { write: line => warnings.push(line) }),
  })
  const address = await listener.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 })
  if (address.kind !== 'tcp') expect.unreachable()
  const closed: number[] = []
  const open = async (n: number) => {
    const socket = connect({ port: address.port, host: '127.0.0.1' })
    socket.on('error', () => {}).on('close', () => closed.push(n))
    socket.write(`Nov 28 10:00:00 mx ipop3d[77]: line ${n}\n`)
    await eventually(`line ${n} is read`, () => received.some(line => line.endsWith(` ${n}`)))
    return socket
  }
  const sockets = []
  for (let n = 0; n < 64; n += 1) sockets.push(await open(n))
  // The first one sends a line, so the second one is silent longest.
  sockets[0]?.write('Nov 28 10:00:01 mx ipop3d[77]: again\n')
  await eventually('the line is read', () => received.some(line => line.endsWith('again')))
  sockets.push(await open(64))
  await eventually('one connection is closed', () => closed.length > 0)
  expect(closed).toEqual([1])
  expect(warnings).toEqual([expect.stringContaining('event=syslog_connection_closed connections=64')])
  for (const socket of sockets) socket.destroy()
  await listener.close()
})
