import { type Duplex, duplexPair } from 'node:stream'
import { expect, test } from 'vitest'
import { isPositive, readFirstLine, readReply } from '../../../src/tunnel/first-line.ts'

const LIMITS = { milliseconds: 60_000, octets: 8 }

function setUp(): { far: Duplex; near: Duplex } {
  const [far, near] = duplexPair()
  near.on('error', () => {})
  return { far, near }
}

const text = (found: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(found).map(([key, value]) => [key, Buffer.isBuffer(value) ? `${value}` : value]))

test('a line, and the octets after it, in any pieces', async () => {
  const { far, near } = setUp()
  const reading = readFirstLine(near, LIMITS, Buffer.from('+O'))
  far.write('K\r')
  far.write('\nmore')
  expect(text(await reading)).toEqual({ line: '+OK\r\n', rest: 'more' })
  expect([near.isPaused(), near.listenerCount('data'), near.listenerCount('close')]).toEqual([true, 0, 0])
  expect(text(await readFirstLine(near, LIMITS, Buffer.from('a\nb\n')))).toEqual({ line: 'a\n', rest: 'b\n' })
})

test('a line of the maximum length, LF included, and of one octet more', async () => {
  const { near } = setUp()
  expect(text(await readFirstLine(near, LIMITS, Buffer.from('1234567\n')))).toEqual({ line: '1234567\n', rest: '' })
  expect(await readFirstLine(near, LIMITS, Buffer.from('12345678\n'))).toEqual({ reason: 'long' })
  expect(await readFirstLine(near, LIMITS, Buffer.from('12345678'))).toEqual({ reason: 'long' })
})

test('a stream that is late, that ends, and that fails', async () => {
  expect(await readFirstLine(setUp().near, { ...LIMITS, milliseconds: 1 })).toEqual({ reason: 'late' })
  const ending = setUp()
  ending.far.end('x')
  expect(await readFirstLine(ending.near, LIMITS)).toEqual({ reason: 'ended' })
  expect(await readFirstLine(ending.near, LIMITS)).toEqual({ reason: 'ended' })
  const failing = setUp()
  const error = new Error('reset')
  const reading = readFirstLine(failing.near, LIMITS)
  failing.near.destroy(error)
  expect(await reading).toEqual({ reason: 'failed', error })
})

test('a reply counts only on an open connection', async () => {
  const { far, near } = setUp()
  far.write('+OK hello\r\n')
  const reply = await readReply(near, 60_000)
  expect(reply !== undefined && isPositive(reply)).toBe(true)
  near.destroy(new Error('reset'))
  expect(await readReply(near, 60_000, Buffer.from('+OK \r\n'))).toBeUndefined()
  expect(isPositive({ line: Buffer.from('-ERR no\r\n') })).toBe(false)
})
