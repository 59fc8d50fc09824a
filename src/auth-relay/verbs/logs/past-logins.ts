/** Stores logins of the past, so that each grant keeps the end that it would have had. */

import { policyOf } from '../../../grants/grant-policy.ts'
import { createGrantWriter } from '../../../grants/grant-writer.ts'
import type { Settings } from '../../../settings/settings.ts'
import type { IpAddress } from '../../../wire/ip-address.ts'
import type { LoginMethod } from '../../../wire/login-event.ts'
import { commandConnection, withDatabase } from '../../site-database.ts'
import { ProgressBar } from '../../text/terminal.ts'

/** A login that happened before: from a log, or from another program's table. */
export type PastLogin = {
  readonly ip: IpAddress
  readonly at: Date
  readonly user: string
  readonly daemon: string
  readonly tls: boolean
  readonly method: LoginMethod
}

const BATCH = 500

/**
 * Records past logins with their own times; each grant ends when it would have ended. `source`
 * begins the session ids.
 */
export async function recordPastLogins(
  settings: Settings,
  source: string,
  logins: readonly PastLogin[],
): Promise<{ readonly granted: number; readonly refused: number }> {
  let [granted, refused] = [0, 0]
  if (logins.length === 0) return { granted, refused }
  await withDatabase(commandConnection(settings), async database => {
    const writer = createGrantWriter(database, policyOf(settings))
    const bar = new ProgressBar(logins.length)
    for (let start = 0; start < logins.length; start += BATCH) {
      const batch = logins.slice(start, start + BATCH)
      const outcomes = await writer.record(
        batch.map(({ at, ...event }, index) => ({ event: { ...event, id: `${source}.${start + index}` }, at })),
      )
      for (const { kind } of outcomes) {
        if (kind === 'granted') granted += 1
        else refused += 1
      }
      bar.advance(batch.length)
    }
    bar.end()
  })
  return { granted, refused }
}
