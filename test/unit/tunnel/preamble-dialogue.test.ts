import { type Duplex, duplexPair } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { type DialogueEnd, holdDialogue } from '../../../src/tunnel/preamble-dialogue.ts'

const PREAMBLE = 'SSL 192.0.2.7:secret\r\n'
const GREETING = '+OK <7f3a.12.1764000000@host>\r\n'

function setUp(reply: 'ok' | 'none' = 'ok', limit = 10_000) {
  const [far, server] = duplexPair({ allowHalfOpen: true })
  server.on('error', () => {})
  const received: string[] = []
  far.on('data', (chunk: Buffer) => received.push(chunk.toString()))
  return { far, server, received, done: holdDialogue(server, { preamble: PREAMBLE, reply, limit }) }
}

const say = async (stream: Duplex, text: string | Buffer): Promise<void> => {
  stream.write(text)
  await turn()
}

const shown = (end: DialogueEnd) =>
  Object.fromEntries(
    Object.entries(end).map(([key, value]) => [key, Buffer.isBuffer(value) ? value.toString() : value]),
  )

test('the greeting is held until the command was accepted; the reply is removed', async () => {
  const { far, server, received, done } = setUp()
  await say(far, GREETING)
  await vi.waitFor(() => expect(received.join('')).toBe(PREAMBLE))
  await say(far, '+OK \r\n')
  expect(shown(await done)).toEqual({ kind: 'greeted', greeting: GREETING, rest: '' })
  expect(server.isPaused()).toBe(true)
  expect(server.listenerCount('data') + server.listenerCount('close')).toBe(0)
})

test('without a reply the greeting is sent at once', async () => {
  const { far, received, done } = setUp('none')
  await say(far, `${GREETING}more`)
  expect(shown(await done)).toEqual({ kind: 'greeted', greeting: GREETING, rest: 'more' })
  await vi.waitFor(() => expect(received.join('')).toBe(PREAMBLE))
})

test('for any pieces the outcome is the same, and the octets after the reply are kept', async () => {
  const stream = `${GREETING}+OK \r\n+OK more\r\n`
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(stream.length), { maxLength: 6 }), async cuts => {
      const { far, server, done } = setUp()
      const edges = [0, ...cuts.toSorted((a, b) => a - b), stream.length]
      for (const [i, edge] of edges.slice(0, -1).entries()) await say(far, stream.slice(edge, edges[i + 1]))
      const end = await done
      if (end.kind !== 'greeted') throw new Error(end.kind)
      expect(end.greeting.toString()).toBe(GREETING)
      const later = server.readableLength === 0 ? '' : `${server.read()}`
      expect(`${end.rest}${later}`).toBe('+OK more\r\n')
    }),
    { numRuns: 60 },
  )
})

describe('faults of the server', () => {
  test('a greeting other than +OK is quoted, and the server never gets the password', async () => {
    const { far, received, done } = setUp()
    await say(far, '-ERR [SYS/TEMP] busy\r\n')
    expect(shown(await done)).toEqual({ kind: 'refused', greeting: '-ERR [SYS/TEMP] busy\r\n' })
    await turn()
    expect(received).toEqual([])
  })

  test('a refused command is reported without quoting the reply', async () => {
    const { far, done } = setUp()
    await say(far, GREETING)
    await say(far, '-ERR unknown command SSL 192.0.2.7:secret\r\n')
    const end = await done
    expect(end).toMatchObject({ kind: 'failed' })
    expect(JSON.stringify(end)).not.toContain('secret')
  })

  test.each([
    ['greeting', ''],
    ['reply', GREETING],
  ])('the server closes before its %s', async (what, serverText) => {
    const { far, done } = setUp()
    await say(far, serverText)
    far.end()
    expect(await done).toMatchObject({ kind: 'failed', reason: `server closed before its ${what}` })
  })

  test('the server resets', async () => {
    const { server, done } = setUp()
    const error = new Error('reset')
    server.destroy(error)
    expect(await done).toMatchObject({ kind: 'failed', error })
  })

  test.each(['x'.repeat(512), `+OK ${'x'.repeat(600)}\r\n`])('an endless greeting', async serverText => {
    const { far, done } = setUp()
    await say(far, serverText)
    expect(await done).toMatchObject({ kind: 'failed', reason: 'greeting longer than 512 octets' })
  })

  test('no greeting in time', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const { done } = setUp()
    vi.advanceTimersByTime(10_000)
    vi.useRealTimers()
    expect(await done).toMatchObject({ kind: 'failed', reason: 'no greeting within 10000 ms' })
  })

  test('a server that is already closed', async () => {
    const { far, server } = setUp()
    far.destroy()
    server.destroy()
    expect(await holdDialogue(server, { preamble: PREAMBLE, reply: 'ok', limit: 1000 })).toMatchObject({
      kind: 'failed',
    })
  })
})
