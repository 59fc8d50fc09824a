import { expect, test } from 'vitest'
import { styleFor } from '../../../src/auth-relay/text/terminal.ts'
import { formatEvent, formatTally } from '../../../src/auth-relay/verbs/grants/watch.ts'

const style = styleFor(false, {})
const at = new Date(2026, 10, 26, 12, 4)

test('a stranger at the gate, by address and door', () => {
  expect(formatEvent({ at, kind: 'norelay', ip: '198.51.100.7', detail: 'gate' }, style)).toBe(
    '2026-11-26 12:04:00  norelay  198.51.100.7     gate\n',
  )
})

test("a door's minute, under the same columns", () => {
  const counts = { relayed: 3, refused: 1200, undecided: 2, never: 1 }
  expect(formatTally({ at, host: 'mx1', door: 'policy', ...counts }, style)).toBe(
    '2026-11-26 12:04:00  tally    mx1              policy: 3 relay, 1200 norelay, 2 undecided, 1 never\n',
  )
})
