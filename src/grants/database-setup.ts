/** The roles of the database: their names, passwords and rights. */
import * as v from 'valibot'
import type { Database } from '../database/database.ts'
import { type Statement, timestamptz } from '../database/statement.ts'

/** The roles that the migrations make. */
export const ROLES = { writer: 'pop3authd', reader: 'authwrap', status: 'authstatus' } as const
export type RoleName = (typeof ROLES)[keyof typeof ROLES]

const HAS_DATABASE: Statement<{ there: boolean }> = {
  text: 'SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1) AS there',
  row: v.object({ there: v.boolean() }),
}
/** These statements take no parameters; the server itself quotes what goes into their text. */
const CREATE_DATABASE: Statement<{ text: string }> = {
  text: "SELECT format('CREATE DATABASE %I', $1::text) AS text",
  row: v.object({ text: v.string() }),
}
const SET_PASSWORD: Statement<{ text: string }> = {
  text: "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text) AS text",
  row: v.object({ text: v.string() }),
}

/** The rights of a role, the time of the database, and its settings of replication. */
export type RoleFacts = {
  readonly isSuperuser: boolean
  readonly mayWrite: boolean
  readonly now: Date
  /**
   * synchronous_commit as this role gets it before a connection raises it: of the role, the
   * database or the server.
   */
  readonly synchronousCommit: string
  readonly standbyNames: string
  /** Seconds between two answers of an idle standby. */
  readonly statusInterval: number
  /** Whether standby_replies() may read the answers; null: the function does not exist. */
  readonly seesReplies: boolean | null
  /**
   * Other sessions of this role whose program gives no name, as the database clients of mail
   * servers. The programs of auth-relay give a name.
   */
  readonly unnamedSessions: number
}

const ROLE_FACTS: Statement<RoleFacts> = {
  text: `
SELECT current_setting('is_superuser')::boolean AS "isSuperuser", clock_timestamp() AS now,
  coalesce((SELECT has_table_privilege(c.oid, 'INSERT') FROM pg_class c WHERE c.oid = to_regclass('grants')), false)
    AS "mayWrite",
  (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS "synchronousCommit",
  current_setting('synchronous_standby_names') AS "standbyNames",
  (SELECT setting::int FROM pg_settings WHERE name = 'wal_receiver_status_interval') AS "statusInterval",
  (SELECT pg_has_role(proowner, 'pg_read_all_stats', 'USAGE') FROM pg_proc WHERE oid = to_regprocedure('standby_replies()'))
    AS "seesReplies",
  (SELECT count(*)::int FROM pg_stat_activity
    WHERE usename = current_user AND pid <> pg_backend_pid() AND application_name = '') AS "unnamedSessions"`,
  row: v.object({
    isSuperuser: v.boolean(),
    mayWrite: v.boolean(),
    now: timestamptz,
    synchronousCommit: v.string(),
    standbyNames: v.string(),
    statusInterval: v.number(),
    seesReplies: v.nullable(v.boolean()),
    unnamedSessions: v.number(),
  }),
}

/** Reads the facts about the role by which the database was opened. */
export async function inspectRole(database: Database): Promise<RoleFacts> {
  const { rows } = await database.query(ROLE_FACTS)
  const [facts] = rows
  if (facts === undefined) throw new Error('the database has no facts about the role')
  return facts
}

/** Creates the database if it does not exist. Needs a role that may create databases. */
export async function ensureDatabase(server: Database, name: string): Promise<void> {
  const { rows } = await server.query(HAS_DATABASE, [name])
  if (rows[0]?.there !== true) await runMade(server, CREATE_DATABASE, [name])
}

/**
 * Sets the password of a role of auth-relay, which the server keeps as a SCRAM verifier. Needs a
 * superuser, or a role that may alter this one.
 */
export function setRolePassword(database: Database, role: RoleName, password: string): Promise<void> {
  return runMade(database, SET_PASSWORD, [role, password])
}

/**
 * Lets authd use the connections that the server reserves (`reserved_connections`, PostgreSQL 16).
 * The role inherits nothing by default, and the right counts only if it is inherited. Needs a
 * superuser.
 */
export const reserveForWriter = (database: Database): Promise<void> =>
  database.script(`GRANT pg_use_reserved_connections TO ${ROLES.writer} WITH INHERIT TRUE`)

async function runMade(database: Database, statement: Statement<{ text: string }>, values: readonly string[]) {
  const { rows } = await database.query(statement, values)
  for (const { text } of rows) await database.script(text)
}
