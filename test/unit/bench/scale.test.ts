import { describe, expect, test } from 'vitest'
import { rowOf } from '../../../bench/report/report.ts'
import type { Result } from '../../../bench/report/results-page.ts'
import { type Costs, loadOfHosts, needsOf, oneHost } from '../../../bench/scale/scale-model.ts'
import { costsOf, filledIn } from '../../../bench/scale/scale-page.ts'
import { addressOf } from '../../../bench/scale/scale-population.ts'

const COSTS: Costs = {
  loginAlone: 400,
  loginBatched: 50,
  query: 100,
  wal: 25_000,
  grant: 200,
  history: 160,
  session: 2000,
  connection: 1000,
  hostMemory: 8_000_000,
  proof: 50,
}

describe('the needs of a site', () => {
  const site = { loginsPerHour: 3_600_000, queriesPerLogin: 2, life: 1800, historyDays: 10 }

  test('a thousand logins a second', () => {
    expect(needsOf(site, COSTS)).toEqual({
      loginsPerSecond: 1000,
      popHosts: 2,
      gates: 2,
      databaseCores: { least: 0.25, most: 0.6 },
      walPerSecond: 25_000_000,
      grants: 1_800_000,
      grantsOctets: 360_000_000,
      historyOctets: 3_600_000 * 10 * 10 * 160,
      connections: 16,
    })
  })

  test('the number of hosts is rounded up', () => {
    expect(needsOf({ ...site, loginsPerHour: 3_600_001 }, COSTS)).toMatchObject({ popHosts: 3, gates: 3 })
    expect(needsOf({ ...site, loginsPerHour: 1 }, COSTS)).toMatchObject({ popHosts: 1, gates: 1 })
  })

  test('ten hosts on one primary, half of them gates', () => {
    expect(loadOfHosts(10, COSTS)).toEqual({
      connections: 40,
      memory: 80_000_000,
      idleCores: 0.0005,
      // 2,500 logins and 5,000 queries a second.
      fullCores: { batched: 0.625, alone: 1.5 },
    })
  })

  test('one host runs everything, the database too', () => {
    const all = 2000 + 400 + 2 * 1100
    expect(oneHost(COSTS, 2)).toEqual({
      loginsPerSecond: 1e6 / all,
      pop3: 2000 / all,
      gate: 2000 / all,
      database: 600 / all,
    })
  })
})

const row = (load: string, unit: string, figure: number) =>
  rowOf({ load, unit, better: 'less', ours: { rounds: [figure] } })
const result = (bench: string, ...rows: Result['rows']): Result => ({
  bench,
  rows,
  title: bench,
  programs: [],
  notes: [],
  command: '',
  machine: { cpu: '', cores: 2, memoryGb: 1, kernel: '', system: '', node: '' },
  day: '',
  otherWork: 0,
})
const PACE = 'a million logins an hour at a steady rate, wal_compression = off'
const RESULTS = [
  result('pop3d', row('short sessions', 'ms of CPU', 1)),
  result('tls', row('full handshake', 'µs of CPU', 800)),
  result('authd', row('logins answered committed, 16 × 64 in flight', "µs of authd's CPU a login", 200)),
  result('gate', row('resident gate', 'µs of CPU a connection', 1000)),
  result(
    'scale',
    row('lookup with a grant, 16 at a time', 'µs of database CPU each', 100),
    row('logins, 4 hosts × 64 in flight', 'µs of database CPU each', 50),
    row(PACE, 'database cores', (500 * 1_000_000) / 3600 / 1e6),
    row(PACE, 'octets of WAL for a login', 25_000),
    row('table of grants after the hour', 'octets a grant', 120),
    row('indexes of the table of grants after the hour', 'octets a grant', 80),
    row('history', 'octets for a login', 160),
  ),
  result(
    'gates',
    row('memory of the primary for a gate with its connections', 'KB', 8000),
    row('one query for the answers of the standbys: CPU of the primary', 'µs', 50),
  ),
]

describe('docs/SCALE.md', () => {
  test('the costs are those of the rows', () => {
    const { loginAlone, ...rest } = costsOf(RESULTS)
    expect(loginAlone).toBeCloseTo(400)
    expect({ ...rest, loginAlone: 400 }).toEqual(COSTS)
  })

  test('a missing row is named', () => {
    expect(() => costsOf(RESULTS.slice(1))).toThrow('no row "short sessions: ms of CPU" among the results of pop3d')
  })

  const blocks = ['costs', 'one-host', 'assumptions', 'sites', 'hosts'].map(
    name => `<!-- ${name} -->\nold\n<!-- /${name} -->\n`,
  )

  test('the text between the markers is replaced, and no other text', () => {
    const page = filledIn(`before\n${blocks.join('between\n')}after\n`, RESULTS)
    expect(page).not.toContain('old')
    expect(page.match(/between/g)).toHaveLength(4)
    expect(page).toContain('| 1,000 | 4,000 | 8 GB | 0.05 | 62.5–150 |\n')
    expect(page).toContain('**217 logins a second, 783,000 an hour**')
    expect(page).toContain(
      'TLS, POP3 and authd take 43 % of that time, the gate and the start of smtpds 43 %, the database 13 %.',
    )
    expect(page).toContain(
      '| a provider | 1,000,000 | 1 | 1 | 0.0694–0.167 | 6.94 MB/s | 500,000 | 100 MB | 144 GB in 90 days | 8 |\n',
    )
    expect(filledIn(page, RESULTS)).toBe(page)
  })

  test('a lost marker is an error', () => {
    expect(() => filledIn(blocks.slice(1).join(''), RESULTS)).toThrow('docs/SCALE.md has no <!-- costs -->')
  })
})

test('no two clients of the simulated site share an address', () => {
  const addresses = new Set(Array.from({ length: 100_000 }, (_, n) => addressOf(n * 167)))
  expect(addresses.size).toBe(100_000)
})
