import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatTimestamp, isSessionId, sessionId, sessionIdOfGreeting } from '../../../src/wire/login-event.ts'

const anyId = fc
  .tuple(fc.integer({ min: 1, max: 0x7fffffff }), fc.integer({ min: 1, max: 999_999_999_999 }))
  .map(([pid, counter]) => sessionId(pid, counter))
const anyHost = fc.string({ unit: fc.constantFrom(...'abc019.-'), minLength: 1, maxLength: 255 })

test('the id is found in the greeting that contains it', () => {
  fc.assert(
    fc.property(anyId, fc.nat(), anyHost, fc.constantFrom('', 'POP3 ready '), (id, seconds, host, words) => {
      expect(isSessionId(id)).toBe(true)
      expect(sessionIdOfGreeting(`+OK ${words}${formatTimestamp(id, seconds, host)}`)).toBe(id)
      expect(sessionIdOfGreeting(`+OK ${words}${formatTimestamp(id, seconds, host)}\r\n`)).toBe(id)
    }),
  )
})

test('a greeting without APOP has the id without brackets', () => {
  expect(sessionIdOfGreeting('+OK 7f3a.12.1764000000@mx.example\r\n')).toBe('7f3a.12')
})

test('the documented timestamp', () => {
  expect(formatTimestamp(sessionId(0x7f3a, 12), 1764000000, 'mx.example')).toBe('<7f3a.12.1764000000@mx.example>')
})

test.each([
  '+OK <4711.1700000000@pop.example.org>', // qmail-popup: process id and time, no counter
  '+OK Dovecot ready. <7f3a.12.5f.ABC==@host>',
  '+OK ready',
  'x+OK <7f3a.12.1764000000@host>',
  '+OK <x7f3a.12.1764000000@host>',
  '+OK <7f3a.12.1764000000@host@host>',
  '-ERR <7f3a.12.1764000000@host>',
  '+OK <7f3a.12.1764000000@host> and more',
  '+OK <7F3A.12.1764000000@host>',
  '+OK <7f3a.12.1764000000@>',
  '',
])('a greeting of another server: %j', greeting => {
  expect(sessionIdOfGreeting(greeting)).toBeUndefined()
})

test('numbers that cannot be an id throw', () => {
  expect(() => sessionId(1, 1.5)).toThrow(RangeError)
  expect(() => sessionId(-1, 1)).toThrow(RangeError)
  expect(() => sessionId(1, 1e12)).toThrow(RangeError)
  expect(() => sessionId(1, 1.5)).toThrow('no session id: pid 1, counter 1.5')
})

test('the timestamp of each greeting is different, also within one second', () => {
  const ids = [1, 2, 0x7f3a].flatMap(pid => [1, 2, 3].map(counter => sessionId(pid, counter)))
  const stamps = ids.map(id => formatTimestamp(id, 1764000000, 'mx.example'))
  expect(new Set(stamps).size).toBe(ids.length)
})
