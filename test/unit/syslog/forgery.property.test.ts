import { fc, test } from '@fast-check/vitest'
import { describe, expect } from 'vitest'
import { DIALECTS } from '../../../src/syslog/dialects.ts'
import { LoginRecognizer } from '../../../src/syslog/login-recognizer.ts'
import { ATTACK_PIECES, FAILURE_TEMPLATES } from './attack-lines.ts'
import { FORMS, LOGINS } from './known-lines.ts'

const believer = new LoginRecognizer({ dialects: DIALECTS, imap: true, ownFiles: true })

const attack = fc
  .array(
    fc.oneof(
      fc.constantFrom(...ATTACK_PIECES),
      fc.string({ unit: 'binary', maxLength: 12 }).filter(text => !text.includes('\n')),
    ),
    {
      maxLength: 6,
    },
  )
  .map(parts => parts.join(''))

describe('no text of an attacker opens the relay', () => {
  test.prop(
    [
      fc.constantFrom(...FAILURE_TEMPLATES),
      fc.array(attack, { minLength: 4, maxLength: 4 }),
      fc.constantFrom(...Object.values(FORMS)),
    ],
    {
      numRuns: 20_000,
    },
  )('in any failure line', ([tag, template], texts, format) => {
    let n = 0
    const message = template.replaceAll('{}', () => texts[n++ % texts.length] ?? '')
    // The pid is not that of a session line, because text in a name must not deceive two-line
    // daemons.
    const verdict = believer.recognize(format(tag, '4242', message), 0)
    expect(verdict).toMatchObject({ verdict: 'ignore' })
  })

  test.prop([fc.constantFrom(...FAILURE_TEMPLATES), attack, fc.nat({ max: 400 })], { numRuns: 10_000 })(
    'in a failure line that is shortened at any place',
    ([tag, template], text, length) => {
      const message = template.replaceAll('{}', () => text)
      // In these lines the success word comes after text of the client; the dialect explains why no
      // shortened line is short enough.
      fc.pre(tag !== 'perdition' && !template.startsWith('pop3-login: proxy('))
      const verdict = believer.recognize(FORMS['A']?.(tag, '1', message.slice(0, length)) ?? '', 0)
      expect(verdict.verdict === 'grant' && !template.startsWith('{}')).toBe(false)
    },
  )

  const anyForm = fc.constantFrom(...Object.values(FORMS))
  test.prop([fc.constantFrom(...LOGINS), fc.constantFrom(...FAILURE_TEMPLATES), attack, anyForm], { numRuns: 10_000 })(
    'in a failure line directly after a true login, which a repeat line could renew',
    (login, [tag, template], text, format) => {
      const recognizer = new LoginRecognizer({ dialects: DIALECTS, imap: true, ownFiles: true })
      expect(recognizer.recognize(format(login.tag, '4242', login.message), 0).verdict).toBe('grant')
      const message = template.replaceAll('{}', () => text)
      expect(recognizer.recognize(format(tag, '4242', message), 0)).toMatchObject({ verdict: 'ignore' })
    },
  )

  const SESSIONS: Readonly<Record<string, string>> = {
    popa3d: 'Session from 203.0.113.9',
    'vm-pop3d': 'Connect from 203.0.113.9',
    'solid-pop3d': 'connect from 203.0.113.9',
  }
  test.prop(
    [
      fc.constantFrom(...FAILURE_TEMPLATES.filter(([tag]) => tag in SESSIONS)),
      attack,
      fc.constantFrom(...Object.values(FORMS)),
    ],
    { numRuns: 5000 },
  )('in a failure line of a process whose session has begun', ([tag, template], text, format) => {
    const joined = new LoginRecognizer({ dialects: DIALECTS, imap: true })
    for (const message of [SESSIONS[tag] ?? '', template.replaceAll('{}', () => text)]) {
      expect(joined.recognize(format(tag, '4242', message), 0)).toMatchObject({ verdict: 'ignore' })
    }
  })

  // splogger folds at 800 octets, RFC 3164 allows 1024 for the whole line, and syslog(3) and
  // rsyslog shorten later.
  test.prop(
    [
      fc.constantFrom(...FAILURE_TEMPLATES),
      attack,
      fc.constantFrom('x', ' ', '1', '.', '"'),
      fc.integer({ min: 700, max: 1024 }),
    ],
    { numRuns: 10_000 },
  )(
    'in a failure line that syslog shortens directly after a text like a success',
    ([tag, template], text, filler, length) => {
      const before = template.slice(0, template.indexOf('{}'))
      const filled = filler.repeat(Math.max(0, length - before.length - text.length))
      const message = template.replace('{}', () => `${filled}${text}`)
      const line = FORMS['A']?.(tag, '1', message.slice(0, length)) ?? ''
      expect(believer.recognize(line, 0)).toMatchObject({ verdict: 'ignore' })
    },
  )

  test.prop([fc.string({ unit: 'binary' })], { numRuns: 5000 })('in a line with any text', text => {
    expect(believer.recognize(text, 0)).toMatchObject({ verdict: 'ignore' })
  })
})
