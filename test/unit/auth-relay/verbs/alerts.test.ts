import { once } from 'node:events'
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import * as v from 'valibot'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { AlertWatch, type AlertWatchOptions } from '../../../../src/auth-relay/alerts/alert-watch.ts'
import {
  type AlertMessage,
  formatMail,
  type Reporter,
  reportersOf,
} from '../../../../src/auth-relay/alerts/reporters.ts'
import { createLog } from '../../../../src/base/log.ts'
import { type AlarmChange, Alarms } from '../../../../src/grants/alarms.ts'
import type { BlockTarget } from '../../../../src/grants/grant-store.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'
import { formatNetwork } from '../../../../src/wire/ip-address.ts'
import { temporaryDirectory } from '../../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

const SINCE = new Date('2026-11-28T10:00:00Z')
const MESSAGE: AlertMessage = {
  rule: 'login_spread',
  state: 'start',
  subject: 'ann@example.org',
  detail: '37 addresses within an hour',
  summary: 'One login came from many addresses.',
  remedy: 'auth-relay block LOGIN',
  severity: 'critical',
  since: SINCE,
  until: null,
  host: 'mx.example.org',
}
const JSON_MESSAGE = { ...MESSAGE, since: '2026-11-28T10:00:00.000Z' }

/** Writes its arguments and its input into files. */
function program(name: string, status = 0): { readonly path: string; words(): string; input(): string } {
  const path = `${directory.path}/${name}`
  writeFileSync(path, `#!/bin/sh\necho "$@" > ${path}.words\ncat > ${path}.input\nexit ${status}\n`)
  chmodSync(path, 0o755)
  const read = (part: string) => () => readFileSync(`${path}.${part}`, 'utf8')
  return { path, words: read('words'), input: read('input') }
}

const reporters = (lines: string): readonly Reporter[] =>
  reportersOf(parseSettings(`[alerts]\n${lines}\n`, 'test', {}).settings)

describe('ways to report', () => {
  test('a mail through the local sendmail', async () => {
    const sendmail = program('sendmail')
    const [mail] = reporters(
      `mail_to = ["postmaster@example.org", "noc@example.org"]\nmail_from = "alerts@example.org"\nsendmail = ["${sendmail.path}", "-i"]`,
    )
    await mail?.send(MESSAGE)
    expect(sendmail.words()).toBe('-i -f alerts@example.org -- postmaster@example.org noc@example.org\n')
    const [head = '', body = ''] = sendmail.input().split('\n\n', 2)
    expect(head.split('\n').slice(0, 4)).toEqual([
      'From: auth-relay <alerts@example.org>',
      'To: postmaster@example.org, noc@example.org',
      'Subject: [auth-relay] ALARM: login_spread ann@example.org',
      'Auto-Submitted: auto-generated',
    ])
    expect(body).toContain('One login came from many addresses.')
    expect(sendmail.input()).toContain('to do:  auth-relay block LOGIN')
  })

  test('no text from outside can begin a line of the mail', () => {
    const subject = `ann\nBcc: evil@example.net\r\n\r\nü${'x'.repeat(500)}`
    const text = formatMail({ ...MESSAGE, subject, detail: subject }, ['a@example.org'], '')
    expect(text.split('\n').filter(line => /^(Bcc|evil|x)/.test(line))).toEqual([])
    expect(text.split('\n').find(line => line.startsWith('Subject:'))?.length).toBeLessThan(300)
  })

  test('a program, and a webhook whose URL no log can show', async () => {
    const received: unknown[] = []
    let status = 200
    const server = createServer((request, response) => {
      let text = ''
      request.on('data', piece => {
        text += String(piece)
      })
      request.on('end', () => {
        received.push({ url: request.url, body: JSON.parse(text) })
        response.writeHead(status).end()
      })
    }).listen(0, '127.0.0.1')
    closing.push(() => server.close())
    await once(server, 'listening')
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    const file = `${directory.path}/webhook`
    writeFileSync(file, `http://127.0.0.1:${address.port}/secret-token\n`, { mode: 0o600 })
    const hook = program('hook')
    const [webhook, other] = reporters(`webhook_file = "${file}"\nprogram = ["${hook.path}", "page"]`)
    await webhook?.send(MESSAGE)
    expect(received).toEqual([{ url: '/secret-token', body: JSON_MESSAGE }])
    status = 503
    await expect(webhook?.send(MESSAGE)).rejects.toThrow('the webhook: it answered 503')
    server.close()
    server.closeAllConnections()
    await expect(webhook?.send(MESSAGE)).rejects.toThrow(/^the webhook: it cannot be reached within 20 s$/)
    await other?.send(MESSAGE)
    expect([hook.words(), JSON.parse(hook.input())]).toEqual(['page\n', JSON_MESSAGE])
  })

  test('a failed report throws its cause, and invalid input is refused with the remedy', async () => {
    const [failing] = reporters(`program = ["${program('failing', 3).path}"]`)
    await expect(failing?.send(MESSAGE)).rejects.toThrow(/failing ended with status 3$/)
    const [missing] = reporters('program = ["/nonexistent/pager"]')
    await expect(missing?.send(MESSAGE)).rejects.toThrow('ENOENT')
    expect(() => reporters('mail_to = ["-oQ/tmp"]')).toThrow('is not an address')
    writeFileSync(`${directory.path}/no-url`, 'example.org\n', { mode: 0o600 })
    expect(() => reporters(`webhook_file = "${directory.path}/no-url"`)).toThrow('holds no URL')
    expect(reporters('')).toEqual([])
  })
})

describe('the watch', () => {
  const changes = (state: 'start' | 'end', rule: string, subject: string): AlarmChange => ({
    state,
    alarm: { id: 1, rule, subject, detail: 'found', since: SINCE, until: state === 'end' ? SINCE : null },
  })
  function watch(options: Partial<AlertWatchOptions> = {}) {
    const reports: string[] = []
    const lines: string[] = []
    const blocked: BlockTarget[] = []
    const givenBack: AlarmChange[] = []
    const state: { changes: AlarmChange[]; fails: boolean } = { changes: [], fails: false }
    const reporter: Reporter = {
      name: 'mail',
      send: async message => void reports.push(`${message.state} ${message.rule} ${message.subject}`),
    }
    const watched = new AlertWatch({
      alarms: {
        look: async () => {
          if (state.fails) throw new Error('connection refused')
        },
        take: async () => state.changes.splice(0),
        giveBack: async one => void givenBack.push(one),
      },
      admin: {
        block: async target => {
          blocked.push(target)
          return { removed: 0, until: null }
        },
      },
      loginsOf: async name => [`${name}@example.org`],
      reporters: [reporter],
      limits: { loginAddresses: 1, addressLogins: 1, deviceFactor: 1, refusalFactor: 1, silentDays: 1, endDays: 1 },
      off: [],
      close: [],
      closeFor: 3600,
      facts: async () => [],
      host: 'mx',
      log: createLog('alerts', { write: line => lines.push(line) }),
      now: () => SINCE,
      ...options,
    })
    return { watched, reports, lines, blocked, givenBack, state }
  }

  test('each start and end is reported once, and a rule in `close` blocks its subject', async () => {
    const { watched, reports, blocked, state } = watch({ close: ['login_spread', 'address_crowd', 'device_rate'] })
    state.changes = [
      changes('start', 'login_spread', 'ann'),
      changes('start', 'address_crowd', '192.0.2.7'),
      changes('start', 'device_rate', 'copier'),
      changes('start', 'device_end', 'fax'),
      changes('end', 'login_spread', 'bob'),
    ]
    await watched.look()
    await watched.look()
    expect(reports).toEqual([
      'start login_spread ann',
      'start address_crowd 192.0.2.7',
      'start device_rate copier',
      'start device_end fax',
      'end login_spread bob',
    ])
    expect(blocked.map(target => (target.kind === 'login' ? target.login : formatNetwork(target.network)))).toEqual([
      'ann',
      '192.0.2.7/32',
      'copier@example.org',
    ])
  })

  test('if every report of an alarm fails, the alarm is released and nothing is closed', async () => {
    const failing: Reporter = { name: 'webhook', send: () => Promise.reject(new Error('it answered 503')) }
    const { watched, blocked, givenBack, lines, state } = watch({ reporters: [failing], close: ['login_spread'] })
    state.changes = [changes('start', 'login_spread', 'ann')]
    await watched.look()
    expect([givenBack.length, blocked.length]).toEqual([1, 0])
    expect(lines.join('')).toContain('event=alarm_unreported rule=login_spread by=webhook reason="it answered 503"')
  })

  test('a block that fails is tried again, and leaves no other alarm unreported', async () => {
    const failing = { login: 'ann', isOver: false }
    const blocked: BlockTarget[] = []
    const { watched, reports, lines, state } = watch({
      close: ['login_spread'],
      admin: {
        block: async target => {
          if (target.kind === 'login' && target.login === failing.login && !failing.isOver)
            throw new Error('no primary')
          blocked.push(target)
          return { removed: 0, until: null }
        },
      },
    })
    state.changes = [changes('start', 'login_spread', 'ann'), changes('start', 'login_spread', 'bob')]
    await watched.look()
    expect(reports).toEqual(['start login_spread ann', 'start login_spread bob'])
    expect(blocked).toEqual([{ kind: 'login', login: 'bob' }])
    expect(lines.join('')).toContain('event=alarm_look_failed reason="no primary"')
    await watched.look()
    failing.isOver = true
    await watched.look()
    await watched.look()
    expect(blocked).toEqual([
      { kind: 'login', login: 'bob' },
      { kind: 'login', login: 'ann' },
    ])
    expect(reports).toHaveLength(2)
  })

  test('an alarm that cannot be released leaves no other alarm unreported', async () => {
    const { watched, reports, state } = watch({
      reporters: [
        {
          name: 'mail',
          send: async ({ subject }) => {
            if (subject === 'ann') throw new Error('it answered 503')
            reports.push(subject)
          },
        },
      ],
      alarms: {
        look: async () => {},
        take: async () => state.changes.splice(0),
        giveBack: () => Promise.reject(new Error('no primary')),
      },
    })
    state.changes = [changes('start', 'login_spread', 'ann'), changes('end', 'login_spread', 'bob')]
    await watched.look()
    expect(reports).toEqual(['bob'])
  })

  test('the database is down after three queries, and back with the next: one start and one end', async () => {
    const { watched, reports, state } = watch()
    state.fails = true
    for (let look = 0; look < 2; look += 1) await watched.look()
    expect(reports).toEqual([])
    for (let look = 0; look < 5; look += 1) await watched.look()
    expect(reports).toEqual(['start database_unreachable mx'])
    state.fails = false
    for (let look = 0; look < 2; look += 1) await watched.look()
    expect(reports).toEqual(['start database_unreachable mx', 'end database_unreachable mx'])
  })
})

test('starts that the database has marked as reported are reported, also if the query for the ends fails', async () => {
  const row = { id: '1', rule: 'login_spread', subject: 'ann', detail: 'found', since: SINCE, until: null }
  let rows: readonly unknown[] = [row]
  const alarms = new Alarms({
    transaction: () => expect.unreachable(),
    query: async ({ text, row: schema }) => {
      if (text.includes('SET end_reported')) throw new Error('no primary')
      return { rows: rows.map(each => v.parse(schema, each)), count: rows.length }
    },
  })
  expect(await alarms.take()).toEqual([{ state: 'start', alarm: { ...row, id: 1 } }])
  rows = []
  await expect(alarms.take()).rejects.toThrow('no primary')
})
