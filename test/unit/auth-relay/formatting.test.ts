import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import { formatMoment, parseMoment } from '../../../src/auth-relay/text/moment.ts'
import { formatTable, printable, styleFor } from '../../../src/auth-relay/text/terminal.ts'
import { formatDuration, parseDuration } from '../../../src/settings/duration.ts'

describe('durations', () => {
  test.each([
    ['90', 90],
    ['90s', 90],
    ['30m', 1800],
    ['8h', 28_800],
    ['2d', 172_800],
    ['1w', 604_800],
    ['1h30m', 5400],
    ['30min', 1800],
    ['1h30min', 5400],
  ])('%s is %d s', (text, seconds) => expect(parseDuration(text)).toBe(seconds))

  test.each(['', '0', '0h', '-1h', '1.5h', '8 h', 'h', '8x', '9999999999', '4000d', '1h30', '30mi', '5ms'])(
    '%j is not a duration',
    text => expect(parseDuration(text)).toBeUndefined(),
  )

  test.each([
    [0, '0 s'],
    [59.6, '1 min'],
    [59, '59 s'],
    [61, '1 min'],
    [3600, '1 h'],
    [5400, '1 h 30 min'],
    [90_000, '1 d 1 h'],
    [-5, '0 s'],
  ])('%d s is written as %s', (seconds, text) => expect(formatDuration(seconds)).toBe(text))
})

describe('times', () => {
  const now = new Date(2026, 10, 22, 18, 30, 0)
  const at = (text: string) => parseMoment(text, now, parseDuration)

  test('a date and a time are in the zone of the host; an offset is respected', () => {
    expect(at('2026-11-22 18:24')).toEqual(new Date(2026, 10, 22, 18, 24))
    expect(at('2026-11-22T18:24:58')).toEqual(new Date(2026, 10, 22, 18, 24, 58))
    expect(at('2026-11-22T18:24:58Z')).toEqual(new Date('2026-11-22T18:24:58Z'))
    expect(at('2026-11-22 18:24:58+0200')).toEqual(new Date('2026-11-22T16:24:58Z'))
    expect(at('2026-11-22')).toEqual(new Date(2026, 10, 22))
  })

  test('a time alone is of today, and a period counts back from now', () => {
    expect(at('18:24')).toEqual(new Date(2026, 10, 22, 18, 24))
    expect(at('2h')).toEqual(new Date(2026, 10, 22, 16, 30))
  })

  test.each(['', 'yesterday', '25:00', '18:60', '2026-13-01', '2026-02-30T99:00', '22.11.2026'])(
    '%j is not a time',
    text => expect(at(text)).toBeUndefined(),
  )

  property.prop([fc.date({ min: new Date(2000, 0), max: new Date(2100, 0), noInvalidDate: true })])(
    'a formatted time is parsed back, to the second',
    date => {
      const whole = new Date(Math.floor(date.getTime() / 1000) * 1000)
      const read = at(formatMoment(whole))
      // In autumn one hour occurs twice, so two times have the same text.
      expect(Math.abs((read?.getTime() ?? 0) - whole.getTime())).toBeLessThanOrEqual(3_600_000)
      expect(read === undefined ? '' : formatMoment(read)).toBe(formatMoment(whole))
    },
  )
})

describe('text from outside on a terminal', () => {
  test('control characters, bidirectional marks and backslashes are escaped', () => {
    expect(printable('ann\u001b[2J\r\nok\u202e\\')).toBe('ann\\u{1b}[2J\\u{d}\\u{a}ok\\u{202e}\\\\')
    expect(printable('jürgen@例え.jp')).toBe('jürgen@例え.jp')
  })

  property.prop([fc.string({ unit: 'binary' })])('the result never contains a control character', text => {
    expect(printable(text)).not.toMatch(/\p{Cc}|\p{Cf}|\u2028|\u2029/u)
  })
})

describe('tables', () => {
  const columns = [{ title: 'ADDRESS' }, { title: 'LOGIN', mayShrink: true }, { title: 'N', align: 'right' }] as const

  test('columns are as wide as necessary, and numbers are aligned to the right', () => {
    expect(
      formatTable(
        columns,
        [
          ['192.0.2.7', 'ann', '7'],
          ['2001:db8::1', 'bob', '12'],
        ],
        80,
      ),
    ).toBe('ADDRESS      LOGIN   N\n192.0.2.7    ann     7\n2001:db8::1  bob    12\n')
  })

  test('a column that may shrink is shortened, with a mark', () => {
    expect(formatTable(columns, [['192.0.2.7', 'somebody-with-a-long-name', '7']], 26)).toBe(
      'ADDRESS    LOGIN         N\n192.0.2.7  somebody-wi…  7\n',
    )
  })

  test('a wide character has two columns, a combining one none', () => {
    const rows = [
      ['192.0.2.7', '日本', '7'],
      ['192.0.2.8', 'ju\u0308rgen', '8'],
    ]
    expect(formatTable(columns, rows, 80)).toBe(
      'ADDRESS    LOGIN   N\n192.0.2.7  日本    7\n192.0.2.8  ju\u0308rgen  8\n',
    )
    expect(formatTable(columns, [['192.0.2.7', '日本日本日本日本', '7']], 24)).toBe(
      'ADDRESS    LOGIN       N\n192.0.2.7  日本日本…   7\n',
    )
    expect(formatTable(columns, [['192.0.2.7', 'u\u0308'.repeat(20), '7']], 24)).toBe(
      `ADDRESS    LOGIN       N\n192.0.2.7  ${'u\u0308'.repeat(9)}…  7\n`,
    )
  })

  test('optional columns are omitted first, the last one before the others', () => {
    const many = [...columns, { title: 'FIRST', mayDrop: true }, { title: 'LAST', mayDrop: true }]
    const rows = [['192.0.2.7', 'ann', '7', '18:24', '18:59']]
    expect(formatTable(many, rows, 35)).toBe('ADDRESS    LOGIN  N  FIRST  LAST\n192.0.2.7  ann    7  18:24  18:59\n')
    expect(formatTable(many, rows, 30)).toBe('ADDRESS    LOGIN  N  FIRST\n192.0.2.7  ann    7  18:24\n')
    expect(formatTable(many, rows, 20)).toBe('ADDRESS    LOGIN  N\n192.0.2.7  ann    7\n')
  })

  test('accepts any number of grants', () => {
    const rows = Array.from({ length: 300_000 }, (_, n) => [`10.0.0.${n % 250}`, `user${n}`, String(n)])
    expect(formatTable(columns, rows, 80).split('\n')).toHaveLength(300_002)
  })

  property.prop([
    fc.array(
      fc.tuple(
        fc.string({ unit: 'grapheme-ascii' }),
        fc.string({ unit: 'grapheme-ascii', maxLength: 200 }),
        fc.nat().map(String),
      ),
      { maxLength: 5 },
    ),
  ])('each row is one line, within the width if the other columns leave room', rows => {
    const short = rows.map(([a, b, c]) => [a.slice(0, 10), b, c.slice(0, 5)])
    const lines = formatTable(columns, short, 60).split('\n')
    expect(lines).toHaveLength(rows.length + 2)
    expect(Math.max(...lines.map(line => line.length))).toBeLessThanOrEqual(60)
  })
})

describe('colour', () => {
  test('only on a terminal, and not with NO_COLOR or TERM=dumb', () => {
    expect(styleFor(true, {}).bad('no')).toBe('\u001b[31mno\u001b[39m')
    expect(styleFor(false, {}).bad('no')).toBe('no')
    expect(styleFor(true, { NO_COLOR: '1' }).bad('no')).toBe('no')
    expect(styleFor(true, { TERM: 'dumb' }).bad('no')).toBe('no')
  })
})
