import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  AUTHORIZATION_START,
  type AuthorizationEffect,
  type AuthorizationOptions,
  afterFailure,
  afterStartTls,
  lineLimit,
  runAuthorization,
  sanitizedLine,
} from '../../../src/pop3/authorization.ts'
import type { Line } from '../../../src/wire/lines.ts'

const MODERN: AuthorizationOptions = {
  compat: 'none',
  capabilities: {
    user: true,
    sasl: ['PLAIN', 'LOGIN'],
    stls: true,
    loginDelay: 0,
    expire: 'NEVER',
    implementation: 'auth-relay',
  },
  cleartext: 'all',
  preamble: false,
  tries: 3,
}
const QMAIL: AuthorizationOptions = { ...MODERN, compat: 'qmail' }

/** Sends the lines one after the other; returns the effects of the last one. */
function say(options: AuthorizationOptions, ...lines: readonly string[]): readonly AuthorizationEffect[] {
  let state = AUTHORIZATION_START
  let effects: readonly AuthorizationEffect[] = []
  for (const text of lines) ({ state, effects } = runAuthorization(state, { kind: 'line', text }, options))
  return effects
}

const reply = (text: string): AuthorizationEffect => ({ kind: 'reply', text: `${text}\r\n` })
const login = (method: string, name: string, secret: string) => [{ kind: 'authenticate', method, login: name, secret }]
const close: AuthorizationEffect = { kind: 'close' }
const base64 = (text: string) => Buffer.from(text, 'latin1').toString('base64')

describe('USER and PASS', () => {
  test('call the checker with the octets as sent', () => {
    expect(say(MODERN, 'USER ann')).toEqual([reply('+OK ')])
    expect(say(MODERN, 'user ann', 'pass two  words ')).toEqual(login('pass', 'ann', 'two  words '))
    expect(say(MODERN, 'USER ann', 'USER bob', 'PASS x')).toEqual(login('pass', 'bob', 'x'))
    expect(say(MODERN, 'USER ann', 'USER', 'PASS x')).toEqual(login('pass', 'ann', 'x'))
    expect(say(MODERN, 'USER ann', 'NOOP', 'PASS x')).toEqual(login('pass', 'ann', 'x'))
  })

  test('one space separates PASS from the password, and further ones belong to it; qmail skips all of them', () => {
    for (const secret of [' x', '  two words ', ' ', '   ']) {
      expect(say(MODERN, 'USER ann', `PASS ${secret}`)).toEqual(login('pass', 'ann', secret))
    }
    expect(say(QMAIL, 'USER ann', 'PASS   two words ')).toEqual(login('pass', 'ann', 'two words '))
    expect(say(QMAIL, 'USER ann', 'PASS   ')).toEqual([reply('-ERR syntax error')])
    expect(say(MODERN, 'USER ann', 'PASS ')).toEqual([reply('-ERR syntax error')])
    // A name or a digest never begins with a space.
    expect(say(MODERN, 'USER   ann', 'PASS x')).toEqual(login('pass', 'ann', 'x'))
    expect(say(MODERN, 'APOP   ann c4c9')).toEqual(login('apop', 'ann', 'c4c9'))
  })

  test.each([
    [['USER'], '-ERR syntax error'],
    [['PASS'], '-ERR USER first'],
    [['PASS x'], '-ERR USER first'],
    [['USER ann', 'PASS'], '-ERR syntax error'],
    [['APOP'], '-ERR syntax error'],
    [['APOP ann'], '-ERR syntax error'],
    [['NOOP'], '+OK '],
    [['STAT'], '-ERR authorization first'],
    [[''], '-ERR authorization first'],
    [[' USER ann'], '-ERR authorization first'],
    [['USER\tann'], '-ERR authorization first'],
    [['SSL 192.0.2.7:x'], '-ERR authorization first'],
  ])('%j is answered %j in both modes', (lines, answer) => {
    expect(say(MODERN, ...lines)).toEqual([reply(answer)])
    expect(say(QMAIL, ...lines)).toEqual([reply(answer)])
  })

  test('QUIT closes', () => {
    expect(say(QMAIL, 'QUIT')).toEqual([reply('+OK '), close])
  })

  test('APOP splits at the first space', () => {
    expect(say(QMAIL, 'APOP ann c4c9 x')).toEqual(login('apop', 'ann', 'c4c9 x'))
    expect(say(QMAIL, 'APOP ann ')).toEqual(login('apop', 'ann', ''))
  })

  test('without TLS they are refused if TLS is required, for all logins or for some', () => {
    const tls: AuthorizationOptions = { ...MODERN, cleartext: 'none' }
    for (const line of ['USER ann', 'AUTH PLAIN', `AUTH PLAIN ${base64('\0ann\0x')}`]) {
      expect(say(tls, line)).toEqual([reply('-ERR [AUTH] TLS required')])
    }
    expect(say(tls, 'APOP ann digest')).toEqual(login('apop', 'ann', 'digest'))
    const some: AuthorizationOptions = { ...MODERN, cleartext: name => name === 'printer' }
    expect(say(some, 'USER printer', 'PASS x')).toEqual(login('pass', 'printer', 'x'))
    expect(say(some, 'USER ann')).toEqual([reply('-ERR [AUTH] TLS required')])
    expect(say(some, `AUTH PLAIN ${base64('\0ann\0x')}`)).toEqual([reply('-ERR [AUTH] TLS required')])
  })
})

test('each line of a reply has at most 512 octets', () => {
  const words = ['USER', 'PASS', 'APOP', 'AUTH', 'CAPA', 'STLS', 'NOOP', 'QUIT', 'TOP', 'x']
  const line = fc
    .tuple(fc.constantFrom(...words), fc.string({ maxLength: 600, unit: 'binary-ascii' }))
    .map(([word, rest]) => `${word} ${rest}`)
  fc.assert(
    fc.property(fc.constantFrom(MODERN, QMAIL), fc.array(line, { minLength: 1, maxLength: 4 }), (options, lines) => {
      for (const effect of say(options, ...lines))
        if (effect.kind === 'reply')
          for (const each of effect.text.split('\r\n')) expect(each.length + 2).toBeLessThanOrEqual(512)
    }),
  )
})

describe('AUTH', () => {
  test('PLAIN with and without initial response (vectors of RFC 4616 and RFC 5034)', () => {
    expect(say(MODERN, 'AUTH PLAIN')).toEqual([reply('+ ')])
    expect(say(MODERN, 'AUTH PLAIN', 'dGVzdAB0ZXN0AHRlc3Q=')).toEqual(login('sasl', 'test', 'test'))
    expect(say(MODERN, 'auth plain AHRlc3QAdGVzdA==')).toEqual(login('sasl', 'test', 'test'))
  })

  test('an equals sign is an initial response without octets', () => {
    // An empty PLAIN message names no login, so it fails without a challenge.
    expect(say(MODERN, 'AUTH PLAIN =')).toEqual([reply('-ERR [AUTH] authorization failed')])
    expect(say(MODERN, 'AUTH LOGIN =')).toEqual(say(MODERN, 'AUTH LOGIN', ''))
  })

  test('LOGIN with and without initial response', () => {
    expect(say(MODERN, 'AUTH LOGIN')).toEqual([reply('+ VXNlcm5hbWU6')])
    expect(say(MODERN, 'AUTH LOGIN', base64('ann'))).toEqual([reply('+ UGFzc3dvcmQ6')])
    expect(say(MODERN, 'AUTH LOGIN', base64('ann'), base64('se cret'))).toEqual(login('sasl', 'ann', 'se cret'))
    expect(say(MODERN, `AUTH LOGIN ${base64('ann')}`, base64('x'))).toEqual(login('sasl', 'ann', 'x'))
  })

  test('a star cancels, and the next line is a command again', () => {
    expect(say(MODERN, 'AUTH PLAIN', '*')).toEqual([reply('-ERR authentication cancelled')])
    expect(say(MODERN, 'AUTH LOGIN', base64('ann'), '*', 'NOOP')).toEqual([reply('+OK ')])
  })

  test.each(['dGVzdAB0ZXN0AHRlc3Q', 'dGVz=AB0ZXN0', 'dGVz dAB0', 'dGVzdAB0ZXN0AHRlc3Q==', '-_--', '='])(
    'bad base64 %j is a syntax error',
    text => {
      expect(say(MODERN, 'AUTH PLAIN', text)).toEqual([reply('-ERR syntax error')])
    },
  )

  test.each(['', 'a\0b', 'a\0b\0c\0d', '\0\0x', '\0ann\0', 'root\0ann\0x', '\0an\nn\0x', '\0ann\0\xff'])(
    'the PLAIN message %j is a failed login',
    message => {
      expect(say(MODERN, 'AUTH PLAIN', base64(message))).toEqual([reply('-ERR [AUTH] authorization failed')])
    },
  )

  test('an authorization identity equal to the name is allowed', () => {
    expect(say(MODERN, 'AUTH PLAIN', base64('ann\0ann\0x'))).toEqual(login('sasl', 'ann', 'x'))
  })

  test('refuses unknown mechanisms, lists known ones, and takes long responses', () => {
    expect(say(MODERN, 'AUTH CRAM-MD5')).toEqual([reply('-ERR unknown mechanism')])
    expect(say(MODERN, 'AUTH PLAIN = =')).toEqual([reply('-ERR syntax error')])
    expect(say(MODERN, 'AUTH')).toEqual([reply('+OK \r\nPLAIN\r\nLOGIN\r\n.')])
    const { state } = runAuthorization(AUTHORIZATION_START, { kind: 'line', text: 'AUTH PLAIN' }, MODERN)
    expect([lineLimit(AUTHORIZATION_START), lineLimit(state)]).toEqual([512, 12_288])
  })

  test('is unknown in mode qmail, as are the other modern commands', () => {
    for (const line of ['AUTH', 'AUTH PLAIN', 'CAPA', 'STLS', 'UTF8']) {
      expect(say(QMAIL, line)).toEqual([reply('-ERR authorization first')])
    }
  })
})

describe('CAPA, STLS, SSL', () => {
  test('CAPA announces the available capabilities', () => {
    expect(say(MODERN, 'CAPA')).toEqual([
      reply(
        '+OK \r\nTOP\r\nUIDL\r\nUSER\r\nSASL PLAIN LOGIN\r\nSTLS\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nEXPIRE NEVER\r\nIMPLEMENTATION auth-relay\r\n.',
      ),
    ])
  })

  test('STLS replies, then starts TLS; the name given before is dropped', () => {
    expect(say(MODERN, 'STLS')).toEqual([reply('+OK '), { kind: 'startTls' }])
    expect(say(MODERN, 'STLS now')).toEqual([reply('-ERR syntax error')])
    expect(say(MODERN, 'USER ann', 'STLS', 'PASS x')).toEqual([reply('-ERR USER first')])
    const without = { ...MODERN, capabilities: { ...MODERN.capabilities, stls: false } }
    expect(say(without, 'STLS')).toEqual([reply('-ERR authorization first')])
  })

  test('SSL is accepted as the first line only', () => {
    for (const options of [
      { ...MODERN, preamble: true },
      { ...QMAIL, preamble: true },
    ]) {
      expect(say(options, 'ssl 192.0.2.7:x y')).toEqual([{ kind: 'preamble', argument: '192.0.2.7:x y' }])
      expect(say(options, 'NOOP', 'SSL 192.0.2.7:x')).toEqual([reply('-ERR authorization first')])
      expect(say(options, 'SSL 192.0.2.7:x', 'SSL 192.0.2.7:x')).toEqual([reply('-ERR authorization first')])
      expect(say(options, '', 'SSL 192.0.2.7:x')).toEqual([reply('-ERR authorization first')])
    }
  })
})

describe('commands before login are limited', () => {
  /** The number of the line that closes the connection, and its reply. */
  function closedBy(options: AuthorizationOptions, line: (n: number) => Line): readonly [number, string] {
    let state = AUTHORIZATION_START
    for (let n = 1; n < 10_000; n += 1) {
      const step = runAuthorization(state, line(n), options)
      const [answer, ...rest] = step.effects
      if (rest.some(({ kind: type }) => type === 'close')) return [n, answer?.kind === 'reply' ? answer.text : '']
      state = step.state
    }
    return [0, 'never']
  }
  const line = (text: string): Line => ({ kind: 'line', text })

  test.each([
    ['an empty line', line('')],
    ['a line with NUL', { kind: 'holdsNul' } satisfies Line],
    ['SSL where it is not offered', line('SSL 192.0.2.7:x')],
  ])('ten times %s is allowed, and the eleventh time closes', (_name, unknown) => {
    for (const options of [MODERN, QMAIL]) {
      expect(closedBy(options, () => unknown)).toEqual([11, '-ERR too many unknown commands\r\n'])
      // Other commands in between do not reset the count.
      expect(closedBy(options, n => (n % 2 === 0 ? unknown : line('NOOP')))[0]).toBe(22)
    }
  })

  test('commands without an effect are limited too', () => {
    const [lines, answer] = closedBy(MODERN, () => line('NOOP'))
    expect(answer).toBe('-ERR too many commands without a login\r\n')
    expect(lines).toBeGreaterThan(100)
    expect(lines).toBeLessThan(200)
    expect(closedBy(MODERN, n => line(n % 2 === 0 ? '*' : 'AUTH LOGIN'))[0]).toBe(lines)
  })

  test('a site that allows a hundred failures gets a hundred', () => {
    const patient = { ...MODERN, tries: 100 }
    let state = AUTHORIZATION_START
    for (let attempt = 1; attempt <= patient.tries; attempt += 1) {
      for (const text of ['AUTH LOGIN', base64('ann'), base64('x')]) {
        const step = runAuthorization(state, line(text), patient)
        expect(step.effects.map(({ kind: type }) => type)).not.toContain('close')
        state = step.state
      }
      const failed = afterFailure(state, 'credentials', patient)
      expect(failed.effects.some(({ kind: type }) => type === 'close')).toBe(attempt === patient.tries)
      state = failed.state
    }
  })

  test('STLS does not reset the counts', () => {
    let state = AUTHORIZATION_START
    for (let n = 0; n < 10; n += 1) ({ state } = runAuthorization(state, line('HELP'), MODERN))
    state = afterStartTls({ ...state, user: 'ann' })
    expect(state).toMatchObject({ begun: true, user: undefined, lines: 10 })
    expect(runAuthorization(state, line('HELP'), MODERN).effects).toContainEqual(close)
    const tooLong = { kind: 'tooLong' } as const
    let overlong = AUTHORIZATION_START
    for (let n = 0; n < 2; n += 1) ({ state: overlong } = runAuthorization(overlong, tooLong, MODERN))
    expect(runAuthorization(afterStartTls(overlong), tooLong, MODERN).effects).toContainEqual(close)
  })
})

describe('afterFailure', () => {
  test('gives the modern texts and closes when the tries are used up', () => {
    let state = AUTHORIZATION_START
    for (const last of [false, false, true]) {
      const step = afterFailure(state, 'credentials', MODERN)
      expect(step.effects).toEqual([reply('-ERR [AUTH] authorization failed'), ...(last ? [close] : [])])
      state = step.state
    }
    expect(afterFailure(AUTHORIZATION_START, 'temporary', MODERN).effects).toEqual([
      reply('-ERR [SYS/TEMP] temporary authentication failure'),
    ])
  })

  test('gives the texts of qmail and one try', () => {
    for (const failure of ['credentials', 'temporary', 'permanent', 'inUse', 'loginDelay'] as const) {
      expect(afterFailure(AUTHORIZATION_START, failure, QMAIL).effects).toEqual([
        reply('-ERR authorization failed'),
        close,
      ])
    }
    expect(afterFailure(AUTHORIZATION_START, 'crashed', QMAIL).effects).toEqual([
      reply('-ERR aack, child crashed'),
      close,
    ])
  })
})

describe('the logged form of a line', () => {
  test('contains no secret, for every kind of line', () => {
    const secret = 'hunter2'
    const lines = [`PASS ${secret}`, `APOP ann ${secret}`, `AUTH PLAIN ${secret}`, `SSL 192.0.2.7:${secret}`, secret]
    for (const text of lines) {
      expect(sanitizedLine(AUTHORIZATION_START, { kind: 'line', text })).not.toContain(secret)
    }
    const { state } = runAuthorization(AUTHORIZATION_START, { kind: 'line', text: 'AUTH PLAIN' }, MODERN)
    expect(sanitizedLine(state, { kind: 'line', text: secret })).toBe('SASL response ***')
    expect(sanitizedLine(AUTHORIZATION_START, { kind: 'line', text: 'user ann' })).toBe('USER ann')
  })
})

test('every line of any client has an answer', () => {
  const verb = fc.constantFrom('USER', 'PASS', 'APOP', 'AUTH PLAIN', 'AUTH LOGIN', 'SSL', 'CAPA', 'STLS', 'NOOP', '*')
  const text = fc.oneof(
    fc.tuple(verb, fc.string()).map(parts => parts.join(' ')),
    fc.base64String(),
    verb,
  )
  const line = fc.oneof(
    text.map(content => ({ kind: 'line' as const, text: content })),
    fc.constantFrom({ kind: 'tooLong' as const }, { kind: 'holdsNul' as const }),
  )
  fc.assert(
    fc.property(fc.array(line), fc.constantFrom(MODERN, QMAIL), (lines, options) => {
      let state = AUTHORIZATION_START
      for (const next of lines) {
        const step = runAuthorization(state, next, options)
        expect(step.effects.length).toBeGreaterThan(0)
        for (const effect of step.effects)
          if (effect.kind === 'reply') expect(effect.text).toMatch(/^(\+OK |-ERR |\+ )/)
        expect(() => sanitizedLine(state, next)).not.toThrow()
        state = step.state
      }
    }),
  )
})

test('the logged form of each line contains no secret, and no text that was typed in place of a command', () => {
  const logged = (text: string) => sanitizedLine(AUTHORIZATION_START, { kind: 'line', text })
  expect(
    ['USER ann', 'PASS sesame', 'APOP ann 0123', 'AUTH PLAIN AGFubg==', 'SSL 192.0.2.7:x', 'CAPA', 'STLS', 'UTF8'].map(
      logged,
    ),
  ).toEqual(['USER ann', 'PASS ***', 'APOP ann ***', 'AUTH PLAIN ***', 'SSL ***', 'CAPA', 'STLS', 'UTF8'])
  expect(['NOOP', 'quit now', 'sesame', ''].map(logged)).toEqual(['NOOP', 'QUIT', 'unknown command', 'unknown command'])
})

test('two overlong lines are answered, the third closes', () => {
  let state = AUTHORIZATION_START
  const effects: AuthorizationEffect[][] = []
  for (let n = 0; n < 3; n += 1) {
    const step = runAuthorization(state, { kind: 'tooLong' }, MODERN)
    state = step.state
    effects.push([...step.effects])
  }
  const tooLong = reply('-ERR line too long')
  expect(effects).toEqual([[tooLong], [tooLong], [tooLong, close]])
})

test('the limit of lines is 100, and 4 for each try', () => {
  let state = AUTHORIZATION_START
  const closesAt = (tries: number): number => {
    state = AUTHORIZATION_START
    for (let n = 1; n < 500; n += 1) {
      const step = runAuthorization(state, { kind: 'line', text: 'NOOP' }, { ...MODERN, tries })
      state = step.state
      if (step.effects.some(({ kind: type }) => type === 'close')) return n
    }
    return 0
  }
  expect([closesAt(3), closesAt(1)]).toEqual([113, 105])
})

test('AUTH with a mechanism that is not offered, or none that exists', () => {
  const plainOnly = { ...MODERN, capabilities: { ...MODERN.capabilities, sasl: ['PLAIN'] } }
  expect(say(plainOnly, 'AUTH LOGIN')).toEqual([reply('-ERR unknown mechanism')])
  expect(say(MODERN, 'AUTH CRAM-MD5')).toEqual([reply('-ERR unknown mechanism')])
  // TLS would not help such a client.
  expect(say({ ...MODERN, cleartext: 'none' }, 'AUTH CRAM-MD5')).toEqual([reply('-ERR unknown mechanism')])
  expect(say(MODERN, `AUTH PLAIN ${base64('\0ann\0sesame')}`)).toEqual(login('sasl', 'ann', 'sesame'))
  expect(say(MODERN, 'AUTH LOGIN', base64('ann'), base64('sesame'))).toEqual(login('sasl', 'ann', 'sesame'))
})
