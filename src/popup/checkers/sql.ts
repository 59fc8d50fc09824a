/** Accounts in PostgreSQL: the columns of the site's query, the checker, and its limits. */
import * as v from 'valibot'
import type { Log } from '../../base/log.ts'
import { type Database, openDatabase } from '../../database/database.ts'
import type { Statement } from '../../database/statement.ts'
import { checkerContradictions, refuse } from '../../settings/contradictions.ts'
import { readSecretFile } from '../../settings/secret.ts'
import type { Settings } from '../../settings/settings.ts'
import { loginText } from '../../wire/login-event.ts'
import { CheckQueue } from './check-queue.ts'
import { type Checker, maildirPath, no, temporary } from './checker.ts'
import type { AuthenticationCache } from './password-hash.ts'
import { verifyApop, verifyPassword } from './password-hash.ts'

/** Ids come as numbers, as bigint (text on the wire), or as text columns. */
const id = v.pipe(
  v.union([v.number(), v.pipe(v.string(), v.regex(/^\d{1,10}$/), v.transform(Number))]),
  v.integer(),
  v.minValue(0),
)
const optionalText = v.optional(v.nullable(v.string()))

/**
 * Columns of the site's query. Text columns may be null. `clear` is the password itself, for APOP;
 * `maildir` may be relative to `home`, omitted, or in Dovecot's form `maildir:~/Maildir:…`.
 */
const account = v.object({
  password: v.nullable(v.string()),
  uid: id,
  gid: id,
  home: optionalText,
  maildir: optionalText,
  clear: optionalText,
})

const QUERY_LIMIT_MS = 10_000
/** The number of simultaneous logins on a busy morning; further logins wait. */
const CONNECTIONS = 10
/** Logins that wait for a connection; further logins are refused at once. */
const MOST_WAITING = 1000
/**
 * A hash for logins that do not exist, until an existing login shows the form of the site's hashes.
 */
const DECOY =
  '$6$h9mZxkWbYdGfQwLs$0000000000000000000000000000000000000000000000000000000000000000000000000000000000000/'

/**
 * Accounts in PostgreSQL, by the site's own query: $1 is the login name as typed. docs/INSTALL.md
 * has those for vpopmail's and Dovecot's tables.
 * @throws UsageFault if the settings are not complete.
 */
export function sqlChecker(
  popup: Settings['popup'],
  passwords: AuthenticationCache,
  hashing: CheckQueue,
  log: Log,
): Checker {
  refuse(checkerContradictions({ popup }))
  const database: Database = openDatabase({
    hosts: popup.sql_dbhost.split(/[\s,]+/).map(host => ({ host, port: popup.sql_dbport })),
    database: popup.sql_dbname,
    user: popup.sql_dbuser,
    password: popup.sql_dbpass_file === '' ? undefined : readSecretFile(popup.sql_dbpass_file),
    applicationName: 'auth-relay popup',
    max: CONNECTIONS,
    statementTimeoutMs: QUERY_LIMIT_MS,
  })
  const statement: Statement<v.InferOutput<typeof account>> = { text: popup.sql_query, name: 'check', row: account }
  const queries = new CheckQueue({ atOnce: CONNECTIONS, mostWaiting: MOST_WAITING })
  let decoy = DECOY
  return {
    check: async ({ login, secret, method, timestamp, applicant }) => {
      const inTurn = <T>(work: () => Promise<T>): Promise<T> => hashing.run(applicant, work)
      const name = loginText(login)
      const { rows } = await queries.run(applicant, () =>
        database.query(statement, [name], { signal: AbortSignal.timeout(QUERY_LIMIT_MS) }),
      )
      if (rows.length > 1) {
        log.error('sql_query_ambiguous', { user: name, rows: rows.length })
        return temporary('sql_query found more than one account')
      }
      const [row] = rows
      const stored = row?.password ?? ''
      if (method === 'apop') {
        const clear = row?.clear ?? ''
        const right = verifyApop(secret, timestamp, clear === '' ? ' ' : clear)
        if (!right || clear === '') return no('wrong login or digest, or no clear password')
      } else {
        const right = await (stored === ''
          ? verifyPassword(secret, decoy, inTurn)
          : passwords.verify(secret, stored, inTurn))
        if (row === undefined) return no('unknown login')
        if (stored === '') return no('the account has no password')
        decoy = stored
        if (right !== true) return no(right === false ? 'wrong password' : 'a hash that this system does not know')
      }
      if (row === undefined) return no('unknown login')
      const maildir = maildirPath(row.maildir ?? '', row.home ?? '', popup.maildir)
      if (maildir === undefined) return temporary('sql_query gave neither home nor maildir')
      return { kind: 'yes', maildrop: { uid: row.uid, gid: row.gid, maildir } }
    },
    close: () => database.close(),
  }
}
