import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { duplicateDescriptor, openPipe } from '../../../src/libc/descriptors.ts'
import { READABLE } from '../../../src/libc/epoll.ts'
import { SystemCallError } from '../../../src/libc/native-function.ts'
import { holdListener } from '../../../src/process/bound-socket.ts'
import { ClientAcceptor, type Ends } from '../../../src/sockets/acceptor.ts'
import type { Connection } from '../../../src/sockets/connection.ts'
import { EpollConnection } from '../../../src/sockets/epoll-connection.ts'
import { EventLoop } from '../../../src/sockets/event-loop.ts'
import { joinConnections } from '../../../src/sockets/join-connections.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { eventually } from '../../harness/eventually.ts'

const cleanup: (() => void)[] = []
afterEach(() => {
  for (const undo of cleanup.splice(0)) undo()
})

/** Both ends of a TCP connection: a client of the runtime, and what the acceptor got. */
async function accepted(host = '127.0.0.1') {
  const held = await holdListener({ type: 'tcp', host, port: 0 }, 'test')
  if (held.address.type !== 'tcp') throw new Error('no port')
  const taken = Promise.withResolvers<{ fd: number; ends: Ends }>()
  const acceptor = new ClientAcceptor(held, { blocking: false, noDelay: true }, (fd, ends) =>
    taken.resolve({ fd, ends }),
  )
  cleanup.push(() => acceptor.close())
  const client = connect({ port: held.address.port, host: host === '::' ? '127.0.0.1' : host, allowHalfOpen: true })
  client.on('error', () => {}) // tests that reset it look at the other end
  cleanup.push(() => client.destroy())
  const { fd, ends } = await taken.promise
  return { client, fd, ends, port: held.address.port }
}

/** Writes down what a connection tells. */
function record(connection: Connection) {
  const seen = { octets: '', ended: false, drained: 0, closed: 0 }
  connection.listen({
    data: octets => {
      seen.octets += octets.toString('latin1')
    },
    end: () => {
      seen.ended = true
    },
    drained: () => {
      seen.drained += 1
    },
    closed: () => {
      seen.closed += 1
    },
  })
  return seen
}

/** Everything up to the end, as text. */
async function readAll(client: Socket): Promise<string> {
  let text = ''
  for await (const chunk of client) text += String(chunk)
  return text
}

const socketOver = (fd: number): Connection => new EpollConnection(fd)
const streamOver = (fd: number): Connection => {
  const stream = new EpollConnection(fd).toStream()
  return new StreamConnection(stream, stream)
}

/** More than the kernel keeps for a client that does not read. */
const MUCH = 16 * 1024 * 1024

describe.each([
  { kind: 'a socket of the socket loop', over: socketOver },
  { kind: 'a stream of the runtime', over: streamOver },
])('$kind', ({ over }) => {
  async function connection() {
    const { client, fd } = await accepted()
    const server = over(fd)
    cleanup.push(() => server.destroy())
    return { client, server, seen: record(server) }
  }

  test('carries octets both ways, and a half-closed client is answered', async () => {
    const { client, server, seen } = await connection()
    server.resume()
    client.end('ask\xe9', 'latin1')
    await eventually('heard', () => seen.ended)
    expect(seen.octets).toBe('ask\xe9')
    server.write('an', Buffer.from('swer'))
    server.write('.')
    server.end()
    expect(await readAll(client)).toBe('answer.')
    await eventually('closed', () => seen.closed === 1)
    expect(server.isDestroyed).toBe(true)
  })

  test('tells nothing while it is paused', async () => {
    const { client, server, seen } = await connection()
    server.resume()
    client.write('one')
    await eventually('heard', () => seen.octets === 'one')
    server.pause()
    expect(server.isPaused).toBe(true)
    client.write('two')
    // An answer makes the whole way: what was sent before it has arrived.
    server.write('x')
    await once(client, 'data')
    client.write('three')
    server.write('y')
    await once(client, 'data')
    expect(seen.octets).toBe('one')
    server.resume()
    await eventually('heard', () => seen.octets === 'onetwothree')
  })

  test('keeps the order of what a slow client has not taken, and says when it has', async () => {
    const { client, server, seen } = await connection()
    const large = Buffer.alloc(MUCH, 'a')
    server.write('head', large)
    large.fill('b') // it was the connection's to send until write() returned, and no longer
    server.write('tail')
    expect(server.unsent).toBeGreaterThan(0)
    server.end()
    const text = await readAll(client)
    expect(text.length).toBe(MUCH + 8)
    expect([text.slice(0, 6), text.slice(-6), text.includes('b')]).toEqual(['headaa', 'aatail', false])
    await eventually('closed', () => seen.closed === 1)
  })

  test('last words come behind everything else, and then the end', async () => {
    const { client, server, seen } = await connection()
    server.write('one ')
    server.write('two ', Buffer.from('three '))
    server.end('fo\xfcr')
    server.write('five')
    client.setEncoding('latin1')
    expect(await readAll(client)).toBe('one two three fo\xfcr')
    await eventually('closed', () => seen.closed === 1)
  })

  test('last words wait for a slow client, like all that was written before', async () => {
    const { client, server, seen } = await connection()
    server.write('', Buffer.alloc(MUCH, 'a'))
    server.end('bye')
    const text = await readAll(client)
    expect([text.length, text.slice(-5)]).toEqual([MUCH + 3, 'aabye'])
    await eventually('closed', () => seen.closed === 1)
  })

  test('a text of any length arrives whole', async () => {
    const { client, server } = await connection()
    const text = 'no such message\xe9\r\n'.repeat(20_000)
    server.write(text)
    server.write(text, Buffer.from('!'))
    server.end()
    client.setEncoding('latin1')
    expect(await readAll(client)).toBe(`${text}${text}!`)
  })

  test('who talks on and does not read what is left for it is left', async () => {
    const { client, server, seen } = await connection()
    server.onIdle(100, () => {})
    server.resume()
    server.write('', Buffer.alloc(MUCH))
    server.end()
    await eventually('closed', () => {
      if (!client.destroyed) client.write('x')
      return seen.closed === 1
    })
  })

  test('a chunk is reported as sent when it is, and as lost when the connection is closed', async () => {
    const { client, server } = await connection()
    const first = server.writeChunk(Buffer.alloc(MUCH, 'a'))
    let octets = 0
    client.on('data', chunk => {
      octets += chunk.length
    })
    expect(await first).toBe(true)
    await eventually('read', () => octets === MUCH)
    client.pause()
    const lost = server.writeChunk(Buffer.alloc(MUCH))
    server.destroy()
    expect(await lost).toBe(false)
  })

  test('tells when everything written has gone', async () => {
    const { client, server, seen } = await connection()
    server.write('', Buffer.alloc(MUCH))
    expect(seen.drained).toBe(0)
    client.resume()
    await eventually('drained', () => seen.drained === 1)
    expect(server.unsent).toBe(0)
  })

  test('tells of a few octets that were left too, and never from inside a call', async () => {
    const { client, server, seen } = await connection()
    server.write('', Buffer.alloc(MUCH))
    const large = server.unsent
    let isInside = true
    const told: boolean[] = []
    server.listen({ data: () => {}, end: () => {}, closed: () => {}, drained: () => told.push(isInside) })
    expect(large).toBeGreaterThan(0)
    server.write('more')
    void server.writeChunk(Buffer.from('and more'))
    isInside = false
    client.resume()
    await eventually('drained', () => told.length > 0 && server.unsent === 0)
    isInside = true
    server.write('x')
    const sent = server.writeChunk(Buffer.from('y'))
    isInside = false
    expect(await sent).toBe(true)
    expect(told.every(inside => !inside)).toBe(true)
    expect(seen.drained).toBe(0)
  })

  test('nothing is written after the end, and a chunk is told so', async () => {
    const { client, server, seen } = await connection()
    server.write('', Buffer.alloc(MUCH, 'a'))
    server.end('bye')
    expect(await server.writeChunk(Buffer.from('chunk'))).toBe(false)
    const text = await readAll(client)
    expect([text.length, text.slice(-4)]).toEqual([MUCH + 3, 'abye'])
    await eventually('closed', () => seen.closed === 1)
    expect(await server.writeChunk(Buffer.from('chunk'))).toBe(false)
  })

  test('a listener that comes when it is closed is told so', async () => {
    const { server, seen } = await connection()
    server.destroy()
    await eventually('closed', () => seen.closed === 1)
    const late = record(server)
    expect(late.closed).toBe(0)
    await eventually('told', () => late.closed === 1)
    expect(seen.closed).toBe(1)
  })

  test('closes in order, though the client still talks', async () => {
    const { client, server, seen } = await connection()
    server.resume()
    client.write('QUIT\r\n')
    await eventually('heard', () => seen.octets !== '')
    client.write('and more')
    server.write('+OK \r\n')
    server.end()
    expect(await readAll(client)).toBe('+OK \r\n')
    expect(seen.octets).toBe('QUIT\r\n')
  })

  test.each(['listening', 'paused'])('a reset by the client closes it, %s', async state => {
    const { client, server, seen } = await connection()
    server.resume()
    client.write('x')
    await eventually('heard', () => seen.octets === 'x')
    if (state === 'paused') server.pause()
    client.resetAndDestroy()
    await eventually('closed', () => {
      // A stream that is paused finds out when it writes.
      if (state === 'paused') server.write('y')
      return seen.closed === 1
    })
    expect(server.isDestroyed).toBe(true)
    expect(await server.writeChunk(Buffer.from('z'))).toBe(false)
  })

  test('a client that says nothing for so long is idle; one that talks is not', async () => {
    const { client, server, seen } = await connection()
    let idle = 0
    server.onIdle(150, () => {
      idle += 1
    })
    server.resume()
    const begun = performance.now()
    let last = begun
    while (performance.now() - begun < 300) {
      client.write('.')
      const before = seen.octets.length
      await eventually('heard', () => seen.octets.length > before)
      // Where the machine itself stopped for so long, silence was real.
      if (performance.now() - last > 100) return
      last = performance.now()
    }
    expect(idle).toBe(0)
    await eventually('idle', () => idle === 1)
  })
})

/** Descriptors that an epoll instance of this process watches (proc(5)). */
function watched(): readonly number[] {
  return readdirSync('/proc/self/fdinfo').flatMap(fd => {
    try {
      return [...readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1').matchAll(/^tfd: +(\d+)/gm)].map(([, tfd]) =>
        Number(tfd),
      )
    } catch {
      return [] // closed meanwhile
    }
  })
}

describe('EpollConnection', () => {
  test('is watched from its adoption to its end, so that no later call needs room for a watch', async () => {
    const { fd } = await accepted()
    const socket = EpollConnection.adopt(fd)
    if (!(socket instanceof EpollConnection)) throw socket
    expect(watched()).toContain(fd)
    // Another process that has the connection too does not keep it watched.
    const copy = duplicateDescriptor(fd)
    socket.destroy()
    expect(watched()).not.toContain(fd)
    closeSync(copy)
  })

  test('a descriptor that the kernel does not watch is closed, and its error is the answer', () => {
    const fd = openSync('/proc/self/status', 'r')
    expect(EpollConnection.adopt(duplicateDescriptor(fd))).toMatchObject({ syscall: 'epoll_ctl', code: 'EPERM' })
    const open = readdirSync('/proc/self/fd').length
    expect(EpollConnection.adopt(duplicateDescriptor(fd))).toBeInstanceOf(SystemCallError)
    expect(readdirSync('/proc/self/fd')).toHaveLength(open)
    closeSync(fd)
  })

  test('another process can pass connections only', async () => {
    const { readEnd, writeEnd } = openPipe()
    const open = readdirSync('/proc/self/fd').length
    expect(EpollConnection.adoptPassed(readEnd)).toBeUndefined()
    expect(EpollConnection.adoptPassed(writeEnd)).toBeUndefined()
    expect(readdirSync('/proc/self/fd')).toHaveLength(open - 2)
    const { fd } = await accepted()
    const socket = EpollConnection.adoptPassed(fd)
    expect(socket).toBeInstanceOf(EpollConnection)
    if (socket instanceof EpollConnection) socket.destroy()
  })

  test('who waits for the end of a closed one is told', async () => {
    const { fd } = await accepted()
    const socket = new EpollConnection(fd)
    socket.destroy()
    let told = 0
    socket.onceClosed(() => {
      told += 1
    })
    await eventually('told', () => told === 1)
  })

  test('given away, it is silent here and goes on elsewhere', async () => {
    const { client, fd } = await accepted()
    const here = new EpollConnection(fd)
    const seen = record(here)
    here.resume()
    let copy = -1
    const given = here.giveAway(descriptor => {
      copy = duplicateDescriptor(descriptor)
      return true
    })
    expect([given, here.isDestroyed, seen.closed]).toEqual([true, true, 0])
    const there = new EpollConnection(copy)
    const other = record(there)
    there.resume()
    client.write('hello')
    await eventually('heard', () => other.octets === 'hello')
    expect(seen).toEqual({ octets: '', ended: false, drained: 0, closed: 0 })
    there.destroy()
  })

  test('is not given away with octets unsent, nor when the other side refuses', async () => {
    const { fd } = await accepted()
    const socket = new EpollConnection(fd)
    expect(socket.giveAway(() => false)).toBe(false)
    socket.write('', Buffer.alloc(MUCH))
    expect(socket.giveAway(() => true)).toBe(false)
    expect(socket.isDestroyed).toBe(false)
    socket.destroy()
    expect(socket.giveAway(() => true)).toBe(false)
    expect(() => socket.toStream()).toThrow(/closed/)
  })

  test('becomes a stream that first sends what was unsent', async () => {
    const { client, fd } = await accepted()
    const socket = new EpollConnection(fd)
    socket.write('', Buffer.alloc(MUCH, 'a'))
    const stream = socket.toStream()
    stream.end('b')
    const text = await readAll(client)
    expect([text.length, text.at(-1)]).toEqual([MUCH + 1, 'b'])
    stream.destroy()
  })

  test('who waits for its end is told once, before the listener', async () => {
    const { fd } = await accepted()
    const socket = new EpollConnection(fd)
    const said: string[] = []
    socket.onceClosed(() => said.push('count'))
    socket.listen({ data: () => {}, end: () => {}, drained: () => {}, closed: () => said.push('listener') })
    socket.destroy()
    socket.destroy()
    expect(said).toEqual(['count', 'listener'])
  })
})

describe('ClientAcceptor', () => {
  test.each([
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '::1'],
    ['::', '127.0.0.1'],
  ])('on %s tells both ends of a client from %s', async (host, ip) => {
    const { client, fd, ends, port } = await accepted(host)
    expect(ends).toEqual({ remoteIp: ip, remotePort: client.localPort, localIp: ip, localPort: port })
    closeSync(fd)
  })

  test('accepts many, and none any more once it is closed', async () => {
    const held = await holdListener({ type: 'tcp', host: '127.0.0.1', port: 0 }, 'test')
    if (held.address.type !== 'tcp') throw new Error('no port')
    const { port } = held.address
    let count = 0
    const acceptor = new ClientAcceptor(held, { blocking: true, noDelay: false }, fd => {
      count += 1
      closeSync(fd)
    })
    const clients = Array.from({ length: 50 }, () => connect(port, '127.0.0.1').on('error', () => {}))
    await eventually('all', () => count === clients.length)
    acceptor.close()
    acceptor.close()
    const [error] = await once(connect(port, '127.0.0.1'), 'error')
    expect(error).toMatchObject({ code: 'ECONNREFUSED' })
  })
})

describe('EventLoop', () => {
  test('what is written in one turn to many goes out at its end, and before anything else that is done with one of them', async () => {
    const three = [await accepted(), await accepted(), await accepted()] as const
    const [stays, closes, moves] = three.map(({ fd }) => new EpollConnection(fd))
    if (stays === undefined || closes === undefined || moves === undefined) throw new Error('three')
    cleanup.push(() => stays.destroy())
    for (const socket of [stays, closes, moves]) socket.write('reply')
    closes.destroy()
    const stream = moves.toStream()
    cleanup.push(() => stream.destroy())
    stream.end('.')
    stays.write('.')
    stays.end()
    const texts = await Promise.all(three.map(({ client }) => readAll(client)))
    expect(texts).toEqual(['reply.', 'reply', 'reply.'])
  })

  test('tells nothing of what ended while it was being told', async () => {
    const loop = new EventLoop()
    const pipes = [openPipe(), openPipe()]
    const told: number[] = []
    const registrations = pipes.map(({ readEnd }, index) =>
      loop.add(readEnd, READABLE, () => {
        told.push(index)
        for (const registration of registrations) registration.remove()
      }),
    )
    for (const { writeEnd } of pipes) closeSync(writeEnd)
    await eventually('told', () => told.length > 0)
    await new Promise(setImmediate)
    expect(told).toHaveLength(1)
    for (const { readEnd } of pipes) closeSync(readEnd)
  })
})

describe('two connections joined', () => {
  /** A client and a server of the runtime, at the far ends of two connections that are joined. */
  async function joined(idleLimit = 60_000) {
    const [near, far] = [await accepted(), await accepted()]
    const client = streamOver(near.fd)
    const server = new EpollConnection(far.fd)
    cleanup.push(
      () => client.destroy(),
      () => server.destroy(),
    )
    const end = joinConnections(client, server, { idleLimit })
    return { client: near.client, server: far.client, end }
  }

  test('carry octets both ways, and the end of each', async () => {
    const { client, server, end } = await joined()
    client.end('ask')
    expect(await readAll(server)).toBe('ask')
    server.end('answer')
    expect(await readAll(client)).toBe('answer')
    expect(await end).toEqual({ reason: 'ended', bytesFromClient: 3, bytesFromServer: 6 })
  })

  test('a client that resets the connection lets the server read what it sent before', async () => {
    const { client, server, end } = await joined()
    client.write('one ')
    await once(server, 'readable')
    server.write('an answer that the client does not read')
    client.write('two')
    await eventually('all is on its way', () => server.readableLength === 'one two'.length)
    client.resetAndDestroy()
    expect(await readAll(server)).toBe('one two')
    server.end()
    expect(await end).toMatchObject({ reason: 'left', bytesFromClient: 7 })
  })

  test.each(['client', 'server'] as const)(
    'a %s that does not read holds the other back, and nothing is lost',
    async slow => {
      const both = await joined()
      const [reader, writer] = slow === 'client' ? [both.client, both.server] : [both.server, both.client]
      const isTaken = writer.write(Buffer.alloc(MUCH, 'a'))
      writer.end('z')
      expect(isTaken).toBe(false)
      const text = await readAll(reader)
      expect([text.length, text.slice(-2)]).toEqual([MUCH + 1, 'az'])
      reader.end()
      await both.end
    },
  )

  test('close when nothing passes for too long', async () => {
    const { client, server, end } = await joined(50)
    expect(await end).toMatchObject({ reason: 'idle' })
    expect(await readAll(client)).toBe('')
    expect(await readAll(server)).toBe('')
  })
})
