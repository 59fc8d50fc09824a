import { expect, test } from 'vitest'
import { styleFor } from '../../../../src/auth-relay/text/terminal.ts'
import { EventOrder, formatEvent, formatTally } from '../../../../src/auth-relay/verbs/grants/watch.ts'

const style = styleFor(false, {})
const at = new Date(2026, 10, 26, 12, 4)

test('a client without a grant, by address and service', () => {
  expect(formatEvent({ at, kind: 'closed', ip: '198.51.100.7', detail: 'gate', host: null }, style)).toBe(
    '2026-11-26 12:04:00  closed   198.51.100.7     gate\n',
  )
})

test('the host that received a login', () => {
  expect(formatEvent({ at, kind: 'grant', ip: '192.0.2.7', detail: 'popup ann', host: 'pop1\u0007' }, style)).toBe(
    '2026-11-26 12:04:00  grant    192.0.2.7        popup ann on pop1\\u{7}\n',
  )
})

test('the decisions of a service in one minute, under the same columns', () => {
  const counts = { relayed: 3, refused: 1200, undecided: 2, never: 1 }
  expect(formatTally({ at, host: 'mx1', service: 'policy', ...counts }, style)).toBe(
    '2026-11-26 12:04:00  tally    mx1              policy: 3 relayed, 1200 refused, 2 undecided, 1 never\n',
  )
})

test('a relay that is reported late is shown before a later refusal', () => {
  const order = new EventOrder()
  const event = (kind: 'relay' | 'closed' | 'grant', seconds: number) =>
    ({ at: new Date(at.getTime() + seconds * 1000), kind, ip: '192.0.2.7', detail: 'gate', host: null }) as const
  const until = (seconds: number) => order.take(new Date(at.getTime() + seconds * 1000)).map(({ kind }) => kind)
  order.add([event('closed', 3)])
  order.add([event('grant', 1)])
  expect(until(1)).toEqual(['grant'])
  order.add([event('relay', 2), event('relay', 5)])
  expect(until(3)).toEqual(['relay', 'closed'])
  expect(until(4.999)).toEqual([])
  expect(until(5)).toEqual(['relay'])
  expect(until(100)).toEqual([])
})
