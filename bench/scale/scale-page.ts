import { figureText, type Row } from '../report/report.ts'
import type { Result } from '../report/results-page.ts'
import { BUSY_HOURS, type Costs, loadOfHosts, needsOf, oneHost, type SiteSize } from './scale-model.ts'

type Place = readonly [bench: string, load: string, unit: string]

const DATABASE_CPU = 'µs of database CPU each'
/** A million logins an hour, in logins a second. */
const STEADY_RATE = 1_000_000 / 3600
const PACE = 'a million logins an hour at a steady rate, wal_compression = off'

/** The rows of the results that the calculation uses. */
const PLACES = {
  session: ['pop3d', 'short sessions', 'ms of CPU'],
  handshake: ['tls', 'full handshake', 'µs of CPU'],
  event: ['authd', 'logins answered committed, 16 × 64 in flight', "µs of authd's CPU a login"],
  connection: ['gate', 'resident gate', 'µs of CPU a connection'],
  query: ['scale', 'lookup with a grant, 16 at a time', DATABASE_CPU],
  batched: ['scale', 'logins, 4 hosts × 64 in flight', DATABASE_CPU],
  pace: ['scale', PACE, 'database cores'],
  wal: ['scale', PACE, 'octets of WAL for a login'],
  table: ['scale', 'table of grants after the hour', 'octets a grant'],
  indexes: ['scale', 'indexes of the table of grants after the hour', 'octets a grant'],
  history: ['scale', 'history', 'octets for a login'],
  hostMemory: ['gates', 'memory of the primary for a gate with its connections', 'KB'],
  proof: ['gates', 'one query for the answers of the standbys: CPU of the primary', 'µs'],
} as const satisfies Readonly<Record<string, Place>>

const QUERIES = 2

/** The sites of the table, smallest first. */
const SITES: readonly (SiteSize & { readonly name: string })[] = [
  { name: 'a company', loginsPerHour: 10_000, queriesPerLogin: QUERIES, life: 1800, historyDays: 90 },
  { name: 'a small provider', loginsPerHour: 100_000, queriesPerLogin: QUERIES, life: 1800, historyDays: 90 },
  { name: 'a provider', loginsPerHour: 1_000_000, queriesPerLogin: QUERIES, life: 1800, historyDays: 90 },
  {
    name: 'the same, grants for 10 h',
    loginsPerHour: 1_000_000,
    queriesPerLogin: QUERIES,
    life: 36_000,
    historyDays: 90,
  },
  { name: 'a large provider', loginsPerHour: 10_000_000, queriesPerLogin: QUERIES, life: 1800, historyDays: 30 },
  { name: 'too large', loginsPerHour: 100_000_000, queriesPerLogin: QUERIES, life: 1800, historyDays: 7 },
]

/** Reads the costs from the kept results. Throws Error with the name of a missing row. */
export function costsOf(results: readonly Result[]): Costs {
  const at = (place: keyof typeof PLACES): number => rowAt(results, PLACES[place]).ours.median
  const query = at('query')
  return {
    query,
    loginBatched: at('batched'),
    loginAlone: (at('pace') / STEADY_RATE) * 1e6 - query,
    wal: at('wal'),
    grant: at('table') + at('indexes'),
    history: at('history'),
    session: at('session') * 1000 + at('handshake') + at('event'),
    connection: at('connection'),
    hostMemory: at('hostMemory') * 1000,
    proof: at('proof'),
  }
}

function rowAt(results: readonly Result[], [bench, load, unit]: Place): Row {
  const rows = results.find(result => result.bench === bench)?.rows ?? []
  const found = rows.find(row => row.load === load && row.unit === unit)
  if (found === undefined) throw new Error(`no row "${load}: ${unit}" among the results of ${bench}`)
  return found
}

/** The cost of each operation and the row that it comes from, as a Markdown table. */
export function costTable(results: readonly Result[]): string {
  const costs = costsOf(results)
  const from = (...places: readonly (keyof typeof PLACES)[]): string =>
    places.map(place => `${PLACES[place][0]}: ${PLACES[place][1]}`).join(' + ')
  const rows: readonly (readonly [string, number, string, string])[] = [
    ['a POP3 session on its host', costs.session, 'µs', from('session', 'handshake', 'event')],
    [
      'an SMTP connection on the gate’s host, with the start of a tiny smtpd',
      costs.connection,
      'µs',
      from('connection'),
    ],
    ['a login in the database, alone', costs.loginAlone, 'µs', `${from('pace')}, divided by 278, minus a query`],
    ['a login in the database, in batches', costs.loginBatched, 'µs', from('batched')],
    ['a query of the gate in the database', costs.query, 'µs', from('query')],
    ['WAL of a login', costs.wal, 'octets', from('wal')],
    ['a live grant with its indexes', costs.grant, 'octets', from('table', 'indexes')],
    ['a login in the history', costs.history, 'octets', from('history')],
    ['memory of the primary for a host', costs.hostMemory, 'octets', from('hostMemory')],
    ['a query of a gate for the standbys’ answers', costs.proof, 'µs', from('proof')],
  ]
  return table(
    ['what', 'cost', 'row of [RESULTS.md](../bench/RESULTS.md)'],
    rows.map(([what, cost, unit, row]) => [what, `${figureText(cost)} ${unit}`, row]),
  )
}

/** The needs of each site, as a Markdown table. */
export function siteTable(results: readonly Result[]): string {
  const costs = costsOf(results)
  const head = [
    'site',
    'logins an hour',
    'POP3 hosts',
    'gates',
    'database cores',
    'WAL',
    'live grants, at most',
    'their size',
    'history',
    'connections',
  ]
  const rows = SITES.map(site => {
    const needs = needsOf(site, costs)
    const { least, most } = needs.databaseCores
    return [
      site.name,
      figureText(site.loginsPerHour),
      String(needs.popHosts),
      String(needs.gates),
      `${figureText(least)}–${figureText(most)}`,
      `${octets(needs.walPerSecond)}/s`,
      figureText(needs.grants),
      octets(needs.grantsOctets),
      `${octets(needs.historyOctets)} in ${site.historyDays} days`,
      String(needs.connections),
    ]
  })
  return table(head, rows)
}

/** Numbers of hosts of the second table. */
const HOSTS = [10, 100, 1000]

/** Load of the primary with ten, a hundred and a thousand hosts, as a Markdown table. */
export function hostTable(results: readonly Result[]): string {
  const costs = costsOf(results)
  const rows = HOSTS.map(hosts => {
    const { connections, memory, idleCores, fullCores } = loadOfHosts(hosts, costs)
    return [
      figureText(hosts),
      figureText(connections),
      octets(memory),
      figureText(idleCores),
      `${figureText(fullCores.batched)}–${figureText(fullCores.alone)}`,
    ]
  })
  return table(
    ['hosts', 'connections', 'their memory', 'database cores, idle', 'database cores, every host full'],
    rows,
  )
}

/** Load of one host of two cores that runs everything, as a sentence. */
export function oneHostSentence(results: readonly Result[]): string {
  const { loginsPerSecond, pop3, gate, database } = oneHost(costsOf(results), QUERIES)
  const share = (part: number): string => `${Math.round(part * 100)} %`
  return `**${figureText(loginsPerSecond)} logins a second, ${figureText(loginsPerSecond * 3600)} an hour**, each with ${QUERIES} SMTP connections, at half of two cores.\nTLS, POP3 and authd take ${share(pop3)} of that time, the gate and the start of smtpds ${share(gate)}, the database ${share(database)}.`
}

/** The assumptions of the table of sites. */
export const ASSUMPTIONS = `The table assumes hosts with two cores, half of them free for peaks, and ${QUERIES} SMTP connections for each login.\nA day has the logins of ${BUSY_HOURS} busiest hours. Every login comes from a different address.`

const UNITS = ['B', 'KB', 'MB', 'GB', 'TB', 'PB']

/** 1,000 octets are a KB. */
function octets(count: number): string {
  const power = count < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(count) / 3))
  return `${figureText(count / 1000 ** power)} ${UNITS[power]}`
}

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map(cells => `| ${cells.join(' | ')} |\n`).join('')

/** docs/SCALE.md with new text between its markers. Throws Error if a marker is missing. */
export function filledIn(page: string, results: readonly Result[]): string {
  const blocks = {
    costs: costTable(results),
    'one-host': `${oneHostSentence(results)}\n`,
    assumptions: `${ASSUMPTIONS}\n`,
    sites: siteTable(results),
    hosts: hostTable(results),
  }
  return Object.entries(blocks).reduce((text, [name, block]) => {
    const [begin, end] = [`<!-- ${name} -->\n`, `<!-- /${name} -->`]
    const [from, to] = [text.indexOf(begin), text.indexOf(end)]
    if (from < 0 || to < from) throw new Error(`docs/SCALE.md has no ${begin.trim()} … ${end}`)
    return text.slice(0, from + begin.length) + block + text.slice(to)
  }, page)
}
