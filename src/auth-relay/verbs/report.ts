import { resolve } from 'node:path'
import { databaseConnection } from '../../daemon/database-connection.ts'
import { UsageFault } from '../../daemon/exit-status.ts'
import { loadSettingsFile } from '../../daemon/settings/settings.ts'
import { reportUsage, type UsageRow } from '../../grants/usage-report.ts'
import { formatMoment } from '../moment.ts'
import { printable } from '../printable.ts'
import { withConfigOption } from '../settings-option.ts'
import { formatTable } from '../table.ts'
import type { Verb } from '../verb.ts'
import { withDatabase } from '../with-database.ts'

type Options = { config: string; days: string; json?: true; csv?: true }

/** `auth-relay report`: who still needs POP before SMTP. */
export const report: Verb = (program, { environment, print, columns }, choose) => {
  withConfigOption(program.command('report'))
    .description(
      'who still needs this: per login the last login, the last mail relayed by it, and whether TLS was used',
    )
    .option('--days <number>', 'how far back; the history is kept for grants.history_days', '30')
    .option('--csv', 'comma-separated values with a header line')
    .option('--json', 'a JSON array')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay report
  auth-relay report --days 7 --csv > needs.csv

Logins that never relay can be moved to SMTP AUTH first: they will not notice.`,
    )
    .action((options: Options) => {
      if (!/^\d{1,4}$/.test(options.days) || options.days === '0') {
        throw new UsageFault(`--days ${options.days} is no number of days`)
      }
      choose({
        type: 'command',
        run: async () => {
          const { settings } = loadSettingsFile(resolve(options.config), environment)
          const rows = await withDatabase(databaseConnection(settings, 'writer'), database =>
            reportUsage(database, Number(options.days)),
          )
          if (options.json === true) print(`${JSON.stringify(rows.map(jsonOf), undefined, 1)}\n`)
          else if (options.csv === true) print(formatCsv(rows))
          else print(formatReport(rows, columns))
          return 0
        },
      })
    })
}

const tlsOf = ({ logins, tlsLogins }: UsageRow): 'always' | 'sometimes' | 'never' =>
  tlsLogins === logins ? 'always' : tlsLogins === 0 ? 'never' : 'sometimes'

const jsonOf = (row: UsageRow) => ({
  login: row.login,
  last_login: row.lastLogin.toISOString(),
  logins: row.logins,
  addresses: row.addresses,
  tls: tlsOf(row),
  daemons: row.daemons.split(','),
  methods: row.methods.split(','),
  last_relay: row.lastRelay?.toISOString() ?? null,
  relays: row.relays,
})

/** RFC 4180. Cells that a spreadsheet would take for a formula get an apostrophe: login names come from strangers. */
export function formatCsv(rows: readonly UsageRow[]): string {
  const cell = (value: string): string => {
    const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
  }
  const head = 'login,last_login,logins,addresses,tls,daemons,methods,last_relay,relays'
  const lines = rows.map(row => {
    const { login, last_login, logins, addresses, tls, daemons, methods, last_relay, relays } = jsonOf(row)
    const cells = [
      login,
      last_login,
      logins,
      addresses,
      tls,
      daemons.join(' '),
      methods.join(' '),
      last_relay ?? '',
      relays,
    ]
    return cells.map(value => cell(String(value))).join(',')
  })
  return [head, ...lines].map(line => `${line}\r\n`).join('')
}

function formatReport(rows: readonly UsageRow[], width: number): string {
  if (rows.length === 0) return 'Nobody has logged in (or store_user is off).\n'
  const right = { align: 'right' } as const
  const table = formatTable(
    [
      { title: 'LOGIN', mayShrink: true },
      { title: 'LAST LOGIN' },
      { title: 'LOGINS', ...right },
      { title: 'ADDRESSES', ...right },
      { title: 'TLS' },
      { title: 'BY', mayShrink: true },
      { title: 'LAST RELAY' },
      { title: 'RELAYS', ...right },
    ],
    rows.map(row => [
      printable(row.login),
      formatMoment(row.lastLogin),
      String(row.logins),
      String(row.addresses),
      tlsOf(row),
      printable(`${row.daemons} ${row.methods}`),
      row.lastRelay === null ? '-' : formatMoment(row.lastRelay),
      String(row.relays),
    ]),
    width,
  )
  const relaying = rows.filter(({ relays }) => relays > 0).length
  return `${table}\n${rows.length} logins, ${relaying} of them used the relay.\n`
}
