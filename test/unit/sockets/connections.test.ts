import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { constants } from 'node:os'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { duplicateDescriptor, openPipe } from '../../../src/libc/descriptors.ts'
import { READABLE } from '../../../src/libc/epoll.ts'
import { SystemCallError } from '../../../src/libc/native-function.ts'
import { holdListener } from '../../../src/process/listener.ts'
import type { Connection } from '../../../src/sockets/connection.ts'
import { DescriptorChannel } from '../../../src/sockets/descriptor-channel.ts'
import type { AcceptedSocket, Engine } from '../../../src/sockets/engine.ts'
import { EpollConnection } from '../../../src/sockets/epoll-connection.ts'
import { epollEngine } from '../../../src/sockets/epoll-engine.ts'
import { EventLoop } from '../../../src/sockets/event-loop.ts'
import { joinConnections } from '../../../src/sockets/join-connections.ts'
import { nodeEngine } from '../../../src/sockets/node-engine.ts'
import { OwnedDescriptor } from '../../../src/sockets/owned-descriptor.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { eventually } from '../../harness/eventually.ts'
import { acceptedSocket } from '../../harness/processes/accepted-socket.ts'
import { BOTH_ENGINES } from '../../harness/processes/engines.ts'

const cleanup: (() => void)[] = []
afterEach(() => {
  for (const undo of cleanup.splice(0)) undo()
})

async function accepted(engine: Engine = epollEngine, host?: string) {
  const both = await acceptedSocket(engine, host)
  cleanup.push(both.close)
  return both
}

/** An EpollConnection and its client. */
async function overEpoll() {
  const { client, socket } = await accepted()
  const connection = socket.open()
  cleanup.push(() => connection.destroy())
  return { client, connection }
}

/** Records the events of a connection. */
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

/** All octets up to the end, as text. */
async function readAll(client: Socket): Promise<string> {
  let text = ''
  for await (const chunk of client) text += String(chunk)
  return text
}

/** A connection of an engine that became a stream, and a connection again, as after STLS. */
const again = (socket: AcceptedSocket): Connection => {
  const stream = socket.open().toStream()
  return new StreamConnection(stream, stream)
}
const open = (socket: AcceptedSocket): Connection => socket.open()

/** More than the kernel keeps for a client that does not read. */
const MUCH = 16 * 1024 * 1024

describe.each([
  { kind: 'of epoll', engine: epollEngine, over: open },
  { kind: 'of node', engine: nodeEngine, over: open },
  { kind: 'of epoll that became a stream', engine: epollEngine, over: again },
  { kind: 'of node that became a stream', engine: nodeEngine, over: again },
])('a connection $kind', ({ engine, over }) => {
  async function connection() {
    const { client, socket } = await accepted(engine)
    const server = over(socket)
    cleanup.push(() => server.destroy())
    return { client, server, seen: record(server) }
  }

  test('carries octets both ways, and answers a half-closed client', async () => {
    const { client, server, seen } = await connection()
    server.resume()
    client.end('ask\xe9', 'latin1')
    await eventually('octets arrive', () => seen.ended)
    expect(seen.octets).toBe('ask\xe9')
    server.write('an', Buffer.from('swer'))
    server.write('.')
    server.end()
    expect(await readAll(client)).toBe('answer.')
    await eventually('closed', () => seen.closed === 1)
    expect(server.isDestroyed).toBe(true)
  })

  test('reports nothing while it is paused', async () => {
    const { client, server, seen } = await connection()
    server.resume()
    client.write('one')
    await eventually('octets arrive', () => seen.octets === 'one')
    server.pause()
    expect(server.isPaused).toBe(true)
    client.write('two')
    // After an answer, all octets that were sent before it have arrived.
    server.write('x')
    await once(client, 'data')
    client.write('three')
    server.write('y')
    await once(client, 'data')
    expect(seen.octets).toBe('one')
    server.resume()
    await eventually('octets arrive', () => seen.octets === 'onetwothree')
  })

  test('keeps the order of octets that a slow client has not read, and reports when they are sent', async () => {
    const { client, server, seen } = await connection()
    const large = Buffer.alloc(MUCH, 'a')
    server.write('head', large)
    large.fill('b') // the memory belongs to the connection only until write() returns
    server.write('tail')
    expect(server.unsent).toBeGreaterThan(0)
    server.end()
    const text = await readAll(client)
    expect(text.length).toBe(MUCH + 8)
    expect([text.slice(0, 6), text.slice(-6), text.includes('b')]).toEqual(['headaa', 'aatail', false])
    await eventually('closed', () => seen.closed === 1)
  })

  test('the last reply comes after all other octets, and then the end', async () => {
    const { client, server, seen } = await connection()
    server.write('one ')
    server.write('two ', Buffer.from('three '))
    server.end('fo\xfcr')
    server.write('five')
    client.setEncoding('latin1')
    expect(await readAll(client)).toBe('one two three fo\xfcr')
    await eventually('closed', () => seen.closed === 1)
  })

  test('the last reply waits for a slow client, like all octets before it', async () => {
    const { client, server, seen } = await connection()
    server.write('', Buffer.alloc(MUCH, 'a'))
    server.end('bye')
    const text = await readAll(client)
    expect([text.length, text.slice(-5)]).toEqual([MUCH + 3, 'aabye'])
    await eventually('closed', () => seen.closed === 1)
  })

  test('a text of any length arrives completely', async () => {
    const { client, server } = await connection()
    const text = 'no such message\xe9\r\n'.repeat(20_000)
    server.write(text)
    server.write(text, Buffer.from('!'))
    server.end()
    client.setEncoding('latin1')
    expect(await readAll(client)).toBe(`${text}${text}!`)
  })

  test('a client that keeps sending and does not read the remaining octets is closed', async () => {
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

  test('a chunk is reported as sent when it is sent, and as lost when the connection is closed', async () => {
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

  test('reports when all octets that were written are sent', async () => {
    const { client, server, seen } = await connection()
    server.write('', Buffer.alloc(MUCH))
    expect(seen.drained).toBe(0)
    client.resume()
    await eventually('drained', () => seen.drained === 1)
    expect(server.unsent).toBe(0)
  })

  test('reports the sending of a few remaining octets too, and never from inside a call', async () => {
    const { client, server, seen } = await connection()
    server.write('', Buffer.alloc(MUCH))
    const large = server.unsent
    let isInside = true
    const reported: boolean[] = []
    server.listen({ data: () => {}, end: () => {}, closed: () => {}, drained: () => reported.push(isInside) })
    expect(large).toBeGreaterThan(0)
    server.write('more')
    void server.writeChunk(Buffer.from('and more'))
    isInside = false
    client.resume()
    await eventually('drained', () => reported.length > 0 && server.unsent === 0)
    isInside = true
    server.write('x')
    const sent = server.writeChunk(Buffer.from('y'))
    isInside = false
    expect(await sent).toBe(true)
    expect(reported.every(inside => !inside)).toBe(true)
    expect(seen.drained).toBe(0)
  })

  test('no octet is written after the end, and a chunk is reported as lost', async () => {
    const { client, server, seen } = await connection()
    server.write('', Buffer.alloc(MUCH, 'a'))
    server.end('bye')
    expect(await server.writeChunk(Buffer.from('chunk'))).toBe(false)
    const text = await readAll(client)
    expect([text.length, text.slice(-4)]).toEqual([MUCH + 3, 'abye'])
    await eventually('closed', () => seen.closed === 1)
    expect(await server.writeChunk(Buffer.from('chunk'))).toBe(false)
  })

  test('a listener that is added to a closed connection is notified of the end', async () => {
    const { server, seen } = await connection()
    server.destroy()
    await eventually('closed', () => seen.closed === 1)
    const late = record(server)
    expect(late.closed).toBe(0)
    await eventually('a notification', () => late.closed === 1)
    expect(seen.closed).toBe(1)
  })

  test('closes in order, also while the client still sends', async () => {
    const { client, server, seen } = await connection()
    server.resume()
    client.write('QUIT\r\n')
    await eventually('octets arrive', () => seen.octets !== '')
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
    await eventually('octets arrive', () => seen.octets === 'x')
    if (state === 'paused') server.pause()
    client.resetAndDestroy()
    await eventually('closed', () => {
      // A paused stream sees the reset when it writes.
      if (state === 'paused') server.write('y')
      return seen.closed === 1
    })
    expect(server.isDestroyed).toBe(true)
    expect(await server.writeChunk(Buffer.from('z'))).toBe(false)
  })

  test('reports no further octets and no end after a pause in the listener', async () => {
    const { client, server } = await connection()
    let reported = ''
    const listener = {
      data: (octets: Buffer) => {
        reported += octets.toString('latin1')
        server.pause()
      },
      end: () => {
        reported += '(end)'
      },
      drained: () => {},
      closed: () => {},
    }
    server.listen(listener)
    server.resume()
    client.write('one')
    await eventually('octets arrive', () => reported === 'one')
    client.end('two')
    // After an answer, all octets that were sent before it have arrived.
    server.write('x')
    await once(client, 'data')
    expect([reported, server.isPaused]).toEqual(['one', true])
    server.resume()
    await eventually('the rest is read', () => reported === 'onetwo')
    server.resume()
    await eventually('the end is read', () => reported === 'onetwo(end)')
  })

  test('a reset while it is paused is reported after resume at the latest', async () => {
    const { client, server, seen } = await connection()
    server.resume()
    client.write('x')
    await eventually('octets arrive', () => seen.octets === 'x')
    server.pause()
    client.resetAndDestroy()
    await once(client, 'close')
    server.resume()
    await eventually('closed', () => seen.closed === 1)
    expect(seen).toMatchObject({ octets: 'x', ended: false })
  })

  test('octets that the kernel accepted in the turn in which they were written are not unsent afterwards', async () => {
    const { client, server, seen } = await connection()
    server.write('few')
    await once(client, 'data')
    expect([server.unsent, seen.drained]).toEqual([0, 0])
    server.write('', Buffer.alloc(MUCH))
    await new Promise(setImmediate)
    expect(server.unsent).toBeGreaterThan(0)
    server.destroy()
    expect(seen.drained).toBe(0)
  })

  test('the owner is notified of the end once, before the listener', async () => {
    const { server } = await connection()
    const notified: string[] = []
    server.onceClosed(() => notified.push('owner'))
    server.listen({ data: () => {}, end: () => {}, drained: () => {}, closed: () => notified.push('listener') })
    server.destroy()
    server.destroy()
    await eventually('a notification', () => notified.length === 2)
    expect(notified).toEqual(['owner', 'listener'])
    server.onceClosed(() => notified.push('late'))
    await eventually('the late listener is notified', () => notified.length === 3)
  })

  test('becomes a stream that sends the unsent octets first, and the owner is notified of its end', async () => {
    const { client, server, seen } = await connection()
    let isClosed = false
    server.onceClosed(() => {
      isClosed = true
    })
    server.write('', Buffer.alloc(MUCH, 'a'))
    const stream = server.toStream()
    expect([server.isDestroyed, isClosed]).toEqual([true, false])
    server.write('not through the old object')
    stream.end('b')
    const text = await readAll(client)
    expect([text.length, text.at(-1)]).toEqual([MUCH + 1, 'b'])
    stream.destroy()
    await eventually('a notification', () => isClosed)
    expect(seen.closed).toBe(0)
    expect(() => server.toStream()).toThrow(/closed/)
  })

  test('keeps the octets that came while it was paused, as a stream', async () => {
    const { client, server } = await connection()
    client.end('early')
    server.write('x')
    await once(client, 'data')
    let text = ''
    for await (const octets of server.toStream()) text += String(octets)
    expect(text).toBe('early')
  })

  test('destroying it destroys the stream that it became', async () => {
    const { server } = await connection()
    const stream = server.toStream()
    server.destroy()
    expect(stream.destroyed).toBe(true)
  })

  test('a client that sends nothing for the idle time is idle; a client that sends is not', async () => {
    const { client, server, seen } = await connection()
    const { server: silent } = await connection()
    let idle = 0
    server.resume()
    silent.resume()
    /**
     * Sends until a silent client is idle, and then for the same time again. False if the machine
     * itself paused long enough for real silence.
     */
    const sendsWithoutPause = async (): Promise<boolean> => {
      idle = 0
      server.onIdle(150, () => {
        idle += 1
      })
      let silences = 0
      const onSilence = (): void => {
        silences += 1
        if (silences === 1) silent.onIdle(150, onSilence)
      }
      silent.onIdle(150, onSilence)
      let last = performance.now()
      while (silences < 2) {
        client.write('.')
        const before = seen.octets.length
        await eventually('octets arrive', () => seen.octets.length > before)
        if (performance.now() - last > 100) return false
        last = performance.now()
      }
      expect(idle).toBe(0)
      return true
    }
    await eventually('the machine does not pause for the whole time', sendsWithoutPause, 45_000)
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
      return [] // the descriptor was closed meanwhile
    }
  })
}

describe('EpollConnection', () => {
  test('is registered from its opening to its end, so that no later call needs memory for a registration', async () => {
    const { socket } = await accepted()
    const { descriptor } = socket
    const connection = socket.open()
    expect(watched()).toContain(descriptor)
    // If another process also has the connection, the connection is not registered any more.
    const copy = duplicateDescriptor(descriptor)
    connection.destroy()
    expect(watched()).not.toContain(descriptor)
    closeSync(copy)
  })

  test('a descriptor that the kernel does not watch is closed', () => {
    const open = readdirSync('/proc/self/fd').length
    expect(() => new EpollConnection(new OwnedDescriptor(openSync('/proc/self/status', 'r')))).toThrow(
      expect.objectContaining({ syscall: 'epoll_ctl', code: 'EPERM' }),
    )
    expect(readdirSync('/proc/self/fd')).toHaveLength(open)
  })

  test('no octet is written after the end of the output, and a chunk is reported as lost', async () => {
    const { client, socket } = await accepted()
    const connection = new EpollConnection(socket.detach())
    cleanup.push(() => connection.destroy())
    const first = connection.writeChunk(Buffer.alloc(MUCH, 'a'))
    connection.endOutput()
    connection.write('text')
    expect(await connection.writeChunk(Buffer.from('chunk'))).toBe(false)
    connection.end('last')
    const text = await readAll(client)
    expect([await first, text.length, text.slice(-5)]).toEqual([true, MUCH, 'aaaaa'])
  })

  test('another process can pass connections only', async () => {
    const adopt = (descriptor: number) => epollEngine.handover?.adopt(new OwnedDescriptor(descriptor))
    const { readEnd, writeEnd } = openPipe()
    const open = readdirSync('/proc/self/fd').length
    expect(adopt(readEnd)).toBeUndefined()
    expect(adopt(writeEnd)).toBeUndefined()
    expect(readdirSync('/proc/self/fd')).toHaveLength(open - 2)
    const { socket } = await accepted()
    const connection = adopt(duplicateDescriptor(socket.descriptor))
    socket.close()
    expect(connection).toBeInstanceOf(EpollConnection)
    if (connection instanceof EpollConnection) connection.destroy()
  })

  test('after a handoff it is silent here and continues in the other process', async () => {
    const { client, connection } = await overEpoll()
    const seen = record(connection)
    let reported = 0
    connection.onceClosed(() => {
      reported += 1
    })
    connection.resume()
    let copy = -1
    const given = connection.handOver(descriptor => {
      copy = duplicateDescriptor(descriptor)
      return true
    })
    expect([given, connection.isDestroyed, seen.closed]).toEqual([true, true, 0])
    const there = new EpollConnection(new OwnedDescriptor(copy))
    const other = record(there)
    there.resume()
    client.write('hello')
    await eventually('octets arrive', () => other.octets === 'hello')
    expect(seen).toEqual({ octets: '', ended: false, drained: 0, closed: 0 })
    there.destroy()
    expect(reported).toBe(0)
  })

  test('is not handed over with unsent octets, nor when the other side refuses', async () => {
    const { connection } = await overEpoll()
    expect(connection.handOver(() => false)).toBe(false)
    connection.write('', Buffer.alloc(MUCH))
    expect(connection.handOver(() => true)).toBe(false)
    expect(connection.isDestroyed).toBe(false)
    connection.destroy()
    expect(connection.handOver(() => true)).toBe(false)
  })
})

describe('DescriptorChannel', () => {
  test('a pair whose end the kernel does not watch is closed', () => {
    const listener = { data: () => {}, end: () => {}, closed: () => {} }
    const pair = DescriptorChannel.pair(listener) // loads the native module and makes the loop
    pair.channel.destroy()
    pair.other.close()
    const open = readdirSync('/proc/self/fd').length
    const add = vi.spyOn(EventLoop.prototype, 'add').mockImplementationOnce(() => {
      throw new SystemCallError('epoll_ctl', constants.errno.ENOSPC)
    })
    cleanup.push(() => add.mockRestore())
    expect(() => DescriptorChannel.pair(listener)).toThrow(expect.objectContaining({ code: 'ENOSPC' }))
    expect(readdirSync('/proc/self/fd')).toHaveLength(open)
  })
})

describe('OwnedDescriptor', () => {
  test('is taken once, closed once, and not used after that', () => {
    const descriptor = openSync('/dev/null', 'r')
    const owned = new OwnedDescriptor(descriptor)
    expect(() => new OwnedDescriptor(descriptor)).toThrow(/has an owner already/)
    owned.close()
    expect(() => owned.descriptor).toThrow(/after its owner released it/)
    expect(() => owned.close()).toThrow(/after its owner released it/)
    expect(() => owned.release()).toThrow(/after its owner released it/)
    // The number is free for the next open file, which has another owner.
    const next = new OwnedDescriptor(openSync('/dev/null', 'r'))
    expect(next.descriptor).toBe(descriptor)
    expect(() => owned.descriptor).toThrow()
    closeSync(next.release())
  })
})

describe.each(BOTH_ENGINES)('an acceptor of $name', ({ engine }) => {
  test.each([
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '::1'],
    ['::', '127.0.0.1'],
  ])('on %s has both ends of a client from %s', async (host, ip) => {
    const { client, socket, port } = await accepted(engine, host)
    expect(socket.ends).toEqual({ remoteIp: ip, remotePort: client.localPort, localIp: ip, localPort: port })
    socket.close()
  })

  test('accepts many clients, and none after it is closed', async () => {
    const held = await holdListener({ kind: 'tcp', host: '127.0.0.1', port: 0 }, 'test')
    if (held.address.kind !== 'tcp') throw new Error('no port')
    const { port } = held.address
    let count = 0
    const acceptor = engine.accept(held, { blocking: true, noDelay: false }, socket => {
      count += 1
      socket.close()
    })
    const clients = Array.from({ length: 50 }, () => connect(port, '127.0.0.1').on('error', () => {}))
    await eventually('all', () => count === clients.length)
    acceptor.close()
    acceptor.close()
    const [error] = await once(connect(port, '127.0.0.1'), 'error')
    expect(error).toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('gives the descriptor of a client to its caller, and only the caller closes it', async () => {
    const { client, socket } = await accepted(engine)
    const descriptor = socket.detach()
    await new Promise(setImmediate)
    client.write('hello')
    const connection = new EpollConnection(descriptor)
    const seen = record(connection)
    connection.resume()
    await eventually('octets arrive', () => seen.octets === 'hello')
    connection.destroy()
    expect(() => socket.descriptor).toThrow()
  })

  test('hands over only if the engine supports it', async () => {
    const { socket } = await accepted(engine)
    const connection = socket.open()
    expect(connection.handOver(() => true)).toBe(engine.handover !== undefined)
    connection.destroy()
  })
})

describe('EventLoop', () => {
  test('octets written in one turn to many connections are sent at its end, and before any other operation on one of them', async () => {
    const three = [await accepted(), await accepted(), await accepted()] as const
    const [stays, closes, moves] = three.map(({ socket }) => socket.open())
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

  test('reports no event of a registration that a callback of the same turn has removed', async () => {
    const loop = new EventLoop()
    const pipes = [openPipe(), openPipe()]
    const reported: number[] = []
    const registrations = pipes.map(({ readEnd }, index) =>
      loop.add(readEnd, READABLE, () => {
        reported.push(index)
        for (const registration of registrations) registration.remove()
      }),
    )
    for (const { writeEnd } of pipes) closeSync(writeEnd)
    await eventually('a notification', () => reported.length > 0)
    await new Promise(setImmediate)
    expect(reported).toHaveLength(1)
    for (const { readEnd } of pipes) closeSync(readEnd)
  })

  test('uses no tag again that a registration still has, such as that of a listening socket', async () => {
    const loop = new EventLoop(4)
    const pipes = Array.from({ length: 3 }, openPipe)
    const reported: number[] = []
    for (const [index, { readEnd }] of pipes.entries()) {
      const registration = loop.add(readEnd, READABLE, () => {
        reported.push(index)
        registration.remove()
      })
      // Short connections use up the tags.
      const { readEnd: short, writeEnd } = openPipe()
      for (let count = 0; count < 5; count += 1) loop.add(short, READABLE, () => {}).remove()
      for (const fd of [short, writeEnd]) closeSync(fd)
    }
    for (const { writeEnd } of pipes) closeSync(writeEnd)
    await eventually('a notification', () => reported.length >= 3)
    expect(reported.toSorted()).toEqual([0, 1, 2])
    for (const { readEnd } of pipes) closeSync(readEnd)
  })

  test('reports a descriptor that was closed before its registration ended, while another process has it', async () => {
    const loop = new EventLoop()
    const stray: number[] = []
    loop.onStrayEvent(tag => stray.push(tag))
    const { readEnd, writeEnd } = openPipe()
    const copy = duplicateDescriptor(readEnd)
    const registration = loop.add(readEnd, READABLE, () => {})
    // The number now belongs to another open file, so that removing the registration removes that
    // of the other file.
    const other = openPipe()
    closeSync(readEnd)
    expect(duplicateDescriptor(other.readEnd, readEnd)).toBe(readEnd)
    loop.add(readEnd, READABLE, () => {})
    registration.remove()
    closeSync(writeEnd)
    await eventually('noticed', () => stray.length > 0)
    await new Promise(setImmediate)
    expect(stray).toHaveLength(1)
    for (const fd of [copy, readEnd, other.readEnd, other.writeEnd]) closeSync(fd)
  })
})

describe('two connections joined', () => {
  /** A client and a server, at the outer ends of two connections that are joined. */
  async function joined(idleLimit = 60_000) {
    const [near, far] = [await accepted(), await accepted()]
    const client = again(near.socket)
    const server = new EpollConnection(new OwnedDescriptor(duplicateDescriptor(far.socket.descriptor)))
    far.socket.close()
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

  test('a client that resets the connection lets the server read the octets that it sent before', async () => {
    const { client, server, end } = await joined()
    client.write('one ')
    await once(server, 'readable')
    server.write('an answer that the client does not read')
    client.write('two')
    await eventually('all octets have arrived', () => server.readableLength === 'one two'.length)
    client.resetAndDestroy()
    expect(await readAll(server)).toBe('one two')
    server.end()
    expect(await end).toMatchObject({ reason: 'left', bytesFromClient: 7 })
  })

  test.each(['client', 'server'] as const)(
    'a %s that does not read stops the other, and nothing is lost',
    async slow => {
      const both = await joined()
      const [reader, writer] = slow === 'client' ? [both.client, both.server] : [both.server, both.client]
      const isDrained = writer.write(Buffer.alloc(MUCH, 'a'))
      writer.end('z')
      expect(isDrained).toBe(false)
      const text = await readAll(reader)
      expect([text.length, text.slice(-2)]).toEqual([MUCH + 1, 'az'])
      reader.end()
      await both.end
    },
  )

  test('close when nothing passes within the limit', async () => {
    const { client, server, end } = await joined(50)
    expect(await end).toMatchObject({ reason: 'idle' })
    expect(await readAll(client)).toBe('')
    expect(await readAll(server)).toBe('')
  })
})
