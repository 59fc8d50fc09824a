import { connect, createServer, type Socket } from 'node:net'
import { type Duplex, duplexPair } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type RelayOptions, relay } from '../../../src/tunnel/relay.ts'

type Far = { readonly stream: Duplex; received: Buffer; ended: boolean }

/** The far end of a stream, with all octets that reached it. */
function listen(stream: Duplex): Far {
  const far: Far = { stream, received: Buffer.alloc(0), ended: false }
  stream.on('data', (chunk: Buffer) => {
    far.received = Buffer.concat([far.received, chunk])
  })
  stream.on('end', () => {
    far.ended = true
  })
  stream.on('error', () => {})
  return far
}

function setUp(options: RelayOptions = {}) {
  const [clientFar, client] = duplexPair({ allowHalfOpen: true })
  const [serverFar, server] = duplexPair({ allowHalfOpen: true })
  return { client, server, clientFar, serverFar, done: () => relay(client, server, options) }
}

const listenersLeft = (stream: Duplex): string[] =>
  ['data', 'end', 'error', 'close', 'drain', 'finish'].flatMap(name =>
    stream
      .listeners(name)
      .filter(one => `${one}`.includes('#') || ['data', 'drain', 'finish', 'fail'].includes(one.name))
      .map(() => name),
  )

test.each([
  ['a client that disconnects in a session', true, 'USER ann\r\nPASS x\r\n', 'ECONNRESET'],
  ['a client that has sent QUIT', true, 'QUIT\r\n', undefined],
  ['a client that disconnects in a session, with a server that must not be reset', false, 'DATA\r\n', undefined],
])('%s: a server is reset, or ended in order', async (_, resetsServer, payload, code) => {
  const listener = createServer()
  await new Promise<void>(resolve => void listener.listen(0, '127.0.0.1', resolve))
  const address = listener.address()
  if (address === null || typeof address === 'string') expect.unreachable()
  const accepted = new Promise<Socket>(resolve => void listener.once('connection', resolve))
  const server = connect({ port: address.port, host: '127.0.0.1', allowHalfOpen: true })
  const far = await accepted
  listener.close()
  const [clientFar, client] = duplexPair({ allowHalfOpen: true })
  const ended = relay(client, server, { resetsServer })
  const end = new Promise<string | undefined>(resolve => {
    far.on('error', error => resolve('code' in error ? String(error.code) : error.message))
    far.on('end', () => resolve(undefined)).resume()
  })
  far.write('+OK\r\n')
  clientFar.write(payload)
  await new Promise(resolve => clientFar.once('data', resolve))
  await vi.waitFor(() => expect(server.bytesWritten).toBe(payload.length))
  client.destroy()
  expect(await end).toBe(code)
  expect(await ended).toMatchObject({ reason: payload === 'QUIT\r\n' ? 'left' : 'failed', first: 'client' })
})

describe('in order', () => {
  test('both directions are carried, and each end is passed on separately', async () => {
    const { client, server, clientFar, serverFar, done } = setUp()
    const ended = done()
    const [atClient, atServer] = [listen(clientFar), listen(serverFar)]
    serverFar.write('+OK\r\n')
    clientFar.end('QUIT\r\n')
    await vi.waitFor(() => expect(atServer.ended).toBe(true))
    expect(atClient.ended).toBe(false)
    serverFar.end('+OK bye\r\n')
    expect(await ended).toEqual({
      reason: 'ended',
      first: 'client',
      error: undefined,
      bytesFromClient: 6,
      bytesFromServer: 14,
    })
    await vi.waitFor(() => expect(atClient.ended).toBe(true))
    expect(atServer.received.toString()).toBe('QUIT\r\n')
    expect(atClient.received.toString()).toBe('+OK\r\n+OK bye\r\n')
    for (const stream of [client, server]) {
      expect(stream.destroyed).toBe(true)
      expect(listenersLeft(stream)).toEqual([])
    }
  })

  test('a stream that had ended before the relay began', async () => {
    const { client, clientFar, serverFar, done } = setUp()
    clientFar.end()
    client.resume()
    await vi.waitFor(() => expect(client.readableEnded).toBe(true))
    const ended = done()
    const atServer = listen(serverFar)
    listen(clientFar)
    await vi.waitFor(() => expect(atServer.ended).toBe(true))
    serverFar.end()
    expect((await ended).reason).toBe('ended')
  })

  test('carries any chunks of any size, both ways', async () => {
    const chunks = fc.array(fc.uint8Array({ minLength: 1, maxLength: 40_000 }), { maxLength: 12 })
    await fc.assert(
      fc.asyncProperty(chunks, chunks, async (fromClient, fromServer) => {
        const { clientFar, serverFar, done } = setUp()
        const ended = done()
        const [atClient, atServer] = [listen(clientFar), listen(serverFar)]
        for (const chunk of fromClient) clientFar.write(chunk)
        for (const chunk of fromServer) serverFar.write(chunk)
        clientFar.end()
        serverFar.end()
        const end = await ended
        await vi.waitFor(() => expect(atClient.ended && atServer.ended).toBe(true))
        expect(atServer.received.equals(Buffer.concat(fromClient))).toBe(true)
        expect(atClient.received.equals(Buffer.concat(fromServer))).toBe(true)
        expect(end).toMatchObject({
          reason: 'ended',
          bytesFromClient: atServer.received.length,
          bytesFromServer: atClient.received.length,
        })
      }),
      { numRuns: 40 },
    )
  })

  test('a reader that does not read stops the writer', async () => {
    const { client, server, clientFar, serverFar, done } = setUp()
    const ended = done()
    const chunk = Buffer.alloc(10_000, 0x61)
    let written = 0
    for (let turns = 0; turns < 500; turns++) {
      if (!serverFar.writableNeedDrain) {
        serverFar.write(chunk)
        written += chunk.length
      }
      await turn()
    }
    expect(written).toBeLessThan(1_000_000)
    expect(client.writableLength + server.readableLength).toBeLessThan(400_000)
    const atClient = listen(clientFar)
    serverFar.end()
    clientFar.end()
    serverFar.resume()
    await ended
    await vi.waitFor(() => expect(atClient.received.length).toBe(written))
  })
})

describe('out of order', () => {
  test('one side breaks: the other side still gets the octets in flight, and is then closed', async () => {
    const { server, clientFar, serverFar, done } = setUp()
    const ended = done()
    const atClient = listen(clientFar)
    serverFar.write('+OK one\r\n')
    await vi.waitFor(() => expect(atClient.received.length).toBe(9))
    const cause = new Error('reset')
    server.destroy(cause)
    expect(await ended).toMatchObject({ reason: 'failed', first: 'server', error: cause, bytesFromServer: 9 })
    await vi.waitFor(() => expect(atClient.ended).toBe(true))
  })

  test.each([
    ['had sent QUIT and read the answer', 'QUIT\r\n', '+OK bye\r\n'],
    ['had sent nothing, as a health check', '', '+OK hello\r\n'],
  ])('a client that resets and %s counts as disconnected', async (_name, payload, answer) => {
    const { client, clientFar, serverFar, done } = setUp()
    const ended = done()
    const [atClient, atServer] = [listen(clientFar), listen(serverFar)]
    if (payload !== '') clientFar.write(payload)
    await vi.waitFor(() => expect(atServer.received.length).toBe(payload.length))
    serverFar.write(answer)
    await vi.waitFor(() => expect(atClient.received.length).toBe(answer.length))
    client.destroy(new Error('reset'))
    expect(await ended).toMatchObject({ reason: 'left', first: 'client', error: undefined })
  })

  test('a client that resets after the server has ended counts as disconnected, and lost nothing', async () => {
    const { client, clientFar, serverFar, done } = setUp()
    const ended = done()
    const atClient = listen(clientFar)
    clientFar.write('STAT\r\n')
    listen(serverFar)
    serverFar.end('-ERR idle\r\n')
    await vi.waitFor(() => expect(atClient.ended).toBe(true))
    client.destroy(new Error('reset'))
    expect(await ended).toMatchObject({ reason: 'left', first: 'server', error: undefined })
  })

  test.each([
    ['in the middle of a session', 'STAT\r\n'],
    ['with QUIT in a message', 'PASS QUIT now\r\n'],
  ])('a client that resets %s counts as failed', async (_name, payload) => {
    const { client, clientFar, serverFar, done } = setUp()
    const ended = done()
    const atServer = listen(serverFar)
    serverFar.write('+OK\r\n')
    clientFar.write(payload)
    await vi.waitFor(() => expect(atServer.received.length).toBe(payload.length))
    const cause = new Error('reset')
    client.destroy(cause)
    expect(await ended).toMatchObject({ reason: 'failed', first: 'client', error: cause })
  })

  test('a stream destroyed before the relay began', async () => {
    const { client, server, serverFar, done } = setUp()
    const atServer = listen(serverFar)
    client.destroy()
    expect(await done()).toMatchObject({ reason: 'failed', first: 'client' })
    expect(server.destroyed).toBe(true)
    expect(atServer.ended).toBe(true)
  })

  test('abort closes both, before and after the start', async () => {
    const stop = new AbortController()
    const running = setUp({ signal: stop.signal })
    const ended = running.done()
    stop.abort()
    expect((await ended).reason).toBe('aborted')
    expect(running.client.destroyed && running.server.destroyed).toBe(true)
    expect((await setUp({ signal: stop.signal }).done()).reason).toBe('aborted')
  })

  test('late errors have no effect', async () => {
    const { client, done } = setUp({ signal: AbortSignal.abort() })
    await done()
    expect(() => client.emit('error', new Error('late'))).not.toThrow()
  })
})

describe('limits', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  test('idle: both sides are closed; any octet in either direction restarts the limit', async () => {
    const { client, server, clientFar, serverFar, done } = setUp({ idleLimit: 1000 })
    const ended = done()
    const atServer = listen(serverFar)
    vi.advanceTimersByTime(900)
    clientFar.write('NOOP\r\n')
    while (atServer.received.length === 0) await turn()
    vi.advanceTimersByTime(900)
    expect(client.destroyed).toBe(false)
    vi.advanceTimersByTime(200)
    expect((await ended).reason).toBe('idle')
    expect(client.destroyed && server.destroyed).toBe(true)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('a peer that never reads its last octets is closed at the linger limit', async () => {
    const { client, server, serverFar, done } = setUp({ lingerLimit: 50 })
    const ended = done()
    serverFar.write(Buffer.alloc(200_000))
    for (let turns = 0; turns < 20; turns++) await turn()
    server.destroy()
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(client.destroyed).toBe(false)
    vi.advanceTimersByTime(60)
    expect((await ended).reason).toBe('failed')
    expect(client.destroyed).toBe(true)
  })
})
