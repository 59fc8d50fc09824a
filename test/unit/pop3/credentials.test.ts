import { describe, expect, test } from 'vitest'
import { parseLoginAnswers, parsePlainMessage } from '../../../src/pop3/authorization.ts'
import { capabilityLines, multiline } from '../../../src/pop3/reply.ts'

describe('SASL PLAIN', () => {
  test.each([
    ['\0ann\0sesame', 'ann', 'sesame'],
    ['ann\0ann\0sesame', 'ann', 'sesame'],
    ['\0j\xc3\xbcrgen\0\x01\x02', 'j\xc3\xbcrgen', '\x01\x02'],
  ])('%j', (message, login, secret) => {
    expect(parsePlainMessage(message)).toEqual({ login, secret })
  })

  test.each([
    ['an empty message', ''],
    ['one NUL', 'ann\0sesame'],
    ['three NULs', '\0ann\0sesame\0'],
    ['the authorization identity of another login', 'bob\0ann\0sesame'],
    ['no name', '\0\0sesame'],
    ['no password', '\0ann\0'],
    ['a control character in the name', '\0an\x1fn\0sesame'],
    ['DEL in the name', '\0ann\x7f\0sesame'],
    ['octets that are not UTF-8', '\0ann\0\xff'],
  ])('%s: no credentials', (_, message) => {
    expect(parsePlainMessage(message)).toBeUndefined()
  })
})

describe('AUTH LOGIN', () => {
  test('reads a name and a password', () => {
    expect(parseLoginAnswers('ann', 'se same')).toEqual({ login: 'ann', secret: 'se same' })
  })

  test.each([
    ['', 'sesame'],
    ['ann', ''],
    ['an\nn', 'sesame'],
    ['ann', 'ses\0ame'],
    ['', ''],
  ])('%j and %j: no credentials', (login, secret) => {
    expect(parseLoginAnswers(login, secret)).toBeUndefined()
  })
})

describe('capabilities', () => {
  const none = { user: false, sasl: [], stls: false, loginDelay: 0, expire: 'NEVER', implementation: 'x' } as const
  const always = ['TOP', 'UIDL', 'RESP-CODES', 'AUTH-RESP-CODE', 'PIPELINING', 'EXPIRE NEVER', 'IMPLEMENTATION x']

  test('of a server without optional features', () => {
    expect(capabilityLines('AUTHORIZATION', none)).toEqual(always)
    expect(capabilityLines('TRANSACTION', none)).toEqual(always)
  })

  test('of a server with all features; STLS before login alone', () => {
    const all = { ...none, user: true, sasl: ['PLAIN', 'LOGIN'], stls: true, loginDelay: 900, expire: 30 }
    const after = [
      'TOP',
      'UIDL',
      'USER',
      'SASL PLAIN LOGIN',
      'RESP-CODES',
      'AUTH-RESP-CODE',
      'PIPELINING',
      'LOGIN-DELAY 900',
      'EXPIRE 30',
      'IMPLEMENTATION x',
    ]
    expect(capabilityLines('TRANSACTION', all)).toEqual(after)
    expect(capabilityLines('AUTHORIZATION', all)).toEqual([...after.slice(0, 4), 'STLS', ...after.slice(4)])
  })
})

test('a line that begins with a dot gets a second one; a dot elsewhere stays', () => {
  expect(multiline(['.x', '.', 'x.', 'a.b'])).toBe('+OK \r\n..x\r\n..\r\nx.\r\na.b\r\n.\r\n')
})
