import * as v from 'valibot'
import type { Database } from '../../../src/database/database.ts'
import { timestamptz } from '../../../src/database/statement.ts'

const row = v.object({
  ip: v.string(),
  until: timestamptz,
  last: timestamptz,
  hits: v.number(),
  daemon: v.string(),
  username: v.nullable(v.string()),
})
export type StoredGrant = v.InferOutput<typeof row>

/** The rows of the table of grants, by address. */
export async function storedGrants(database: Database): Promise<ReadonlyMap<string, StoredGrant>> {
  const { rows } = await database.query({
    text: 'SELECT host(ip) AS ip, until, last_auth AS last, hits::int AS hits, daemon, username FROM grants',
    row,
  })
  return new Map(rows.map(grant => [grant.ip, grant]))
}
