/** The verb that shows events as they happen, in the order of their times. */
import { resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import {
  databaseNow,
  type HistoryEvent,
  loginsSince,
  MAX_EVENTS,
  type MinuteTally,
  refusedSince,
  relaysSince,
  talliesSince,
} from '../../../grants/history.ts'
import { loadSettingsFile } from '../../../settings/settings.ts'
import { commandConnection, withDatabase } from '../../site-database.ts'
import { formatMoment } from '../../text/moment.ts'
import { printable, type Style, styleFor } from '../../text/terminal.ts'
import type { Verb } from '../../verb.ts'
import { withConfigOption } from '../../verb.ts'

type Options = { config: string; json?: true }

/** Milliseconds between two queries. */
const INTERVAL_MS = 1000
/**
 * Milliseconds after an event until the database has it: the gate reports its usage events late.
 */
const SETTLED_MS = 4000
/**
 * The tallies of a minute are shown when the minute is over, so the first one is the current
 * minute.
 */
const MINUTE_MS = 60_000

/**
 * `auth-relay watch`: shows logins, refusals, relayed mail and other decisions of the gate as they
 * happen, until Ctrl-C.
 */
export const watch: Verb = (program, { environment, print, isTerminal }, choose) => {
  withConfigOption(program.command('watch'))
    .description('print logins, grants, refusals, relayed mail and gate decisions as they happen, until Ctrl-C')
    .option('--json', 'one JSON object a line')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay watch
  auth-relay watch --json | jq -r 'select(.kind == "refused") | .ip'

Events appear in the order of their times, about five seconds after they happened. The
command reads the database, so it shows the events of all hosts. "closed" is a client
without a grant, which may send to local domains only. At most 20 of them a second are
shown for each service. "tally" counts all decisions by host, service and minute. "on"
names the host that received the login event, or whose gate decided.`,
    )
    .action((options: Options) => {
      choose({
        kind: 'command',
        run: async () => {
          const { settings } = loadSettingsFile(resolve(options.config), environment)
          const style = styleFor(isTerminal, environment)
          const format =
            options.json === true
              ? (event: HistoryEvent) => `${JSON.stringify(event)}\n`
              : (event: HistoryEvent) => formatEvent(event, style)
          const formatMinute =
            options.json === true
              ? ({ at, ...tally }: MinuteTally) => `${JSON.stringify({ at, kind: 'tally', ...tally })}\n`
              : (tally: MinuteTally) => formatTally(tally, style)
          return withDatabase(commandConnection(settings), async database => {
            const start = await databaseNow(database)
            if (isTerminal && options.json !== true) print(`${style.faint(`${HEAD}\n`)}`)
            // The first query begins there, because it does not show events of the last second yet.
            let login = new Date(start.getTime() - INTERVAL_MS)
            let [relay, refusal] = [login, login]
            let minute = new Date(start.getTime() - MINUTE_MS)
            const order = new EventOrder()
            for (;;) {
              const settled = new Date((await databaseNow(database)).getTime() - SETTLED_MS)
              const logins = await loginsSince(database, login)
              const relays = await relaysSince(database, relay)
              const refusals = await refusedSince(database, refusal)
              const tallies = await talliesSince(database, minute)
              for (const events of [logins, relays, refusals]) order.add(events)
              // The next query returns the rest of an answer that was limited.
              const cut = [logins, relays, refusals].flatMap(events =>
                events.length < MAX_EVENTS ? [] : [events.at(-1)?.at ?? settled],
              )
              for (const event of order.take(earliest(settled, ...cut))) print(format(event))
              for (const tally of tallies) print(formatMinute(tally))
              login = after(logins.at(-1)?.at, login)
              relay = after(relays.at(-1)?.at, relay)
              refusal = after(refusals.at(-1)?.at, refusal)
              minute = after(tallies.at(-1)?.at, minute)
              await pause(INTERVAL_MS)
            }
          })
        },
      })
    })
}

/** Times are truncated to milliseconds, so the next query begins one millisecond later. */
const after = (last: Date | undefined, seen: Date): Date => (last === undefined ? seen : new Date(last.getTime() + 1))

const earliest = (...times: readonly Date[]): Date => new Date(Math.min(...times.map(time => time.getTime())))

/**
 * Puts events in the order of their times. Kinds of events reach the database with different
 * delays, so each event is held until no earlier one can come.
 */
export class EventOrder {
  #held: HistoryEvent[] = []

  add(events: readonly HistoryEvent[]): void {
    this.#held.push(...events)
  }

  /** Removes the events up to this time and returns them, oldest first. */
  take(until: Date): readonly HistoryEvent[] {
    const due = this.#held.filter(({ at }) => at <= until)
    this.#held = this.#held.filter(({ at }) => at > until)
    return due.sort((a, b) => a.at.getTime() - b.at.getTime())
  }
}

/** The columns of formatEvent. */
const HEAD = `${'TIME'.padEnd(19)}  ${'WHAT'.padEnd(7)}  ${'ADDRESS'.padEnd(15)}  LOGIN, OR SERVICE        (Ctrl-C ends)`

type EventStyle = Pick<Style, 'good' | 'bad' | 'faint' | 'strong'>

/** A client without a grant is the normal case, because most mail comes from such clients. */
const WORD_STYLES: Readonly<Record<HistoryEvent['kind'], (style: EventStyle, word: string) => string>> = {
  grant: (style, word) => style.good(word),
  refused: (style, word) => style.bad(word),
  relay: (style, word) => style.strong(word),
  closed: (style, word) => style.faint(word),
}

/** One line for people. */
export function formatEvent({ at, kind, ip, detail, host }: HistoryEvent, style: EventStyle): string {
  const word = kind.padEnd(7)
  const shown = WORD_STYLES[kind](style, word)
  const where = host === null ? '' : ` on ${printable(host)}`
  return `${style.faint(formatMoment(at))}  ${shown}  ${ip.padEnd(15)}  ${printable(detail)}${where}\n`
}

/** One line for people: the decisions of a service within one minute. */
export function formatTally(
  { at, host, service, relayed, refused, undecided, never }: MinuteTally,
  style: EventStyle,
): string {
  const doubt = `${undecided} undecided`
  const counts = [
    `${relayed} relayed`,
    `${refused} refused`,
    undecided > 0 ? style.bad(doubt) : doubt,
    `${never} never`,
  ]
  return `${style.faint(formatMoment(at))}  ${'tally'.padEnd(7)}  ${printable(host).padEnd(15)}  ${printable(service)}: ${counts.join(', ')}\n`
}
