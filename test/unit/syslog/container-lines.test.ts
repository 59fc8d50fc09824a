import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ContainerLines, isOfContainer } from '../../../src/syslog/container-lines.ts'
import { DIALECTS } from '../../../src/syslog/dialects.ts'
import { LoginRecognizer, type Verdict } from '../../../src/syslog/login-recognizer.ts'
import { MAX_SYSLOG_LINE } from '../../../src/syslog/syslog-line.ts'
import { ATTACK_PIECES, FAILURE_TEMPLATES } from './attack-lines.ts'
import { FORMS, LOGINS } from './known-lines.ts'

const NOW = Date.parse('2026-11-28T08:10:00Z')
const AT = '2026-11-28T08:00:00.123456789Z'
const recognizer = new LoginRecognizer({ dialects: DIALECTS, imap: true, ownFiles: true, maxAge: 1_800_000 })
const docker = (text: string, end = '\n', stream = 'stdout'): string =>
  JSON.stringify({ log: `${text}${end}`, stream, time: AT })
const cri = (text: string, tag = 'F', stream = 'stdout'): string => `${AT} ${stream} ${tag} ${text}`
const RUNTIMES = {
  docker: [docker, (text: string) => docker(text, '')],
  cri: [cri, (text: string) => cri(text, 'P')],
} as const
/** Lines that Dovecot prints to standard output, in another time zone. */
const DOVECOT =
  'Nov 27 22:00:00 pop3-login: Info: Logged in: user=<ann>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, TLS, session=<x>'

const received = (lines: readonly string[], containers = new ContainerLines('first')): readonly Verdict[] =>
  lines.map(line => recognizer.recognizeFileLine(line, containers, NOW))

describe.each(Object.entries(RUNTIMES))('%s', (_, [whole, piece]) => {
  test('a login counts from the stamp of the runtime', () => {
    expect(received([whole(DOVECOT)])).toMatchObject([
      { verdict: 'grant', dialect: 'dovecot', ip: '192.0.2.7', login: 'ann', stamp: AT, at: Date.parse(AT) },
    ])
    const late = recognizer.recognizeFileLine(whole(DOVECOT), new ContainerLines('first'), NOW + 1_800_000)
    expect(late).toMatchObject({ verdict: 'drop', because: 'expired' })
  })

  test('a syslogd in the container counts too, in each of its forms', () => {
    for (const { tag, pid = '', message, grants } of LOGINS) {
      const line = FORMS['A']?.(tag, pid, message) ?? ''
      expect(received([whole(line)]), line).toMatchObject([
        { verdict: 'grant', ip: grants?.ip, login: grants?.login, stamp: AT },
      ])
    }
  })

  test('pieces of a line are one line', () => {
    expect(
      received([piece(DOVECOT.slice(0, 30)), piece(DOVECOT.slice(30, 60)), whole(DOVECOT.slice(60))]),
    ).toMatchObject([{ verdict: 'ignore' }, { verdict: 'ignore' }, { verdict: 'grant', ip: '192.0.2.7' }])
  })

  test('a piece is never read as a separate line, for any start of the read', () => {
    const forged = [piece('auth: unknown user '), whole(DOVECOT), whole(DOVECOT)]
    expect(received(forged).map(({ verdict }) => verdict)).toEqual(['ignore', 'ignore', 'grant'])
    for (const containers of [new ContainerLines('anywhere'), new ContainerLines('first')]) {
      containers.lose()
      expect(received(forged.slice(1), containers).map(({ verdict }) => verdict)).toEqual(['ignore', 'grant'])
    }
    // A line that is longer than the kept text is still one line.
    const long = [piece('x'.repeat(8000)), piece('x'.repeat(8000)), whole(DOVECOT), whole(DOVECOT)]
    expect(received(long).map(({ verdict }) => verdict)).toEqual(['ignore', 'ignore', 'ignore', 'grant'])
  })

  test('no text of an attacker opens the relay, for any pieces of the runtime', () => {
    const text = fc.array(
      fc.oneof(fc.constantFrom(...ATTACK_PIECES, whole(DOVECOT), `\n${whole(DOVECOT)}`), fc.string()),
      {
        maxLength: 4,
      },
    )
    const cuts = fc.array(fc.nat(200), { maxLength: 4 })
    fc.assert(
      fc.property(fc.constantFrom(...FAILURE_TEMPLATES), text, cuts, ([tag, template], parts, lengths) => {
        const message = template.replaceAll('{}', () => parts.join('').replaceAll('\n', ' '))
        const written = FORMS['A']?.(tag, '4242', message) ?? ''
        let rest = written
        const lines = lengths.map(length => {
          const head = rest.slice(0, length)
          rest = rest.slice(length)
          return piece(head)
        })
        for (const { verdict } of received([...lines, whole(rest)])) expect(verdict).toBe('ignore')
      }),
      { numRuns: 5000 },
    )
  })
})

describe('a line of a log file', () => {
  const json = (parts: object) => JSON.stringify({ log: 'a\n', stream: 'stdout', time: AT, ...parts })
  const whole = (text: string, stamp = AT) => ({ stamp, text })

  test.each([
    [json({}), whole('a')],
    [json({ stream: 'stderr' }), whole('a')],
    [json({ log: 'a\r\n' }), whole('a')],
    [json({ log: 'a\r\n\n' }), whole('a\r\n')],
    [json({ log: '\n' }), whole('')],
    [json({ attrs: { tag: 'x' } }), whole('a')],
    [json({ log: 'a' }), 'piece'],
    [`${AT} stdout F a`, whole('a')],
    [`${AT} stderr F a b`, whole('a b')],
    [`${AT} stdout F `, whole('')],
    [`${AT} stdout F:tag a`, whole('a')],
    [`${AT} stdout P a`, 'piece'],
    ['2026-11-28T08:00:00+01:00 stdout F a', whole('a', '2026-11-28T08:00:00+01:00')],
    [json({ stream: 'stdlog' }), undefined],
    [json({ stream: 1 }), undefined],
    [json({ log: 1 }), undefined],
    [json({ time: 1 }), undefined],
    [json({ time: 'now' }), undefined],
    [json({ time: `${AT}x` }), undefined],
    [json({ time: `x${AT}` }), undefined],
    [` ${json({})}`, undefined],
    [`${json({})} `, undefined],
    ['{"log":"a', undefined],
    ['{"log":"a"x}', undefined],
    ['{"log":"a"}', undefined],
    [`x${AT} stdout F a`, undefined],
    [`${AT} stdout F`, undefined],
    [`${AT} stdlog F a`, undefined],
    [`${AT} stdout X a`, undefined],
    [`${AT} stdout F:${'x'.repeat(101)} a`, undefined],
    ['a', undefined],
    ['', undefined],
  ])('%j', (line, text) => {
    expect(new ContainerLines('first').unwrap(line)).toEqual(text)
    expect(isOfContainer(line)).toBe(text !== undefined)
  })

  test('the end of a line whose beginning is unknown is a piece', () => {
    const line = `${AT} stdout F a`
    const twice = (containers: ContainerLines) => [containers.unwrap(line), containers.unwrap(line)]
    expect(twice(new ContainerLines('first'))).toEqual([whole('a'), whole('a')])
    expect(twice(new ContainerLines('anywhere'))).toEqual(['piece', whole('a')])
    const containers = new ContainerLines('first')
    containers.unwrap(line)
    containers.lose()
    expect(twice(containers)).toEqual(['piece', whole('a')])
  })

  test('pieces are joined up to the maximum length of a line, with the stamp of the first', () => {
    const [first, later] = [`${AT} stdout P `, '2026-11-28T09:00:00Z stdout F ']
    const joined = (octets: number) => {
      const containers = new ContainerLines('first')
      expect(containers.unwrap(first + 'x'.repeat(octets - 1))).toBe('piece')
      return containers.unwrap(`${later}y`)
    }
    expect(joined(MAX_SYSLOG_LINE)).toEqual(whole(`${'x'.repeat(MAX_SYSLOG_LINE - 1)}y`))
    expect(joined(MAX_SYSLOG_LINE + 1)).toBe('piece')
  })
})

test('standard output and standard error are separate', () => {
  const lines = [cri('a', 'P', 'stderr'), cri(DOVECOT), cri(DOVECOT, 'F', 'stderr')]
  expect(received(lines).map(({ verdict }) => verdict)).toEqual(['ignore', 'grant', 'ignore'])
})

test('only a file is read in this way, because a syslogd delivers no such line', () => {
  for (const line of [docker(DOVECOT), cri(DOVECOT)]) {
    expect(recognizer.recognize(line, NOW)).toMatchObject({ verdict: 'ignore' })
  }
})
