import { beforeEach, describe, expect, it } from 'vitest'
import { Counters } from '../../../src/authd/counters.ts'
import type { HeardLogin } from '../../../src/authd/heard-login.ts'
import { Intake } from '../../../src/authd/intake.ts'
import { parseJournalEntry } from '../../../src/authd/journal.ts'
import { recognizersFor } from '../../../src/authd/recognizers.ts'
import { UsageFault } from '../../../src/daemon/exit-status.ts'
import { AUTHD } from '../../../src/daemon/settings/authd.ts'
import { parseSettings } from '../../../src/daemon/settings/settings.ts'
import { DIALECTS } from '../../../src/syslog/dialects.ts'

const NOW = Date.parse('2026-03-05T10:00:00Z')
const settings = (text: string) => parseSettings(text, 'test.toml').settings

const LOGIN = 'Login user=ann host=[192.0.2.7] nmsgs=1/1'
const line = (stamp: string): string => `${stamp} mx ipop3d[77]: ${LOGIN}`

let heard: HeardLogin[]
let counters: Counters
let intake: Intake

beforeEach(() => {
  heard = []
  counters = new Counters()
  intake = new Intake({
    recognizers: recognizersFor(settings('[authd]\ncheck_daemon_ipop3d = true')),
    queue: { submit: login => heard.push(login) },
    counters,
    clock: () => NOW,
    expTime: 1_800_000,
  })
})

describe('Intake', () => {
  it('makes a login event of a login line, each with an id of its own', () => {
    intake.hearLine('fifo', line('Mar  5 10:00:00'))
    intake.hearLine('tcp', line('2020-01-01T00:00:00Z'))
    expect(heard).toMatchObject([
      { source: 'fifo', event: { ip: '192.0.2.7', daemon: 'ipop3d', user: 'ann', method: 'pass', tls: false } },
      { source: 'tcp', event: { ip: '192.0.2.7' } },
    ])
    expect(heard[0]?.event.id).not.toBe(heard[1]?.event.id)
    expect(
      heard.map(({ at }) => at),
      'a syslogd delivers now: stamps are not believed',
    ).toEqual([undefined, undefined])
  })

  it('a line of a file is as old as its stamp says, and useless once its grant would have ended', () => {
    const settled: number[] = []
    const hear = (stamp: string): boolean => intake.hearFileLine(line(stamp), () => settled.push(1))
    expect(hear('2026-03-05T09:45:00Z')).toBe(true)
    expect(hear('2026-03-05T09:59:59Z')).toBe(true)
    expect(hear('2026-03-05T10:20:00Z')).toBe(true)
    expect(hear('2026-03-05T09:30:00Z')).toBe(false)
    expect(intake.hearFileLine('nothing', () => settled.push(1))).toBe(false)
    expect(heard.map(({ at }) => at)).toEqual([NOW - 900_000, undefined, undefined])
  })

  it('counts ignored lines by tag, at most 50 of them by name', () => {
    for (let n = 0; n < 60; n++) intake.hearLine('fifo', `Mar  5 10:00:00 mx d${n}[1]: x`)
    intake.hearLine('fifo', 'no syslog line')
    expect(counters.ignored.size).toBe(51)
    expect(counters.ignored.get('other')).toBe(11)
    expect(counters.lines.fifo).toBe(61)
  })

  it('believes what the last settings say', () => {
    intake.reconfigure(recognizersFor(settings('')))
    intake.hearLine('fifo', line('Mar  5 10:00:00'))
    expect(heard).toEqual([])
  })

  it('hears the journal', () => {
    const entry = parseJournalEntry(
      JSON.stringify({
        __CURSOR: 's=1',
        __REALTIME_TIMESTAMP: String((NOW - 600_000) * 1000),
        _HOSTNAME: 'mx',
        SYSLOG_IDENTIFIER: 'ipop3d',
        _PID: '77',
        MESSAGE: LOGIN,
      }),
    )
    if (entry === undefined) throw new Error('no entry')
    expect(intake.hearJournalEntry(entry.line, entry.at, () => {})).toBe(true)
    expect(heard).toMatchObject([{ source: 'journal', at: NOW - 600_000, event: { ip: '192.0.2.7' } }])
    expect(entry.cursor).toBe('s=1')
  })

  it.each([
    '',
    'x',
    'null',
    '[]',
    '{}',
    '{"__CURSOR":"a","__REALTIME_TIMESTAMP":"x"}',
    JSON.stringify({ __CURSOR: 'a', MESSAGE: LOGIN }),
  ])('%j is no entry of the journal', text => {
    expect(parseJournalEntry(text)).toBeUndefined()
  })

  it('a journal message that is no text proves nothing', () => {
    const text = JSON.stringify({
      __CURSOR: 'a',
      __REALTIME_TIMESTAMP: '1',
      SYSLOG_IDENTIFIER: 'ipop3d',
      MESSAGE: [76, 111],
    })
    const entry = parseJournalEntry(text)
    if (entry === undefined) throw new Error('no entry')
    expect(intake.hearJournalEntry(entry.line, NOW, () => {})).toBe(false)
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

  it('takes other tags', () => {
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

  it('says which dialects there are', () => {
    expect(() => recognizersFor(settings('[authd]\ndaemon_tags = ["postfix=x", "ipop3d"]'))).toThrow(UsageFault)
  })
})
