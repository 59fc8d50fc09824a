/** The verb `report`, and its rows as a table and as CSV. */
import { resolve } from 'node:path'
import { UsageFault } from '../../../base/errors.ts'
import { NetworkFacts } from '../../../grants/devices/network-facts.ts'
import { reportUsage, type UsageRow, unseenDevices } from '../../../grants/history.ts'
import { loadSettingsFile } from '../../../settings/settings.ts'
import { parseIpAddress } from '../../../wire/ip-address.ts'
import { commandConnection, withDatabase } from '../../site-database.ts'
import { formatMoment } from '../../text/moment.ts'
import { count, formatTable, printable } from '../../text/terminal.ts'
import { type Verb, withConfigOption } from '../../verb.ts'

/** `auth-relay report`: lists the logins that still need POP before SMTP. */
export const report: Verb = (program, { environment, print, columns }, choose) => {
  withConfigOption(program.command('report'))
    .description(
      'list the logins that need POP before SMTP: the last login, the last relayed mail, TLS, and the likely kind of client',
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

Hints: polls (a mail program that looks for mail), sends-only (opens the mailbox just to
send, as scanners do), apop, no-tls, roams (several addresses), never-relays.
A login with the hint never-relays does not need POP before SMTP.`,
    )
    .action((options: Options) => {
      if (!/^\d{1,4}$/.test(options.days) || options.days === '0') {
        throw new UsageFault(`--days ${options.days} is not a number of days: write a whole number, such as 30`)
      }
      choose({
        kind: 'command',
        run: async () => {
          const { settings } = loadSettingsFile(resolve(options.config), environment)
          const days = Number(options.days)
          const { rows, unseen } = await withDatabase(commandConnection(settings), async database => ({
            rows: await reportUsage(database, days),
            unseen: await unseenDevices(database, days),
          }))
          const facts = new NetworkFacts(settings.grants.mmdb_files)
          const withPlaces = (row: UsageRow) => ({ ...jsonOf(row), places: placesOf(facts, row.lastAddress) })
          if (options.json === true) print(`${JSON.stringify(rows.map(withPlaces), undefined, 1)}\n`)
          else if (options.csv === true) print(formatCsv(rows))
          else print(formatReport(rows, columns, unseen, address => placesOf(facts, address)))
          return 0
        },
      })
    })
}

type Options = { config: string; days: string; json?: true; csv?: true }

/** Country and AS number of an address, as far as files of this host contain them. */
function placesOf(facts: NetworkFacts, address: string): readonly string[] {
  const ip = parseIpAddress(address)
  return ip === undefined ? [] : facts.placesOf(ip)
}

const tlsOf = ({ logins, tlsLogins }: UsageRow): 'always' | 'sometimes' | 'never' =>
  tlsLogins === logins ? 'always' : tlsLogins === 0 ? 'never' : 'sometimes'

const jsonOf = (row: UsageRow) => ({
  login: row.login,
  device: row.device,
  last_login: row.lastLogin.toISOString(),
  logins: row.logins,
  addresses: row.addresses,
  last_address: row.lastAddress,
  tls: tlsOf(row),
  daemons: row.daemons.split(','),
  methods: row.methods.split(','),
  last_relay: row.lastRelay?.toISOString() ?? null,
  relays: row.relays,
  hints: deviceHints(row),
})

/**
 * RFC 4180. Cells that a spreadsheet would read as a formula get an apostrophe, because an attacker
 * can choose login names.
 */
export function formatCsv(rows: readonly UsageRow[]): string {
  const cell = (value: string): string => {
    const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
  }
  const head = 'login,last_login,logins,addresses,last_address,tls,daemons,methods,last_relay,relays,hints,device'
  const lines = rows.map(row => {
    const { daemons, methods, last_relay, hints, ...rest } = jsonOf(row)
    const cells = [
      rest.login,
      rest.last_login,
      rest.logins,
      rest.addresses,
      rest.last_address,
      rest.tls,
      daemons.join(' '),
      methods.join(' '),
      last_relay ?? '',
      rest.relays,
      hints.join(' '),
      rest.device ?? '',
    ]
    return cells.map(value => cell(String(value))).join(',')
  })
  return [head, ...lines].map(line => `${line}\r\n`).join('')
}

/** A table for people. */
export function formatReport(
  rows: readonly UsageRow[],
  width: number,
  unseen: readonly string[] = [],
  places: (address: string) => readonly string[] = () => [],
): string {
  const silent = unseen.length === 0 ? '' : `Devices without a login in this time: ${unseen.join(', ')}.\n`
  if (rows.length === 0)
    return `The history has no login of this time. With grants.store_user = false it never has one.\n${silent}`
  const right = { align: 'right' } as const
  const table = formatTable(
    [
      { title: 'LOGIN', mayShrink: true },
      { title: 'DEVICE', mayDrop: true },
      { title: 'LAST LOGIN' },
      { title: 'LOGINS', ...right },
      { title: 'LAST ADDRESS', mayDrop: true },
      { title: 'TLS', mayDrop: true },
      { title: 'BY', mayDrop: true },
      { title: 'LAST RELAY' },
      { title: 'RELAYS', ...right },
      { title: 'HINTS', mayShrink: true },
    ],
    rows.map(row => [
      printable(row.login),
      row.device ?? '-',
      formatMoment(row.lastLogin),
      String(row.logins),
      [
        row.lastAddress,
        ...places(row.lastAddress),
        ...(row.addresses > 1 ? [`and ${row.addresses - 1} more`] : []),
      ].join(' '),
      tlsOf(row),
      printable(`${row.daemons} ${row.methods}`),
      row.lastRelay === null ? '-' : formatMoment(row.lastRelay),
      String(row.relays),
      deviceHints(row).join(' '),
    ]),
    width,
  )
  const relaying = rows.filter(({ relays }) => relays > 0).length
  return `${table}\n${count(rows.length, 'login')}, ${relaying} of them used the relay.\n${silent}`
}

/** Hints about the client of a login, from its use. The table and the JSON show the same texts. */
export type DeviceHint = 'sends-only' | 'polls' | 'never-relays' | 'apop' | 'no-tls' | 'roams'

/**
 * Logins for one relayed mail. A client with at most FEW opens the mailbox in order to send. A
 * client with more than MANY looks for new mail.
 */
const FEW = 2
const MANY = 5

/**
 * Scanners and scripts open the mailbox once for each mail that they send. Mail programs open it
 * all day and send now and then. Old devices have no TLS, or APOP alone. A roaming user has several
 * addresses, and a device has one.
 */
export function deviceHints(
  row: Pick<UsageRow, 'logins' | 'relays' | 'tlsLogins' | 'methods' | 'addresses'>,
): readonly DeviceHint[] {
  const { logins, relays, tlsLogins, methods, addresses } = row
  const hints: DeviceHint[] = []
  if (relays === 0) hints.push('never-relays')
  else if (logins <= relays * FEW) hints.push('sends-only')
  if (logins > Math.max(1, relays) * MANY) hints.push('polls')
  if (methods.split(',').includes('apop')) hints.push('apop')
  if (tlsLogins === 0) hints.push('no-tls')
  if (addresses > 1) hints.push('roams')
  return hints
}
