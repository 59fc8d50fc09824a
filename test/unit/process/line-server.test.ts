import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import {
  LineServer,
  type LineServerLimits,
  type LineServerOptions,
  type Peer,
} from '../../../src/process/line-server.ts'
import { LineSplitter } from '../../../src/wire/lines.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})
let servers = 0

type Options = Partial<Omit<LineServerOptions<string>, 'limits'>> & {
  readonly answer?: (line: string) => Promise<string> | undefined
  readonly limits?: Partial<LineServerLimits>
}

async function open({ answer = async line => `${line}\n`, limits, ...options }: Options = {}) {
  const lines: string[] = []
  const log = createLog('test', { write: line => lines.push(line) })
  const server = new LineServer<string>({
    name: 'echo',
    order: 'arrival',
    failure: 'failed\n',
    log: () => log,
    newService: () => {
      const splitter = new LineSplitter(100)
      return {
        cut: chunk => {
          const { lines: whole, overlong } = splitter.push(chunk)
          if (overlong > 0 || splitter.isOverlong) throw new Error('too long')
          return whole
        },
        answer,
      }
    },
    ...options,
    limits: () => ({ maxConnections: 10, maxOpen: 5, idleMs: 0, ...limits }),
  })
  const path = `${directory.path}/${servers++}.sock`
  server.server.listen(path)
  await once(server.server, 'listening')
  closing.push(() => server.close())
  const client = async (): Promise<Client> => {
    const socket = connect({ path, allowHalfOpen: true })
    await once(socket, 'connect')
    closing.push(() => void socket.destroy())
    return new Client(socket)
  }
  return { server, client, lines }
}

class Client {
  readonly socket: Socket
  received = ''
  isClosed = false

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('error', () => {}) // the server closes it
    for (const event of ['end', 'close'])
      socket.on(event, () => {
        this.isClosed = true
      })
    socket.on('data', chunk => {
      this.received += String(chunk)
    })
  }

  async expect(text: string): Promise<void> {
    await eventually(`received ${JSON.stringify(text.slice(0, 100))}`, () => this.received === text)
  }

  async closed(): Promise<void> {
    await eventually('closed', () => this.isClosed)
  }
}

describe('answers', () => {
  test('come in the order of the requests, for any order of the results', async () => {
    const wait = new Map(['a', 'b', 'c'].map(line => [line, Promise.withResolvers<string>()]))
    const { client } = await open({ answer: line => wait.get(line)?.promise })
    const peer = await client()
    peer.socket.write('a\nb\nc\n')
    for (const line of ['c', 'b', 'a']) wait.get(line)?.resolve(line.toUpperCase())
    await peer.expect('ABC')
  })

  test('or in the order of the results, if the order is free', async () => {
    const first = Promise.withResolvers<string>()
    const answers = [first.promise, Promise.resolve('2')]
    const { client } = await open({ order: 'any', answer: () => answers.shift() })
    const peer = await client()
    peer.socket.write('a\nb\n')
    await peer.expect('2')
    first.resolve('1')
    await peer.expect('21')
  })

  test('an answer that fails, at once or later, changes no other answer', async () => {
    const { client, lines } = await open({
      answer: line => {
        if (line === 'throws') throw new Error('at once')
        return line === 'rejects' ? Promise.reject(new Error('later')) : Promise.resolve(`${line}\n`)
      },
    })
    const peer = await client()
    peer.socket.write('a\nthrows\nrejects\nb\n')
    await peer.expect('a\nfailed\nfailed\nb\n')
    expect(lines.map(line => /reason="?(at once|later)/.exec(line)?.[1])).toEqual(['at once', 'later'])
  })

  test('without a text for a failure the connection is closed', async () => {
    const { client } = await open({ failure: undefined, answer: () => Promise.reject(new Error('broken')) })
    const peer = await client()
    peer.socket.write('a\n')
    await peer.closed()
  })

  test('a peer that closes its half gets its answers first', async () => {
    const { client } = await open({ limits: { maxOpen: 2 } })
    const peer = await client()
    peer.socket.end('a\nb\nc\nd\ne\n')
    await peer.expect('a\nb\nc\nd\ne\n')
    await peer.closed()
  })
})

describe('drain', () => {
  test('no further request is taken, and a connection ends after its answers', async () => {
    const waiting = new Map<string, () => void>()
    const { server, client } = await open({
      answer: line => new Promise(resolve => waiting.set(line, () => resolve(`${line}\n`))),
    })
    const [busy, idle] = [await client(), await client()]
    idle.socket.write('first\n')
    await eventually('the request is read', () => waiting.has('first'))
    waiting.get('first')?.()
    await idle.expect('first\n')
    busy.socket.write('before\n')
    await eventually('the request is read', () => waiting.has('before'))
    server.drain()
    await idle.closed()
    busy.socket.write('after\n')
    waiting.get('before')?.()
    await busy.expect('before\n')
    await busy.closed()
    expect([...waiting.keys()]).toEqual(['first', 'before'])
  })

  test('a request that gets no answer holds its connection until `close`', async () => {
    const { server, client } = await open({ answer: () => new Promise(() => {}) })
    const peer = await client()
    let isAsked = false
    peer.socket.write('a\n', () => {
      isAsked = true
    })
    await eventually('the request is sent', () => isAsked)
    server.drain()
    expect(peer.isClosed).toBe(false)
    server.close()
    await peer.closed()
    expect(peer.received).toBe('')
  })
})

describe('limits', () => {
  test('of requests in progress: the others wait unread', async () => {
    const waiting: (() => void)[] = []
    const { client } = await open({
      limits: { maxOpen: 5 },
      answer: line => new Promise(resolve => waiting.push(() => resolve(`${line}\n`))),
    })
    const peer = await client()
    const text = Array.from({ length: 20_000 }, (_, n) => `${'x'.repeat(60)}${n}\n`).join('')
    peer.socket.write(text)
    await eventually('five are being answered', () => waiting.length === 5)
    // The server reads at most one buffer ahead; further octets stay with the peer.
    await eventually('the peer cannot write', () => peer.socket.writableLength > 0)
    expect(waiting.length).toBe(5)
    while (peer.received.length < text.length) {
      for (const answer of waiting.splice(0)) answer()
      await new Promise(resolve => setImmediate(resolve))
      expect(waiting.length).toBeLessThanOrEqual(5)
    }
    expect(peer.received).toBe(text)
  }, 60_000)

  test('of answers that the peer does not read: no further request is read', async () => {
    let requests = 0
    const { client } = await open({
      answer: async () => {
        requests += 1
        return `${'x'.repeat(1023)}\n`
      },
    })
    const peer = await client()
    peer.socket.pause()
    peer.socket.write('a\n'.repeat(20_000))
    let last = -1
    await eventually('the server stops reading', () => {
      const isStill = requests > 0 && requests === last
      last = requests
      return isStill
    })
    expect(requests).toBeLessThan(5_000)
    peer.socket.resume()
    await eventually('every answer is received', () => peer.received.length === 20_000 * 1024, 60_000)
  }, 90_000)

  test('of the length of a request: the connection is closed, and others continue', async () => {
    const { client, lines } = await open()
    const [peer, other] = [await client(), await client()]
    peer.socket.write('x'.repeat(101))
    await peer.closed()
    expect(lines[0]).toContain('event=request_refused service=echo reason="too long"')
    other.socket.write('a\n')
    await other.expect('a\n')
  })

  test('of connections: the one that was silent longest is closed, one that waits for an answer is not', async () => {
    const { client, lines } = await open({
      limits: { maxConnections: 3 },
      answer: line => (line === 'wait' ? new Promise(() => {}) : Promise.resolve(`${line}\n`)),
    })
    const [waits, second, third] = [await client(), await client(), await client()]
    waits.socket.write('wait\n')
    for (const peer of [third, second]) {
      peer.socket.write('a\n')
      await peer.expect('a\n')
    }
    const fourth = await client()
    await third.closed()
    for (const peer of [second, fourth]) {
      peer.socket.write('b\n')
      await eventually('answered', () => peer.received.endsWith('b\n'))
    }
    expect(waits.isClosed).toBe(false)
    expect(lines.filter(line => line.includes('event=connections_exhausted')).length).toBe(1)
  })

  test('of silence, also for a peer that does not read', async () => {
    const { client, server } = await open({ limits: { idleMs: 50 }, answer: async () => 'x'.repeat(100_000) })
    const connections = () => new Promise(resolve => server.server.getConnections((_, count) => resolve(count)))
    const [silent, deaf] = [await client(), await client()]
    deaf.socket.pause()
    deaf.socket.write('a\n'.repeat(1000))
    await silent.closed()
    await eventually('both connections are closed', async () => (await connections()) === 0)
    deaf.socket.resume()
    await deaf.closed()
    expect(deaf.received.length).toBeLessThan(1000 * 100_000)
  })

  test('of silence, also for a peer that sends a request octet by octet: it is closed first', async () => {
    const { client } = await open({ limits: { maxConnections: 2, idleMs: 400 } })
    const [slow, quick] = [await client(), await client()]
    const drip = setInterval(() => slow.socket.write('x'), 10)
    try {
      quick.socket.write('a\n')
      await quick.expect('a\n')
      await client()
      await slow.closed()
    } finally {
      clearInterval(drip)
    }
    const again = await client()
    const second = setInterval(() => again.socket.write('x'), 100)
    try {
      await again.closed()
      expect(again.socket.bytesWritten).toBeLessThan(100)
    } finally {
      clearInterval(second)
    }
  })

  test('the account of the peer is known on a Unix socket, and unknown on a port', async () => {
    const uids: (number | undefined)[] = []
    const newService = ({ uid }: Peer) => {
      uids.push(uid)
      return { cut: () => [], answer: () => undefined }
    }
    const { server, client } = await open({ newService })
    await client()
    await eventually('the connection by Unix socket is accepted', () => uids.length === 1)
    server.server.close()
    const overTcp = new LineServer<string>({
      name: 'echo',
      order: 'arrival',
      failure: 'failed\n',
      log: () => createLog('test', { write: () => {} }),
      newService,
      limits: () => ({ maxConnections: 10, maxOpen: 5, idleMs: 0 }),
    })
    overTcp.server.listen(0, '127.0.0.1')
    await once(overTcp.server, 'listening')
    closing.push(() => overTcp.close())
    const address = overTcp.server.address()
    if (address === null || typeof address === 'string') expect.unreachable()
    const socket = connect(address.port, '127.0.0.1')
    closing.push(() => void socket.destroy())
    await eventually('the connection by TCP is accepted', () => uids.length === 2)
    expect(uids).toEqual([process.geteuid?.(), undefined])
  })

  test('of accounts', async () => {
    let foreign = 0
    const { client } = await open({ uids: new Set(), onForeignPeer: () => (foreign += 1) })
    const peer = await client()
    peer.socket.write('a\n')
    await peer.expect('a\n') // root and the account of the process are always admitted
    expect(foreign).toBe(0)
  })
})
