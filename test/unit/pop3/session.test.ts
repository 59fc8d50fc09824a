import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import type { AuthorizationOptions } from '../../../src/pop3/authorization.ts'
import { type Capabilities, capabilityLines } from '../../../src/pop3/reply.ts'
import { parseSslPreamble } from '../../../src/wire/preamble.ts'
import { MemoryMaildrop } from '../../harness/pop3/memory-maildrop.ts'
import { MemorySession, runSession, type SessionHost } from '../../harness/pop3/memory-session.ts'
import { failureOf, PREAMBLE_PASSWORD } from '../../harness/pop3/session-logins.ts'
import {
  inputLength,
  piecesOf,
  readTranscripts,
  type Step,
  type Transcript,
  type TranscriptSettings,
} from '../../harness/pop3/transcript.ts'

const CAPABILITIES = {
  user: true,
  sasl: [],
  stls: false,
  loginDelay: 0,
  expire: 'NEVER',
  implementation: 'auth-relay',
} as const

const AUTHORIZATION: AuthorizationOptions = {
  compat: 'none',
  capabilities: { ...CAPABILITIES, sasl: ['PLAIN', 'LOGIN'], stls: true },
  cleartext: 'all',
  preamble: true,
  tries: 3,
}

const DEFAULTS: TranscriptSettings = {
  compat: 'none',
  sizes: 'wire',
  extraBlank: false,
  isWritten: { sizes: false, extraBlank: false },
}

/** `transaction`: the capabilities after the login. */
function hostFor(
  maildrop: MemoryMaildrop,
  { compat, over }: TranscriptSettings = DEFAULTS,
  transaction: Capabilities = CAPABILITIES,
): SessionHost {
  const clear = { ...AUTHORIZATION, compat }
  const overTls = { ...clear, preamble: false, capabilities: { ...clear.capabilities, stls: false } }
  return {
    greeting: '<timestamp>',
    authorization: over === 'tls' ? overTls : clear,
    overTls,
    transaction: { compat, capabilities: capabilityLines('TRANSACTION', transaction) },
    authenticate: ({ login, secret }) => failureOf(login, secret) ?? maildrop,
    preamble: argument => {
      const preamble = parseSslPreamble(`SSL ${argument}`)
      if (preamble === undefined || preamble === 'malformed') return 'malformed'
      return preamble.pass === PREAMBLE_PASSWORD ? 'accepted' : 'wrong'
    },
  }
}

const octets = (text: string): Buffer => Buffer.from(text, 'latin1')

describe('transcripts in memory', () => {
  /** Transcripts without another program and without a fault of the file system. */
  const transcripts = readTranscripts(`${import.meta.dirname}/../../transcripts/pop3d`).filter(
    ({ steps, before }) =>
      steps.every(({ type }) => type !== 'meanwhile') &&
      before.every(({ path }) => path !== '-new' && path !== '-cur' && !path.startsWith('tmp/')),
  )

  test('are the majority', () => {
    expect(transcripts.length).toBeGreaterThan(50)
  })

  const LOGIN: readonly Step[] = [
    { type: 'server', octets: '+OK <timestamp>\r\n' },
    { type: 'client', octets: 'USER ann\r\n' },
    { type: 'server', octets: '+OK \r\n' },
    { type: 'client', octets: 'PASS secret\r\n' },
  ]

  describe.each(transcripts.map(transcript => ({ ...transcript, steps: [...LOGIN, ...transcript.steps] })))(
    'after a login: $name',
    transcript => inMemory(transcript, CAPABILITIES),
  )

  describe.each(readTranscripts(`${import.meta.dirname}/../../transcripts/session`))('$name', transcript =>
    inMemory(transcript, { ...CAPABILITIES, sasl: ['PLAIN', 'LOGIN'] }),
  )

  function inMemory(transcript: Transcript, capabilities: Capabilities): void {
    test('in one piece', () => run(transcript, capabilities, 'whole'))

    test('octet by octet', () => run(transcript, capabilities, 'everywhere'))

    test('cut at every octet', () => {
      const length = inputLength(transcript)
      expect(length).toBeGreaterThan(0)
      for (let cut = 1; cut < length; cut += 1) run(transcript, capabilities, cut)
    })
  }

  /** TLS begins at a pause of the client; at other places the client may send at any time. */
  function run(
    { before, settings, steps, afterwards }: Transcript,
    capabilities: Capabilities,
    cut: number | 'whole' | 'everywhere',
  ): void {
    const maildrop = new MemoryMaildrop(before, settings)
    const session = new MemorySession(hostFor(maildrop, settings, capabilities))
    let [replies, input, sent] = [session.push(new Uint8Array(0)), '', 0]
    const send = (): void => {
      for (const piece of piecesOf(input, cut, sent)) replies += session.push(piece)
      sent += input.length
      input = ''
    }
    for (const step of steps) {
      if (step.type === 'client') input += step.octets
      else if (step.type === 'clientStartsTls') send()
    }
    send()
    expect(replies).toBe(steps.map(step => (step.type === 'server' ? step.octets : '')).join(''))
    if (steps.some(({ type }) => type === 'serverCloses') && !steps.some(({ type }) => type === 'clientCloses'))
      expect(session.isOver).toBe(true)
    expect(maildrop.state).toEqual([...afterwards].sort())
  }
})

describe('both states in one session', () => {
  const mail = [{ path: 'cur/A', content: '.x\n', mtime: 1 }]

  function converse(...lines: readonly string[]): readonly string[] {
    const input = lines.map(line => `${line}\r\n`).join('')
    return runSession(hostFor(new MemoryMaildrop(mail, DEFAULTS)), [octets(input)])
      .split('\r\n')
      .slice(1, -1)
  }

  test('after a failed login the session is still in AUTHORIZATION, and the next login opens the maildrop', () => {
    expect(converse('USER ann', 'PASS wrong', 'STAT', 'USER ann', 'PASS secret', 'STAT', 'USER ann')).toEqual([
      ...['+OK ', '-ERR [AUTH] authorization failed', '-ERR authorization first'],
      ...['+OK ', '+OK ', '+OK 1 4', '-ERR unimplemented'],
    ])
  })

  test('the third failure closes, and later commands have no answer', () => {
    const tries = ['USER later', 'PASS x', 'USER taken', 'PASS x', 'APOP early x', 'NOOP']
    expect(converse(...tries)).toEqual([
      ...['+OK ', '-ERR [SYS/TEMP] temporary authentication failure'],
      ...['+OK ', '-ERR [IN-USE] maildrop is in use', '-ERR [LOGIN-DELAY] minimum time between logins not over'],
    ])
  })

  test('AUTH PLAIN, a message with a stuffed dot, and UPDATE', () => {
    const maildrop = new MemoryMaildrop(mail, DEFAULTS)
    const session = new MemorySession(hostFor(maildrop))
    expect(session.push(octets('AUTH PLAIN\r\n'))).toBe('+OK <timestamp>\r\n+ \r\n')
    expect(session.push(octets(`${octets('\0ann\0secret').toString('base64')}\r\nRETR 1\r\nDELE 1\r\nQU`))).toBe(
      '+OK \r\n+OK \r\n..x\r\n.\r\n+OK \r\n',
    )
    expect([maildrop.state, session.isOver]).toEqual([['cur/A ".x\\n"'], false])
    expect(session.push(octets('IT\r\nSTAT\r\n'))).toBe('+OK \r\n')
    expect([maildrop.state, session.isOver, session.push(octets('STAT\r\n'))]).toEqual([[], true, ''])
  })

  test('STLS drops the name, and clear text that came behind it', () => {
    const session = new MemorySession(hostFor(new MemoryMaildrop(mail, DEFAULTS)))
    expect(session.push(octets('USER ann\r\nSTLS\r\nPASS secret\r\n'))).toBe('+OK <timestamp>\r\n+OK \r\n+OK \r\n')
    expect(session.push(octets('PASS secret\r\nSTLS\r\n'))).toBe('-ERR USER first\r\n-ERR authorization first\r\n')
  })

  test.each([
    [`SSL 192.0.2.7:${PREAMBLE_PASSWORD}`, ['+OK ', '+OK '], false],
    ['SSL 192.0.2.7:q', ['-ERR authorization failed'], true],
    ['SSL [x:p', ['-ERR syntax error'], true],
  ] as const)('%s', (line, answers, isOver) => {
    expect(converse(line, 'NOOP')).toEqual([...answers])
    const session = new MemorySession(hostFor(new MemoryMaildrop(mail, DEFAULTS)))
    session.push(octets(`${line}\r\n`))
    expect(session.isOver).toBe(isOver)
  })
})

const line = fc.oneof(
  fc.constantFrom('USER ann', 'PASS secret', 'PASS x', 'STAT', 'LIST', 'UIDL 1', 'RETR 1', 'TOP 1 0', 'DELE 1', 'QUIT'),
  fc.constantFrom('CAPA', 'RSET', 'NOOP', 'AUTH PLAIN', 'APOP ann x', 'LAST', 'x'.repeat(600), 'a\0b', ''),
  fc.string({ maxLength: 30 }),
)

property.prop([fc.array(line, { maxLength: 20 }), fc.array(fc.nat(400), { maxLength: 5 })])(
  'the answer to any input is whole lines, and does not depend on the pieces',
  (lines, cuts) => {
    const input = octets(lines.map(text => `${text}\r\n`).join(''))
    const outputOf = (pieces: readonly Uint8Array[]): string =>
      runSession(hostFor(new MemoryMaildrop([{ path: 'new/A', content: 'h\n\nb\n', mtime: 1 }], DEFAULTS)), pieces)
    const at = [0, ...cuts.toSorted((a, b) => a - b), input.length]
    const whole = outputOf([input])
    expect(outputOf(at.slice(1).map((end, index) => input.subarray(at[index], end)))).toBe(whole)
    expect(whole.endsWith('\r\n')).toBe(true)
    expect(whole.replaceAll('\r\n', '')).not.toMatch(/[\r\n]/)
  },
)
