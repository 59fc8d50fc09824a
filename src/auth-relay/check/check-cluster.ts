/**
 * Checks of a PostgreSQL cluster: the settings that let a commit survive a failover, in PostgreSQL
 * and in Patroni.
 */

import * as v from 'valibot'
import { messageOf } from '../../base/errors.ts'
import type { RoleFacts } from '../../grants/database-setup.ts'
import type { DatabaseRole } from '../../settings/database-connection.ts'
import { formatDuration } from '../../settings/duration.ts'
import type { Settings } from '../../settings/settings.ts'
import { advice, type Finding, fine, unsafe } from './finding.ts'

/**
 * Checks the settings of synchronous replication that are in force for a role in its database. The
 * reader commits nothing.
 */
export function checkReplication(
  settings: Pick<Settings, 'database'>,
  seen: RoleFacts,
  { user, role }: { readonly user: string; readonly role: DatabaseRole },
): Finding[] {
  const { require_sync: requireSync, standby_age: standbyAge } = settings.database
  const { synchronousCommit: commit, standbyNames, statusInterval, seesReplies } = seen
  const found: Finding[] = []
  const lowered = requireSync ? ['off', 'local', 'remote_write'] : ['off']
  if (role === 'writer' && lowered.includes(commit)) {
    found.push(
      advice(
        'synchronous_commit',
        `is ${commit} for ${user}: a ${commit === 'off' ? 'crash' : 'failover'} loses commits of programs that do not raise it`,
        `raise synchronous_commit to on for the role ${user}, the database or the server`,
      ),
    )
  }
  if (!requireSync) {
    if (standbyNames.trim() === '') return found
    return [
      ...found,
      advice(
        'database.require_sync',
        role === 'writer'
          ? 'the server waits for synchronous standbys, but auth-relay does not require them'
          : 'the server has synchronous standbys, but the gate also accepts an answer of a primary that was replaced',
        role === 'writer'
          ? 'set require_sync = true if a failover must not lose logins'
          : 'set require_sync = true as on the POP3 hosts if a failover must not undo a block',
      ),
    ]
  }
  if (standbyNames.trim() === '') {
    found.push(
      unsafe(
        'database.require_sync',
        'synchronous_standby_names is empty: no login counts as committed',
        'set synchronous_mode and synchronous_mode_strict in Patroni, or synchronous_standby_names in PostgreSQL',
      ),
    )
  }
  if (standbyAge === 0) return found
  if (seesReplies === false) {
    found.push(
      unsafe(
        'database.standby_age',
        'the owner of the function standby_replies() may not read pg_stat_replication: the gate accepts no answer',
        'as a superuser: GRANT pg_read_all_stats TO the owner of the tables, or set standby_age = 0',
      ),
    )
  }
  if (statusInterval === 0 || statusInterval * 2 > standbyAge) {
    found.push(
      unsafe(
        'database.standby_age',
        `is ${formatDuration(standbyAge)}, and an idle standby answers every ${formatDuration(statusInterval)}: the gate stays closed in between`,
        'set wal_receiver_status_interval = 1s on every server, or a longer standby_age',
      ),
    )
  }
  return found
}

/**
 * Advises about mail servers that read the grants by SQL (`may_relay`, `relay_clients`) with the
 * gate's role: in a cluster their answers have no proof.
 */
export function checkViewReaders({ database }: Pick<Settings, 'database'>, seen: RoleFacts, user: string): Finding[] {
  if (!database.require_sync || seen.unnamedSessions === 0) return []
  return [
    advice(
      'database.require_sync',
      `a mail server reads the grants by SQL as ${user}: after a failover it may get answers of a primary that was replaced`,
      'use the policy service, the socketmap or the query service of the gate',
    ),
  ]
}

/**
 * The parts of Patroni's GET /config and GET /patroni on which the promise of `committed` depends.
 */
const Config = v.object({
  ttl: v.optional(v.number(), 30),
  synchronous_mode: v.optional(v.union([v.boolean(), v.string()]), false),
  synchronous_mode_strict: v.optional(v.boolean(), false),
})
const Status = v.object({ patroni: v.object({ version: v.string() }) })

/** The answer of one member of the cluster. */
export type PatroniAnswer = { readonly config: v.InferOutput<typeof Config>; readonly version: string }

/** Time limit for one answer of Patroni, in milliseconds. */
const PATRONI_WAIT_MS = 3000

/** Checks the settings of the cluster in the answer of the first Patroni that answers. */
export async function checkPatroni({ database }: Pick<Settings, 'database'>): Promise<Finding[]> {
  if (!database.require_sync || database.patroni_port === 0 || database.embedded) return []
  const hosts = database.dbhost.split(',').map(host => host.trim())
  const reasons: string[] = []
  for (const host of hosts.filter(each => each !== '' && !each.startsWith('/'))) {
    const base = `http://${host.includes(':') ? `[${host}]` : host}:${database.patroni_port}`
    try {
      return patroniFindings(database, { ...(await askPatroni(base)) })
    } catch (error) {
      reasons.push(`${base}: ${messageOf(error)}`)
    }
  }
  return [
    advice(
      'database.patroni_port',
      `no Patroni answers, so its settings were not checked (${reasons.join('; ')})`,
      'start Patroni, give this host access to its REST interface, or set patroni_port = 0 if another program promotes standbys',
    ),
  ]
}

async function askPatroni(base: string): Promise<PatroniAnswer> {
  const ask = async (path: string): Promise<unknown> =>
    (await fetch(`${base}${path}`, { signal: AbortSignal.timeout(PATRONI_WAIT_MS) })).json()
  const config = v.parse(Config, await ask('/config'))
  return { config, version: v.parse(Status, await ask('/patroni')).patroni.version }
}

/**
 * From this release on Patroni compares the holder of the leader key before it renews it (fixed in
 * May 2023).
 */
const COMPARES_SINCE = [3, 1] as const

/**
 * Findings about Patroni: strict synchronous mode, a `standby_age` of at most half of its `ttl`
 * (both in seconds), and a release that cannot lose commits.
 */
export function patroniFindings(
  { standby_age: standbyAge }: Pick<Settings['database'], 'standby_age'>,
  { config, version }: PatroniAnswer,
): Finding[] {
  const found: Finding[] = []
  const isStrict =
    config.synchronous_mode !== false && config.synchronous_mode !== 'off' && config.synchronous_mode_strict
  if (!isStrict) {
    found.push(
      unsafe(
        'patroni',
        'synchronous_mode_strict is not in force: Patroni permits commits that no standby has',
        'patronictl edit-config -s synchronous_mode=true -s synchronous_mode_strict=true',
      ),
    )
  }
  // Before ttl is over no other server is promoted, so a longer limit closes nothing.
  if (standbyAge === 0 || standbyAge * 2 > config.ttl) {
    found.push(
      unsafe(
        'database.standby_age',
        `is ${standbyAge === 0 ? 'without limit' : formatDuration(standbyAge)}, and Patroni promotes another server after ttl = ${formatDuration(config.ttl)}: the gate may accept an answer of a primary that was replaced`,
        `set standby_age to at most ${formatDuration(Math.floor(config.ttl / 2))}`,
      ),
    )
  }
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major < COMPARES_SINCE[0] || (major === COMPARES_SINCE[0] && minor < COMPARES_SINCE[1])) {
    found.push(
      advice(
        'patroni',
        `version ${version} with etcd3 can take the leader key back after a stop or a network fault of more than ttl, and commits of the new primary are lost`,
        'name etcd instead of etcd3 in patroni.yml of every server and set ETCD_ENABLE_V2=true, or install a newer Patroni; see CLUSTER',
      ),
    )
  }
  return found.length > 0
    ? found
    : [fine('patroni', `version ${version}, ttl ${formatDuration(config.ttl)}, strict synchronous mode`)]
}
