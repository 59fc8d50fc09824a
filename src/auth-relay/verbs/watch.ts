import { resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { databaseConnection } from '../../daemon/database-connection.ts'
import { loadSettingsFile } from '../../daemon/settings/settings.ts'
import { databaseNow, type HistoryEvent, loginsSince, relaysSince } from '../../grants/history-feed.ts'
import { formatMoment } from '../moment.ts'
import { printable } from '../printable.ts'
import { withConfigOption } from '../settings-option.ts'
import { type Style, styleFor } from '../style.ts'
import type { Verb } from '../verb.ts'
import { withDatabase } from '../with-database.ts'

type Options = { config: string; json?: true }

/** Milliseconds between two looks. */
const INTERVAL = 1000

/** `auth-relay watch`: logins, refusals and relayed mail as they happen, until Ctrl-C. */
export const watch: Verb = (program, { environment, print, isTerminal }, choose) => {
  withConfigOption(program.command('watch'))
    .description('logins, grants, refusals and relayed mail as they happen, until Ctrl-C')
    .option('--json', 'one JSON object a line')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay watch
  auth-relay watch --json | jq -r 'select(.kind == "refused") | .ip'

Logins appear about two seconds after they happened, relayed mail after five: the
database is asked, so those of all hosts are seen.`,
    )
    .action((options: Options) => {
      choose({
        type: 'command',
        run: async () => {
          const { settings } = loadSettingsFile(resolve(options.config), environment)
          const style = styleFor(isTerminal, environment)
          const format =
            options.json === true
              ? (event: HistoryEvent) => `${JSON.stringify(event)}\n`
              : (event: HistoryEvent) => formatEvent(event, style)
          return withDatabase(databaseConnection(settings, 'writer'), async database => {
            const start = await databaseNow(database)
            if (isTerminal && options.json !== true) print(`${style.faint(`${HEAD}\n`)}`)
            // What happened in the second before is not shown yet by the query: begin there, and miss nothing.
            let login = new Date(start.getTime() - INTERVAL)
            let relay = login
            for (;;) {
              const [logins, relays] = [await loginsSince(database, login), await relaysSince(database, relay)]
              for (const event of [...logins, ...relays]) print(format(event))
              login = after(logins.at(-1)?.at, login)
              relay = after(relays.at(-1)?.at, relay)
              await pause(INTERVAL)
            }
          })
        },
      })
    })
}

/** Times come cut to milliseconds: the next look begins with the next one. */
const after = (last: Date | undefined, seen: Date): Date => (last === undefined ? seen : new Date(last.getTime() + 1))

/** The columns of formatEvent. */
const HEAD = `${'TIME'.padEnd(19)}  ${'WHAT'.padEnd(7)}  ${'ADDRESS'.padEnd(15)}  BY WHOM, OR BY WHICH DOOR        (Ctrl-C ends)`

/** One line for people. */
export function formatEvent(
  { at, kind, ip, detail }: HistoryEvent,
  style: Pick<Style, 'good' | 'bad' | 'faint' | 'strong'>,
): string {
  const word = kind.padEnd(7)
  const shown = kind === 'refused' ? style.bad(word) : kind === 'relay' ? style.strong(word) : style.good(word)
  return `${style.faint(formatMoment(at))}  ${shown}  ${ip.padEnd(15)}  ${printable(detail)}\n`
}
