import { expect, test } from 'vitest'
import { parseSettings } from '../../../src/settings/settings.ts'
import { planOf, readMaterials, serveOrder } from '../../../src/sslwrap/plan.ts'

const orders = (toml: string, workers: number) => {
  const plan = planOf(parseSettings(toml, 'x.toml').settings)
  // No file is read, because the test is about the limits alone.
  const materials = { ...readMaterials({ ...plan, listeners: [] }) }
  return Array.from({ length: workers }, (_, place) =>
    serveOrder(plan, materials, { ids: undefined, ticketKeys: [], workers, place }),
  )
}

test.each([
  { limit: 10_000, workers: 4, shares: [2500, 2500, 2500, 2500] },
  { limit: 8, workers: 3, shares: [3, 3, 2] },
  { limit: 1, workers: 1, shares: [1] },
  // With fewer places than workers each worker serves one.
  { limit: 2, workers: 3, shares: [1, 1, 1] },
])('$limit connections, $workers workers: $shares', ({ limit, workers, shares }) => {
  const toml = `[sslwrap]\nmax_connections = ${limit}\nmax_per_address = ${limit}`
  const found = orders(toml, workers)
  expect(found.map(({ maxConnections }) => maxConnections)).toEqual(shares)
  expect(found.map(({ maxPerAddress }) => maxPerAddress)).toEqual(shares)
})

test('no limit for an address means no limit in any worker', () => {
  expect(orders('[sslwrap]\nmax_per_address = 0', 3).map(({ maxPerAddress }) => maxPerAddress)).toEqual([0, 0, 0])
})

test('one worker serves Prometheus', () => {
  const found = orders('[sslwrap]\nmetrics_listen = "127.0.0.1:9634"', 2)
  expect(found.map(({ metricsListen }) => metricsListen !== undefined)).toEqual([true, false])
})
