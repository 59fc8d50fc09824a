import { expect, test } from 'vitest'
import { type IpAddress, parseIpAddress } from '../../../src/wire/ip-address.ts'
import { MAX_RECENT } from '../../../src/wire/usage-event.ts'
import { DecisionTallies } from '../../../src/wrap/gate/usage-reporter.ts'

function address(n: number): IpAddress {
  const ip = parseIpAddress(`10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`)
  if (ip === undefined) throw new Error(String(n))
  return ip
}

test('a hundred thousand refused clients use one number and the last few addresses', () => {
  const tallies = new DecisionTallies()
  for (let n = 0; n < 100_000; n++) tallies.count('gate', 'refused', address(n), 60)
  expect(tallies.take()).toEqual([
    {
      at: 60,
      service: 'gate',
      counts: { relayed: 0, refused: 100_000, undecided: 0, never: 0 },
      recent: Array.from({ length: MAX_RECENT }, (_, n) => address(100_000 - MAX_RECENT + n)),
    },
  ])
  expect(tallies.isEmpty).toBe(true)
  expect(tallies.take()).toEqual([])
})

test('a long time without authd: minutes stay separate, and the oldest are dropped', () => {
  const tallies = new DecisionTallies()
  for (let second = 0; second < 86_400; second++) tallies.count('gate', 'undecided', address(1), second)
  const taken = tallies.take()
  expect(taken).toHaveLength(360)
  expect(taken.at(0)?.at).toBe((1440 - 359) * 60 - 1)
  expect(taken.at(-1)).toMatchObject({ at: 86_399, counts: { undecided: 60 }, recent: [] })
})
