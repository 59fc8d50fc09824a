import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createLog, type Fields, formatLogLine } from '../../../src/base/log.ts'
import { Secret } from '../../../src/settings/secret.ts'
import { parseLogLine } from '../../harness/processes/log-line.ts'

const format = (fields: Fields) => formatLogLine('popup', 'info', 'login_accepted', fields)

describe('one event, one line', () => {
  test('the documented form', () => {
    expect(format({ id: '7f3a.12', ip: '192.0.2.7', tls: true, port: 110, user: 'a b', gone: undefined })).toBe(
      'popup: level=info event=login_accepted id=7f3a.12 ip=192.0.2.7 tls=1 port=110 user="a b"',
    )
  })

  test.each([
    ['', '""'],
    ['a"b', '"a\\"b"'],
    ['a\\b', '"a\\\\b"'],
    ['a=b', '"a=b"'],
    ['a\nlevel=error', '"a\\u{a}level=error"'],
    ['\r\0\u001b[2J', '"\\u{d}\\u{0}\\u{1b}[2J"'],
    ['\u2028\u0085\u202e', '"\\u{2028}\\u{85}\\u{202e}"'],
    ['\ud800', '"\\u{d800}"'],
    ['é', '"é"'],
    ['x'.repeat(513), `"${'x'.repeat(512)}…"`],
  ])('%j', (text, written) => {
    expect(format({ user: text })).toBe(`popup: level=info event=login_accepted user=${written}`)
  })

  test('no text makes a second line, a second field or a control character', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 500 }), fc.string({ unit: 'binary' }), (user, note) => {
        const line = format({ user, note })
        expect(line).not.toMatch(/[\p{C}\u2028\u2029]/u)
        expect(parseLogLine(line)).toEqual({
          program: 'popup',
          fields: {
            level: 'info',
            event: 'login_accepted',
            user: user.toWellFormed() === user ? user : expect.any(String),
            note,
          },
        })
      }),
    )
  })

  test('errors give their message and their causes, in one value', () => {
    const cause = new Error('ENOENT')
    expect(format({ error: new Error('cannot read /x', { cause }) })).toContain('error="cannot read /x: ENOENT"')
    expect(format({ error: new AggregateError([new Error('refused ::1'), new Error('refused 127.0.0.1')]) })).toContain(
      'error="refused ::1; refused 127.0.0.1"',
    )
    expect(format({ error: new TypeError('') })).toContain('error=TypeError')
  })

  test('causes may form a cycle', () => {
    const ring = new Error('ring')
    ring.cause = ring
    expect(format({ error: ring }).length).toBeLessThan(200)
  })

  test('dates, also impossible ones', () => {
    expect(format({ at: new Date(0) })).toContain('at=1970-01-01T00:00:00.000Z')
    expect(format({ at: new Date(Number.NaN) })).toContain('at=null')
  })

  test('a secret in a text is not shown', () => {
    expect(format({ password: `${new Secret('hunter2')}` })).not.toContain('hunter2')
  })
})

describe('log', () => {
  test('levels below the limit write nothing; common fields are in every line', () => {
    const lines: string[] = []
    const log = createLog('authd', { level: 'warn', write: line => lines.push(line) }).with({ id: '1.1' })
    log.debug('usage_delayed')
    log.info('grants_swept', { grants: 1 })
    log.warn('passwd_faults_omitted', { count: 1 })
    log.with({ ip: '192.0.2.7' }).error('fifo_failed')
    expect(lines).toEqual([
      'authd: level=warn event=passwd_faults_omitted id=1.1 count=1\n',
      'authd: level=error event=fifo_failed id=1.1 ip=192.0.2.7\n',
    ])
  })
})
