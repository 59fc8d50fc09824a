import { describe, expect, test } from 'vitest'
import { deviceHints, formatCsv, formatReport } from '../../../../src/auth-relay/verbs/grants/report.ts'
import type { UsageRow } from '../../../../src/grants/history.ts'

const scanner: UsageRow = {
  login: 'scanner',
  device: null,
  lastLogin: new Date(2026, 10, 22, 18, 24, 58),
  logins: 12,
  addresses: 1,
  lastAddress: '192.0.2.7',
  tlsLogins: 0,
  daemons: 'popup',
  methods: 'apop',
  lastRelay: new Date(2026, 10, 22, 18, 25),
  relays: 11,
}

describe('hints about the client behind a login', () => {
  test.each([
    ['opens the mailbox once for each mail', scanner, ['sends-only', 'apop', 'no-tls']],
    ['looks for mail all day', { ...scanner, logins: 300, methods: 'pass', tlsLogins: 300 }, ['polls']],
    ['sends now and then', { ...scanner, logins: 40, methods: 'sasl', tlsLogins: 1 }, []],
    [
      'never sends, and logs in from many addresses',
      { ...scanner, logins: 90, relays: 0, addresses: 8, methods: 'pass', tlsLogins: 90 },
      ['never-relays', 'polls', 'roams'],
    ],
    ['has logged in once', { ...scanner, logins: 1, relays: 0, methods: 'pass', tlsLogins: 1 }, ['never-relays']],
  ])('%s', (_, row, hints) => expect(deviceHints(row)).toEqual(hints))
})

describe('the report', () => {
  test('a table for people, cut to the width of the terminal', () => {
    expect(formatReport([{ ...scanner, device: 'fax-1' }], 200, ['copier-2'])).toBe(
      `LOGIN    DEVICE  LAST LOGIN           LOGINS  LAST ADDRESS  TLS    BY          LAST RELAY           RELAYS  HINTS
scanner  fax-1   2026-11-22 18:24:58      12  192.0.2.7     never  popup apop  2026-11-22 18:25:00      11  sends-only apop no-tls

1 login, 1 of them used the relay.
Devices without a login in this time: copier-2.
`,
    )
    const lines = formatReport([{ ...scanner, login: 'a'.repeat(200), addresses: 9 }], 80).split('\n')
    expect(Math.max(...lines.map(line => line.length))).toBeLessThanOrEqual(80)
  })

  test('CSV: a name that a spreadsheet would read as a formula, quotes and commas are escaped', () => {
    const [head, ...rows] = formatCsv([scanner, { ...scanner, login: '=cmd|"x",1', lastRelay: null, relays: 0 }])
      .trimEnd()
      .split('\r\n')
    expect(head?.split(',')).toHaveLength(12)
    expect(rows[0]).toBe(
      `scanner,${scanner.lastLogin.toISOString()},12,1,192.0.2.7,never,popup,apop,${scanner.lastRelay?.toISOString()},11,sends-only apop no-tls,`,
    )
    expect(rows[1]).toMatch(/^"'=cmd\|""x"",1",.*,0,never-relays polls apop no-tls,$/)
  })
})
