/** Checks that need the running host: the database with its roles and clock, and the ports. */

import { existsSync, readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { TemporaryFault, UsageFault } from '../../base/errors.ts'
import { schemaVersion } from '../../database/migrate.ts'
import { EMBEDDED_RELEASE } from '../../database/server-program.ts'
import { inspectRole } from '../../grants/database-setup.ts'
import { DeviceAdmin } from '../../grants/devices/device-admin.ts'
import { NetworkFacts } from '../../grants/devices/network-facts.ts'
import { ownAddresses } from '../../grants/never-list.ts'
import { type DatabaseRole, databaseConnection } from '../../settings/database-connection.ts'
import { setupCommand } from '../../settings/database-remedy.ts'
import { formatDuration } from '../../settings/duration.ts'
import type { Settings } from '../../settings/settings.ts'
import { knownSchema, withDatabase } from '../site-database.ts'
import { lockDirectory } from '../stack/directory-lock.ts'
import { type PartsInUse, partsInUseHere } from '../stack/plan.ts'
import { warningsAbout } from '../verbs/device.ts'
import { checkPatroni, checkReplication, checkViewReaders } from './check-cluster.ts'
import { checkListeners } from './check-listeners.ts'
import { advice, closedPath, type Finding, fine, unsafe, unsafeBecause } from './finding.ts'
import { socketsAt } from './processes.ts'

/** Seconds by which the clocks of host and database may differ. */
const CLOCK_ADVICE_S = 5
const CLOCK_UNSAFE_S = 60

/**
 * Checks the running host: the database, its roles and its clock, and the programs that listen on
 * the ports.
 */
export async function checkHost(settings: Settings): Promise<readonly Finding[]> {
  const running = isUp(settings.top.state_dir)
  const parts = partsInUseHere(settings)
  return [
    ...checkAddresses(),
    ...checkPlaces(settings, new Date()),
    ...checkAsyncIo(),
    ...(await checkDatabase(settings, running, parts)),
    ...(await checkPatroni(settings)),
    ...checkUses(settings, parts),
    ...(await checkListeners(settings, parts, { script: process.argv[1] ?? '' }).catch(closedPath)),
  ]
}

/** The gate may not write to the database, so an authd of the same host stores the used grants. */
export function checkUses({ authd }: Pick<Settings, 'authd'>, parts: PartsInUse): Finding[] {
  const { usage_socket: path } = authd
  if (!parts.gate || parts.authd || path === '' || socketsAt({ kind: 'unix', path }).length > 0) return []
  return [
    advice(
      'authd.usage_socket',
      `no authd of this host reads the reports of the gate: mail is relayed, and auth-relay report does not count it`,
      'give this host the password of dbuser and start authd here, or set usage_socket = ""',
    ),
  ]
}

function checkAddresses(): Finding[] {
  const own = [...ownAddresses(networkInterfaces, Date.now)()]
  return own.length === 0 ? [] : [fine('addresses', `this host's own, never granted here: ${own.join(', ')}`)]
}

/** Days after which addresses have often changed hands. */
const PLACES_OLD_DAYS = 60

/** The files with the places of addresses, and their age. */
export function checkPlaces({ grants }: Pick<Settings, 'grants'>, now: Date): Finding[] {
  try {
    return [...new NetworkFacts(grants.mmdb_files).built].map(([path, built]) => {
      const days = Math.floor((now.getTime() - built.getTime()) / DAY_MS)
      const text = `${path} is of ${built.toISOString().slice(0, 10)}, ${days} days old`
      return days > PLACES_OLD_DAYS
        ? advice('grants.mmdb_files', text, 'install a newer file, then reload wrap')
        : fine('grants.mmdb_files', text)
    })
  } catch (error) {
    if (!(error instanceof UsageFault)) throw error
    return unsafeBecause('grants.mmdb_files', error)
  }
}

/** Share of the host's asynchronous I/O above which new processes soon get none. */
const ASYNC_IO_NEAR = 0.9

/**
 * The asynchronous I/O contexts of the host (fs.aio-nr, fs.aio-max-nr), which databases use too.
 * Without one, a process sends its replies one by one. No finding without these files.
 */
export function checkAsyncIo(directory = '/proc/sys/fs'): Finding[] {
  const read = (name: string): number => Number(readFileSync(join(directory, name), 'utf8'))
  try {
    const [used, most] = [read('aio-nr'), read('aio-max-nr')]
    const text = `${used} of ${most} requests of asynchronous I/O are in use on this host`
    if (used < most * ASYNC_IO_NEAR) return [fine('fs.aio-max-nr', text)]
    const remedy = `sysctl -w fs.aio-max-nr=${most * 2}, and the same line in /etc/sysctl.d`
    return [advice('fs.aio-max-nr', `${text}: a process without a context sends its replies one by one`, remedy)]
  } catch {
    return [] // A container without these files, or a kernel without asynchronous I/O.
  }
}

/** True if `auth-relay up` uses the state directory. */
function isUp(stateDir: string): boolean {
  if (!existsSync(join(stateDir, 'up.lock'))) return false
  try {
    void lockDirectory(stateDir).stop()
    return false
  } catch (error) {
    return error instanceof TemporaryFault
  }
}

async function checkDatabase(settings: Settings, running: boolean, parts: PartsInUse): Promise<Finding[]> {
  if (!settings.database.embedded) return checkRoles(settings, rolesInUse(settings, parts))
  if (!running) {
    return [
      checkEmbedded(new Date()),
      advice(
        'database.embedded',
        'does not run now: tables, roles and clock were not checked',
        'start auth-relay up, then check again',
      ),
    ]
  }
  return [checkEmbedded(new Date()), ...(await checkRoles(settings, ['writer', 'reader', ...statusRole(parts)]))]
}

/**
 * Days after the publication of the embedded server at which at least one security release of
 * PostgreSQL has followed.
 */
const EMBEDDED_OLD_DAYS = 100
const DAY_MS = 86_400_000

/** The embedded server's version and age. Nothing on this host updates it. */
export function checkEmbedded(now: Date): Finding {
  const { version, published } = EMBEDDED_RELEASE
  const days = Math.max(0, Math.floor((now.getTime() - published.getTime()) / DAY_MS))
  const text = `PostgreSQL of the package ${version}, published ${published.toISOString().slice(0, 10)}, ${days} days ago; the distribution does not update it`
  return days < EMBEDDED_OLD_DAYS
    ? fine('database.embedded', text)
    : advice(
        'database.embedded',
        text,
        'for production install postgresql of the distribution and set database.dbhost; for a trial there is nothing to do',
      )
}

const statusRole = ({ statusPage }: PartsInUse): readonly DatabaseRole[] => (statusPage ? ['status'] : [])

/**
 * The roles of which this host has the password, or that a part in use needs: an SMTP host needs
 * the reader's alone.
 */
export function rolesInUse({ database }: Settings, parts: PartsInUse): readonly DatabaseRole[] {
  const hasPassword = (text: string, file: string): boolean => text !== '' || (file !== '' && existsSync(file))
  const writes = parts.authd || hasPassword(database.dbpass, database.dbpass_file)
  const reads = parts.gate || hasPassword(database.wrap_dbpass, database.wrap_dbpass_file)
  // The settings have no role passwords and do not show the purpose of this host, so every role is
  // checked.
  const roles: readonly DatabaseRole[] =
    writes || reads
      ? [...(writes ? (['writer'] as const) : []), ...(reads ? (['reader'] as const) : [])]
      : ['writer', 'reader']
  return [...roles, ...statusRole(parts)]
}

async function checkRoles(settings: Settings, roles: readonly DatabaseRole[]): Promise<Finding[]> {
  return (await Promise.all(roles.map(role => checkRole(settings, role, roles)))).flat()
}

/** Devices with a rule that nothing on this host enforces. */
async function checkDevices(settings: Settings): Promise<Finding[]> {
  const devices = await withDatabase(databaseConnection(settings, 'writer'), database =>
    new DeviceAdmin(database).list(),
  )
  return devices.flatMap(device =>
    warningsAbout(device, settings).map(({ fact, remedy = `auth-relay device show ${device.name}` }) =>
      advice(`device ${device.name}`, fact, remedy),
    ),
  )
}

async function checkRole(settings: Settings, role: DatabaseRole, roles: readonly DatabaseRole[]): Promise<Finding[]> {
  const about = `database.${{ writer: 'dbuser', reader: 'wrap_dbuser', status: 'status_dbuser' }[role]}`
  try {
    const connection = databaseConnection(settings, role)
    const { schema, seen, state } = await withDatabase(connection, async database => ({
      schema: await schemaVersion(database),
      seen: await inspectRole(database),
      state: database.state(),
    }))
    const found: Finding[] = []
    const makeRoles = setupCommand(connection.hosts, 'auth-relay migrate --user postgres')
    const known = await knownSchema()
    if (schema !== known) {
      found.push(
        unsafe(
          'database',
          `has schema ${schema}, this program knows ${known}`,
          schema < known ? setupCommand(connection.hosts, 'auth-relay migrate') : 'install a newer auth-relay',
        ),
      )
    }
    if (seen.isSuperuser)
      found.push(unsafe(about, `${connection.user} is a superuser`, 'use the role that auth-relay migrate makes'))
    if (role === 'writer' && !seen.mayWrite)
      found.push(unsafe(about, `${connection.user} may not write grants`, makeRoles))
    if (role !== 'writer' && seen.mayWrite)
      found.push(
        unsafe(
          about,
          `${connection.user} may write grants: it must only read`,
          `${makeRoles}, then leave ${about.slice('database.'.length)} at its default`,
        ),
      )
    // On an SMTP host the reader alone is checked, and the proof is the gate's.
    const replication = role === 'writer' || (role === 'reader' && !roles.includes('writer'))
    if (replication) found.push(...checkReplication(settings, seen, { user: connection.user, role }))
    if (role === 'reader') found.push(...checkViewReaders(settings, seen, connection.user))
    if (role === 'writer' && state.state === 'up' && state.pooled) {
      found.push(
        advice(
          'database.dbhost',
          'a connection pooler in session mode answers for PostgreSQL',
          'keep pool_mode = session; a pooler for one server follows no failover',
        ),
      )
    }
    const drift = Math.abs(seen.now.getTime() - Date.now()) / 1000
    if (role === 'writer' && drift > CLOCK_ADVICE_S) {
      const text = `the clocks of this host and of the database are ${formatDuration(drift)} apart`
      found.push(
        drift > CLOCK_UNSAFE_S
          ? unsafe('clock', text, 'run an NTP client on both')
          : advice('clock', text, 'run an NTP client on both'),
      )
    }
    if (found.length > 0) return found
    const reached = fine(about, `${connection.user} reaches the database, schema ${schema}`)
    return role === 'writer' ? [reached, ...(await checkDevices(settings))] : [reached]
  } catch (error) {
    if (!(error instanceof UsageFault || error instanceof TemporaryFault)) throw error
    return unsafeBecause(about, error)
  }
}
