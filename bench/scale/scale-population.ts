import * as v from 'valibot'
import type { DatabaseSession } from '../../src/database/database.ts'
import type { Statement } from '../../src/database/statement.ts'
import { type IpAddress, parseIpAddress } from '../../src/wire/ip-address.ts'

/**
 * An odd factor scatters the numbers over 24 bits, each once, so that neighbours in time are not
 * neighbours in the index.
 */
const FACTOR = 2_654_435_761
/** Accounts of the site. */
const ACCOUNTS = 3_000_000

/** The n-th client's address, n below 16,777,216; one in five is IPv6. */
export function addressOf(n: number): IpAddress {
  const scattered = Math.imul(n, FACTOR) & 0xff_ffff
  const [high, low] = [scattered >> 12, scattered & 0xfff]
  const text =
    n % 5 === 0
      ? `2a00:${high.toString(16)}:${low.toString(16)}::1`
      : `11.${scattered >> 16}.${(scattered >> 8) & 255}.${scattered & 255}`
  const address = parseIpAddress(text)
  if (address === undefined) throw new Error(`no address: ${text}`)
  return address
}

/** The login from address `n`. */
export const userOf = (n: number): string => `user${n % ACCOUNTS}@example.org`

/** addressOf and userOf of `n`, in SQL. */
const SCATTERED = `(n * ${FACTOR} & 16777215)`
const ADDRESS = `CASE WHEN n % 5 = 0
  THEN ('2a00:' || to_hex(${SCATTERED} >> 12) || ':' || to_hex(${SCATTERED} & 4095) || '::1')::inet
  ELSE '11.0.0.0'::inet + ${SCATTERED} END`
const USER = `'user' || n % ${ACCOUNTS} || '@example.org'`

const INDEXES: Statement<{ name: string; definition: string }> = {
  row: v.object({ name: v.string(), definition: v.string() }),
  text: `
SELECT indexname AS name, replace(indexdef, ' ON ONLY ', ' ON ') AS definition
FROM pg_indexes WHERE tablename IN ('grants', 'login_event') AND indexname <> 'grants_pkey'`,
}

/**
 * Stores the last `lifeSeconds` of the site: one login of each address, evenly spread over that
 * time, oldest first. The grants therefore end evenly over the next `lifeSeconds`. The indexes are
 * made afterwards, because this order is faster.
 */
export async function populate(owner: DatabaseSession, grants: number, lifeSeconds: number): Promise<void> {
  const { rows: indexes } = await owner.query(INDEXES)
  await owner.script(`
    SET maintenance_work_mem = '512MB';
    ALTER TABLE grants DROP CONSTRAINT grants_pkey;
    DROP INDEX ${indexes.map(({ name }) => name).join(', ')};
    INSERT INTO grants (ip, until, last_auth, first_auth, granted_first, hits, daemon, username, tls)
    SELECT ip, at + life, at, at - n % 30 * interval '1 hour', at - n % 3 * interval '10 minutes', 1 + n % 9, 'popup', username, true
    FROM (
      SELECT n, ${ADDRESS} AS ip, ${USER} AS username, make_interval(secs => ${lifeSeconds}) AS life,
             now() - make_interval(secs => ${lifeSeconds}) * (1 - (n + 1) / ${grants}::float8) AS at
      FROM generate_series(0::bigint, ${grants - 1}) n) clients;
    INSERT INTO login_event (at, ip, network, daemon, method, tls, username, session, until, refused)
    SELECT last_auth, ip, ip, daemon, 'pass', tls, username, 'b7c41d.' || hits, until, NULL FROM grants;
    ALTER TABLE grants ADD PRIMARY KEY (ip);
    ${indexes.map(({ definition }) => definition).join(';\n')}`)
  await owner.script('VACUUM (ANALYZE) grants')
  await owner.script('ANALYZE login_event')
  await owner.script('CHECKPOINT')
}
