import { beforeEach, describe, expect, it } from 'vitest'
import { Counters, SOURCES, type Source } from '../../../src/authd/counters.ts'
import { parseJournalEntry } from '../../../src/authd/journal.ts'
import { type JournalEntry, LoginSources, recognizersFor } from '../../../src/authd/login-sources.ts'
import type { ReportedLogin } from '../../../src/authd/queue/entry.ts'
import { UsageFault } from '../../../src/base/errors.ts'
import { AUTHD } from '../../../src/settings/grant-sections.ts'
import { parseSettings } from '../../../src/settings/settings.ts'
import { ContainerLines } from '../../../src/syslog/container-lines.ts'
import { DIALECTS } from '../../../src/syslog/dialects.ts'
import { parseLoginEvent } from '../../../src/wire/login-event.ts'

const fileOf = (path: string) => ({ path, containers: new ContainerLines('first') })

const NOW = Date.parse('2026-03-05T10:00:00Z')
const settings = (text: string) => parseSettings(text, 'test.toml').settings

const LOGIN = 'Login user=ann host=[192.0.2.7] nmsgs=1/1'
const line = (stamp: string): string => `${stamp} mx ipop3d[77]: ${LOGIN}`

const isSource = (text: string): text is Source => SOURCES.some(source => source === text)

/** An entry of the journal, sent by root unless the fields name another account. */
function entry(fields: Readonly<Record<string, unknown>>, at = NOW): JournalEntry {
  const parsed = parseJournalEntry(
    JSON.stringify({
      __CURSOR: 's=1',
      __REALTIME_TIMESTAMP: String(at * 1000),
      _HOSTNAME: 'mx',
      _UID: '0',
      SYSLOG_IDENTIFIER: 'ipop3d',
      _PID: '77',
      MESSAGE: LOGIN,
      ...fields,
    }),
  )
  if (parsed === undefined) throw new Error('no entry')
  return parsed
}

let received: ReportedLogin[]
let warnings: { readonly event: string; readonly fields: unknown }[]
let counters: Counters
let sources: LoginSources

beforeEach(() => {
  received = []
  warnings = []
  counters = new Counters()
  sources = new LoginSources({
    recognizers: recognizersFor(settings('[authd]\ncheck_daemon_ipop3d = true')),
    queue: { submit: login => received.push(login) },
    counters,
    clock: () => NOW,
    log: { warn: (event, fields) => warnings.push({ event, fields }) },
  })
})

describe('LoginSources', () => {
  it('counts a login event that was sent late from its login, and another from now', () => {
    const event = parseLoginEvent('login v=1 id=7f3a.12 ip=192.0.2.7 daemon=popup tls=1 method=pass user=ann age=600')
    if ('reason' in event) throw new Error(event.reason)
    const { age: _, ...fresh } = event
    sources.acceptLogin(event, () => {})
    sources.acceptLogin(fresh, () => {})
    expect(received.map(({ at }) => at)).toEqual([NOW - 600_000, undefined])
  })

  it('makes a login event of a login line, each with a different id', () => {
    sources.acceptLine('fifo', line('2026-03-05T10:00:00Z'))
    sources.acceptLine('tcp', line('2026-03-05T10:00:00Z'))
    expect(received).toMatchObject([
      { source: 'fifo', event: { ip: '192.0.2.7', daemon: 'ipop3d', user: 'ann', method: 'pass', tls: false } },
      { source: 'tcp', event: { ip: '192.0.2.7' } },
    ])
    expect(received[0]?.event.id).not.toBe(received[1]?.event.id)
    expect(received.map(({ at }) => at)).toEqual([undefined, undefined])
  })

  const deliver: Readonly<Record<string, (stamp: string) => void>> = {
    fifo: stamp => sources.acceptLine('fifo', line(stamp)),
    tcp: stamp => sources.acceptLine('tcp', line(stamp)),
    file: stamp => sources.acceptFileLine(fileOf('/var/log/mail.log'), line(stamp), () => {}),
    journal: stamp => sources.acceptJournalEntry(entry({}, Date.parse(stamp)), () => {}),
  }

  it.each(Object.entries(deliver))(
    '%s: the age of a late login comes from its stamp, and is never negative',
    (_, send) => {
      send('2026-03-05T09:45:00Z')
      send('2026-03-05T09:59:59Z')
      send('2026-03-05T10:20:00Z')
      expect(received.map(({ at }) => at)).toEqual([NOW - 900_000, undefined, undefined])
      expect(warnings).toMatchObject([
        { event: 'stamp_ahead', fields: { seconds: 1200, times: 1, reason: expect.stringContaining('future') } },
      ])
    },
  )

  it.each(Object.entries(deliver))(
    '%s: a login whose grant would have ended is counted, with one warning',
    (source, send) => {
      send('2026-03-05T09:30:01Z')
      for (let n = 0; n < 9; n++) send('2026-03-05T08:00:10Z')
      expect(received).toHaveLength(1)
      expect(counters.dropped.get(isSource(source) ? source : 'fifo')?.get('expired')).toBe(9)
      expect(warnings).toMatchObject([
        { event: 'login_line_dropped', fields: { source, reason: 'expired', ip: '192.0.2.7' } },
      ])
      expect(warnings[0]?.fields).toHaveProperty('remedy', expect.stringContaining('another time zone'))
      send('2026-03-05T08:07:00Z')
      expect(warnings, 'a second warning for the tenth login').toHaveLength(2)
      expect(warnings[1]?.fields).toHaveProperty('remedy', expect.stringContaining('waited in a queue'))
    },
  )

  it('warns for each followed file', () => {
    for (const path of ['/a', '/b', '/a']) sources.acceptFileLine(fileOf(path), line('2026-03-05T08:00:00Z'), () => {})
    expect(warnings.map(({ fields }) => fields)).toMatchObject([{ path: '/a' }, { path: '/b' }])
  })

  it('reports whether a login of a file is in progress', () => {
    expect(sources.acceptFileLine(fileOf('/a'), line('2026-03-05T09:59:00Z'), () => {})).toBe(true)
    expect(sources.acceptFileLine(fileOf('/a'), line('2026-03-05T09:00:00Z'), () => {})).toBe(false)
    expect(sources.acceptFileLine(fileOf('/a'), 'nothing', () => {})).toBe(false)
  })

  it('max_lag lowers the age at which logins are dropped below exp_time, and never raises it', () => {
    for (const [maxLag, stamp, count] of [
      ['1min', '2026-03-05T09:59:01Z', 1],
      ['1min', '2026-03-05T09:59:00Z', 0],
      ['1h', '2026-03-05T09:30:01Z', 1],
      ['1h', '2026-03-05T09:30:00Z', 0],
    ] as const) {
      received = []
      sources.reconfigure(recognizersFor(settings(`[authd]\ncheck_daemon_ipop3d = true\nmax_lag = "${maxLag}"`)))
      sources.acceptLine('tcp', line(stamp))
      expect(received, `${maxLag} ${stamp}`).toHaveLength(count)
    }
  })

  it('a login that the daemon cut is dropped and counted', () => {
    sources.acceptLine('tcp', line('2026-03-05T10:00:00Z').replace('ann', 'a'.repeat(80)))
    expect(received).toEqual([])
    expect(counters.dropped.get('tcp')?.get('cut_name')).toBe(1)
    expect(warnings).toMatchObject([{ event: 'login_line_dropped', fields: { reason: 'cut_name' } }])
  })

  it('counts ignored lines by tag, at most 50 of them by name', () => {
    for (let n = 0; n < 60; n++) sources.acceptLine('fifo', `Mar  5 10:00:00 mx d${n}[1]: x`)
    sources.acceptLine('fifo', 'no syslog line')
    expect(counters.ignored.size).toBe(51)
    expect(counters.ignored.get('other')).toBe(11)
    expect(counters.lines.fifo).toBe(61)
  })

  it('recognizes lines by the latest settings', () => {
    sources.reconfigure(recognizersFor(settings('')))
    sources.acceptLine('fifo', line('2026-03-05T10:00:00Z'))
    expect(received).toEqual([])
  })

  it('takes logins from the journal', () => {
    expect(sources.acceptJournalEntry(entry({}, NOW - 600_000), () => {})).toBe(true)
    expect(received).toMatchObject([{ source: 'journal', at: NOW - 600_000, event: { ip: '192.0.2.7' } }])
  })

  describe('counts an entry of the journal by its sender', () => {
    const believe = (text: string): void =>
      sources.reconfigure(recognizersFor(settings(`[authd]\njournal = true\ncheck_daemon_ipop3d = true\n${text}`)))

    it.each<[string, Record<string, unknown>, string]>([
      ['root', { _UID: '0' }, ''],
      ['a listed account', { _UID: '1' }, 'journal_users = ["daemon"]'],
      ['a listed number', { _UID: '4711' }, 'journal_users = ["4711"]'],
      ['a listed unit', { _UID: '1000', _SYSTEMD_UNIT: 'inetd.service' }, 'journal_units = ["inetd.service"]'],
    ])('%s', (_, fields, text) => {
      believe(text)
      expect(sources.acceptJournalEntry(entry(fields), () => {})).toBe(true)
      expect(warnings).toEqual([])
    })

    it.each<[string, Record<string, unknown>]>([
      ['another account', { _UID: '33', _SYSTEMD_UNIT: 'php8.4-fpm.service' }],
      ['no account', { _UID: undefined }],
      ['two accounts', { _UID: ['0', '33'] }],
      ['an invalid number', { _UID: '0x0' }],
      ['an account by name', { _UID: 'root' }],
      ['an empty unit', { _UID: '33', _SYSTEMD_UNIT: '' }],
      ['fields that senders choose', { _UID: '33', UID: '0', SYSLOG_PID: '1', SYSTEMD_UNIT: 'inetd.service' }],
    ])('not %s', (_, fields) => {
      believe('journal_units = ["inetd.service"]')
      expect(sources.acceptJournalEntry(entry(fields), () => {})).toBe(false)
      expect(received).toEqual([])
      expect(counters.dropped.get('journal')?.get('sender')).toBe(1)
      expect(warnings).toMatchObject([{ event: 'login_line_dropped', fields: { reason: 'sender', source: 'journal' } }])
    })

    it('a session line of another account gives its address to no login', () => {
      sources.reconfigure(recognizersFor(settings('[authd]\njournal = true\ncheck_daemon_popa3d = true')))
      const say = (uid: string, MESSAGE: string): boolean =>
        sources.acceptJournalEntry(entry({ _UID: uid, SYSLOG_IDENTIFIER: 'popa3d', MESSAGE }), () => {})
      say('33', 'Session from 198.51.100.66')
      expect(say('0', 'Authentication passed for ann')).toBe(false)
      say('0', 'Session from 192.0.2.7')
      say('33', 'Session from 198.51.100.66')
      expect(say('0', 'Authentication passed for ann')).toBe(true)
      expect(received.map(({ event }) => event.ip)).toEqual(['192.0.2.7'])
    })

    it('lines of other accounts that are not logins cause no warning', () => {
      believe('')
      sources.acceptJournalEntry(entry({ _UID: '33', MESSAGE: 'hello' }), () => {})
      expect(warnings).toEqual([])
    })
  })

  it('uses the earlier of the two times of an entry', () => {
    const at = (sent: string): string => entry({ _SOURCE_REALTIME_TIMESTAMP: sent }, NOW).line.stamp
    expect(at(String((NOW - 60_000) * 1000))).toBe('2026-03-05T09:59:00.000Z')
    expect(at(String((NOW + 60_000) * 1000))).toBe('2026-03-05T10:00:00.000Z')
    expect(at('x')).toBe('2026-03-05T10:00:00.000Z')
  })

  it('an account of journal_users that the host does not have is a fault, except for the defaults', () => {
    const of = (text: string) => () => recognizersFor(settings(`[authd]\njournal = true\n${text}`))
    expect(of('journal_users = ["nosuchaccount"]')).toThrow('change authd.journal_users')
    expect(of('')().senders.uids.has(0)).toBe(true)
  })

  it.each([
    '',
    'x',
    'null',
    '[]',
    '{}',
    '{"__CURSOR":"a","__REALTIME_TIMESTAMP":"x"}',
    JSON.stringify({ __CURSOR: 'a', MESSAGE: LOGIN }),
  ])('%j is not an entry of the journal', text => {
    expect(parseJournalEntry(text)).toBeUndefined()
  })

  it('a journal message that is not text proves nothing', () => {
    const text = JSON.stringify({
      __CURSOR: 'a',
      __REALTIME_TIMESTAMP: '1',
      _UID: '0',
      SYSLOG_IDENTIFIER: 'ipop3d',
      MESSAGE: [76, 111],
    })
    const binary = parseJournalEntry(text)
    if (binary === undefined) throw new Error('no entry')
    expect(sources.acceptJournalEntry(binary, () => {})).toBe(false)
  })
})

describe('recognizersFor', () => {
  it('every dialect has its setting, and every check_daemon setting its dialect', () => {
    const inSettings = Object.keys(AUTHD.rows).filter(name => name.startsWith('check_daemon_'))
    expect(inSettings.sort()).toEqual(DIALECTS.map(({ setting }) => String(setting)).sort())
  })

  it('each setting switches its dialect and no other', () => {
    for (const dialect of DIALECTS) {
      const { syslog } = recognizersFor(settings(`[authd]\n${dialect.setting} = true`))
      for (const other of DIALECTS) {
        const tag = other.tags[0] ?? ''
        const verdict = syslog.recognize(`Mar  5 10:00:00 mx ${tag}[1]: x`, NOW)
        if (verdict.verdict !== 'ignore') throw new Error('a grant')
        const isOff = verdict.reason.endsWith('is off')
        if (other === dialect) expect(isOff, other.name).toBe(false)
        else if (!dialect.tags.includes(tag)) expect(isOff, `${dialect.name} ${other.name}`).toBe(true)
      }
    }
  })

  it('accepts other tags', () => {
    const { syslog } = recognizersFor(
      settings(
        '[authd]\ncheck_daemon_vchkpw = true\nvchkpw_tag = "vpop"\ncheck_daemon_ipop3d = true\ndaemon_tags = ["ipop3d=mypop", "ipop3d=ipop3d"]',
      ),
    )
    const verdict = (tag: string, message: string) =>
      syslog.recognize(`Mar  5 10:00:00 mx ${tag}[1]: ${message}`, NOW).verdict
    expect(verdict('mypop', LOGIN)).toBe('grant')
    expect(verdict('ipop3d', LOGIN)).toBe('grant')
    expect(verdict('vpop', 'vchkpw-pop3: (PLAIN) login success a@b:192.0.2.7')).toBe('grant')
    expect(verdict('vpopmail', 'vchkpw-pop3: (PLAIN) login success a@b:192.0.2.7')).toBe('ignore')
  })

  it('names the dialects', () => {
    expect(() => recognizersFor(settings('[authd]\ndaemon_tags = ["postfix=x", "ipop3d"]'))).toThrow(UsageFault)
  })
})
