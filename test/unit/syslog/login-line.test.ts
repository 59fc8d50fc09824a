import { fc, test } from '@fast-check/vitest'
import { describe, expect, it } from 'vitest'
import { qmailPop3d } from '../../../src/syslog/dialects/qmail.ts'
import {
  encodeUser,
  FAIL_TAG,
  formatAbortLine,
  formatFailLine,
  formatLoginLine,
  formatPreambleFailLine,
  LOGIN_TAG,
  parseLoginLine,
} from '../../../src/syslog/login-line.ts'
import { LoginRecognizer } from '../../../src/syslog/login-recognizer.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'

const recognizer = new LoginRecognizer({ dialects: [qmailPop3d] })
const recognize = (tag: string, message: string) => recognizer.recognize(`Mar  5 10:11:12 mx ${tag}[1]: ${message}`, 0)

const ip = fc.oneof(fc.ipV4(), fc.ipV6()).map(parseIpAddress)
const facts = fc.record({
  ip,
  tls: fc.boolean(),
  method: fc.constantFrom('pass' as const, 'apop' as const, 'sasl' as const),
  user: fc.string({ unit: 'binary' }),
})

describe('the login line of auth-relay', () => {
  it('is the line of the specification', () => {
    expect(formatLoginLine({ ip: parseIpAddress('198.51.100.4'), tls: true, method: 'sasl', user: 'a b' })).toBe(
      'authrelay v=1 ev=login ip=198.51.100.4 tls=1 method=sasl user=a%20b',
    )
    expect(formatFailLine({ ip: undefined, tls: false, method: 'pass', user: '' }, 'badauth')).toBe(
      'authrelay v=1 ev=fail ip=unknown tls=0 method=pass reason=badauth user=-',
    )
  })

  it('has a line for each end of a session without login', () => {
    const ip = parseIpAddress('2001:db8::7')
    expect(formatFailLine({ ip, tls: true, method: 'apop', user: 'ann' }, 'temp')).toBe(
      'authrelay v=1 ev=fail ip=2001:db8::7 tls=1 method=apop reason=temp user=ann',
    )
    expect([formatAbortLine(ip, true, 'a~'), formatAbortLine(undefined, false, '')]).toEqual([
      'authrelay v=1 ev=abort ip=2001:db8::7 tls=1 user=a%7E',
      'authrelay v=1 ev=abort ip=unknown tls=0 user=-',
    ])
    expect([formatPreambleFailLine(ip, 'badpass'), formatPreambleFailLine(undefined, 'badhost')]).toEqual([
      'authrelay v=1 ev=sslfail ip=2001:db8::7 reason=badpass',
      'authrelay v=1 ev=sslfail ip=unknown reason=badhost',
    ])
    expect(formatLoginLine({ ip: undefined, tls: false, method: 'pass', user: 'ann' })).toBe(
      'authrelay v=1 ev=login ip=unknown tls=0 method=pass user=ann',
    )
  })

  const line = 'authrelay v=1 ev=login ip=192.0.2.7 tls=0 method=apop user=a%C3%BC%40'
  const login = { address: '192.0.2.7', tls: false, method: 'apop', user: 'aü@', cut: false }
  it.each([
    [line, login],
    [line.replace('tls=0', 'tls=1'), { ...login, tls: true }],
    [line.replace('apop', 'pass'), { ...login, method: 'pass' }],
    [line.replace('apop', 'sasl'), { ...login, method: 'sasl' }],
    [`${line}~`, { ...login, user: 'aü@~', cut: true }],
    [`${line} ts=1764000000 mac=${'0'.repeat(32)}`, login],
    [line.replace('a%C3%BC%40', 'a%C3'), { ...login, user: 'a\ufffd' }],
    [line.replace('a%C3%BC%40', 'x'.repeat(128)), { ...login, user: 'x'.repeat(128) }],
    [line.replace('a%C3%BC%40', 'x'.repeat(129)), undefined],
    [line.replace('a%C3%BC%40', ''), undefined],
    [line.replace('%C3', '%c3'), undefined],
    [line.replace('tls=0', 'tls=2'), undefined],
    [line.replace('apop', 'none'), undefined],
    [line.replace('192.0.2.7', 'unknown'), undefined],
    [line.replace('v=1', 'v=2'), undefined],
    [`x${line}`, undefined],
    [`${line} x`, undefined],
    [`${line} ts=1 mac=0`, undefined],
    ['', undefined],
  ])('%j is parsed', (text, parsed) => {
    expect(parseLoginLine(text)).toEqual(parsed)
  })

  it('encodes every octet outside the safe set and never divides one', () => {
    expect(encodeUser('ann@example.org')).toBe('ann@example.org')
    expect(encodeUser('a\nb=ü~')).toBe('a%0Ab%3D%C3%BC%7E')
    expect(encodeUser('x'.repeat(128))).toBe('x'.repeat(128))
    expect(encodeUser('x'.repeat(129))).toBe(`${'x'.repeat(128)}~`)
    expect(encodeUser(`${'x'.repeat(127)}\n`)).toBe(`${'x'.repeat(127)}~`)
  })

  test.prop([facts])('is parsed back to the same login', line => {
    const message = formatLoginLine(line)
    expect(message).toMatch(/^[ -~]{1,480}$/)
    const verdict = recognize(LOGIN_TAG, message)
    if (line.ip === undefined) {
      expect(verdict.verdict).toBe('ignore')
      return
    }
    expect(verdict).toMatchObject({ verdict: 'grant', ip: line.ip, tls: line.tls, method: line.method })
    const whole = !encodeUser(line.user).endsWith('~')
    if (whole && line.user !== '' && verdict.verdict === 'grant') expect(verdict.login).toBe(line.user.toWellFormed())
  })

  test.prop([facts])('no other line of auth-relay is a login, under either tag', line => {
    const others = [
      formatFailLine(line, 'badauth'),
      formatAbortLine(line.ip, line.tls, line.user),
      formatPreambleFailLine(line.ip, 'badpass'),
    ]
    for (const message of others) {
      expect(message).toMatch(/^[ -~]{1,480}$/)
      expect(recognize(LOGIN_TAG, message).verdict).toBe('ignore')
      expect(recognize(FAIL_TAG, message).verdict).toBe('ignore')
    }
    expect(recognize(FAIL_TAG, formatLoginLine(line)).verdict).toBe('ignore')
  })
})
