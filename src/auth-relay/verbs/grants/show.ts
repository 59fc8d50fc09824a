/** The verb `show`, and grants as a table and as JSON. */
import { resolve } from 'node:path'
import type { AllowanceRow, BlockRow, GrantRow } from '../../../grants/grant-store.ts'
import { formatDuration } from '../../../settings/duration.ts'
import { formatTarget } from '../../grant-target.ts'
import { withGrants } from '../../site-database.ts'
import { formatMoment } from '../../text/moment.ts'
import { formatTable, printable } from '../../text/terminal.ts'
import type { Verb } from '../../verb.ts'
import { withConfigOption } from '../../verb.ts'

/** `auth-relay show`: lists the addresses that may relay now. */
export const show: Verb = (program, surroundings, choose) => {
  const { print, columns } = surroundings
  withConfigOption(program.command('show'))
    .description('list the addresses that may relay now, with the end and the login of each')
    .option('--json', 'a JSON array of the grants, newest login first')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay show
  auth-relay show --json | jq -r '.[].address'`,
    )
    .action((options: Options) => {
      choose({
        kind: 'command',
        run: () =>
          withGrants(resolve(options.config), surroundings, async admin => {
            const grants = await admin.list()
            if (options.json === true) {
              print(`${JSON.stringify(grants.map(jsonOf), undefined, 1)}\n`)
              return 0
            }
            const [allowances, blocks] = [await admin.allowances(), await admin.blocks()]
            print(formatGrants(grants, new Date(), columns))
            if (allowances.length > 0) print(`\n${formatAllowances(allowances, columns)}`)
            if (blocks.length > 0) print(`\n${formatBlocks(blocks, columns)}`)
            return 0
          }),
      })
    })
}

type Options = { config: string; json?: true }

/** A grant for scripts; times are ISO 8601 in UTC. */
export const jsonOf = ({ network, until, user, daemon, tls, first, last, logins, host }: GrantRow) => ({
  address: formatTarget(network),
  until: until.toISOString(),
  login: user,
  daemon,
  tls,
  first: first.toISOString(),
  last: last.toISOString(),
  logins,
  host,
})

/** A table of grants, no wider than `width`. */
export function formatGrants(grants: readonly GrantRow[], now: Date, width: number): string {
  if (grants.length === 0) return 'No address has a grant now.\n'
  const rows = grants.map(({ network, until, user, daemon, tls, first, last, logins, host }) => [
    formatTarget(network),
    `${formatMoment(until)} (${formatDuration((until.getTime() - now.getTime()) / 1000)})`,
    user === null ? '-' : printable(user),
    printable(daemon),
    host === null ? '-' : printable(host),
    tls === null ? '-' : tls ? 'yes' : 'no',
    formatMoment(first),
    formatMoment(last),
    String(logins),
  ])
  return formatTable(
    [
      { title: 'ADDRESS' },
      { title: 'UNTIL' },
      { title: 'LOGIN', mayShrink: true },
      { title: 'DAEMON', mayDrop: true },
      { title: 'HOST', mayDrop: true },
      { title: 'TLS', mayDrop: true },
      { title: 'FIRST', mayDrop: true },
      { title: 'LAST', mayDrop: true },
      { title: 'LOGINS', align: 'right', mayDrop: true },
    ],
    rows,
    width,
  )
}

const endOf = (until: Date | null): string => (until === null ? 'no end' : formatMoment(until))

function formatAllowances(allowances: readonly AllowanceRow[], width: number): string {
  const columns = [{ title: 'ALLOWED' }, { title: 'UNTIL' }, { title: 'BY' }, { title: 'REASON', mayShrink: true }]
  const rows = allowances.map(({ network, until, owner, reason }) => [
    formatTarget(network),
    endOf(until),
    printable(owner),
    printable(reason),
  ])
  return formatTable(columns, rows, width)
}

function formatBlocks(blocks: readonly BlockRow[], width: number): string {
  const columns = [
    { title: 'BLOCKED', mayShrink: true },
    { title: 'UNTIL' },
    { title: 'BY' },
    { title: 'REASON', mayShrink: true },
  ]
  const rows = blocks.map(({ target, until, owner, reason }) => [
    target.kind === 'network' ? formatTarget(target.network) : printable(target.login),
    endOf(until),
    printable(owner),
    printable(reason),
  ])
  return formatTable(columns, rows, width)
}
