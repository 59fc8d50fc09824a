import * as v from 'valibot'
import type { Database } from '../database/database.ts'
import { type Statement, timestamptz } from '../database/statement.ts'

/** Something that happened: a login that was granted or refused, or mail that was relayed. */
export type HistoryEvent = {
  readonly at: Date
  readonly kind: 'grant' | 'refused' | 'relay'
  readonly ip: string
  /** Login and daemon, or the door; for refusals the reason as well. */
  readonly detail: string
}

const row = v.object({
  at: timestamptz,
  kind: v.picklist(['grant', 'refused', 'relay']),
  ip: v.string(),
  detail: v.string(),
})

/** $1 after this moment. The clock of the database decides what is new; a second is left for transactions under way. */
const LOGINS: Statement<HistoryEvent> = {
  row,
  text: `
SELECT date_trunc('milliseconds', at) AS at, CASE WHEN refused IS NULL THEN 'grant' ELSE 'refused' END AS kind, host(ip) AS ip,
       concat_ws(' ', daemon, CASE WHEN tls THEN 'tls' END, method, username, refused) AS detail
FROM login_event WHERE at > $1 AND at <= now() - interval '1 second'
ORDER BY at LIMIT 1000`,
}

/** As LOGINS; the gate reports its uses in whole seconds and a moment later, so that more time is left for them. */
const RELAYS: Statement<HistoryEvent> = {
  row,
  text: `
SELECT date_trunc('milliseconds', at) AS at, 'relay' AS kind, host(ip) AS ip, door AS detail
FROM relay_use WHERE at > $1 AND at <= now() - interval '4 seconds'
ORDER BY at LIMIT 1000`,
}

const NOW: Statement<{ now: Date }> = { row: v.object({ now: timestamptz }), text: 'SELECT now() AS now' }

/** The time of the database. */
export async function databaseNow(database: Database): Promise<Date> {
  const { rows } = await database.query(NOW)
  const [row] = rows
  if (row === undefined) throw new Error('the database gave no time')
  return row.now
}

/** Logins after a moment, oldest first, at most 1000; ask again from the last one's time. */
export const loginsSince = async (database: Database, moment: Date): Promise<readonly HistoryEvent[]> =>
  (await database.query(LOGINS, [moment])).rows

/** Relayed mail after a moment, as loginsSince. */
export const relaysSince = async (database: Database, moment: Date): Promise<readonly HistoryEvent[]> =>
  (await database.query(RELAYS, [moment])).rows
